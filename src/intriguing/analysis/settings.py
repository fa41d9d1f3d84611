"""Check the settings of a section against the dataclass that declares them."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from intriguing.errors import UserError, did_you_mean
from intriguing.validation import choice, flag, number, whole

T = TypeVar("T")


def settings_of(cls: type[T], where: str, given: Mapping[str, Any]) -> T:
    """Make an instance of a dataclass of settings from plain values.

    A field is a bool, a whole number, a number, a text, or a tuple of one of these, for which a single value will do;
    ``X | None`` also allows null. Its metadata may have ``low`` (smallest value), ``above`` (a limit below every value)
    and ``choices`` (names).

    Args:
        cls: the dataclass; every field has a default.
        where: prefix of the settings' names in messages, for example ``settings.units``.
        given: values by field.

    Raises:
        UserError: an unknown setting, a value of another type or out of range.
    """
    hints, known = get_type_hints(cls), {field.name: field for field in fields(cls)}  # pyright: ignore[reportArgumentType]
    if unknown := [key for key in given if key not in known]:
        known_words = f"it has {', '.join(known)}" if known else "it has none"
        near = did_you_mean(unknown[0], known, f"{where}.") or ";"
        raise UserError(f"{where}.{unknown[0]} is no setting of {where}{near} {known_words}")
    return cls(**{key: _checked(f"{where}.{key}", value, hints[key], known[key]) for key, value in given.items()})


def _checked(name: str, value: Any, kind: Any, field: Field) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (one for one in get_args(kind) if one is not types.NoneType)
    if get_origin(kind) is tuple:
        if value is None or isinstance(value, dict):
            raise UserError(f"{name} must be a list, got {value!r}")
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(_checked(name, one, get_args(kind)[0], field) for one in values)
    limits = field.metadata
    if kind is bool:
        return flag(name, value)
    if kind is int:
        return whole(name, value, limits["low"])
    if kind is float:
        return number(name, value, limits.get("above", limits.get("low")), above="above" in limits)
    if "choices" in limits:
        return choice(name, value, limits["choices"])
    if value is None or isinstance(value, list | tuple | dict | bool):
        raise UserError(f"{name} must be a text, got {value!r}")
    return str(value)  # a layer may be called 4

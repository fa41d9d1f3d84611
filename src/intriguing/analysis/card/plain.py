"""Write frozen dataclasses as plain values for JSON, and read them back with every type checked."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from intriguing.errors import UserError, shown

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Write a value as dict, list, text, number or None; an infinite number becomes None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [one.name for one in dataclasses.fields(value) if one.metadata.get("saved", True)]
        return {name: to_plain(getattr(value, name)) for name in kept}
    if isinstance(value, tuple | list):
        return [to_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def from_plain(kind: type[T], value: Any, where: str = "") -> T:
    """Read a dataclass that `to_plain` wrote.

    Raises:
        UserError: a key is missing or unknown, or a value has another type; the line says where.
    """
    return _read(kind, value, where)


def _read(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inner:
            return None
        return _read(next(one for one in inner if one is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        if inner[-1] is ...:
            return tuple(_read(inner[0], one, f"{where}[{i}]") for i, one in enumerate(value))
        if len(value) != len(inner):
            raise _wrong(where, f"a list of {len(inner)}", value)
        return tuple(_read(one, each, f"{where}[{i}]") for i, (one, each) in enumerate(zip(inner, value, strict=True)))
    if kind is float:
        if value is None:
            return math.inf
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(where, "a number or null", value)
        return float(value)
    if (kind is int and isinstance(value, bool)) or not isinstance(value, kind):
        raise _wrong(where, {str: "a text", int: "a whole number", bool: "true or false"}.get(kind, kind), value)
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, "a mapping", value)
    fields = {one.name: one for one in dataclasses.fields(kind) if one.metadata.get("saved", True)}
    dot = f"{where}." if where else ""
    if missing := [name for name in fields if name not in value]:
        raise UserError(f"{dot}{missing[0]} is missing")
    if unknown := sorted(set(value) - set(fields)):
        raise UserError(f"{dot}{shown(unknown[0], 40)} is not known")
    return kind(**{name: _read(_hints(kind)[name], value[name], f"{dot}{name}") for name in fields})


def _wrong(where: str, expected: object, value: Any) -> UserError:
    return UserError(f"{where or 'the file'} must be {expected}, got {shown(value, 40)}")

"""Check single values: arguments of functions (TypeError, ValueError) and settings of a config (UserError)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from intriguing.errors import UserError

if TYPE_CHECKING:
    from types import ModuleType

_LONGEST = 40


def whole_number(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """Return a setting as an int.

    Args:
        name: Name of the setting, for the message.
        value: An integer of Python or NumPy, a float without a fraction (1e2), or a scalar tensor or array of these.
        low: Smallest allowed value; None for no limit.
        high: Largest allowed value; None for no limit.

    Returns:
        The exact value.

    Raises:
        TypeError: ``value`` is not a number; True and False are not.
        ValueError: ``value`` has a fraction, is not finite or is out of range.
    """
    limits = _limits([(">=", low), ("<=", high)])
    expected = f"expected {name} as a whole number{limits}"
    number = _number(value, expected)
    if not isinstance(number, Integral) and not (math.isfinite(number) and number == math.floor(number)):
        raise ValueError(f"{expected}, got {_shown(number)}")
    whole = int(number)
    if (low is not None and whole < low) or (high is not None and whole > high):
        raise ValueError(f"{expected}, got {_shown(number)}")
    return whole


def real_number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return a setting as a finite float.

    Args:
        name: Name of the setting, for the message.
        value: A real number of Python or NumPy, or a scalar tensor or array of one.
        low: Smallest allowed value.
        high: Largest allowed value.
        open_low: Refuse ``low`` itself.
        open_high: Refuse ``high`` itself.

    Returns:
        The value.

    Raises:
        TypeError: ``value`` is not a number; True and False are not.
        ValueError: ``value`` is not finite or is out of range.
    """
    limits = _limits([(">" if open_low else ">=", low), ("<" if open_high else "<=", high)])
    expected = f"expected {name} as a finite number{limits}"
    number = _number(value, expected)
    try:
        real = float(number)
    except OverflowError:  # a whole number beyond every float
        real = math.inf
    inside = (low < real if open_low else low <= real) and (real < high if open_high else real <= high)
    if not (math.isfinite(real) and inside):
        raise ValueError(f"{expected}, got {_shown(number)}")
    return real


def _number(value: Any, expected: str) -> Any:
    if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{expected}, got {_shown(value)}")
    return value


def _limits(limits: list[tuple[str, float | None]]) -> str:
    stated = [f"{sign} {limit:.10g}" for sign, limit in limits if limit is not None and math.isfinite(limit)]
    return f" {' and '.join(stated)}" if stated else ""


def _shown(value: Any) -> str:
    """Describe a value on one short line."""
    if isinstance(value, bool | Real | complex | str | None):
        text = repr(value)
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return f"a value of type {type(value).__name__}"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def whole(name: str, value: Any, low: int) -> int:
    """Return a setting as a whole number of at least ``low``.

    Raises:
        UserError: The value is something else.
    """
    if not _is_finite(value) or value != int(value) or value < low:
        raise UserError(f"{name} must be a whole number of at least {low}, got {value!r}")
    return int(value)


def number(name: str, value: Any, low: float, *, above: bool = False) -> float:
    """Return a setting as a finite number of at least ``low``; above ``low`` if ``above`` is True.

    Raises:
        UserError: The value is something else.
    """
    if not _is_finite(value) or value < low or (above and value == low):
        raise UserError(f"{name} must be a finite number {'above' if above else 'of at least'} {low:g}, got {value!r}")
    return float(value)


def choice(name: str, value: Any, known: Iterable[str]) -> str:
    """Return a setting that is one of the known names.

    Raises:
        UserError: The value is another one.
    """
    known = list(known)
    if value not in known:
        raise UserError(f"unknown {name} {value!r}; known: {', '.join(known)}")
    return str(value)


def flag(name: str, value: Any) -> bool:
    """Return a setting that is true or false.

    Raises:
        UserError: The value is something else.
    """
    if not isinstance(value, bool):
        raise UserError(f"{name} must be true or false, got {value!r}")
    return value


def refuse_unknown(section: str, given: Iterable[str], known: Iterable[str], *, whole: str = "") -> None:
    """Refuse a key that nothing reads.

    Args:
        section: name of the part of a config that holds the keys; empty for the whole config.
        given: its keys.
        known: the keys that something reads.
        whole: what the whole config describes, such as "a training"; for the message.

    Raises:
        UserError: there is an unknown key; the line names the nearest known one.
    """
    known = list(known)
    if unknown := sorted(set(map(str, given)) - set(known)):
        name = f"{section}.{unknown[0]}" if section else unknown[0]
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"{name} is read by nothing{hint}; {section or whole} has {', '.join(known)}")


def import_pandas() -> ModuleType:
    """Import pandas, which the package does not install.

    Raises:
        ImportError: it is not installed; the line says how it is.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_frame needs pandas: pip install pandas") from error
    return pandas

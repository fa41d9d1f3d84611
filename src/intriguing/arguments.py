"""Check single settings of a function: whole numbers and real numbers, of Python, NumPy or PyTorch."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import Tensor

_LONGEST = 40


def whole_number(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """Return a setting as an int.

    Args:
        name: of the setting, for the message.
        value: an integer of Python or NumPy, a float without a fraction (1e2), or a scalar tensor or array of these.
        low: smallest allowed value; None for no limit.
        high: largest allowed value; None for no limit.

    Returns:
        The exact value.

    Raises:
        TypeError: `value` is not a number; True and False are not.
        ValueError: `value` has a fraction, is not finite or is out of range.
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
        name: of the setting, for the message.
        value: a real number of Python or NumPy, or a scalar tensor or array of one.
        low: smallest allowed value.
        high: largest allowed value.
        open_low: refuse `low` itself.
        open_high: refuse `high` itself.

    Returns:
        The value.

    Raises:
        TypeError: `value` is not a number; True and False are not.
        ValueError: `value` is not finite or is out of range.
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

"""Checks of single settings, each with the line that says what was wrong and what would be right."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from intriguing.errors import UserError


def whole(name: str, value: Any, low: int) -> int:
    """``value`` as a whole number of at least ``low``; UserError otherwise."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not usable or value != int(value) or value < low:
        raise UserError(f"{name} must be a whole number of at least {low}, got {value!r}")
    return int(value)


def number(name: str, value: Any, low: float, *, above: bool = False) -> float:
    """``value`` as a finite number of at least (``above``: of more than) ``low``; UserError otherwise."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not usable or value < low or (above and value == low):
        raise UserError(f"{name} must be a finite number {'above' if above else 'of at least'} {low:g}, got {value!r}")
    return float(value)


def choice(name: str, value: Any, known: Iterable[str]) -> str:
    """``value`` if it is one of the known names; UserError otherwise."""
    known = list(known)
    if value not in known:
        raise UserError(f"unknown {name} {value!r}; known: {', '.join(known)}")
    return str(value)


def flag(name: str, value: Any) -> bool:
    """``value`` if it is true or false; UserError otherwise."""
    if not isinstance(value, bool):
        raise UserError(f"{name} must be true or false, got {value!r}")
    return value

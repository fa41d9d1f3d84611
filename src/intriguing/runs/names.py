"""Make readable, unique names for runs and files."""

from __future__ import annotations

import hashlib
import math
import re
from decimal import Decimal

MAX_SLUG = 100


def short_number(value: float) -> str:
    """Write a number for a run's name: ``1e-2``, ``3e-3``, ``1``, ``1.5``, ``20``, ``1e6``.

    Magnitudes below 1 and from a million on are scientific without padding, others are plain. Different floats give
    different texts, and ``float(text)`` gives the number back.

    Raises:
        TypeError: The value is not an int or a float.
        ValueError: The value is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected an int or a float, got {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")
    if value == 0:
        return "0"
    number = Decimal(repr(value)).normalize()
    if 1 <= abs(number) < 10**6:
        return format(number, "f")
    sign, digits, _ = number.as_tuple()
    mantissa = str(digits[0])
    if len(digits) > 1:
        mantissa += "." + "".join(map(str, digits[1:]))
    return f"{'-' if sign else ''}{mantissa}e{number.adjusted()}"


def slug(text: str) -> str:
    """Turn a text into one part of a path that every file system and W&B accept: letters, digits and ``. _ + = -``.

    A prime becomes ``-prime``; a run of other characters becomes one ``_``. Texts longer than 100 characters are cut
    and end in a hash of the whole text, so that they stay different.

    Raises:
        ValueError: The text has no letter or digit.
    """
    safe = re.sub(r"[^A-Za-z0-9._+=-]+", "_", text.replace("'", "-prime"))
    # No leading dot (hidden, or "..") and no leading dash (an option).
    safe = safe.lstrip("._-").rstrip("._")
    if not safe:
        raise ValueError(f"expected a text with a letter or a digit, got {text!r}")
    if len(safe) > MAX_SLUG:
        safe = f"{safe[: MAX_SLUG - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return safe


def is_slug(text: str) -> bool:
    """Return whether ``slug`` leaves a text as it is."""
    try:
        return slug(text) == text
    except ValueError:
        return False


def natural_key(text: str) -> list[str | int]:
    """Return a sort key under which ``fc10`` comes before ``fc100`` and ``seed2`` before ``seed10``."""
    # A split by a group alternates text, digits, text, ..., so equal positions hold equal types.
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", text)]

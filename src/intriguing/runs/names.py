"""Readable, unique names for runs and files."""

import hashlib
import math
import re
from decimal import Decimal

MAX_SLUG = 100


def short_number(value: float) -> str:
    """A number as it stands in a run's name: `1e-2`, `3e-3`, `1`, `1.5`, `20`, `1e6`.

    Below 1 (in magnitude) and from a million on it is scientific without padding, in between plain. Different floats
    give different texts, and `float(text)` gives the number back.

    Raises:
        TypeError: value is not an int or a float.
        ValueError: value is not finite.
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
    """A text as one part of a path that every file system and W&B accept: letters, digits and `. _ + = -`.

    A prime becomes `-prime`; a run of anything else becomes one `_`. Texts longer than 100 characters are cut and end
    in a hash of the whole, so that they stay different.

    Raises:
        ValueError: nothing is left of the text.
    """
    safe = re.sub(r"[^A-Za-z0-9._+=-]+", "_", text.replace("'", "-prime"))
    # no leading dot (hidden, or "..") and no leading dash (reads as an option)
    safe = safe.lstrip("._-").rstrip("._")
    if not safe:
        raise ValueError(f"expected a text with a letter or a digit, got {text!r}")
    if len(safe) > MAX_SLUG:
        safe = f"{safe[: MAX_SLUG - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return safe


def is_slug(text: str) -> bool:
    """Whether a text is one part of a path as it stands."""
    try:
        return slug(text) == text
    except ValueError:
        return False


def natural_key(text: str) -> list[str | int]:
    """Sort key under which `fc10` comes before `fc100` and `seed2` before `seed10`."""
    # split with a group alternates text, digits, text, ...: equal positions always hold equal types
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", text)]

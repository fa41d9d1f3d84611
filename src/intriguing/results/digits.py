"""How many decimals the numbers of a column have: one number for all, enough to tell an interval from its estimate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from intriguing.results.cells import Cell
from intriguing.results.quantities import HUGE, MANY

_EXTRA = 2
"""Decimals at most beyond the fewest; numbers that need more are not written alike."""
_EQUAL = 1e-6
"""Relative difference below which an end of an interval is its estimate."""
_LEAST = 1e-4
"""Size up to which a number is written with a power of ten, as from `HUGE` on."""


def decimals_of(cells: Sequence[Cell]) -> int | None:
    """Choose the decimals for numbers of one quantity in one column.

    They are the fewest of the quantity, or those that give the largest number three significant digits, and as many
    more, up to two, as it takes to tell each end of an interval from its estimate and to show two digits of each
    number without an interval.

    Args:
        cells: of one quantity.

    Returns:
        The decimals; None where the numbers are of so different sizes that no one number of decimals suits them all.
    """
    fixed = cells[0].quantity.digits
    if fixed is not None:
        fewest = fixed + (cells[0].quantity.counted and any(cell.n >= MANY for cell in cells))
        enough = (d for d in range(fewest, fewest + _EXTRA) if all(_told_apart(cell, d) for cell in cells))
        return next(enough, fewest + _EXTRA)
    largest = max((abs(cell.value) for cell in cells if math.isfinite(cell.value)), default=0.0)
    return _enough(largest, cells)


def decimals_of_one(cell: Cell) -> int | None:
    """Choose the decimals of a cell whose column has no common number; None for a power of ten."""
    ends = [end for end in cell.interval or () if math.isfinite(end)]
    reach = (max(ends) - min(ends)) / 2 if ends else 0.0
    return _enough(max(abs(cell.value), reach), [cell]) if math.isfinite(cell.value) else 0


def _enough(largest: float, cells: Sequence[Cell]) -> int | None:
    if largest != 0 and not _LEAST <= largest < HUGE:
        return None
    fewest = 2 if largest == 0 else max(0, 2 - math.floor(math.log10(largest * (1 - _EQUAL))))  # 100 as 99.9
    for decimals in range(fewest, fewest + _EXTRA + 1):
        if all(_told_apart(cell, decimals) and _visible(cell, decimals) for cell in cells):
            return decimals
    return None if len(cells) > 1 else fewest + _EXTRA


def _told_apart(cell: Cell, decimals: int) -> bool:
    """Check whether each end of the interval reads differently from the estimate, unless it is the estimate."""
    if not math.isfinite(cell.value):
        return True
    ends = [end for end in cell.interval or () if not math.isclose(end, cell.value, rel_tol=_EQUAL, abs_tol=_EQUAL**2)]
    return all(float(f"{end:.{decimals}f}") != float(f"{cell.value:.{decimals}f}") for end in ends)


def _visible(cell: Cell, decimals: int) -> bool:
    """Check for two significant digits of a number whose precision no interval tells."""
    if cell.interval is not None or not math.isfinite(cell.value) or cell.value == 0:
        return True
    return math.floor(math.log10(abs(cell.value))) + decimals >= 1

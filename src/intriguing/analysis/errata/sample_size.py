"""Erratum 4: the sample size behind printed percentages, by arithmetic on their digits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal

from intriguing.analysis import paper
from intriguing.analysis.errata.erratum import NUMBER, SHARE, Erratum, lines
from intriguing.results import Cell, Quantity
from intriguing.statistics.counts import Count

MOST = 1000
"""Sample sizes that are compared."""
CHANCE = Quantity(name="probability")


def shares(decimals: int, n: int) -> set[int]:
    """List the percentages that k of n can be printed as, rounded or cut off, in units of the last decimal."""
    return {share for k in range(n + 1) for share in _written(k * 10 ** (2 + decimals), n)}


def explained(printed: float, n: int) -> bool:
    """Check whether some k of n is printed as this percentage, rounded or cut off at its digits.

    Example:
        >>> explained(11.7, 256), explained(48.1, 256)  # 30 of 256 is 11.72 %, 123 of 256 is 48.05 %
        (True, False)
    """
    decimals = _decimals(printed)
    digits, whole = round(printed * 10**decimals), 10 ** (2 + decimals)
    below = digits * n // whole  # the last k whose share is at most this number
    return any(digits in _written(k * whole, n) for k in (below, below + 1) if k <= n)


def chance(printed: float, n: int) -> float:
    """Compute the share of all percentages with these decimals that some k of n is printed as."""
    decimals = _decimals(printed)
    return len(shares(decimals, n)) / (10 ** (2 + decimals) + 1)


def at_least(count: int, chances: Iterable[float]) -> float:
    """Compute the probability that at least so many of independent events happen.

    Example:
        >>> at_least(2, [0.5, 0.5])
        0.25
    """
    found = [1.0]  # by the number that happened
    for one in chances:
        found = [a * (1 - one) + b * one for a, b in zip((*found, 0.0), (0.0, *found), strict=True)]
    return math.fsum(found[count:])


def transfer_entries() -> list[float]:
    """List the printed errors on adversarial examples of other networks: Tables 2 and 4."""
    return [
        printed
        for table in ("table2", "table4")
        for row, columns in paper.TABLES[table].items()
        for column, printed in columns.items()
        if not row.startswith("Gaussian") and column not in (paper.DISTORTION, row.split(",")[0])
    ]


def sample_size() -> Erratum:
    """Erratum 4: the printed percentages are 256ths."""
    n, entries = paper.NUM_ADVERSARIAL, transfer_entries()
    noise = [
        printed
        for row, columns in paper.TABLE_2.items()
        for column, printed in columns.items()
        if row.startswith("Gaussian") and column != paper.DISTORTION
    ]
    counts = {size: sum(explained(printed, size) for printed in entries) for size in range(1, MOST + 1)}
    as_good = [size for size, count in counts.items() if count >= counts[n] and size != n]
    arbitrary = at_least(counts[n], (chance(printed, n) for printed in entries))
    return Erratum(
        name="4 N",
        printed="not stated",
        correct=f"N = {n}",
        note=f"Erratum 4: printed entries that k of {n}, rounded or cut off, can be; the probability that so many of "
        "arbitrary percentages with these digits are; and the other sizes that explain as many. These begin with "
        f"{', '.join(map(str, as_good[:3]))}: {n} is the smallest, and twice {n} explains what {n} does.",
        lines=lines(
            (f"Tables 2 and 4, transfer entries that are k/{n}, %", _share(entries, n)),
            (f"Table 2, entries of noise that are k/{n}, %", _share(noise, n)),
            of="printed entries",
        )
        + lines(
            (
                "Tables 2 and 4, probability of as many by chance",
                Cell(quantity=CHANCE, value=arbitrary, interval=None, n=len(entries)),
            ),
            of="printed entries",
        )
        + lines(
            (
                f"other N up to {MOST:,} that explain as many",
                Cell(quantity=NUMBER, value=len(as_good), interval=None, n=MOST),
            ),
            (
                "smallest other N that explains as many",
                Cell(quantity=NUMBER, value=min(as_good), interval=None, n=MOST),
            ),
            of="sizes",
        ),
    )


def _share(entries: Sequence[float], n: int) -> Cell:
    count = Count(sum(explained(printed, n) for printed in entries), len(entries))
    return Cell(quantity=SHARE, value=count.percent, interval=None, n=count.n, k=count.k)


def _written(share: int, n: int) -> tuple[int, int]:
    """Cut off and round a number of n-ths to a whole number, without rounding errors."""
    return share // n, (2 * share + n) // (2 * n)


def _decimals(printed: float) -> int:
    return max(0, -int(Decimal(repr(printed)).as_tuple().exponent))

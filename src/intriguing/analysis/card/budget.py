"""Spend a budget of time in slices: a first slice of every part, then always where the interval is widest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from intriguing.analysis.card.values import Missing

SIZES = (8, 8, 16, 32)
"""Images of the first slices of an attack; further ones have the last size times two."""
_MARGIN = 1.25  # slices are taken to last that much longer than predicted
_COSTLY = 0.1  # share of the budget above which a first slice waits until the main interval has two ends

Report = Callable[[str, float], None]
"""Takes what is going on, and the share of the budget that is spent."""


class Part(Protocol):
    """One part of a card, measured slice by slice. A slice holds the same images however fast the machine is."""

    name: str

    @property
    def started(self) -> bool:
        """Whether it has a first slice."""
        ...

    @property
    def done(self) -> bool:
        """Whether nothing is left to measure, or nothing can be."""
        ...

    def predicted(self) -> float:
        """Return the seconds that the next slice will take."""
        ...

    def width(self) -> float:
        """Return the length of the widest main interval, for its scale."""
        ...

    def step(self) -> None:
        """Measure the next slice."""
        ...


class Clock:
    """Measure time, and who spent it.

    Args:
        seconds: the budget.
        now: the time in seconds.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds, self._now, self._start = seconds, now, now()
        self.by_part: dict[str, float] = {}

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self._now() - self._start

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; may be below 0."""
        return self.seconds - self.spent

    def timed(self, name: str, work: Callable[[], None]) -> float:
        """Do work for a part, and return its seconds."""
        start = self._now()
        try:
            work()
        finally:
            took = self._now() - start
            self.by_part[name] = self.by_part.get(name, 0.0) + took
        return took


def slice_end(start: int, most: int, sizes: Sequence[int] = SIZES) -> int:
    """Return where the slice that begins at an image ends, whatever was measured when."""
    at = 0
    for size in sizes:
        at += size
        if at > start:
            return min(at, most)
    step = 2 * sizes[-1]
    return min(at + step * ((start - at) // step + 1), most)


def spend(parts: Sequence[Part], clock: Clock, report: Report, *, main: Part | None = None) -> list[Missing]:
    """Measure the parts until the budget is spent.

    Every part gets its first slice, in order, if it is predicted to fit. Before one that takes more than a tenth of the
    budget, ``main`` is measured until its interval has two ends. Then the part whose interval is widest for its
    scale gets its next slice, among those that fit.

    Args:
        parts: in order of their weight.
        clock: runs already.
        report: is called before every slice.
        main: one of them, whose interval matters most; None: none does.

    Returns:
        The parts that got no slice, with the reason.
    """
    missing = []

    def run(part: Part) -> None:
        report(part.name, min(1.0, clock.spent / clock.seconds))
        clock.timed(part.name, part.step)

    for part in parts:
        if part.started or part.done:
            continue
        needed = _MARGIN * part.predicted()
        if needed > _COSTLY * clock.seconds:
            while main is not None and _unbounded(main) and _fits(main, clock):
                run(main)
            needed = _MARGIN * part.predicted()
        if needed <= clock.left:
            run(part)
        else:
            missing.append(
                Missing(part.name, f"{_seconds(needed)} would be needed, and {_seconds(clock.left)} were left")
            )
    while True:
        fits = [part for part in parts if part.started and not part.done]
        fits = [part for part in fits if _fits(part, clock)]
        if not fits:
            return missing
        run(max(fits, key=lambda part: part.width() if not math.isnan(part.width()) else math.inf))


def _unbounded(part: Part) -> bool:
    return part.started and not part.done and math.isinf(part.width())


def _fits(part: Part, clock: Clock) -> bool:
    return _MARGIN * part.predicted() <= clock.left


def _seconds(value: float) -> str:
    value = max(0.0, value)
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"

"""What the parts have in common: rows of the sample in slices of fixed sizes, and the seconds of an image."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from intriguing.analysis.card.budget import SIZES, slice_end
from intriguing.analysis.card.subject import Subject

FORWARD = (8, 24, 32, 64, 128)
"""Images of the first slices where only forward passes are made."""


class Sliced(ABC):
    """Measure rows of the sample in order.

    Args:
        subject: network and sample.
        guess: the seconds of an image before the first slice.

    Attributes:
        rows: images that were measured, from the first one.
        failed: why nothing can be measured; empty otherwise.
    """

    name = ""
    sizes: Sequence[int] = SIZES

    def __init__(self, subject: Subject, guess: Callable[[], float]) -> None:
        self.subject, self._guess = subject, guess
        self.rows, self.failed = 0, ""
        self._seconds: float | None = None

    @property
    def most(self) -> int:
        """Images that can be measured now."""
        return len(self.subject)

    @property
    def started(self) -> bool:
        """Whether it has a first slice."""
        return self.rows > 0

    @property
    def done(self) -> bool:
        """Whether nothing is left to measure, or nothing can be."""
        return bool(self.failed) or self.rows >= self.most

    @property
    def pace(self) -> float:
        """Seconds of an image, as in the latest slice."""
        return self._guess() if self._seconds is None else self._seconds

    def predicted(self) -> float:
        """Return the seconds that the next slice will take."""
        return self.pace * (slice_end(self.rows, self.most, self.sizes) - self.rows)

    def step(self) -> None:
        """Measure the next slice."""
        end, began = slice_end(self.rows, self.most, self.sizes), time.perf_counter()
        self.measure(self.rows, end)
        if not self.failed:
            self._seconds = (time.perf_counter() - began) / max(1, end - self.rows)
            self.rows = end

    @abstractmethod
    def measure(self, start: int, end: int) -> None:
        """Measure the rows from ``start`` to ``end``; set ``failed`` where that cannot be."""

"""Counts of wrong answers, and of wrong answers under two conditions on the same images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Count:
    """Count k of n: wrong answers among images, or certified images among all.

    Counts of several networks or batches are pooled by adding them: ``sum(counts, Count(0, 0))``.

    Raises:
        ValueError: ``k`` does not lie between 0 and ``n``.
    """

    k: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.k <= self.n:
            raise ValueError(f"k must lie between 0 and n, got k={self.k} and n={self.n}")

    @classmethod
    def of(cls, marked: Tensor) -> Count:
        """Count the true entries of a bool tensor."""
        return cls(int(marked.sum()), marked.numel())

    @property
    def rate(self) -> float:
        """The share k / n, NaN of nothing."""
        return self.k / self.n if self.n else math.nan

    @property
    def percent(self) -> float:
        """The share in percent, NaN of nothing."""
        return 100 * self.k / self.n if self.n else math.nan

    def __add__(self, other: Count) -> Count:
        return Count(self.k + other.k, self.n + other.n)


@dataclass(frozen=True)
class PairedCounts:
    """Count errors under two conditions on the same images, as a two-by-two table.

    Tables of several seeds or batches are pooled by adding them.

    Raises:
        ValueError: a count is negative.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    def __post_init__(self) -> None:
        if min(self.both, self.only_first, self.only_second, self.neither) < 0:
            raise ValueError(f"counts must not be negative, got {self}")

    @property
    def n(self) -> int:
        """Number of images."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def first(self) -> Count:
        """Errors under the first condition."""
        return Count(self.both + self.only_first, self.n)

    @property
    def second(self) -> Count:
        """Errors under the second condition."""
        return Count(self.both + self.only_second, self.n)

    @property
    def excess(self) -> float:
        """Difference of the two error rates, first minus second, in [-1, 1]; NaN without images."""
        return (self.only_first - self.only_second) / self.n if self.n else math.nan

    def __add__(self, other: PairedCounts) -> PairedCounts:
        return PairedCounts(
            self.both + other.both,
            self.only_first + other.only_first,
            self.only_second + other.only_second,
            self.neither + other.neither,
        )


def paired_counts(first: Tensor, second: Tensor) -> PairedCounts:
    """Count the images that are wrong under one, both or neither of two conditions.

    Args:
        first: (N,) bool, e.g. the victim's errors on adversarial inputs.
        second: (N,) bool, e.g. its errors on the same images without a perturbation.

    Returns:
        The two-by-two table.

    Raises:
        ValueError: ``first`` and ``second`` are not bool vectors of one length.
    """
    if first.dim() != 1 or first.shape != second.shape or first.dtype != torch.bool or second.dtype != torch.bool:
        raise ValueError(
            f"first and second must be bool (N,), got {first.dtype} {tuple(first.shape)} and "
            f"{second.dtype} {tuple(second.shape)}"
        )
    both, only_first = int((first & second).sum()), int((first & ~second).sum())
    only_second = int((~first & second).sum())
    return PairedCounts(both, only_first, only_second, first.numel() - both - only_first - only_second)

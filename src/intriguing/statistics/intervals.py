"""Confidence intervals of rates and means. Rates and intervals are fractions in [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor


class Interval(NamedTuple):
    """A closed confidence interval, in the unit of the estimate it belongs to."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedCounts:
    """Errors under two conditions on the *same* images: a two-by-two table of counts.

    Sums of tables are tables (`+`), so several seeds or batches are pooled by adding.
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
    def first(self) -> int:
        """Number of errors under the first condition."""
        return self.both + self.only_first

    @property
    def second(self) -> int:
        """Number of errors under the second condition."""
        return self.both + self.only_second

    def __add__(self, other: PairedCounts) -> PairedCounts:
        return PairedCounts(
            self.both + other.both,
            self.only_first + other.only_first,
            self.only_second + other.only_second,
            self.neither + other.neither,
        )


def paired_counts(first: Tensor, second: Tensor) -> PairedCounts:
    """Counts the images that are wrong under one, both or neither of two conditions.

    Args:
        first: (N,) bool, e.g. the victim's errors on adversarial inputs.
        second: (N,) bool, e.g. its errors on the same images without a perturbation.

    Raises:
        ValueError: not two bool vectors of one length.
    """
    if first.dim() != 1 or first.shape != second.shape or first.dtype != torch.bool or second.dtype != torch.bool:
        raise ValueError(
            f"first and second must be bool (N,), got {first.dtype} {tuple(first.shape)} and "
            f"{second.dtype} {tuple(second.shape)}"
        )
    both, only_first = int((first & second).sum()), int((first & ~second).sum())
    only_second = int((~first & second).sum())
    return PairedCounts(both, only_first, only_second, first.numel() - both - only_first - only_second)


def wilson_interval(k: float, n: float, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927), without continuity correction.

    Unlike p +- z sqrt(p (1 - p) / n) it is right near 0 and 1, where most cells of the paper's tables lie. For integers
    it is ``scipy.stats.binomtest(k, n).proportion_ci(method="wilson")``, which takes no effective sample size.

    Args:
        k: number of errors, 0 <= k <= n. An effective sample size gives fractions.
        n: number of trials, at least 1; of answers that depend on one another the effective number, that is, their
            number divided by the design effect.
        confidence: coverage in (0, 1).

    Returns:
        Interval inside [0, 1].

    Raises:
        ValueError: a value outside its range.
    """
    if not (n >= 1 and 0 <= k <= n and math.isfinite(n)):
        raise ValueError(f"k and n must satisfy 0 <= k <= n with n at least 1, got k={k} and n={n}")
    z = _normal_quantile(confidence)
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At k = 0 and k = n one end is exactly 0 or 1; rounding must not leave a crumb there.
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return Interval(low, high)


def mean_interval(mean: float, std: float, n: int, *, confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean, mean +- t std / sqrt(n) with n - 1 degrees of freedom.

    Args:
        mean: the sample mean.
        std: the sample's standard deviation (divided by n - 1), at least 0.
        n: sample size, at least 1.
        confidence: coverage in (0, 1).

    Returns:
        The interval; its ends are NaN for n = 1, as one value does not tell how far values lie apart.

    Raises:
        ValueError: a value outside its range.
    """
    if n < 1 or not std >= 0:
        raise ValueError(f"std must be at least 0 and n at least 1, got std={std} and n={n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    if n == 1:
        return Interval(math.nan, math.nan)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * std / math.sqrt(n)
    return Interval(mean - half, mean + half)


def intervals_meet(first: Interval, second: Interval) -> bool:
    """Whether two closed intervals share a point."""
    return first.low <= second.high and second.low <= first.high


def excess(counts: PairedCounts) -> float:
    """Difference of the two error rates, first minus second, in [-1, 1]; NaN without images."""
    return (counts.only_first - counts.only_second) / counts.n if counts.n else math.nan


def excess_interval(counts: PairedCounts, *, confidence: float = 0.95, design_effect: float = 1.0) -> Interval:
    """Interval of the difference between two error rates on the same images.

    Newcombe's square-and-add interval for paired proportions (Statistics in Medicine 17, 1998, p. 2635, method 10): two
    Wilson intervals, combined with the correlation phi of the two conditions, which is shrunk by n / 2 where positive.

    Args:
        counts: the two-by-two table, with at least one image.
        confidence: coverage in (0, 1).
        design_effect: by how much the difference varies more than that of independent images: the table counts as one
            of n / design_effect images. For several networks on the same images, see `clusters.design_effect`.

    Returns:
        Interval inside [-1, 1] around `excess(counts)`.

    Raises:
        ValueError: no image, `confidence` outside (0, 1), or a design effect below 1.
    """
    if not design_effect >= 1:
        raise ValueError(f"design_effect must be at least 1, got {design_effect}")
    n = max(counts.n / design_effect, min(counts.n, 1))
    p_first, p_second, phi = counts.first / max(counts.n, 1), counts.second / max(counts.n, 1), _phi(counts, n)
    first, second = (wilson_interval(p * n, n, confidence=confidence) for p in (p_first, p_second))
    below, above = p_first - first.low, first.high - p_first
    below_second, above_second = p_second - second.low, second.high - p_second
    down = math.sqrt(max(0.0, below**2 - 2 * phi * below * above_second + above_second**2))
    up = math.sqrt(max(0.0, above**2 - 2 * phi * above * below_second + below_second**2))
    return Interval(max(-1.0, excess(counts) - down), min(1.0, excess(counts) + up))


def _phi(counts: PairedCounts, n: float) -> float:
    """Newcombe's correlation between the two conditions for a table of n images, 0 where a margin is empty."""
    margins = counts.first * (counts.n - counts.first) * counts.second * (counts.n - counts.second)
    if margins == 0:
        return 0.0
    determinant = counts.both * counts.neither - counts.only_first * counts.only_second
    if determinant > 0:  # the table of n images has (n / counts.n)^2 of this determinant
        determinant = max(determinant - counts.n**2 / (2 * n), 0)
    return determinant / math.sqrt(margins)


def _normal_quantile(confidence: float) -> float:
    """z such that a standard normal lies in [-z, z] with probability `confidence`."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)

"""Confidence intervals of rates, differences of rates, and means. Rates and their intervals are fractions."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy import stats
from torch import Tensor

from intriguing.statistics.counts import PairedCounts

SMALLEST_BOOTSTRAP = 10
"""Values in a stratum from which resamples show the skew."""


class Interval(NamedTuple):
    """Bound an estimate by a closed confidence interval, in the unit of the estimate."""

    low: float
    high: float

    @property
    def percent(self) -> Interval:
        """An interval of fractions in percent."""
        return Interval(100 * self.low, 100 * self.high)


def intervals_meet(first: Interval, second: Interval) -> bool:
    """Check whether two closed intervals share a point."""
    return first.low <= second.high and second.low <= first.high


def wilson_interval(k: float, n: float, *, confidence: float = 0.95) -> Interval:
    """Compute Wilson's score interval of a proportion (Wilson 1927), without continuity correction.

    Unlike p +- z sqrt(p (1 - p) / n) it is right near 0 and 1, where most cells of the paper's tables lie. For whole
    numbers it equals ``scipy.stats.binomtest(k, n).proportion_ci(method="wilson")``, which takes no fractions.

    Args:
        k: number of errors, 0 <= k <= n; a fraction where n is an effective sample size.
        n: number of trials, at least 1. For answers that depend on one another, the effective sample size: their
            number divided by the design effect.
        confidence: coverage in (0, 1).

    Returns:
        Interval inside [0, 1].

    Raises:
        ValueError: a value is outside its range.
    """
    if not (n >= 1 and 0 <= k <= n and math.isfinite(n)):
        raise ValueError(f"k and n must satisfy 0 <= k <= n with n at least 1, got k={k} and n={n}")
    z = NormalDist().inv_cdf((1 + _checked(confidence)) / 2)
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At k = 0 and k = n one end is exactly 0 or 1, which rounding would miss.
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return Interval(low, high)


def excess_interval(counts: PairedCounts, *, confidence: float = 0.95, design_effect: float = 1.0) -> Interval:
    """Compute an interval of the difference between two error rates on the same images.

    Newcombe's square-and-add interval for paired proportions (Statistics in Medicine 17, 1998, p. 2635, method 10): two
    Wilson intervals, combined with the correlation phi of the two conditions, which is shrunk by n / 2 where positive.

    Args:
        counts: the two-by-two table, with at least one image.
        confidence: coverage in (0, 1).
        design_effect: ratio of the difference's variance to that over independent images: the table counts as one of
            n / design_effect images. For several networks on one set of images, see `clusters.design_effect`.

    Returns:
        Interval inside [-1, 1] around ``counts.excess``.

    Raises:
        ValueError: there is no image, ``confidence`` is outside (0, 1), or the design effect is below 1.
    """
    if not design_effect >= 1:
        raise ValueError(f"design_effect must be at least 1, got {design_effect}")
    n = max(counts.n / design_effect, min(counts.n, 1))
    p_first, p_second = counts.first.k / max(counts.n, 1), counts.second.k / max(counts.n, 1)
    phi = _phi(counts, n)
    first, second = (wilson_interval(p * n, n, confidence=confidence) for p in (p_first, p_second))
    below, above = p_first - first.low, first.high - p_first
    below_second, above_second = p_second - second.low, second.high - p_second
    down = math.sqrt(max(0.0, below**2 - 2 * phi * below * above_second + above_second**2))
    up = math.sqrt(max(0.0, above**2 - 2 * phi * above * below_second + below_second**2))
    return Interval(max(-1.0, counts.excess - down), min(1.0, counts.excess + up))


def mean_interval(mean: float, std: float, n: int, *, confidence: float = 0.95) -> Interval:
    """Compute Student's t interval of a mean, mean +- t std / sqrt(n) with n - 1 degrees of freedom.

    Args:
        mean: the sample mean.
        std: the sample's standard deviation (divided by n - 1), at least 0.
        n: sample size, at least 1.
        confidence: coverage in (0, 1).

    Returns:
        The interval; its ends are NaN for n = 1, as one value has no spread.

    Raises:
        ValueError: a value is outside its range.
    """
    if n < 1 or not std >= 0:
        raise ValueError(f"std must be at least 0 and n at least 1, got std={std} and n={n}")
    _checked(confidence)
    if n == 1:
        return Interval(math.nan, math.nan)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * std / math.sqrt(n)
    return Interval(mean - half, mean + half)


def t_interval(values: Tensor, *, confidence: float = 0.95, groups: Tensor | None = None) -> Interval | None:
    """Compute Student's t interval of the mean of a sample, which may be stratified.

    Args:
        values: (M,) finite.
        confidence: coverage in (0, 1).
        groups: (M,) strata, for example seeds: only the variance within strata counts.

    Returns:
        The interval; None where no stratum has two values.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    array, parts = _strata(values, groups)
    freedom = len(array) - len(parts)
    if not freedom:
        return None
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(_variance(parts))
    return Interval(float(array.mean()) - half, float(array.mean()) + half)


def bootstrap_interval(
    values: Tensor, *, confidence: float = 0.95, num: int = 2000, seed: int = 0, groups: Tensor | None = None
) -> Interval | None:
    """Compute an interval of a mean whose ends are the farther ones of Student's t and of the studentised bootstrap.

    The percentile bootstrap is too narrow for a few dozen values and worse for skewed ones. The studentised bootstrap
    (Efron and Tibshirani 1993, chapter 12) follows the skew; Student's t is safer for long symmetric tails. With fewer
    than `SMALLEST_BOOTSTRAP` values in a stratum the interval is Student's t alone.

    Args:
        values: (M,) finite.
        confidence: coverage in (0, 1).
        num: resamples.
        seed: of the resampling.
        groups: (M,) strata, for example seeds: each is resampled within itself.

    Returns:
        The interval; None where no stratum has two values.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    array, parts = _strata(values, groups)
    student = t_interval(values, confidence=confidence, groups=groups)
    error = math.sqrt(_variance(parts))
    if student is None or error == 0 or min(map(len, parts)) < SMALLEST_BOOTSTRAP:
        return student
    generator = np.random.default_rng(seed)
    means, variances = np.zeros(num), np.zeros(num)
    for part in parts:
        for some in np.array_split(np.arange(num), max(1, num * len(part) // 2**22)):
            drawn = part[generator.integers(len(part), size=(len(some), len(part)))]
            means[some] += drawn.sum(1) / len(array)
            variances[some] += drawn.var(1, ddof=1) * len(part) / len(array) ** 2
    varied = variances > 1e-12 * error**2
    if not varied.any():
        return student
    ratios = (means[varied] - array.mean()) / np.sqrt(variances[varied])
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    mean = float(array.mean())
    return Interval(min(student.low, mean - error * float(high)), max(student.high, mean - error * float(low)))


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    return confidence


def _phi(counts: PairedCounts, n: float) -> float:
    """Compute Newcombe's correlation between the two conditions for a table of n images, 0 where a margin is empty."""
    first, second = counts.first.k, counts.second.k
    margins = first * (counts.n - first) * second * (counts.n - second)
    if margins == 0:
        return 0.0
    determinant = counts.both * counts.neither - counts.only_first * counts.only_second
    if determinant > 0:  # the table of n images has (n / counts.n)^2 of this determinant
        determinant = max(determinant - counts.n**2 / (2 * n), 0)
    return determinant / math.sqrt(margins)


def _strata(values: Tensor, groups: Tensor | None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return all values as float64, and the values of each stratum."""
    if values.dim() != 1 or not len(values) or not bool(values.isfinite().all()):
        raise ValueError(f"expected at least one finite value (M,), got shape {tuple(values.shape)}")
    array = values.detach().double().cpu().numpy()
    label = np.zeros(len(array), int) if groups is None else groups.cpu().numpy()
    return array, [array[label == group] for group in np.unique(label)]


def _variance(parts: list[np.ndarray]) -> float:
    """Compute the variance of the mean over all strata; a stratum of one value adds nothing."""
    total = sum(map(len, parts))
    return sum(float(part.var(ddof=1)) * len(part) for part in parts if len(part) > 1) / total**2

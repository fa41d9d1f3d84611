"""Is it more than chance: intervals, permutation tests, effect sizes, and corrections for many tests."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from intriguing.statistics.intervals import Interval

SMALLEST_BOOTSTRAP = 10
"""Values in a stratum from which resamples say how skewed they are."""


def t_interval(values: Tensor, *, confidence: float = 0.95, groups: Tensor | None = None) -> Interval | None:
    """Student's interval of a mean.

    Args:
        values: (M,) finite.
        confidence: coverage in (0, 1).
        groups: (M,) strata, for example seeds: only the variance within them counts.

    Returns:
        None where no stratum has two values: a single value says nothing of its spread.

    Raises:
        ValueError: no value, or one that is not finite.
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
    """Interval of a mean: each end is the farther one of Student's t and of the studentised bootstrap.

    The percentile bootstrap is too narrow for a few dozen values and worse for skewed ones. The studentised bootstrap
    (Efron and Tibshirani 1993, chapter 12) follows the skew; Student's t is the safer one for long symmetric tails.
    Fewer than `SMALLEST_BOOTSTRAP` values in a stratum leave Student's t alone.

    Args:
        values: (M,) finite.
        confidence: coverage in (0, 1).
        num: resamples.
        seed: of the resampling.
        groups: (M,) strata, for example seeds: each is resampled within itself.

    Returns:
        None where no stratum has two values.

    Raises:
        ValueError: no value, or one that is not finite.
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


def _strata(values: Tensor, groups: Tensor | None) -> tuple[np.ndarray, list[np.ndarray]]:
    """All values as float64, and those of each stratum."""
    if values.dim() != 1 or not len(values) or not bool(values.isfinite().all()):
        raise ValueError(f"expected at least one finite value (M,), got shape {tuple(values.shape)}")
    array = values.detach().double().cpu().numpy()
    label = np.zeros(len(array), int) if groups is None else groups.cpu().numpy()
    return array, [array[label == group] for group in np.unique(label)]


def _variance(parts: list[np.ndarray]) -> float:
    """Of the mean over all strata; a stratum of one value adds nothing."""
    total = sum(map(len, parts))
    return sum(float(part.var(ddof=1)) * len(part) for part in parts if len(part) > 1) / total**2


def permutation_p(observed: Tensor, null: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """One-sided p-values: how often chance does at least as well, (1 + #{null >= observed}) / (1 + B).

    Args:
        observed: (M,); NaN gives 1, for it speaks for nothing.
        null: (B,), what the statistic is under the null hypothesis.
        generator: breaks ties at random, which makes p exactly uniform under the null also where the statistic has few
            values (a purity of nine images has nine); None counts every tie against the observation: never too small.

    Returns:
        (M,) float64 in (0, 1].
    """
    ordered, values = null.double().sort().values, observed.double().contiguous()
    above = len(null) - torch.searchsorted(ordered, values, right=True).double()
    ties = len(null) - torch.searchsorted(ordered, values).double() - above
    if generator is None:
        p = (1 + above + ties) / (1 + len(null))
    else:
        share = torch.rand(len(observed), generator=generator, dtype=torch.float64)
        p = (above + ((ties + 1) * share).floor() + 1) / (1 + len(null))
    return torch.where(values.isnan(), 1.0, p)


def rotation_p(observed: float, null: Tensor) -> float:
    """Two-sided p-value of a basis among bases that a random rotation made: twice the smaller one-sided value.

    If no basis is special, the observed one is exchangeable with the others and p is uniform (on multiples of
    2 / (1 + B), where no two are equal).

    Args:
        observed: the basis's mean score.
        null: (B,) mean scores of the random bases.
    """
    value = torch.tensor([observed], dtype=torch.float64)
    above = float(permutation_p(value, null.double()))
    below = float(permutation_p(-value, -null.double()))
    return min(1.0, 2 * min(above, below))


def least_p(num: int) -> float:
    """Return the smallest p-value that `rotation_p` can give with so many random bases: 2 / (1 + B)."""
    return min(1.0, 2 / (1 + num))


def effect_size(first: Tensor, second: Tensor) -> float:
    """Hedges' g: the difference of two means in pooled standard deviations, without the bias of small samples.

    Args:
        first, second: (M,) and (L,), at least two values each.

    Returns:
        NaN with fewer values; 0 where nothing differs, infinite where only the means do.
    """
    n, m = len(first), len(second)
    if n < 2 or m < 2:
        return math.nan
    pooled = ((n - 1) * first.double().var() + (m - 1) * second.double().var()) / (n + m - 2)
    difference = float(first.double().mean() - second.double().mean())
    if float(pooled) <= 1e-24:
        return 0.0 if abs(difference) < 1e-12 else math.copysign(math.inf, difference)
    return difference / math.sqrt(float(pooled)) * (1 - 3 / (4 * (n + m) - 9))


def holm(p: Tensor) -> Tensor:
    """p-values corrected so that a false discovery among all is as rare as promised (Holm 1979): (M,)."""
    order = p.argsort()
    steps = (p[order].double() * torch.arange(len(p), 0, -1, dtype=torch.float64)).cummax(0).values.clamp_max(1)
    return torch.empty_like(steps).scatter_(0, order, steps)


def benjamini_hochberg(p: Tensor) -> Tensor:
    """p-values corrected so that the share of false among all discoveries is as small as promised (1995): (M,)."""
    return torch.from_numpy(np.asarray(stats.false_discovery_control(p.detach().double().cpu().numpy(), method="bh")))

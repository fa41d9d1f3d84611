"""p-values, effect sizes, and the correction for many tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor


def paired_p(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Compute the two-sided p-value of the paired t-test; None for fewer than two pairs or equal differences."""
    differences = np.subtract(first, second)
    if len(differences) < 2 or np.ptp(differences) == 0:
        return None
    return float(stats.ttest_rel(first, second).pvalue)


def sign_p(differences: Sequence[int]) -> float | None:
    """Compute the two-sided p-value of the exact sign test; None where nothing differs.

    For one seed it is McNemar's test. An image counts once for any number of seeds, so seeds do not count as images.
    """
    up, down = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return float(stats.binomtest(up, up + down).pvalue) if up + down else None


def permutation_p(observed: Tensor, null: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Compute one-sided p-values, (1 + #{null >= observed}) / (1 + B).

    Args:
        observed: (M,); NaN yields p = 1.
        null: (B,), values of the statistic under the null hypothesis.
        generator: breaks ties at random, which makes p exactly uniform under the null also for a statistic of few
            values (a purity of nine images has nine). None counts every tie against the observation, so that p is
            never too small.

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
    """Compute the two-sided p-value of a basis among random rotations: twice the smaller one-sided value.

    If no basis is special, the observed one is exchangeable with the others and p is uniform (on multiples of
    2 / (1 + B), where no two are equal).

    Args:
        observed: the mean score of the basis.
        null: (B,) mean scores of the random bases.

    Returns:
        p in (0, 1].
    """
    value = torch.tensor([observed], dtype=torch.float64)
    above = float(permutation_p(value, null.double()))
    below = float(permutation_p(-value, -null.double()))
    return min(1.0, 2 * min(above, below))


def least_p(num: int) -> float:
    """Return the smallest p-value of `rotation_p` with ``num`` random bases: 2 / (1 + B)."""
    return min(1.0, 2 / (1 + num))


def effect_size(first: Tensor, second: Tensor) -> float:
    """Compute Hedges' g: the difference of two means in units of `pooled_spread`.

    Args:
        first: (M,), at least two values.
        second: (L,), at least two values.

    Returns:
        g; NaN with fewer values, 0 where nothing differs, infinite where only the means do.
    """
    if len(first) < 2 or len(second) < 2:
        return math.nan
    difference = float(first.double().mean() - second.double().mean())
    if _pooled_variance(first, second) <= 1e-24:
        return 0.0 if abs(difference) < 1e-12 else math.copysign(math.inf, difference)
    return difference / math.sqrt(_pooled_variance(first, second)) * _small_sample(first, second)


def pooled_spread(first: Tensor, second: Tensor) -> float:
    """Return the divisor of Hedges' g: the pooled standard deviation, over the factor for small samples."""
    return math.sqrt(_pooled_variance(first, second)) / _small_sample(first, second)


def _pooled_variance(first: Tensor, second: Tensor) -> float:
    n, m = len(first), len(second)
    return float(((n - 1) * first.double().var() + (m - 1) * second.double().var()) / (n + m - 2))


def _small_sample(first: Tensor, second: Tensor) -> float:
    return 1 - 3 / (4 * (len(first) + len(second)) - 9)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values so that the chance of any false rejection stays below the level (Holm 1979)."""
    values = np.asarray(p, dtype=float)
    order = values.argsort(kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    corrected = np.empty_like(steps)
    corrected[order] = steps
    return corrected.tolist()

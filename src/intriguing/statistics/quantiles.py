"""Confidence intervals of quantiles, which values without a bound (inf) do not break."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats
from torch import Tensor

from intriguing.statistics.intervals import Interval


def quantile(values: Tensor, share: float) -> float:
    """Compute the quantile of a sample as an order statistic, so that infinite values count as the largest ones.

    Args:
        values: (M,), at least one; inf where a value is larger than any number, never nan.
        share: of the values below it, in (0, 1).

    Returns:
        The value halfway between the two order statistics next to ``share * M``; inf where one of them is.

    Raises:
        ValueError: there is no value, one is nan, or the share is outside (0, 1).
    """
    array = _ordered(values, share)
    place = share * len(array) - 0.5
    return _between(array, place)


def quantile_interval(values: Tensor, share: float, *, confidence: float = 0.95, least: float = 0.0) -> Interval:
    """Compute an interval of a quantile from two order statistics, without an assumption on the distribution.

    The number of values below the true quantile is binomial. The ends are interpolated between neighbouring order
    statistics (Nyblom 1992), without which an interval of few values covers too often. Where even the smallest value
    may lie above the quantile, the low end is ``least``; where even the largest may lie below, the high end is inf.

    Args:
        values: (M,), at least one; inf where a value is larger than any number, never nan.
        share: of the values below the quantile, in (0, 1).
        confidence: coverage in (0, 1).
        least: smallest value that there can be.

    Returns:
        The interval; its high end may be inf.

    Raises:
        ValueError: there is no value, one is nan, or a share is outside (0, 1).

    Example:
        >>> import torch
        >>> low, high = quantile_interval(torch.arange(1, 101).double(), 0.5)
        >>> round(low, 1), round(high, 1)
        (40.8, 60.2)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    array, tail = _ordered(values, share), (1 - confidence) / 2
    low = _end(array, share, tail, least)
    high = -_end(-array[::-1], 1 - share, tail, -math.inf)
    return Interval(low, high)


def _end(ordered: np.ndarray, share: float, tail: float, least: float) -> float:
    """Return the value that lies above the quantile with probability ``tail``, interpolated; ``least`` without one."""
    count = len(ordered)
    # P(x_(i) > quantile) = P(fewer than i values below it) = cdf(i - 1), i from 1
    above = stats.binom.cdf(np.arange(count), count, share)
    i = int(np.searchsorted(above, tail, side="right"))  # the last order statistic (from 1) that is rarely above
    if i == 0:
        return least
    if i == count:
        return float(ordered[-1])
    first, second = float(ordered[i - 1]), float(ordered[i])
    if not math.isfinite(second - first):
        return first
    p, q = above[i - 1], above[i]
    gain = (tail - p) / (q - p)  # Nyblom's correction of linear interpolation
    weight = 1 / (1 + (i * (1 - share)) / ((count - i) * share) * (1 - gain) / gain) if gain > 0 else 0.0
    return float(first + weight * (second - first))


def _ordered(values: Tensor, share: float) -> np.ndarray:
    array = np.sort(values.detach().double().cpu().numpy())
    if array.ndim != 1 or not len(array) or np.isnan(array).any():
        raise ValueError(f"expected at least one value (M,) and no nan, got shape {tuple(values.shape)}")
    if not 0 < share < 1:
        raise ValueError(f"share must lie strictly between 0 and 1, got {share}")
    return array


def _between(ordered: np.ndarray, place: float) -> float:
    below = min(max(math.floor(place), 0), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    weight = min(max(place - below, 0.0), 1.0)
    first, second = float(ordered[below]), float(ordered[above])
    if weight == 0 or first == second:
        return first
    return first + weight * (second - first) if math.isfinite(second) else math.inf

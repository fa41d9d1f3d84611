"""Area under the ROC curve, and the balanced error, with intervals: how well a score tells two classes apart."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import Interval, wilson_interval


class Estimate(NamedTuple):
    """Hold a number and its interval; the interval is None where it cannot be made."""

    value: float
    interval: Interval | None


def area_under_roc(positive: Tensor, negative: Tensor, *, paired: bool = False, confidence: float = 0.95) -> Estimate:
    """Estimate the probability that an image of a class scores above one of the rest, ties counted half.

    The variance is DeLong's (DeLong, DeLong and Clarke-Pearson 1988); the interval is symmetric on the logit scale, so
    that it stays within (0, 1).

    Args:
        positive: (M,) scores of the class, finite.
        negative: (N,) scores of the rest, finite.
        paired: whether the i-th scores of both are of one image, M = N; their covariance counts then.
        confidence: coverage in (0, 1).

    Returns:
        The area; its interval is None for fewer than two scores of either, and where the scores do not overlap.

    Raises:
        ValueError: there is no score, one is not finite, or the lengths of pairs differ.

    Example:
        >>> area_under_roc(torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0])).value
        0.875
    """
    one, two = positive.double().flatten(), negative.double().flatten()
    if not len(one) or not len(two) or not bool(one.isfinite().all() and two.isfinite().all()):
        raise ValueError(f"expected finite scores of both classes, got {len(one)} and {len(two)} scores")
    if paired and len(one) != len(two):
        raise ValueError(f"pairs need equally many scores, got {len(one)} and {len(two)}")
    above = _share_below(one, two)  # of each image of the class: the share of the rest below it
    area = float(above.mean())
    if min(len(one), len(two)) < 2 or not 0 < area < 1:
        return Estimate(area, None)
    below = 1 - _share_below(two, one)
    independent = above.var() / len(one) + below.var() / len(two)
    std = math.sqrt(float((above + below).var() / len(one) if paired else independent))
    half = float(stats.norm.ppf((1 + confidence) / 2)) * std / (area * (1 - area))
    middle = math.log(area / (1 - area))
    return Estimate(area, Interval(*(1 / (1 + math.exp(-end)) for end in (middle - half, middle + half))))


def _share_below(values: Tensor, others: Tensor) -> Tensor:
    """Return for each value the share of the others below it, ties counted half."""
    ordered = others.sort().values
    ends = [torch.searchsorted(ordered, values, right=right).double() for right in (False, True)]
    return (ends[0] + ends[1]) / (2 * len(others))


def balanced_error(missed: Count, false_alarms: Count, *, confidence: float = 0.95) -> Estimate:
    """Estimate the mean of two classes' error rates.

    The interval combines the two Wilson intervals by squares (Newcombe 1998, for independent proportions).

    Args:
        missed: images of one class that are taken for the other.
        false_alarms: the other way round.
        confidence: coverage in (0, 1).
    """
    rates = [one.rate for one in (missed, false_alarms)]
    ends = [wilson_interval(one.k, one.n, confidence=confidence) for one in (missed, false_alarms)]
    low = math.hypot(*(rate - end.low for rate, end in zip(rates, ends, strict=True))) / 2
    high = math.hypot(*(end.high - rate for rate, end in zip(rates, ends, strict=True))) / 2
    middle = sum(rates) / 2
    return Estimate(middle, Interval(max(0.0, middle - low), min(1.0, middle + high)))

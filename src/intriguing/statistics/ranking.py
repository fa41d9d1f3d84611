"""Compare two samples by ranks: the area under the ROC curve with its interval."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

from intriguing.statistics.intervals import Interval, wilson_interval


class RankedArea(NamedTuple):
    """Hold the area under a ROC curve and its 95 % interval, both in [0, 1]."""

    value: float
    interval: Interval


def auc(higher: Tensor, lower: Tensor, *, paired: bool = False, confidence: float = 0.95) -> RankedArea:
    """Compute the area under the ROC curve: the chance that a value of ``higher`` exceeds one of ``lower``.

    Ties count half. The interval is that of DeLong, DeLong and Clarke-Pearson (1988) on the scale of the logit, which
    stays inside [0, 1]; where the samples do not overlap it is Wilson's of the smaller sample.

    Args:
        higher: (N,) scores, infinities allowed.
        lower: (M,) scores.
        paired: whether the i-th values of both belong to one image; N and M are equal then.
        confidence: coverage in (0, 1).

    Returns:
        The area and its interval.

    Raises:
        ValueError: a sample is empty, a score is nan, or the lengths of pairs differ.

    Example:
        >>> import torch
        >>> auc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0])).value
        0.875
    """
    first, second = higher.detach().double().cpu(), lower.detach().double().cpu()
    if first.dim() != 1 or second.dim() != 1 or not len(first) or not len(second):
        raise ValueError(f"expected two samples (N,) and (M,), got {tuple(first.shape)} and {tuple(second.shape)}")
    if bool(first.isnan().any() or second.isnan().any()):
        raise ValueError("scores must be numbers, got nan")
    if paired and len(first) != len(second):
        raise ValueError(f"pairs need equally many scores, got {len(first)} and {len(second)}")
    ahead, behind = _placements(first, second), 1 - _placements(second, first)
    area = float(ahead.mean())
    together = _variance_of_mean(ahead + behind) if paired else None
    variance = _variance_of_mean(ahead) + _variance_of_mean(behind) if together is None else together
    if not 0 < area < 1 or not variance > 0:
        smaller = min(len(first), len(second))
        return RankedArea(area, wilson_interval(area * smaller, smaller, confidence=confidence))
    spread = float(stats.norm.ppf((1 + confidence) / 2)) * math.sqrt(variance) / (area * (1 - area))
    centre = math.log(area / (1 - area))
    return RankedArea(area, Interval(*(1 / (1 + math.exp(-end)) for end in (centre - spread, centre + spread))))


def _placements(values: Tensor, others: Tensor) -> Tensor:
    """Return for each value the share of the others that it exceeds, ties counted half."""
    ordered = others.sort().values
    below, up_to = (torch.searchsorted(ordered, values, right=right).double() for right in (False, True))
    return (below + up_to) / (2 * len(others))


def _variance_of_mean(values: Tensor) -> float:
    return float(values.var()) / len(values) if len(values) > 1 else 0.0

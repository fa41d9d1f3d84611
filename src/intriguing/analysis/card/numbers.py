"""A number with its 95 % interval and its sample, and the ways to make one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from intriguing.statistics.intervals import Interval, bootstrap_interval, wilson_interval
from intriguing.statistics.quantiles import quantile, quantile_interval

_RESAMPLES = 2000


@dataclass(frozen=True)
class Number:
    """Hold an estimate with its 95 % interval.

    Attributes:
        value: the estimate; inf where it has no bound, which a file writes as null.
        low, high: ends of the interval; likewise.
        n: images behind it.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def width(self) -> float:
        """Length of the interval; inf where it has no bound."""
        return self.high - self.low if math.isfinite(self.low) else math.inf

    def times(self, factor: float) -> Number:
        """Return the number in another unit."""
        return Number(self.value * factor, self.low * factor, self.high * factor, self.n)


def share(marked: Tensor) -> Number:
    """Make a share of images with Wilson's interval from (N,) bool, N at least 1."""
    k, n = int(marked.sum()), len(marked)
    return Number(k / n, *wilson_interval(k, n), n)


def quantile_number(values: Tensor, part: float) -> Number:
    """Make a quantile with its interval from order statistics of (N,) values, of which some may be inf."""
    return Number(quantile(values, part), *quantile_interval(values, part), len(values))


def mean_number(values: Tensor) -> Number:
    """Make a mean with the interval of `bootstrap_interval` from (N,) finite values."""
    mean = float(values.double().mean())
    interval = bootstrap_interval(values.double()) or Interval(-math.inf, math.inf)
    return Number(mean, *interval, len(values))


BINS = 10
"""Bins of confidence, equally wide."""


def calibration_error(confidence: Tensor, right: Tensor) -> Number:
    """Estimate the expected calibration error: mean |accuracy - confidence| over bins of confidence (Guo et al. 2017).

    The error of a sample is larger than that of the population, because noise in a bin counts as miscalibration. Its
    excess is estimated by resampling and subtracted, and the interval is the basic bootstrap's (Efron and Tibshirani
    1993, section 13.3), which reflects the resamples at the estimate and so subtracts the excess too.

    Args:
        confidence: (N,) largest probability of each image.
        right: (N,) bool.

    Returns:
        The error, 0 to 1.
    """
    from torchmetrics.functional.classification import binary_calibration_error

    # of the largest probability against "is right" this is the multiclass error; it wants no logits of all classes
    found = float(binary_calibration_error(confidence.double(), right.long(), n_bins=BINS, norm="l1"))
    place = np.minimum((confidence.double().numpy() * BINS).astype(int), BINS - 1)
    gap = right.double().numpy() - confidence.double().numpy()
    drawn = np.random.default_rng(0).integers(len(gap), size=(_RESAMPLES, len(gap)))
    errors = np.zeros(_RESAMPLES)
    for one in range(BINS):
        errors += np.abs((np.where(place == one, gap, 0.0)[drawn]).mean(1))
    low, high = 2 * found - np.quantile(errors, 0.975), 2 * found - np.quantile(errors, 0.025)
    value = max(0.0, 2 * found - float(errors.mean()))
    return Number(value, max(0.0, min(low, value)), max(float(high), value), len(gap))


def bins_of(confidence: Tensor, right: Tensor) -> list[tuple[float, float, int]]:
    """List mean confidence, accuracy and images of the bins that hold any."""
    place = (confidence.double() * BINS).long().clamp(max=BINS - 1)
    found = []
    for one in range(BINS):
        if int((inside := place == one).sum()):
            found.append((float(confidence[inside].mean()), float(right[inside].double().mean()), int(inside.sum())))
    return found


def first_finite(values: Tensor) -> Tensor:
    """Return the values that are finite and above 0."""
    return values[torch.isfinite(values) & (values > 0)]

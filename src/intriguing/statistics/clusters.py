"""Variance of rates and means over several networks that may have seen the same images.

Three networks on 256 images give 768 answers but not 768 independent ones: an image that is hard for one network tends
to be hard for the others. The image is therefore the unit that is drawn: the answers of an image form a cluster, and
the variance of a mean is that of the clusters' totals. Images are compared by their indices in the data set, so
networks that saw other images contribute separate clusters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from intriguing.statistics.intervals import Interval, mean_interval

FEW: int = 10
"""With fewer images than this that deviate from the others, the correlation between networks cannot be estimated."""


def design_effect(values: Sequence[Tensor], indices: Sequence[Tensor]) -> float:
    """Estimate the design effect: the variance of a mean of answers over that of independent answers.

    Where fewer than `FEW` images deviate from a common answer the correlation cannot be estimated, and the largest
    possible ratio is returned: that of networks which agree on every image. Intervals are then too wide rather than
    too narrow.

    Args:
        values: (N,) per network, small integers or bool: errors (0, 1), or differences of errors (-1, 0, 1).
        indices: (N,) per network, which image each value belongs to.

    Returns:
        At least 1, at most the (weighted) number of networks an image was shown to. Exactly 1 for one network.

    Raises:
        ValueError: the lengths do not fit, or there is no value.
    """
    value, image = _joined(values, indices)
    counts = np.bincount(image)
    most = float((counts.astype(float) ** 2).sum() / len(value))
    if most == 1:
        return 1.0
    deviating = min(len(np.unique(image[value != common])) for common in np.unique(value))
    if deviating < FEW:
        return most
    independent = float(value.var()) / len(value)
    return min(max(_variance(value, image) / independent, 1.0), most)


def clustered_mean(values: Sequence[Tensor], indices: Sequence[Tensor]) -> tuple[float, Interval]:
    """Compute the mean of all values and its 95 % interval, Student's t over images.

    Args:
        values: (N,) per network, e.g. distortions.
        indices: (N,) per network, which image each value belongs to.

    Returns:
        The mean and its interval; the interval's ends are NaN where there is only one image.

    Raises:
        ValueError: the lengths do not fit, or there is no value.
    """
    value, image = _joined(values, indices)
    num_images = int(image.max()) + 1
    # mean_interval divides its second argument, the spread of n independent values, by sqrt(n).
    spread = math.sqrt(_variance(value, image) * num_images) if num_images > 1 else 0.0
    return float(value.mean()), mean_interval(float(value.mean()), spread, num_images)


def count_images(indices: Sequence[Tensor]) -> int:
    """Count the distinct images among several (N,) vectors of indices."""
    return torch.cat(list(indices)).unique().numel() if indices else 0


def sharing(indices: Sequence[Tensor]) -> str:
    """Say how many images networks share: "all", "none", or "3 to 10 of 256"; empty for fewer than two networks.

    Args:
        indices: (N,) per network.
    """
    sets = [frozenset(each.tolist()) for each in indices]
    if len(sets) < 2:
        return ""
    if len(set(sets)) == 1:
        return "all"
    pairs = [len(a & b) for k, a in enumerate(sets) for b in sets[k + 1 :]]
    least, most = min(pairs), max(pairs)
    if most == 0:
        return "none"
    return f"{least if least == most else f'{least} to {most}'} of {max(map(len, sets))}"


def _joined(values: Sequence[Tensor], indices: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Return all values as float64, and the number of the image of each, from 0."""
    if [v.shape for v in values] != [i.shape for i in indices] or any(v.dim() != 1 for v in values):
        shapes = [tuple(v.shape) for v in values], [tuple(i.shape) for i in indices]
        raise ValueError(f"values and indices must hold one (N,) vector each per network, got {shapes[0]}, {shapes[1]}")
    value = np.concatenate([v.double().cpu().numpy() for v in values] or [np.zeros(0)])
    if not len(value):
        raise ValueError("expected at least one value, got none")
    image = np.unique(np.concatenate([i.cpu().numpy() for i in indices]), return_inverse=True)[1]
    return value, image


def _variance(value: np.ndarray, image: np.ndarray) -> float:
    """Compute the variance of the mean of all values over draws of images: of a ratio of totals, linearised."""
    counts, totals = np.bincount(image), np.bincount(image, weights=value)
    residuals = totals - counts * value.mean()
    return len(counts) / (len(counts) - 1) * float((residuals**2).sum()) / len(value) ** 2

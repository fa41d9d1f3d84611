"""Score how meaningful a direction is, by its top images and by its responses to all images.

Rows are directions. For all scores but the entropy, larger means more meaningful.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SCORES: tuple[str, ...] = (
    *("purity", "entropy", "pixel_similarity", "feature_similarity", "selectivity", "kurtosis"),
    "lpips_similarity",  # where AlexNet's features are at hand, see `units.perceptual`
)


def label_purity(labels: Tensor, top: Tensor) -> Tensor:
    """Compute the share of the most common class among the top images.

    Args:
        labels: (N,) of all images, of any integer dtype, at least 0.
        top: (M, k) indices of the top images of each direction.

    Returns:
        (M,) in [1 / k, 1].

    Raises:
        TypeError: ``labels`` are not integers.
        ValueError: a label is negative.

    Example:
        >>> import torch
        >>> labels = torch.tensor([0, 0, 1, 2])
        >>> top = torch.tensor([[0, 1], [2, 3]])
        >>> label_purity(labels, top).tolist()
        [1.0, 0.5]
    """
    return _shares(labels, top).amax(1)


def label_entropy(labels: Tensor, top: Tensor) -> Tensor:
    """Compute the entropy of the classes among the top images, in bits: 0 if all belong to one class.

    Args:
        labels: (N,) of all images, of any integer dtype, at least 0.
        top: (M, k) indices of the top images of each direction.

    Returns:
        (M,), at least 0.

    Raises:
        TypeError: ``labels`` are not integers.
        ValueError: a label is negative.

    Example:
        >>> import torch
        >>> label_entropy(torch.tensor([0, 0, 1, 2]), top=torch.tensor([[2, 3], [1, 2]])).tolist()
        [1.0, 1.0]
    """
    shares = _shares(labels, top)
    return -(shares * shares.clamp_min(torch.finfo(shares.dtype).tiny).log2()).sum(1).clamp_max(0)


def _shares(labels: Tensor, top: Tensor) -> Tensor:
    """Compute the share of each class: (M, K)."""
    labels = _classes(labels)
    classes = labels[top.long()]
    counts = torch.zeros(len(top), int(labels.max()) + 1, dtype=torch.float64)
    counts.scatter_add_(1, classes, torch.ones(classes.shape, dtype=torch.float64))
    return counts / top.shape[1]


def _classes(labels: Tensor, num_classes: int | None = None) -> Tensor:
    """Check labels and convert them to int64."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, got dtype {labels.dtype}")
    labels = labels.detach().long()
    if labels.numel():
        low, high = (int(end) for end in labels.aminmax())
        if low < 0 or (num_classes is not None and high >= num_classes):
            top = "" if num_classes is None else f" and below {num_classes}"
            raise ValueError(f"labels must be at least 0{top}, got {low} to {high}")
    return labels


def unit_rows(vectors: Tensor) -> Tensor:
    """Subtract the mean from vectors and scale each to length 1, for ``similarity``.

    With the mean, any two photographs would be similar, because both are bright.

    Args:
        vectors: (N, D), or (N, ...), which is flattened.

    Returns:
        (N, D) float32; 0 for vectors equal to the mean.
    """
    rows = vectors.detach().flatten(1).float()
    rows = rows - rows.mean(0)
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def similarity(rows: Tensor, top: Tensor) -> Tensor:
    """Compute the mean cosine over all pairs of top images.

    Args:
        rows: (N, D) of length 1, see ``unit_rows``: pixels, or features of another network.
        top: (M, k), k at least 2.

    Returns:
        (M,) in [-1, 1].

    Raises:
        ValueError: k is below 2.
    """
    k = top.shape[1]
    if k < 2:
        raise ValueError(f"expected at least two images per row, got {k}")
    means = []
    for part in top.split(max(1, 2**24 // (k * rows.shape[1]))):
        chosen = rows[part.long()].to(torch.promote_types(rows.dtype, torch.float32))
        # The square of the sum contains every pair twice, and the square of each row.
        means.append((chosen.sum(1).square().sum(1) - chosen.square().sum((1, 2))) / (k * (k - 1)))
    return torch.cat(means).double()


@dataclass(frozen=True)
class Moments:
    """Hold the moments of each direction's responses to all images.

    Attributes:
        mean, std: (M,); the standard deviation divides by N.
        kurtosis: (M,) fourth moment over the squared variance, minus 3: 0 for a Gaussian, large for a direction with
            few large responses. NaN where all responses are equal.
        selectivity: (M,) the largest class mean minus the mean of the other class means, in standard deviations of the
            response. Unlike the index (a - b) / (a + b) of Morcos 2018 it is also defined for negative responses, and
            it is invariant to offset and scale. NaN where all responses are equal.
        best_class: (M,) the class with the largest mean.
    """

    mean: Tensor
    std: Tensor
    kurtosis: Tensor
    selectivity: Tensor
    best_class: Tensor


class RunningMoments:
    """Accumulate sums of powers and of classes over batches of responses, in float64.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._shift: Tensor | None = None

    def update(self, responses: Tensor, labels: Tensor) -> None:
        """Add images.

        Args:
            responses: (N, M).
            labels: (N,) in 0..K-1, of any integer dtype.

        Raises:
            TypeError: the labels are not integers.
            ValueError: a label is out of range.
        """
        rows, labels = responses.detach().double().cpu(), _classes(labels, self.num_classes).cpu()
        if not len(rows):
            return
        if self._shift is None:
            # Subtracting an early mean keeps the powers accurate under a large offset.
            self._shift = rows.mean(0)
            self._powers = torch.zeros(4, rows.shape[1], dtype=torch.float64)
            self._sums = torch.zeros(self.num_classes, rows.shape[1], dtype=torch.float64)
            self._counts = torch.zeros(self.num_classes, dtype=torch.float64)
        rows = rows - self._shift
        power = torch.ones_like(rows)
        for i in range(4):
            power = power * rows
            self._powers[i] += power.sum(0)
        self._sums.index_add_(0, labels, rows)
        self._counts += torch.bincount(labels, minlength=self.num_classes)

    def finish(self) -> Moments:
        """Compute the moments of all images that were added.

        Returns:
            The moments of each direction.

        Raises:
            ValueError: no image was added.
        """
        if self._shift is None:
            raise ValueError("expected at least one image, got none")
        m1, m2, m3, m4 = self._powers / self._counts.sum()
        variance = (m2 - m1.square()).clamp_min(0)
        # Rounding errors of a constant response do not count as variance.
        varies = variance > 1e-12 * (self._shift.square() + m2) + 1e-30
        fourth = m4 - 4 * m1 * m3 + 6 * m1.square() * m2 - 3 * m1.pow(4)
        seen = self._counts > 0
        means = self._sums[seen] / self._counts[seen, None]
        best, index = means.max(0)
        others = (means.sum(0) - best) / max(1, int(seen.sum()) - 1)
        nan = torch.full_like(variance, torch.nan)
        return Moments(
            mean=self._shift + m1,
            std=variance.sqrt(),
            kurtosis=torch.where(varies, fourth / variance.square() - 3, nan),
            selectivity=torch.where(varies, (best - others) / variance.sqrt(), nan),
            best_class=torch.arange(self.num_classes)[seen][index],
        )

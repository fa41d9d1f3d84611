"""Images of a data set: the protocol that every stage reads them by, and the images that lie in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

DATA_NAMES = ("mnist", "digits", "image_folder")
SUBSETS = ("train", "val", "test", "full", "p1", "p2")
SPLIT_NAMES = ("full", "p1", "p2")


@dataclass(frozen=True)
class Subset:
    """Images of a data set: images (N, C, H, W), labels (N,), indices (N,) into the official training or test set."""

    images: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Images (M, C, H, W) and labels (M,) at positions (M,) of this subset."""
        return self.images[positions], self.labels[positions]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images and labels in order, ``size`` at a time."""
        return zip(self.images.split(size), self.labels.split(size), strict=True)

    def take(self, positions: Tensor) -> Subset:
        """These images as a subset of its own."""
        return Subset(self.images[positions], self.labels[positions], self.indices[positions])


def half_indices(num_images: int, half: str, seed: int) -> Tensor:
    """Indices of one of the two disjoint halves P1 and P2 of the training set (section 4, Table 3), sorted.

    Args:
        num_images: size of the whole training set; the halves differ by one when it is odd.
        half: ``p1`` or ``p2``.
        seed: seed of the permutation that is cut in two.

    Returns:
        int64 tensor (num_images // 2,) or one more for ``p2`` of an odd set.
    """
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    cut = num_images // 2
    return (order[:cut] if half == "p1" else order[cut:]).sort().values

"""Define the protocols by which every stage reads images, the images in memory, and the halves of a training set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from intriguing.errors import plural

DATA_NAMES = ("mnist", "digits", "cifar10", "image_folder", "imagenet", "module", "blank")
SUBSETS = ("train", "val", "test", "full", "p1", "p2")
SPLIT_NAMES = ("full", "p1", "p2")
Part = Literal["full", "test"]
"""The official training images, or the official test images."""


class ImageSubset(Protocol):
    """Images of a data set, in memory or not."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""
        ...

    @property
    def indices(self) -> Tensor:
        """(N,) into the official training or test set."""
        ...

    @property
    def images(self) -> Tensor:
        """(N, C, H, W), all of them in memory; ``take`` reads some."""
        ...

    def __len__(self) -> int: ...

    def read(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images (M, C, H, W) and labels (M,) at positions (M,) of this subset."""
        ...

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images and labels in order, ``size`` at a time."""
        ...

    def take(self, positions: Tensor | None = None) -> Subset:
        """Load the images at positions (M,) into memory; all images if None."""
        ...


class DataSet(Protocol):
    """The official training and test images of a data set, with pixels in [0, 1]."""

    @property
    def name(self) -> str:
        """Name of the data set."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether reading costs nothing; images that are read from files lie class by class."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in words, as far as the data set has words for them; else their numbers."""
        ...

    @property
    def labels(self) -> dict[str, Tensor]:
        """int64 tensor (N,) by part."""
        ...

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that identify the images besides the name."""
        ...

    def prepare(self) -> None:
        """Download the files that are missing."""
        ...

    def select(self, part: Part, indices: Tensor) -> ImageSubset:
        """Return the images of a part at indices (N,)."""
        ...


@dataclass(frozen=True, repr=False)
class Subset:
    """Hold images of a data set in memory.

    Attributes:
        images: (N, C, H, W).
        labels: (N,) int64.
        indices: (N,) into the official training or test set.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Subset({plural(len(self), 'image')} of shape {tuple(self.images.shape[1:])})"

    def read(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images (M, C, H, W) and labels (M,) at positions (M,) of this subset."""
        return self.images[positions], self.labels[positions]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images and labels in order, ``size`` at a time."""
        return zip(self.images.split(size), self.labels.split(size), strict=True)

    def take(self, positions: Tensor | None = None) -> Subset:
        """Return the images at positions (M,) as a subset; this subset if None."""
        if positions is None:
            return self
        return Subset(self.images[positions], self.labels[positions], self.indices[positions])


def half_indices(num_images: int, half: str, seed: int) -> Tensor:
    """Return the sorted indices of one of the disjoint halves P1 and P2 of a training set (section 4, Table 3).

    Args:
        num_images: Size of the whole training set; the halves differ by one if it is odd.
        half: ``p1`` or ``p2``.
        seed: Seed of the permutation that is cut in two.

    Returns:
        int64 tensor (num_images // 2,), or one more for ``p2`` of an odd set.
    """
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    cut = num_images // 2
    return (order[:cut] if half == "p1" else order[cut:]).sort().values

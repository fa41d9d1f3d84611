"""Provide the images of a data set by subset, and as a Lightning DataModule.

A data set in memory is one float32 tensor; a training batch is one index operation into it. That, and not workers,
makes small networks train fast (a bare loop costs 1.0, per-item transforms about 8).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from intriguing.data.classes import class_number
from intriguing.data.datasets import DatasetSubset
from intriguing.data.folders import ImageFolders
from intriguing.data.subsets import SPLIT_NAMES, SUBSETS, DataSet, ImageSubset, half_indices
from intriguing.errors import UserError, plural
from intriguing.validation import choice

_SMALL = 1024  # numbers of an image, channels times pixels, up to which a batch of ten thousand costs little memory
_NUMBERS, _NUMBERS_OF_LARGE = 10_000 * 784, 8 * 3 * 224 * 224
"""Numbers in a batch that is evaluated, of small and of larger images: more of the larger are slower, because every
layer of a convolutional network would ask the system for new memory."""


class SubsetBatches(Dataset):
    """Index images and labels by a whole batch at a time: ``self[indices] -> [images, labels]``.

    Args:
        subset: The images.
        sampler: Of a training: its seed and epoch choose the draw of a random augmentation; None: the fixed draw.
    """

    def __init__(self, subset: ImageSubset, sampler: BatchIndices | None = None) -> None:
        self.subset, self.sampler = subset, sampler

    def __getitem__(self, indices: Tensor) -> list[Tensor]:
        if self.sampler is not None and isinstance(self.subset, DatasetSubset):
            return list(self.subset.in_epoch(self.sampler.seed or 0, self.sampler.epoch).read(indices))
        return list(self.subset.read(indices))

    def __len__(self) -> int:
        return len(self.subset)


class BatchIndices(Sampler[Tensor]):
    """Yield one index tensor a batch, in an order that depends on the seed and the epoch alone.

    Args:
        num_images: Number of images.
        batch_size: Images of the *global* batch; with several processes each takes its share of every batch, so that
            the gradient does not depend on their number.
        seed: Seed of the orders; None keeps the images in order (evaluation).
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self, num_images: int, batch_size: int, *, seed: int | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.rank, self.world_size, self.epoch = rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        # A generator reads the epoch at the first next(). A resumed Trainer builds the iterator before it sets the
        # epoch, and would otherwise replay the order of epoch 0.
        if self.seed is None:
            order = torch.arange(self.num_images)
        else:
            seed = int.from_bytes(hashlib.sha256(f"{self.seed},{self.epoch}".encode()).digest()[:7], "big")
            order = torch.randperm(self.num_images, generator=torch.Generator().manual_seed(seed))
        for batch in order.split(self.batch_size):
            yield batch[self.rank :: self.world_size] if self.world_size > 1 else batch

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)


class ImageData(lightning.LightningDataModule):
    """Give the images of a data set by subset, and to a Lightning Trainer.

    A Trainer downloads missing files in one process of each node (``prepare_data``), and checks in every process
    that the images are there (``setup``). Without a Trainer ``prepare_data`` is called by hand.

    Args:
        images: The data set.
        split: ``full`` (all official training images), ``p1`` or ``p2`` (its fixed, disjoint halves).
        split_seed: Seed of the halves.
        validation: Number of training images of the split that are set apart for validation (the last of a seeded
            order; 0: train on all, as the paper does).
        only: Number of images to train on, to test whether a network learns at all (in memory the first ones, of
            folders drawn); None: all.
        batch_size: Images of the global batch.
        seed: Seed of the order of the images.

    Raises:
        UserError: An unknown split, or a batch size below 1.
    """

    def __init__(
        self,
        images: DataSet,
        *,
        split: str = "full",
        split_seed: int = 0,
        validation: int = 0,
        only: int | None = None,
        batch_size: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        choice("split", split, SPLIT_NAMES)
        if batch_size < 1:
            raise UserError(f"data.batch_size must be at least 1, got {batch_size}")
        self.images, self.split, self.split_seed = images, split, split_seed
        self.validation, self.only, self.batch_size, self.seed = validation, only, batch_size, seed

    def prepare_data(self) -> None:
        """Download missing files; Lightning calls this in one process of each node."""
        self.images.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Check that the images are there and that ``validation`` fits them.

        Raises:
            UserError: One of the two fails.
        """
        self._indices("train")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return self.images.input_shape

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.images.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in words, as far as the data set has words for them; else their numbers."""
        return self.images.class_names

    def class_number(self, wanted: str | int) -> int:
        """Return the number of a class by its name, the name of its folder, or its number.

        Raises:
            UserError: No class is called so, or more than one is.
        """
        return class_number(wanted, getattr(self.images, "classes", self.class_names), self.class_names)

    def class_label(self, number: int) -> str:
        """Return the name of a class, by which ``class_number`` finds it: in words, or if two share it its folder's."""
        names = self.class_names
        return names[number] if names.count(names[number]) == 1 else getattr(self.images, "classes", names)[number]

    @property
    def description(self) -> dict[str, Any]:
        """Plain values from which an attack finds a network's training images."""
        return {
            "name": self.images.name,
            "split": self.split,
            "split_seed": self.split_seed,
            "validation": self.validation,
            "only": self.only,
            **self.images.description,
        }

    @property
    def evaluation_batch(self) -> int:
        """Number of images that are evaluated at once."""
        numbers = math.prod(self.input_shape)
        return max(1, min(10_000, (_NUMBERS if numbers <= _SMALL else _NUMBERS_OF_LARGE) // numbers))

    def require(self, *subsets: str) -> None:
        """Check that subsets have images.

        Raises:
            UserError: One of them has none.
        """
        for name in subsets:
            if not len(self._indices(name)):
                if name == "val":
                    why = "no training images were set apart (data.validation=0)"
                else:
                    where = getattr(self.images, "root", self.images.name)
                    why = f"{where} has no {'test/ (or val/)' if name == 'test' else 'train/'}"
                    if self.images.name == "module":
                        why = f"the {'test' if name == 'test' else 'training'} Dataset is missing or empty"
                raise UserError(f"{self.images.name}: there are no {name} images: {why}")

    def _indices(self, subset: str) -> Tensor:
        """Return sorted indices (N,) into the official training set (for ``test``: into the official test set)."""
        num_full = len(self.images.labels["full"])
        if subset == "test":
            return torch.arange(len(self.images.labels["test"]))
        if subset == "full":
            return torch.arange(num_full)
        if subset in ("p1", "p2"):
            return half_indices(num_full, subset, self.split_seed)
        own = self._indices(self.split)
        if not 0 <= self.validation < max(1, len(own)):
            raise UserError(f"data.validation must be in [0, {len(own)}), got {self.validation}")
        order = torch.randperm(len(own), generator=torch.Generator().manual_seed(self.split_seed + 1))
        cut = len(own) - self.validation
        chosen = own[(order[:cut] if subset == "train" else order[cut:]).sort().values]
        if subset != "train" or self.only is None:
            return chosen
        if not self.images.in_memory or isinstance(self.images, ImageFolders):  # files lie class by class
            generator = torch.Generator().manual_seed(self.split_seed + 2)
            chosen = chosen[torch.randperm(len(chosen), generator=generator)]
        return chosen[: self.only].sort().values

    def subset(self, name: str) -> ImageSubset:
        """Return images by name: ``train`` (those the network trains on), ``val``, ``test``, ``full``, ``p1``, ``p2``.

        Raises:
            UserError: An unknown name, images that are not there, or ``validation`` that does not fit them.
        """
        choice("subset", name, SUBSETS)
        return self.images.select("test" if name == "test" else "full", self._indices(name))

    @property
    def train(self) -> ImageSubset:
        """The images that a network trains on: ``images`` (N, C, H, W), ``labels`` (N,)."""
        return self.subset("train")

    @property
    def val(self) -> ImageSubset:
        """The training images that are set apart for validation."""
        return self.subset("val")

    @property
    def test(self) -> ImageSubset:
        """The test images."""
        return self.subset("test")

    def __repr__(self) -> str:
        parts = [self.images.name, f"images of shape {self.input_shape}", plural(self.num_classes, "class", "classes")]
        parts += [f"split {self.split}"] * (self.split != "full")
        with suppress(UserError):  # files that are not there
            parts.append(f"{len(self._indices('train')):,} to train on and {len(self._indices('test')):,} to test on")
        return f"ImageData({', '.join(parts)})"

    __str__ = __repr__  # Lightning's lists the loaders

    def _loader(self, subset: str, batch_size: int, seed: int | None) -> DataLoader:
        self.require(subset)
        chosen = self.subset(subset)
        rank, world_size = 0, 1
        if self.trainer is not None and seed is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        sampler = BatchIndices(len(chosen), batch_size, seed=seed, rank=rank, world_size=world_size)
        batches = SubsetBatches(chosen, None if seed is None else sampler)
        return DataLoader(batches, sampler=sampler, batch_size=None)

    def train_dataloader(self) -> DataLoader:
        """Load the training images in the epoch's order."""
        return self._loader("train", self.batch_size, self.seed)

    def val_dataloader(self) -> DataLoader | list:
        """Load the images set apart, if there are any."""
        return self._loader("val", min(1000, self.evaluation_batch), None) if self.validation else []

    def test_dataloader(self) -> DataLoader:
        """Load the test images."""
        return self._loader("test", min(1000, self.evaluation_batch), None)

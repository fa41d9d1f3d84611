"""Read the training and the test Dataset of a user's own: a pair of Datasets, or those of a LightningDataModule.

Only the Datasets are read: batches, their order, splits and images set apart are those of ``ImageData``. Images that
are all alike each time they are read are kept in memory once read, up to ``MEMORY`` bytes. Images that are drawn at
random (augmentation) are drawn anew in every epoch of a training, from a seed that follows from the run's seed, the
epoch and the image; whatever else reads them (counts of errors, attacks, analyses) gets one fixed draw of each image.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset
from torch.utils.data import Subset as TorchSubset

from intriguing.data.announcing import announced
from intriguing.data.items import label_number, pair, pixels
from intriguing.data.scanning import warn_once
from intriguing.data.subsets import Part, Subset
from intriguing.errors import UserError, error_summary

MEMORY = 1 << 30  # bytes of a Dataset's images that are kept
SAMPLE = 32  # images that are read when a Dataset is opened: to check it, and for its digest
WORDS: dict[Part, str] = {"full": "training", "test": "test"}
FIXED = "fixed"  # the draw that is read outside of training


class DatasetPart:
    """Read one Dataset: its labels, its images, and whether these are drawn at random.

    Args:
        dataset: With a length; an item is a pair of an image and a label, see ``items``.
        part: ``full`` (the training images) or ``test``.

    Raises:
        UserError: No such Dataset, or images that differ with equal seeds.
    """

    def __init__(self, dataset: Any, part: Part) -> None:
        self.dataset, self.word = dataset, WORDS[part]
        try:
            self.length = len(dataset)
            dataset.__getitem__  # noqa: B018
        except (TypeError, NotImplementedError, AttributeError) as error:
            raise UserError(
                f"the {self.word} data must be a Dataset with a length and __getitem__, got a {type(dataset).__name__}"
            ) from error
        self._kept: Tensor | None = None
        self._is_kept = torch.zeros(self.length, dtype=torch.bool)
        self._sample = torch.linspace(0, self.length - 1, min(SAMPLE, self.length)).round().long().unique()
        first, again, other = (self._items(self._sample, draw)[0] for draw in (FIXED, FIXED, "another"))
        if not torch.equal(first, again):
            raise UserError(
                f"the {self.word} Dataset gives other images each time, with the same seed of torch, NumPy and random: "
                "draw its augmentation from these, so that a run can be repeated and goes on exactly"
            )
        self.is_random = not torch.equal(first, other)
        self.shape = tuple(first.shape[1:])
        self._seen = (first * 255).round().to(torch.uint8)

    @cached_property
    def labels(self) -> Tensor:
        """int64 tensor (N,): those that the Dataset lists, else of every item, which is read once."""
        listed = _listed_labels(self.dataset)
        if listed is not None and len(listed) == self.length:
            sample = self._items(self._sample, FIXED)[1]
            if torch.equal(listed[self._sample], sample):
                return listed
        found = []
        blocks = torch.arange(self.length).split(256)
        for block in announced(blocks, f"reading the {self.word} Dataset for its labels, 256 images each", len(blocks)):
            images, labels = self._items(block, FIXED)
            self._keep(block, images)
            found.append(labels)
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)

    @cached_property
    def digest(self) -> str:
        """sha256 of the labels and of a sample of the images, rounded to 8 bits."""
        found = hashlib.sha256(repr((self.length, self.shape)).encode())
        found.update(self.labels.numpy().tobytes())
        found.update(self._seen.contiguous().numpy().tobytes())
        return found.hexdigest()

    def read(self, positions: Tensor, draw: str = FIXED) -> Tensor:
        """Read the images (M, C, H, W) at positions (M,), in one draw of their augmentation."""
        if self.is_random:
            return self._items(positions, draw)[0]
        missing = positions[~self._is_kept[positions]].unique()
        if not len(missing):
            assert self._kept is not None
            return self._kept[positions]
        read, _ = self._items(missing, FIXED)
        if self._keep(missing, read):
            assert self._kept is not None
            return self._kept[positions]
        return read[torch.searchsorted(missing, positions)]

    def _keep(self, positions: Tensor, images: Tensor) -> bool:
        """Keep images in memory, where all of the Dataset fit; return whether they do."""
        if self.is_random or not len(positions) or self.length * images[0].numel() * 4 > MEMORY:
            return False
        if self._kept is None:
            self._kept = torch.empty(self.length, *self.shape)
        self._kept[positions], self._is_kept[positions] = images, True
        return True

    def _items(self, positions: Tensor, draw: str) -> tuple[Tensor, Tensor]:
        """Read items, each with random numbers of its own, and check them."""
        images, labels = [], []
        with _random_state_kept():
            for position in positions.tolist():
                _seed(f"{draw},{position}")
                where = f"image {position} of the {self.word} Dataset"
                try:
                    item = self.dataset[position]
                except UserError:
                    raise
                except Exception as error:  # the user's own code
                    raise UserError(f"{where} cannot be read: {error_summary(error)}") from error
                image, label = pair(item, where)
                images.append(pixels(image, where))
                labels.append(label_number(label, f"{where}:"))
                if images[-1].shape != images[0].shape:
                    raise UserError(
                        f"{where} has the shape {tuple(images[-1].shape)} and another one {tuple(images[0].shape)}: "
                        "give all of them one size"
                    )
        if not images:
            return torch.empty(0, *getattr(self, "shape", (0, 0, 0))), torch.empty(0, dtype=torch.int64)
        stacked = torch.stack(images)
        if tuple(stacked.shape[1:]) != getattr(self, "shape", tuple(stacked.shape[1:])):
            raise UserError(
                f"the {self.word} Dataset has images of shapes {self.shape} and {tuple(stacked.shape[1:])}: give all "
                "of them one size"
            )
        return stacked, torch.tensor(labels, dtype=torch.int64)


@dataclass(frozen=True)
class DatasetSubset:
    """Read images of a Dataset when they are needed.

    Attributes:
        part: The Dataset.
        labels: (N,) int64.
        indices: (N,) into the Dataset.
        draw: Which draw of a random augmentation is read.
    """

    part: DatasetPart
    labels: Tensor
    indices: Tensor
    draw: str = FIXED

    @property
    def images(self) -> Tensor:
        """(N, C, H, W): all images are read."""
        return self.take().images

    def __len__(self) -> int:
        return len(self.indices)

    def in_epoch(self, seed: int, epoch: int) -> DatasetSubset:
        """Return the images as a training reads them in an epoch: a random augmentation is drawn anew."""
        return replace(self, draw=f"{seed},{epoch}")

    def read(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Read the images (M, C, H, W) in [0, 1] and labels (M,) at positions (M,) of this subset."""
        return self.part.read(self.indices[positions], self.draw), self.labels[positions]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images and labels in order, ``size`` at a time."""
        for positions in torch.arange(len(self)).split(size):
            yield self.read(positions)

    def take(self, positions: Tensor | None = None) -> Subset:
        """Read the images at positions (M,) into memory; all images if None."""
        positions = torch.arange(len(self)) if positions is None else positions
        images, labels = self.read(positions)
        return Subset(images, labels, self.indices[positions])


@dataclass(frozen=True, kw_only=True)
class DatasetPair:
    """A data set of a user's training and test Dataset.

    Attributes:
        parts: The Datasets that are there.
        classes: Names of the classes.
        target: The class or function that gave them, for messages; it is never imported from here.
        recorded: Digests of the Datasets that a network was trained and tested on; None where nothing is known.
    """

    parts: Mapping[Part, DatasetPart] = field(repr=False)
    classes: tuple[str, ...]
    target: str = ""
    recorded: Mapping[str, str] | None = None
    name: str = "module"
    in_memory = False

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return next(iter(self.parts.values())).shape

    @property
    def labels(self) -> dict[str, Tensor]:
        """int64 tensor (N,) by part."""
        return {key: self._labels(key) for key in WORDS}

    def _labels(self, part: Part) -> Tensor:
        return self.parts[part].labels if part in self.parts else torch.empty(0, dtype=torch.int64)

    @property
    def description(self) -> dict[str, Any]:
        """What the Datasets hold, in plain values, as ``ImageFolders.description`` says it of folders."""
        words: dict[str, Part] = {"train": "full", "test": "test"}
        counts = {word: torch.bincount(self._labels(key), minlength=self.num_classes) for word, key in words.items()}
        return {
            "target": self.target,
            "shape": list(self.input_shape),
            "classes": list(self.classes),
            "counts": {word: count.tolist() for word, count in counts.items()},
            "files": {word: self.parts[key].digest if key in self.parts else "" for word, key in words.items()},
        }

    def prepare(self) -> None:
        """Do nothing: the Datasets are there."""

    def select(self, part: Part, indices: Tensor) -> DatasetSubset | Subset:
        """Return the images of a part at indices (N,).

        Raises:
            UserError: Training images that are not those that the network was trained on.
        """
        if part not in self.parts:
            empty = torch.empty(0, dtype=torch.int64)
            return Subset(torch.empty(0, *self.input_shape), empty, empty)
        self._check_recorded(part)
        return DatasetSubset(self.parts[part], self._labels(part)[indices], indices)

    def _check_recorded(self, part: Part) -> None:
        """Refuse other training images than those recorded; warn of other test images."""
        word = "train" if part == "full" else "test"
        if self.recorded is None or self.recorded[word] == self.parts[part].digest:
            return
        where = f"{self.target}: its {WORDS[part]} images or labels are not those that the network was {word}ed "
        if part == "full":
            raise UserError(f"{where}on; give the same Dataset, or take subset=test")
        warn_once(f"{where}on when its errors were counted")


def from_datasets(
    train: Any, test: Any, *, target: str = "", classes: Sequence[str] | None = None, num_classes: int | None = None
) -> DatasetPair:
    """Make a data set of two Datasets, of which one may be None.

    Args:
        train: Dataset of pairs (image, label): images as floats in [0, 1] or uint8 of shape (C, H, W), or of PIL;
            labels 0 to K - 1.
        test: The same for the test images.
        target: What gave them, for messages.
        classes: Names of the classes; None: those of the training Dataset's ``classes``, else the numbers.
        num_classes: Number of classes; None: that of the names, else of the labels.

    Raises:
        UserError: Datasets that cannot be read, or whose images or labels do not fit each other.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> images = TensorDataset(torch.rand(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
        >>> from_datasets(images, images).num_classes
        3
    """
    given: dict[Part, Any] = {"full": train, "test": test}
    parts: dict[Part, DatasetPart] = {}
    for key, one in given.items():
        if one is not None and (part := DatasetPart(one, key)).length:
            parts[key] = part
    if not parts:
        raise UserError(f"{target or 'the data'}: there is no image in the training or the test Dataset")
    shapes = {part.shape for part in parts.values()}
    if len(shapes) > 1:
        raise UserError(
            f"{target or 'the data'}: the training images have the shape {parts['full'].shape} and the test images "
            f"{parts['test'].shape}; give both one size"
        )
    names = classes if classes is not None else _class_names(train if train is not None else test)
    if num_classes is None:
        num_classes = _count_classes(parts, target) if names is None else len(names)
    if num_classes < 2:
        raise UserError(f"{target or 'the data'}: a classifier needs two or more classes, got {num_classes}")
    if (most := max(int(part.labels.max()) for part in parts.values())) >= num_classes:
        raise UserError(
            f"{target or 'the data'}: a label is {most}, but the labels of {num_classes} classes end before"
        )
    if names is None or len(names) != num_classes:
        names = list(map(str, range(num_classes)))
    return DatasetPair(parts=parts, classes=tuple(map(str, names)), target=target)


def _count_classes(parts: Mapping[Part, DatasetPart], target: str) -> int:
    """Count the classes by the labels, of which none from 0 to K - 1 may be missing."""
    present = torch.cat([part.labels for part in parts.values()]).unique().tolist()
    missing = next((number for number, label in enumerate(present) if number != label), None)
    if missing is not None:
        raise UserError(
            f"{target or 'the data'}: labels must be 0 to K - 1, but they reach {present[-1]} and no image has "
            f"{missing}; where that is right, the Dataset's attribute classes or the module's num_classes says so"
        )
    return len(present)


def from_given(given: Any, target: str) -> DatasetPair:
    """Make a data set of what a user's class or function gave: a LightningDataModule, or a pair of Datasets.

    Of a LightningDataModule the Datasets of ``train_dataloader`` and ``test_dataloader`` are read, of
    ``val_dataloader`` where there is no ``test_dataloader``.

    Raises:
        UserError: It is neither, or cannot be read.
    """
    if isinstance(given, lightning.LightningDataModule):
        train, test = _datasets_of_module(given, target)
        names, number = getattr(given, "classes", None), getattr(given, "num_classes", None)
        return from_datasets(train, test, target=target, classes=names, num_classes=number)
    if isinstance(given, tuple | list) and len(given) == 2:
        return from_datasets(*given, target=target)
    raise UserError(
        f"data._target_={target} gave a {type(given).__name__}; it must be a LightningDataModule, or a function that "
        "returns a pair of Datasets, (training, test)"
    )


def _datasets_of_module(module: lightning.LightningDataModule, target: str) -> tuple[Any, Any]:
    def overridden(name: str) -> bool:
        return getattr(type(module), name) is not getattr(lightning.LightningDataModule, name)

    def dataset(name: str) -> Any:
        loader = getattr(module, name)()
        if not isinstance(loader, DataLoader):
            raise UserError(f"{target}.{name}() must return one DataLoader, got a {type(loader).__name__}")
        return loader.dataset

    try:
        module.prepare_data()
        module.setup("fit")
        train = dataset("train_dataloader") if overridden("train_dataloader") else None
        module.setup("test" if overridden("test_dataloader") else "validate")
        if overridden("test_dataloader"):
            if overridden("val_dataloader"):
                warn_once(
                    f"{target}: val_dataloader is not read; data.validation=... sets training images apart to "
                    "validate on, and test_dataloader gives the test images"
                )
            return train, dataset("test_dataloader")
        return train, dataset("val_dataloader") if overridden("val_dataloader") else None
    except UserError:
        raise
    except Exception as error:  # the user's own code
        raise UserError(f"{target} cannot be set up without a Trainer: {error_summary(error)}") from error


def _listed_labels(dataset: Any) -> Tensor | None:
    """Return the labels that a Dataset lists, without reading an image; None where it lists none."""
    if isinstance(dataset, TorchSubset):
        whole = _listed_labels(dataset.dataset)
        return None if whole is None else whole[torch.as_tensor(list(dataset.indices), dtype=torch.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [_listed_labels(one) for one in dataset.datasets]
        return None if any(one is None for one in parts) else torch.cat([one for one in parts if one is not None])
    listed = dataset.tensors[1] if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1 else None
    if listed is None and getattr(dataset, "target_transform", None) is None:
        listed = next((getattr(dataset, key) for key in ("targets", "labels") if hasattr(dataset, key)), None)
    try:
        found = torch.as_tensor(np.asarray(listed) if isinstance(listed, Sequence) else listed)
    except (TypeError, ValueError, RuntimeError):
        return None
    whole_numbers = found.ndim == 1 and not found.is_floating_point() and found.dtype != torch.bool
    return found.to(torch.int64).cpu() if whole_numbers and (not len(found) or int(found.min()) >= 0) else None


def _class_names(dataset: Any) -> Sequence[str] | None:
    names = getattr(dataset, "classes", None)
    if names is None and isinstance(dataset, TorchSubset):
        return _class_names(dataset.dataset)
    if not isinstance(names, list | tuple) or len(names) < 2 or len(set(map(str, names))) < len(names):
        return None
    return [str(name) for name in names]


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Give back the global random states of torch, NumPy and Python as they were."""
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])


def _seed(text: str) -> None:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    torch.default_generator.manual_seed(seed >> 1)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
    random.seed(seed)

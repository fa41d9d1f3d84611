"""Data sets as whole tensors, splits by name, and the Lightning DataModule over them.

An image set is one float32 tensor in memory with pixels in [0, 1]; a training batch is one index operation into it.
That, and not workers, is what makes small networks train fast (a bare loop costs 1.0, per-item transforms about 8).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from intriguing.checks import choice
from intriguing.errors import UserError

if TYPE_CHECKING:
    from intriguing.image_folder import FolderSubset, ImageFolders

# sha256 of the four decompressed MNIST files as LeCun, Cortes and Burges published them.
MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
DIGITS_TEST, DIGITS_SEED = 360, 0  # scikit-learn's digits have no official test set: a stratified, fixed one
DATA_NAMES = ("mnist", "digits", "image_folder")
SUBSETS = ("train", "val", "test", "full", "p1", "p2")
SPLIT_NAMES = ("full", "p1", "p2")


@dataclass(frozen=True)
class ImageArrays:
    """One data set: the official training and test images, pixels in [0, 1].

    Attributes:
        name: ``mnist`` or ``digits``.
        images: subset name (``full``, ``test``) to float32 tensor (N, C, H, W).
        labels: subset name to int64 tensor (N,).
        num_classes: number of classes.
    """

    name: str
    images: dict[str, Tensor]
    labels: dict[str, Tensor]
    num_classes: int = 10

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return tuple(self.images["full"].shape[1:])

    def select(self, source: str, indices: Tensor) -> Subset:
        """Images of ``full`` or ``test`` by index."""
        images, labels = self.images[source], self.labels[source]
        whole = len(indices) == len(labels)
        return Subset(images, labels, indices) if whole else Subset(images[indices], labels[indices], indices)


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


def load_arrays(name: str, root: str | Path = "data", *, download: bool = True) -> ImageArrays:
    """Load a data set by name.

    Args:
        name: ``mnist`` (read by torchvision below ``root``, downloaded where that is possible, verified by sha256) or
            ``digits`` (scikit-learn's bundled 8x8 digits; needs no file and no network).
        root: folder in torchvision's layout (``root/MNIST/raw``).
        download: fetch MNIST when it is not there.

    Raises:
        UserError: unknown name; MNIST missing, damaged, or not to be downloaded.
    """
    if name == "digits":
        return _load_digits()
    if name == "mnist":
        return _load_mnist(str(Path(root).expanduser().resolve()), download)
    raise UserError(f"unknown data '{name}'; known: {', '.join(DATA_NAMES)}")


@lru_cache(maxsize=1)
def _load_digits() -> ImageArrays:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = torch.tensor(bunch.images / 16.0, dtype=torch.float32).unsqueeze(1)  # type: ignore[attr-defined]
    labels = torch.tensor(bunch.target, dtype=torch.int64)  # type: ignore[attr-defined]
    train, test = train_test_split(
        range(len(labels)), test_size=DIGITS_TEST, stratify=labels.numpy(), random_state=DIGITS_SEED
    )
    parts = {"full": sorted(train), "test": sorted(test)}
    return ImageArrays("digits", {k: images[v] for k, v in parts.items()}, {k: labels[v] for k, v in parts.items()})


@lru_cache(maxsize=1)
def _load_mnist(root: str, download: bool) -> ImageArrays:
    from torchvision.datasets import MNIST

    raw = Path(root) / "MNIST" / "raw"
    missing = [name for name in MNIST_FILES if not (raw / name).is_file()]
    if missing and download:
        _download_mnist(root)
        missing = [name for name in MNIST_FILES if not (raw / name).is_file()]
    if missing:
        raise UserError(
            f"MNIST is not there: put {', '.join(missing)} into {raw} (or set data.root / INTRIGUING_DATA to the "
            "folder that holds MNIST/raw); data=digits needs no files"
        )
    for name, digest in MNIST_FILES.items():
        if hashlib.sha256((raw / name).read_bytes()).hexdigest() != digest:
            raise UserError(
                f"{raw / name} is not the published MNIST file (sha256 differs); delete it and fetch it again"
            )
    images, labels = {}, {}
    for subset, train in (("full", True), ("test", False)):
        dataset = MNIST(root, train=train, download=False)
        images[subset] = dataset.data.to(torch.float32).div_(255).unsqueeze(1)
        labels[subset] = dataset.targets.to(torch.int64)
    return ImageArrays("mnist", images, labels)


def _download_mnist(root: str) -> None:
    """Let torchvision download and verify MNIST; where that fails, leave no trace of the attempt."""
    from torchvision.datasets import MNIST

    first_missing = Path(root)
    while not first_missing.parent.exists():
        first_missing = first_missing.parent
    existed = first_missing.exists()
    target = Path(root) / "MNIST" if existed else first_missing
    had_target = target.exists()
    try:
        MNIST(root, train=True, download=True)
    except (OSError, RuntimeError):  # no network, no mirror, no right to write: the caller says what to do
        if not had_target:
            shutil.rmtree(target, ignore_errors=True)


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


class TensorBatches(Dataset):
    """Images and labels indexed by a whole batch of indices at a time: ``self[indices] -> (images, labels)``."""

    def __init__(self, subset: Subset | FolderSubset) -> None:
        self.subset = subset

    def __getitem__(self, indices: Tensor) -> list[Tensor]:
        return list(self.subset.read(indices))

    def __len__(self) -> int:
        return len(self.subset)


class BatchIndices(Sampler[Tensor]):
    """Yields one index tensor a batch, in an order that depends on the seed and the epoch alone.

    Args:
        num_images: how many images there are.
        batch_size: images of the *global* batch; with several processes each takes its share of every batch, so that
            the gradient does not depend on how many processes there are.
        seed: seed of the orders; None keeps the images in order (evaluation).
        rank, world_size: this process and how many there are.
    """

    def __init__(
        self, num_images: int, batch_size: int, *, seed: int | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.rank, self.world_size, self.epoch = rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        # A generator on purpose: it reads the epoch at the first next(). A resumed Trainer builds the iterator before
        # it sets the epoch, and would otherwise replay the order of epoch 0.
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
    """Lightning DataModule over whole tensors, or over folders of images that are read batch by batch.

    Args:
        name: data set, see ``load_arrays``.
        root: where MNIST lies.
        split: ``full`` (all official training images), ``p1`` or ``p2`` (its fixed, disjoint halves).
        split_seed: seed of the halves.
        validation: number of training images of the split set apart for validation (the last of a seeded order; 0:
            train on all, as the paper does).
        only: train on so many images alone (the first ones; of folders, drawn), to see whether a network learns at
            all; None: on all.
        batch_size: images of the global batch.
        seed: seed of the order of the images.
        download: fetch MNIST when it is not there.
        folder: of ``image_folder``: where ``train/<class>`` and ``test/<class>`` lie, absolute or below ``root``.
        size, resize, workers: of ``image_folder``, see ``image_folder.FolderSubset``.

    Raises:
        UserError: unknown name or split, or sizes that do not fit.
    """

    def __init__(
        self,
        *,
        name: str,
        root: str = "data",
        split: str = "full",
        split_seed: int = 0,
        validation: int = 0,
        only: int | None = None,
        batch_size: int = 100,
        seed: int = 0,
        download: bool = True,
        folder: str | None = None,
        size: int = 224,
        resize: int | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        choice("split", split, SPLIT_NAMES)
        if batch_size < 1:
            raise UserError(f"data.batch_size must be at least 1, got {batch_size}")
        self.arrays: ImageArrays | ImageFolders
        if name == "image_folder":
            from intriguing.image_folder import open_folders

            if not folder:
                raise UserError("data=image_folder needs data.folder=..., which holds train/<class> and test/<class>")
            self.arrays = open_folders(Path(root) / folder, size=size, resize=resize, workers=workers)
            self._in_folder = {"folder": folder, "size": size, "resize": resize}
        else:
            self.arrays, self._in_folder = load_arrays(name, root, download=download), {}
        self.split, self.split_seed, self.batch_size, self.seed = split, split_seed, batch_size, seed
        num_images = len(self._indices(split))
        if not 0 <= validation < max(1, num_images):
            raise UserError(f"data.validation must be in [0, {num_images}), got {validation}")
        self.validation, self.only = validation, only

    @property
    def description(self) -> dict[str, str | int | None]:
        """Which images these are, in plain values: what an attack must know to find a network's training images."""
        return {
            "name": self.arrays.name,
            "split": self.split,
            "split_seed": self.split_seed,
            "validation": self.validation,
            "only": self.only,
            **self._in_folder,
        }

    def _indices(self, subset: str) -> Tensor:
        """Indices (N,) into the official training set (for ``test``: into the official test set), sorted."""
        num_full = len(self.arrays.labels["full"])
        if subset == "test":
            return torch.arange(len(self.arrays.labels["test"]))
        if subset == "full":
            return torch.arange(num_full)
        if subset in ("p1", "p2"):
            return half_indices(num_full, subset, self.split_seed)
        own = self._indices(self.split)
        order = torch.randperm(len(own), generator=torch.Generator().manual_seed(self.split_seed + 1))
        cut = len(own) - self.validation
        chosen = own[(order[:cut] if subset == "train" else order[cut:]).sort().values]
        if subset != "train" or self.only is None:
            return chosen
        if self._in_folder:  # whose images lie class by class: the first ones would all be of one
            generator = torch.Generator().manual_seed(self.split_seed + 2)
            chosen = chosen[torch.randperm(len(chosen), generator=generator)]
        return chosen[: self.only].sort().values

    def subset(self, name: str) -> Subset | FolderSubset:
        """Images by name: ``train`` (what the network trains on), ``val``, ``test``, ``full``, ``p1``, ``p2``."""
        choice("subset", name, SUBSETS)
        return self.arrays.select("test" if name == "test" else "full", self._indices(name))

    def _loader(self, subset: str, batch_size: int, seed: int | None) -> DataLoader:
        batches = TensorBatches(self.subset(subset))
        if not len(batches):
            raise UserError(f"{self.arrays.name}: there are no {subset} images (data.folder without that folder)")
        rank, world_size = 0, 1
        if self.trainer is not None and seed is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        sampler = BatchIndices(len(batches), batch_size, seed=seed, rank=rank, world_size=world_size)
        return DataLoader(batches, sampler=sampler, batch_size=None)

    def train_dataloader(self) -> DataLoader:
        return self._loader("train", self.batch_size, self.seed)

    def val_dataloader(self) -> DataLoader | list:
        return self._loader("val", 1000, None) if self.validation else []

    def test_dataloader(self) -> DataLoader:
        return self._loader("test", 1000, None)

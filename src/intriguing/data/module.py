"""Data sets as whole tensors, splits by name, and the Lightning DataModule over them.

An image set is one float32 tensor in memory with pixels in [0, 1]; a training batch is one index operation into it.
That, and not workers, is what makes small networks train fast (a bare loop costs 1.0, per-item transforms about 8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from intriguing.data.arrays import MNIST_SHAPE, ImageArrays, fetch_mnist, load_arrays
from intriguing.data.folders import FolderSubset, ImageFolders, open_folders, tell_once
from intriguing.data.subsets import DATA_NAMES, SPLIT_NAMES, SUBSETS, Subset, half_indices
from intriguing.errors import UserError
from intriguing.storage.ranks import is_first_process
from intriguing.validation import choice, flag, whole

if TYPE_CHECKING:
    from intriguing.data.folders import FolderSubset, ImageFolders


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

    The images are there once it is made. Only the further processes of a distributed fit wait for MNIST until Lightning
    calls ``setup``: the first process, and one on every other node, downloads it before (``prepare_data``).

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
        classes, counts, files: of ``image_folder``: what the folder held when a network was trained on it
            (``image_folder.ImageFolders.content``); None: nothing is known of that. Other classes are refused; other
            training files where training images are asked for.

    Raises:
        UserError: unknown name or split, sizes that do not fit, or a folder that is not the recorded one.
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
        classes: Sequence[str] | None = None,
        counts: Mapping[str, Sequence[int]] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        choice("split", split, SPLIT_NAMES)
        if batch_size < 1:
            raise UserError(f"data.batch_size must be at least 1, got {batch_size}")
        self.split, self.split_seed, self.batch_size, self.seed = split, split_seed, batch_size, seed
        self.validation, self.only = validation, only
        self._source, self._root, self._download = name, root, download
        self._loaded: ImageArrays | ImageFolders | None = None
        self._in_folder: dict[str, Any] = {}
        self._recorded_files = files
        if name == "image_folder":
            if not folder:
                raise UserError("data=image_folder needs data.folder=..., which holds train/<class> and test/<class>")
            where = Path(root).expanduser() / Path(folder).expanduser()
            folders = open_folders(where, size=size, resize=resize, workers=workers)
            if classes is not None:
                folders.check_classes(classes)
            if folders.num_classes < 2:
                raise UserError(
                    f"{folders.root} holds one class, {folders.classes[0]}; a classifier needs two or more folders of "
                    "classes"
                )
            self._loaded = folders
            self._in_folder = {"folder": folder, "size": size, "resize": resize, **folders.content}
        if name != "mnist" or is_first_process():
            self.prepare_data()
            self.setup()

    def prepare_data(self) -> None:
        """Download MNIST if it is missing; Lightning calls this in one process of each node."""
        if self._source == "mnist" and self._download:
            fetch_mnist(self._root)

    def setup(self, stage: str | None = None) -> None:
        """Load the images, unless they are.

        Raises:
            UserError: they are not there, or ``validation`` does not fit them.
        """
        if self._loaded is None:
            self._loaded = load_arrays(self._source, self._root, download=False)
        num_images = len(self._indices(self.split))
        if not 0 <= self.validation < max(1, num_images):
            raise UserError(f"data.validation must be in [0, {num_images}), got {self.validation}")

    @property
    def arrays(self) -> ImageArrays | ImageFolders:
        """The whole data set."""
        if self._loaded is None:
            self.setup()
        assert self._loaded is not None
        return self._loaded

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image; known before the images are there."""
        return MNIST_SHAPE if self._source == "mnist" else self.arrays.input_shape

    @property
    def num_classes(self) -> int:
        """Number of classes; known before the images are there."""
        return 10 if self._source == "mnist" else self.arrays.num_classes

    @property
    def description(self) -> dict[str, Any]:
        """Which images these are, in plain values: what an attack must know to find a network's training images."""
        return {
            "name": self._source,
            "split": self.split,
            "split_seed": self.split_seed,
            "validation": self.validation,
            "only": self.only,
            **self._in_folder,
        }

    def require(self, *subsets: str) -> None:
        """Raises UserError, naming what is missing, where one of these subsets has no images."""
        for name in subsets:
            if not len(self._indices(name)):
                if name == "val":
                    why = "no training images were set apart (data.validation=0)"
                else:
                    why = (
                        f"{getattr(self.arrays, 'root', '')} has no {'test/ (or val/)' if name == 'test' else 'train/'}"
                    )
                raise UserError(f"{self._source}: there are no {name} images: {why}")

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
        self._check_files("test" if name == "test" else "train")
        return self.arrays.select("test" if name == "test" else "full", self._indices(name))

    def _check_files(self, part: str) -> None:
        """Training files must be those that the network was trained on; others to test it on are worth a word."""
        if self._recorded_files is None or self._recorded_files[part] == self._in_folder["files"][part]:
            return
        where = f"{self._in_folder['folder']}: the {part} files are not those that the network was {part}ed "
        if part == "train":
            raise UserError(
                f"{where}on (their names or lengths differ), so its training images cannot be told; give "
                "data.folder=... with the same files, or take subset=test"
            )
        tell_once(f"{where}on when its errors were counted (their names or lengths differ)")

    def _loader(self, subset: str, batch_size: int, seed: int | None) -> DataLoader:
        self.require(subset)
        batches = TensorBatches(self.subset(subset))
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


def images_of_network(own: Mapping[str, Any] | None, given: Mapping[str, Any], network: str) -> dict[str, Any]:
    """The arguments of ``ImageData`` for the images of a trained network, wherever they lie now.

    Args:
        own: the images as its checkpoint describes them (``ImageData.description``).
        given: the ``data`` settings of attack.py or analyze.py: ``root``, ``download``; and, where they are not None,
            ``name``, ``folder``, ``size``, ``resize``, ``workers``.
        network: what the network is called in a message.

    Raises:
        UserError: see ``check_given``; a checkpoint that does not say which images it was trained on.
    """
    if not own or not own.keys() >= {"name", "split", "split_seed"}:
        raise UserError(f"{network} does not say which images it was trained on")
    choice("data", own["name"], DATA_NAMES)
    check_given(own, given, network)
    found = {**own, "root": given["root"] or "data", "download": flag("data.download", given["download"])}
    if own["name"] != "image_folder":
        return found
    if "classes" not in own:
        raise UserError(f"{network} does not say which classes it was trained on: train it with this version")
    if given.get("folder"):
        found["folder"] = str(given["folder"])
    return found | {"workers": whole("data.workers", given.get("workers") or 0, 0)}


def check_given(own: Mapping[str, Any], given: Mapping[str, Any], network: str) -> None:
    """Raises UserError for a setting of images that is not the network's, or has no meaning for them.

    Args:
        own: ``name`` of the network's data; for folders of images ``size`` and ``resize``.
        given, network: see ``images_of_network``.
    """
    name = own.get("name")
    if given["name"] not in (None, name):
        raise UserError(f"{network} was trained on {name}, so data={given['name']} cannot be")
    if name != "image_folder":
        for key in ("folder", "size", "resize", "workers"):
            if given.get(key):
                raise UserError(f"{network} was trained on {name}, for which data.{key}={given[key]} changes nothing")
        return
    its = {"size": own["size"], "resize": own["resize"] or own["size"]}
    for key, value in its.items():
        if given.get(key) not in (None, value):
            raise UserError(
                f"{network} was trained on images of data.{key}={value}, so data.{key}={given[key]} cannot be"
            )


# What attack.py and analyze.py read of the data settings; the rest is the network's own.
READ_AFTER_TRAINING = ("root", "download", "folder", "size", "resize", "workers")


def check_typed(overrides: Sequence[str]) -> None:
    """Raises UserError for a data setting typed to attack.py or analyze.py that neither of them reads."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.startswith("data.") and key.removeprefix("data.") not in READ_AFTER_TRAINING:
            raise UserError(
                f"{override} changes nothing here: the images are those of the network's training; of the data "
                f"settings, {', '.join(READ_AFTER_TRAINING)} are read"
            )

"""Load data sets that fit in memory as whole tensors: MNIST, CIFAR-10 and scikit-learn's digits."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from intriguing.data.subsets import Part, Subset
from intriguing.errors import UserError
from intriguing.storage.files import file_sha256

# sha256 of the four decompressed MNIST files as LeCun, Cortes and Burges published them.
MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
# (C, H, W) and classes, known before any image is
SHAPES = {"mnist": ((1, 28, 28), 10), "digits": ((1, 8, 8), 10), "cifar10": ((3, 32, 32), 10)}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS_TEST, DIGITS_SEED = 360, 0  # scikit-learn's digits have no official test set: a stratified, fixed one


@dataclass(frozen=True, repr=False)
class ImageArrays:
    """Hold a data set in memory.

    Attributes:
        name: Name of the data set.
        images: float32 tensor (N, C, H, W) in [0, 1], by part: ``full`` (training) and ``test``.
        labels: int64 tensor (N,), by part.
        num_classes: Number of classes.
    """

    name: str
    images: dict[str, Tensor]
    labels: dict[str, Tensor]
    num_classes: int = 10
    in_memory = True

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in words, or their numbers."""
        return _class_names(self.name, self.num_classes)

    def __repr__(self) -> str:
        train, test = len(self.labels["full"]), len(self.labels["test"])
        return f"ImageArrays({self.name}, {train:,} training and {test:,} test images)"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return tuple(self.images["full"].shape[1:])

    @property
    def description(self) -> dict[str, Any]:
        """Shape and classes; nothing of a data set whose name says all."""
        known = self.name in SHAPES
        return {} if known else {"shape": list(self.input_shape), "num_classes": self.num_classes}

    def prepare(self) -> None:
        """Do nothing: the images are there."""

    def select(self, part: Part, indices: Tensor) -> Subset:
        """Return the images of a part at indices (N,)."""
        images, labels = self.images[part], self.labels[part]
        whole = len(indices) == len(labels)
        return Subset(images, labels, indices) if whole else Subset(images[indices], labels[indices], indices)


def _class_names(name: str, num_classes: int) -> tuple[str, ...]:
    return CIFAR10_CLASSES if name == "cifar10" else tuple(map(str, range(num_classes)))


def blank(shape: Sequence[int], num_classes: int) -> ImageArrays:
    """Make a data set without images, for a network that is built and not trained.

    Args:
        shape: (C, H, W) of the images that the network takes.
        num_classes: Number of classes.
    """
    images = {part: torch.zeros(0, *shape) for part in ("full", "test")}
    labels = {part: torch.zeros(0, dtype=torch.int64) for part in ("full", "test")}
    return ImageArrays("blank", images, labels, num_classes)


class Published:
    """Load a published data set when its images are first asked for; shape and classes are known before.

    Args:
        root: Folder in torchvision's layout.
        download: Whether ``prepare`` downloads missing files.
    """

    name: ClassVar[str]
    in_memory = True

    def __init__(self, root: str | Path = "data", *, download: bool = True) -> None:
        self._root, self._download = Path(root).expanduser().resolve(), download

    @property
    def arrays(self) -> ImageArrays:
        """The images and labels.

        Raises:
            UserError: A file is missing or damaged.
        """
        raise NotImplementedError

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return SHAPES[self.name][0]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return SHAPES[self.name][1]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in words, or their numbers."""
        return _class_names(self.name, self.num_classes)

    @property
    def labels(self) -> dict[str, Tensor]:
        """int64 tensor (N,) by part."""
        return self.arrays.labels

    @property
    def description(self) -> dict[str, Any]:
        """Nothing: the name says all."""
        return {}

    def prepare(self) -> None:
        """Download the files that are missing, if that is allowed."""
        if self._download:
            self._fetch()

    def _fetch(self) -> None:
        raise NotImplementedError

    def select(self, part: Part, indices: Tensor) -> Subset:
        """Return the images of a part at indices (N,)."""
        return self.arrays.select(part, indices)


class Mnist(Published):
    """MNIST: 60,000 and 10,000 images of 28x28 pixels, in ``root/MNIST/raw``."""

    name = "mnist"

    @property
    def arrays(self) -> ImageArrays:
        """The images and labels.

        Raises:
            UserError: A file is missing or damaged.
        """
        return _load_mnist(self._root)

    def _fetch(self) -> None:
        fetch_mnist(self._root)


class Cifar10(Published):
    """CIFAR-10: 50,000 and 10,000 images in colour of 32x32 pixels, in ``root/cifar-10-batches-py``."""

    name = "cifar10"

    @property
    def arrays(self) -> ImageArrays:
        """The images and labels.

        Raises:
            UserError: A file is missing or damaged.
        """
        return _load_cifar10(self._root)

    def _fetch(self) -> None:
        fetch_cifar10(self._root)


@lru_cache(maxsize=1)
def digits() -> ImageArrays:
    """Load scikit-learn's bundled 8x8 digits (1437 training and 360 test images); no file and no network is needed."""
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
def _load_mnist(root: Path) -> ImageArrays:
    from torchvision.datasets import MNIST

    raw = root / "MNIST" / "raw"
    if missing := _missing_mnist(root):
        raise UserError(
            f"MNIST is not there: put {', '.join(missing)} into {raw} (or set data.root / INTRIGUING_DATA to the "
            "folder that holds MNIST/raw); data=digits needs no files"
        )
    for name, digest in MNIST_FILES.items():
        if file_sha256(raw / name) != digest:
            raise UserError(
                f"{raw / name} is not the published MNIST file (sha256 differs); delete it and fetch it again"
            )
    images, labels = {}, {}
    for part, train in (("full", True), ("test", False)):
        dataset = MNIST(root, train=train, download=False)
        images[part] = dataset.data.to(torch.float32).div_(255).unsqueeze(1)
        labels[part] = dataset.targets.to(torch.int64)
    return ImageArrays("mnist", images, labels)


def _missing_mnist(root: Path) -> list[str]:
    return [name for name in MNIST_FILES if not (root / "MNIST" / "raw" / name).is_file()]


def fetch_mnist(root: str | Path) -> None:
    """Download the MNIST files that are missing below ``root``, if a mirror can be reached.

    They are downloaded into a temporary folder and moved one by one, so that other processes that do so at the same
    time see whole files only, and lose none if this one fails. A failure is silent and leaves nothing behind; loading
    the files names those that are missing.
    """
    from torchvision.datasets import MNIST

    root = Path(root).expanduser().resolve()
    if not (missing := _missing_mnist(root)):
        return
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".mnist-") as own:
            MNIST(own, train=True, download=True)
            raw = root / "MNIST" / "raw"
            raw.mkdir(parents=True, exist_ok=True)
            for name in missing:
                (Path(own) / "MNIST" / "raw" / name).replace(raw / name)
    except (OSError, RuntimeError):  # no network, no mirror, no right to write
        return


@lru_cache(maxsize=1)
def _load_cifar10(root: Path) -> ImageArrays:
    from torchvision.datasets import CIFAR10

    images, labels = {}, {}
    for part, train in (("full", True), ("test", False)):
        try:
            dataset = CIFAR10(root, train=train, download=False)  # compares digests before it opens a file
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"CIFAR-10 is not there, or damaged: put cifar-10-batches-py into {root} (or set data.root / "
                "INTRIGUING_DATA to the folder that holds it); data.folder=... reads a folder of its images, "
                "train/<class> and test/<class>"
            ) from error
        images[part] = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous().float().div_(255)
        labels[part] = torch.tensor(dataset.targets, dtype=torch.int64)
    return ImageArrays("cifar10", images, labels)


def fetch_cifar10(root: str | Path) -> None:
    """Download CIFAR-10 below ``root`` where it is missing, if its server can be reached.

    It is downloaded into a temporary folder and moved as a whole. A failure is silent and leaves nothing behind;
    loading says that the files are missing.
    """
    from torchvision.datasets import CIFAR10

    root = Path(root).expanduser().resolve()
    target = root / CIFAR10.base_folder
    if target.exists():
        return
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".cifar10-") as own:
            CIFAR10(own, train=True, download=True)
            root.mkdir(parents=True, exist_ok=True)
            (Path(own) / CIFAR10.base_folder).rename(target)
    except (OSError, RuntimeError):  # no network, no right to write, or another process was faster
        return

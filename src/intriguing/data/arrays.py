"""Data sets that fit in memory, as whole tensors: MNIST and scikit-learn's digits."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from intriguing.data.subsets import DATA_NAMES, Subset
from intriguing.errors import UserError

# sha256 of the four decompressed MNIST files as LeCun, Cortes and Burges published them.
MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST_SHAPE = (1, 28, 28)
SHAPES = {"mnist": (MNIST_SHAPE, 10), "digits": ((1, 8, 8), 10)}  # (C, H, W) and classes, known before any image is
DIGITS_TEST, DIGITS_SEED = 360, 0  # scikit-learn's digits have no official test set: a stratified, fixed one


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
        if download:
            fetch_mnist(root)
        return _load_mnist(str(Path(root).expanduser().resolve()))
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
def _load_mnist(root: str) -> ImageArrays:
    from torchvision.datasets import MNIST

    raw = Path(root) / "MNIST" / "raw"
    if missing := _missing_mnist(Path(root)):
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


def _missing_mnist(root: Path) -> list[str]:
    return [name for name in MNIST_FILES if not (root / "MNIST" / "raw" / name).is_file()]


def fetch_mnist(root: str | Path) -> None:
    """Download the MNIST files that are not below ``root``, where that is possible.

    They are downloaded into a folder of this process's own and moved one by one, so that other processes that do the
    same meet whole files only, and lose none where this one fails. A failure is silent and leaves nothing behind: who
    loads the files says which are missing.
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

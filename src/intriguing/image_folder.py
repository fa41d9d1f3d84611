"""Images in folders, one folder a class: read when they are needed, so a set may be larger than memory.

The layout is torchvision's ImageFolder: ``train/<class>/*.jpg`` and ``test/<class>/*.jpg`` (or ``val``, as ImageNet's
validation images lie). Classes are numbered in the order of their names, as in the paper's ImageNet.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from intriguing.data import Subset
from intriguing.errors import UserError

HELD_OUT = ("test", "val")  # whose images are the held-out ones, the first that is there


@dataclass(frozen=True)
class FolderSubset:
    """Some images of a folder, none of them in memory.

    Attributes:
        files: their paths.
        labels: (N,) int64.
        indices: (N,) into the sorted files of the whole folder.
        size: height and width an image is cropped to, from its centre.
        resize: length its shorter side is brought to before that.
        workers: threads that read; 0 reads in the caller's.
    """

    files: tuple[str, ...]
    labels: Tensor
    indices: Tensor
    size: int
    resize: int
    workers: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def read(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Images (M, 3, size, size) in [0, 1] and labels (M,) at positions (M,) of this subset.

        Raises:
            UserError: a file that is no image.
        """
        files = [self.files[i] for i in positions.tolist()]
        if self.workers:
            with ThreadPoolExecutor(self.workers) as pool:
                images = list(pool.map(self._image, files))
        else:
            images = [self._image(file) for file in files]
        pixels = torch.stack(images) if images else torch.empty(0, 3, self.size, self.size)
        return pixels.float().div_(255), self.labels[positions]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, ``size`` at a time, each read when its turn comes."""
        for positions in torch.arange(len(self)).split(size):
            yield self.read(positions)

    def take(self, positions: Tensor) -> Subset:
        """These images, read into memory."""
        images, labels = self.read(positions)
        return Subset(images, labels, self.indices[positions])

    def _image(self, file: str) -> Tensor:
        from torchvision.transforms.functional import center_crop, pil_to_tensor

        try:
            with Image.open(file) as image:
                return center_crop(pil_to_tensor(self._resized(image.convert("RGB"))), [self.size])
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise UserError(f"{file} is not an image that can be read: delete it or replace it ({error})") from error

    def _resized(self, image: Image.Image) -> Image.Image:
        scale = self.resize / min(image.size)
        width, height = (max(self.resize, round(scale * length)) for length in image.size)
        return image.resize((width, height), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class ImageFolders:
    """A data set in folders; the counterpart of ``data.ImageArrays``.

    Attributes:
        name: ``image_folder``.
        classes: names, sorted; a label is an index into them.
        files: by ``full`` (the training images; empty where there is no ``train``) and ``test``.
        labels: the same, int64 (N,).
        size, resize, workers: see ``FolderSubset``.
    """

    classes: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    labels: dict[str, Tensor]
    size: int
    resize: int
    workers: int
    name: str = "image_folder"

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return 3, self.size, self.size

    def select(self, source: str, indices: Tensor) -> FolderSubset:
        """Images of ``full`` or ``test`` by index."""
        files = self.files[source]
        chosen = tuple(files[i] for i in indices.tolist())
        return FolderSubset(chosen, self.labels[source][indices], indices, self.size, self.resize, self.workers)


def open_folders(root: str | Path, *, size: int, resize: int | None = None, workers: int = 0) -> ImageFolders:
    """Look which images there are, without reading one.

    Args:
        root: the folder that holds ``train`` and ``test`` (or ``val``); one of the two is enough to be evaluated on.
        size, resize, workers: see ``FolderSubset``; ``resize`` is ``size`` if None.

    Raises:
        UserError: a folder that is missing, empty or of another layout; training and held-out classes that differ.
    """
    resize = size if resize is None else resize
    if size < 1 or resize < size:
        raise UserError(f"data.size must be at least 1 and data.resize at least as much, got {size} and {resize}")
    return _open(str(Path(root).expanduser().resolve()), size, resize, workers)


@lru_cache(maxsize=2)
def _open(root: str, size: int, resize: int, workers: int) -> ImageFolders:
    held_out = next((name for name in HELD_OUT if (Path(root) / name).is_dir()), None)
    parts = {"full": "train" if (Path(root) / "train").is_dir() else None, "test": held_out}
    if not any(parts.values()):
        raise UserError(
            f"{root} holds neither train/ nor test/ (or val/): expected the layout train/<class>/*.jpg and "
            "test/<class>/*.jpg; set data.folder"
        )
    found = {key: _scan(Path(root) / name) for key, name in parts.items() if name}
    classes = next(iter(found.values()))[0]
    for key, (theirs, _, _) in found.items():
        if theirs != classes:
            differ = sorted(set(theirs) ^ set(classes))
            raise UserError(
                f"{root}: train and {parts[key]} must have the same classes, but not both have {', '.join(differ[:5])}"
            )
    return ImageFolders(
        classes=classes,
        files={key: found[key][1] if key in found else () for key in parts},
        labels={key: found[key][2] if key in found else torch.empty(0, dtype=torch.int64) for key in parts},
        size=size,
        resize=resize,
        workers=workers,
    )


def _scan(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...], Tensor]:
    """Classes, files and labels of one folder of classes."""
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(folder))
    except (FileNotFoundError, OSError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{folder} must hold one folder a class, each with images: {line}") from error
    files, labels = zip(*found.samples, strict=True)
    return tuple(found.classes), files, torch.tensor(labels, dtype=torch.int64)

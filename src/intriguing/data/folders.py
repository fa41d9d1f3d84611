"""Images in folders, one folder a class: read when they are needed, so a set may be larger than memory.

The layout is torchvision's ImageFolder: ``train/<class>/*.jpg`` and ``test/<class>/*.jpg`` (or ``val``, as ImageNet's
validation images lie). Classes are numbered in the order of their names, as in the paper's ImageNet.

Every image becomes three channels in [0, 1], upright as its EXIF entry says; of an animation or a file of several pages
the first image is read. Grey images get three equal channels. Black and white are those of the file's type, never
those of the image: 0 and 255 in 8 bits, 0 and 65535 in 16 bits and in whole numbers of 32 bits, 0 and 4095 in 12 bits,
0 and 1 in floating point. An image with values beyond them is refused by name. Transparent parts show ``BACKGROUND``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from intriguing.data.subsets import Subset
from intriguing.errors import UserError, shown
from intriguing.storage.ranks import is_first_process
from intriguing.validation import whole

log = logging.getLogger(__name__)
HELD_OUT = ("test", "val")  # whose images are the held-out ones, the first that is there
SIZE = 224  # pixels of a side, where nothing else is asked for
BACKGROUND = (255, 255, 255)  # red, green, blue behind transparent pixels: white, as a page shows them
SUFFIXES = frozenset(
    f".{ending}"
    for ending in ("bmp", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff")
) | {".webp"}
"""Files with these endings are images, in upper case too; others are passed over and counted."""
# What systems leave in folders. Together with hidden names (.DS_Store, ._photo.png) it is neither read nor counted.
CLUTTER = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"))


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
            UserError: a file that is no image, or whose pixels are outside the range of its type.
        """
        files = [self.files[i] for i in positions.tolist()]
        if self.workers:
            with ThreadPoolExecutor(self.workers) as pool:
                images = list(pool.map(self._image, files))
        else:
            images = [self._image(file) for file in files]
        pixels = torch.stack(images) if images else torch.empty(0, 3, self.size, self.size)
        return pixels, self.labels[positions]

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

        pixels = center_crop(pil_to_tensor(self._resized(decode(file))), [self.size])
        if pixels.is_floating_point():  # one channel; interpolation may leave [0, 1] by a rounding error
            return pixels.clamp(0, 1).expand(3, -1, -1)
        return pixels.float().div_(255)

    def _resized(self, image: Image.Image) -> Image.Image:
        scale = self.resize / min(image.size)
        width, height = (max(self.resize, round(scale * length)) for length in image.size)
        return image.resize((width, height), Image.Resampling.BILINEAR)


def decode(file: str) -> Image.Image:
    """Read one image file, upright and without transparency.

    Returns:
        Mode RGB; or mode F, one channel in [0, 1], for an image of more than 8 bits.

    Raises:
        UserError: the file is no image, is damaged, or has pixels outside the range of its type.
    """
    try:
        with Image.open(file) as image:
            tags = getattr(image, "tag_v2", {})
            deep = {"bits": tags.get(258), "white_is_zero": tags.get(262) == 0}  # BitsPerSample, Photometric of a TIFF
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                return _unit_range(image, file, **deep)
            if not image.has_transparency_data:
                return image.convert("RGB")
            above = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", above.size, (*BACKGROUND, 255)), above).convert("RGB")
    except UserError:
        raise
    except Exception as error:  # decoders of damaged files raise errors of many kinds
        why = shown(" ".join(str(error).split()) or type(error).__name__, 200)
        raise UserError(f"{file} is not an image that can be read: delete it or replace it ({why})") from error


def _unit_range(image: Image.Image, file: str, *, bits: Any, white_is_zero: bool) -> Image.Image:
    """An image of more than 8 bits and one channel, divided by its type's white."""
    stored = np.asarray(image)
    kind, white = ("floating point", 1) if image.mode == "F" else ("whole numbers", 4095 if bits == (12,) else 65535)
    low, high = float(stored.min()), float(stored.max())
    if not (low >= 0 and high <= white):  # also where they are nan
        raise UserError(
            f"{file} has pixels from {low:g} to {high:g}, but an image in {kind} is read from 0 (black) to {white} "
            "(white): scale its pixels, or store it in 8 bits"
        )
    pixels = stored.astype(np.float32) / np.float32(white)
    if white_is_zero:
        pixels = 1 - pixels
    if isinstance(clear := image.info.get("transparency"), int):  # the one grey that a PNG file says is transparent
        pixels[stored == clear] = BACKGROUND[0] / 255
    return Image.fromarray(pixels)


@dataclass(frozen=True)
class ImageFolders:
    """A data set in folders; the counterpart of ``data.ImageArrays``.

    Attributes:
        root: the folder that holds the parts.
        classes: names, sorted; a label is an index into them.
        files: by ``full`` (the training images; empty where there is no ``train``) and ``test``.
        labels: the same, int64 (N,).
        digests: the same, sha256 of the files' names below the class folders and their lengths in bytes.
        size, resize, workers: see ``FolderSubset``.
        name: ``image_folder``.
    """

    root: str
    classes: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    labels: dict[str, Tensor]
    digests: dict[str, str]
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

    @property
    def content(self) -> dict[str, Any]:
        """What the folder holds, wherever it lies, in plain values.

        Returns:
            ``classes``, their names; ``counts``, images of each class in ``train`` and ``test``; ``files``, a sha256 of
            the list of files of each.
        """
        parts = {"train": "full", "test": "test"}
        counts = {part: torch.bincount(self.labels[key], minlength=self.num_classes) for part, key in parts.items()}
        return {
            "classes": list(self.classes),
            "counts": {part: count.tolist() for part, count in counts.items()},
            "files": {part: self.digests[key] for part, key in parts.items()},
        }

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raises UserError where these are not the classes of the folder: their numbers would mean others."""
        if tuple(classes) != self.classes:
            lacks, more = sorted(set(classes) - set(self.classes)), sorted(set(self.classes) - set(classes))
            both = [f"lacks {_named(lacks)}"] * bool(lacks) + [f"has {_named(more)} besides"] * bool(more)
            raise UserError(
                f"{self.root} does not hold the classes that the network was trained on: it "
                f"{' and '.join(both) or 'has them in another order'}; give data.folder=... with the same classes, or "
                "train the network again"
            )

    def select(self, source: str, indices: Tensor) -> FolderSubset:
        """Images of ``full`` or ``test`` by index."""
        files = self.files[source]
        chosen = tuple(files[i] for i in indices.tolist())
        return FolderSubset(chosen, self.labels[source][indices], indices, self.size, self.resize, self.workers)


def open_folders(root: str | Path, *, size: int, resize: int | None = None, workers: int = 0) -> ImageFolders:
    """Look which images there are, without reading one.

    Hidden files and what systems leave in folders (``CLUTTER``) are ignored. Other files that are no images by their
    names (``SUFFIXES``) are passed over, and a warning says how many.

    Args:
        root: the folder that holds ``train`` and ``test`` (or ``val``); one of the two is enough to be evaluated on.
        size, resize, workers: see ``FolderSubset``; ``resize`` is ``size`` if None.

    Raises:
        UserError: a folder that is missing, empty or of another layout; training and held-out classes that differ;
            names of classes that are one but for the way their letters are stored.
    """
    resize = size if resize is None else resize
    if size < 1 or resize < size:
        raise UserError(f"data.size must be at least 1 and data.resize at least as much, got {size} and {resize}")
    folder = Path(root).expanduser().resolve()
    held_out = next((name for name in HELD_OUT if (folder / name).is_dir()), None)
    parts = {"full": "train" if (folder / "train").is_dir() else None, "test": held_out}
    if not any(parts.values()):
        raise UserError(
            f"{folder} holds neither train/ nor test/ (or val/): expected the layout train/<class>/*.jpg and "
            "test/<class>/*.jpg; set data.folder"
        )
    found = {key: _scan(folder / name) for key, name in parts.items() if name}
    classes = next(iter(found.values())).classes
    for key, part in found.items():
        if part.classes != classes:
            differ = _named(sorted(set(part.classes) ^ set(classes)))
            raise UserError(f"{folder}: train and {parts[key]} must have the same classes, but not both have {differ}")
    if passed := [one for part in found.values() for one in part.passed]:
        tell_once(
            f"{folder}: {len(passed)} file{'s' * (len(passed) > 1)} passed over, for example "
            f"{Path(passed[0]).relative_to(folder)}; images are read from <class> folders, by the endings "
            f"{' '.join(sorted(SUFFIXES))}"
        )
    nothing = _Part(classes, (), torch.empty(0, dtype=torch.int64), "", ())
    all_parts = {key: found.get(key, nothing) for key in parts}
    return ImageFolders(
        root=str(folder),
        classes=classes,
        files={key: part.files for key, part in all_parts.items()},
        labels={key: part.labels for key, part in all_parts.items()},
        digests={key: part.digest for key, part in all_parts.items()},
        size=size,
        resize=resize,
        workers=workers,
    )


def folder_settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments ``folder``, ``size``, ``resize`` and ``workers`` of ``ImageData`` from a config's ``data``.

    Raises:
        UserError: no folder, or a number that cannot be right.
    """
    if not data["folder"]:
        raise UserError("data=image_folder needs data.folder=..., which holds train/<class> and test/<class>")
    return {
        "folder": str(data["folder"]),
        "size": SIZE if data["size"] is None else whole("data.size", data["size"], 1),
        "resize": None if data["resize"] is None else whole("data.resize", data["resize"], 1),
        "workers": whole("data.workers", data["workers"] or 0, 0),
    }


def folder_name(root: str | Path, folder: str) -> str:
    """A folder of images as a part of a run's name: its own name, with a hash where that is not all ASCII."""
    name = unicodedata.normalize("NFC", (Path(root).expanduser() / Path(folder).expanduser()).resolve().name)
    return name if name.isascii() else f"{name}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


@lru_cache
def tell_once(message: str) -> None:
    """Warn, once, and in the first of several processes only."""
    if is_first_process():
        log.warning("%s", message)


@dataclass(frozen=True)
class _Part:
    """One folder of classes: names, files, labels (N,), the digest of the files, and what was passed over."""

    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: Tensor
    digest: str
    passed: tuple[str, ...]


def _scan(folder: Path) -> _Part:
    classes: dict[str, str] = {}
    passed: list[str] = []
    for entry in _entries(str(folder)):
        if not entry.is_dir():
            passed.append(entry.path)
        elif (name := _class_name(entry)) in classes:
            raise UserError(
                f"{folder} holds two class folders of one name, {name}, whose letters are stored in two ways (Unicode "
                "normalisation): rename one, or put their images together"
            )
        else:
            classes[name] = entry.path
    files: list[str] = []
    labels: list[int] = []
    digest = hashlib.sha256()
    empty = []
    names = sorted(classes)
    for label, name in enumerate(names):
        images = sorted(_images(classes[name], passed))
        if not images:
            empty.append(name)
        files += [path for *_, path in images]
        labels += [label] * len(images)
        for where, file, length, _ in images:
            digest.update(json.dumps([name, where, file, length]).encode())
    if empty or not names:
        what = f"{_named(empty)} {'have' if len(empty) > 1 else 'has'} none" if empty else "there is no such folder"
        raise UserError(f"{folder} must hold one folder a class, each with images: {what}")
    _tell_case(folder, names)
    return _Part(tuple(names), tuple(files), torch.tensor(labels, dtype=torch.int64), digest.hexdigest(), tuple(passed))


def _images(folder: str, passed: list[str], within: tuple[str, ...] = ()) -> Iterator[tuple[str, str, int, str]]:
    """The images below a class folder: the folder within it, name, length in bytes, and path of each.

    Names are normalised, so that files and their order stay the same on a disk that stores letters in another way.
    """
    for entry in _entries(folder):
        if entry.is_dir():
            if Path(folder).resolve().is_relative_to(Path(entry.path).resolve()):
                raise UserError(f"{entry.path} is a link that leads back to a folder above it: remove it")
            yield from _images(entry.path, passed, (*within, unicodedata.normalize("NFC", entry.name)))
        elif os.path.splitext(entry.name)[1].lower() not in SUFFIXES:
            passed.append(entry.path)
        else:
            try:
                length = entry.stat().st_size
            except OSError as error:
                why = "is a link to a file that is not there" if entry.is_symlink() else "cannot be read"
                raise UserError(f"{entry.path} {why}: remove it or replace it") from error
            yield "/".join(within), unicodedata.normalize("NFC", entry.name), length, entry.path


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What lies in a folder, but for hidden things and clutter."""
    try:
        with os.scandir(folder) as entries:
            kept = [one for one in entries if not one.name.startswith(".") and one.name.lower() not in CLUTTER]
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror or type(error).__name__}") from error
    return sorted(kept, key=lambda one: one.name)


def _class_name(entry: os.DirEntry[str]) -> str:
    try:
        entry.name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{entry.path!r}: the name of this class folder is not UTF-8; rename it") from error
    return unicodedata.normalize("NFC", entry.name)


def _tell_case(folder: Path, names: Sequence[str]) -> None:
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[name.casefold()].append(name)
    if same := [f"{' and '.join(group)}" for group in alike.values() if len(group) > 1]:
        tell_once(
            f"{folder}: the class folders {_named(same)} differ by upper and lower case alone; they are read as "
            "different classes, and many systems cannot hold both"
        )


def _named(names: Sequence[str]) -> str:
    """A few names, and how many more."""
    some = ", ".join(shown(name, 40) for name in names[:5])
    return some if len(names) <= 5 else f"{some} and {len(names) - 5} more"

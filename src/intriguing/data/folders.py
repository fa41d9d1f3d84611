"""Images in folders, one folder a class: read when they are needed, so a set may be larger than memory.

The layout is torchvision's ImageFolder: ``train/<class>/*.jpg`` and ``test/<class>/*.jpg`` (or ``val``, as ImageNet's
validation images lie). Classes are numbered in the order of their names, as in the paper's ImageNet. Every image
becomes one channel in [0, 1] where all files are without colour, and three otherwise, of which grey images get three
equal ones. Images that are all of one size keep it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from intriguing.data.announcing import announced
from intriguing.data.classes import Classes
from intriguing.data.decoding import decode
from intriguing.data.headers import channels_of, size_of
from intriguing.data.scanning import SUFFIXES, ClassFolders, named, scan, warn_once
from intriguing.data.subsets import Part, Subset
from intriguing.errors import UserError

HELD_OUT = ("test", "val")  # folders of held-out images, the first that is there
Size = int | Sequence[int]
"""Height and width of an image: one number for both, or a pair."""
_PARTS: tuple[tuple[str, Part], ...] = (("train", "full"), ("test", "test"))  # as users call the parts, and the code


@dataclass(frozen=True)
class FolderSubset:
    """Read images of a folder when they are needed.

    Attributes:
        files: Their paths.
        labels: (N,) int64.
        indices: (N,) into the sorted files of the whole folder.
        size: Height and width that an image is cropped to, from its centre.
        resize: Length that its shorter side is scaled to before; None: as small as the crop allows.
        channels: 1 or 3.
        workers: Threads that read; 0 reads in the caller's.
    """

    files: tuple[str, ...]
    labels: Tensor
    indices: Tensor
    size: tuple[int, int]
    resize: int | None
    channels: int = 3
    workers: int = 0

    @property
    def images(self) -> Tensor:
        """(N, C, H, W): all images are read."""
        return self.take().images

    def __len__(self) -> int:
        return len(self.files)

    def read(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Read the images (M, channels, *size) in [0, 1] and labels (M,) at positions (M,) of this subset.

        Raises:
            UserError: A file that is no image, or whose pixels are outside the range of its type.
        """
        files = [self.files[i] for i in positions.tolist()]
        if self.workers:
            with ThreadPoolExecutor(self.workers) as pool:
                images = list(self._announced(pool.map(self._image, files), len(files)))
        else:
            images = list(self._announced(map(self._image, files), len(files)))
        pixels = torch.stack(images) if images else torch.empty(0, self.channels, *self.size)
        return pixels, self.labels[positions]

    def _announced(self, images: Iterator[Tensor], total: int) -> Iterator[Tensor]:
        return announced(images, f"reading images of {Path(self.files[0]).parent.parent if self.files else ''}", total)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images and labels in order, ``size`` at a time, read batch by batch."""
        for positions in torch.arange(len(self)).split(size):
            yield self.read(positions)

    def take(self, positions: Tensor | None = None) -> Subset:
        """Read the images at positions (M,) into memory; all images if None."""
        positions = torch.arange(len(self)) if positions is None else positions
        images, labels = self.read(positions)
        return Subset(images, labels, self.indices[positions])

    def _image(self, file: str) -> Tensor:
        from torchvision.transforms.functional import center_crop, pil_to_tensor

        image = decode(file)
        if self.channels == 1 and image.mode == "RGB":
            image = image.convert("L")
        pixels = center_crop(pil_to_tensor(self._resized(image)), list(self.size))
        # interpolation may leave [0, 1] by a rounding error
        pixels = pixels.clamp(0, 1) if pixels.is_floating_point() else pixels.float().div_(255)
        return pixels.expand(self.channels, -1, -1)

    def _resized(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if self.resize is None:
            scale, least = max(width / image.width, height / image.height), (width, height)
        else:
            scale, least = self.resize / min(image.size), (self.resize, self.resize)
        sides = [max(low, round(scale * length)) for low, length in zip(least, image.size, strict=True)]
        return image.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)


@dataclass(frozen=True, kw_only=True)
class ImageFolders:
    """A data set in folders.

    Attributes:
        folder: As it was given, for the record.
        root: The folder that holds ``train`` and ``test``, resolved.
        classes: Names, sorted; a label is an index into them.
        parts: Files of ``full`` (the training images; empty without ``train``) and of ``test``.
        size: Height and width that an image is cropped to.
        resize: Length of the shorter side before the crop; None: as small as the crop allows.
        channels: 1 or 3.
        workers: See ``FolderSubset``.
        recorded: Digests of the files that a network was trained and tested on; None where nothing is known.
        name: Name of the data set.
        names: The classes in words; empty where their names say all.
        in_memory: Whether all images of a part are read at once and kept.
    """

    folder: str
    root: str
    classes: tuple[str, ...]
    parts: dict[str, ClassFolders]
    size: tuple[int, int]
    resize: int | None
    channels: int
    workers: int
    recorded: Mapping[str, str] | None = None
    name: str = "image_folder"
    names: tuple[str, ...] = ()
    in_memory: bool = False

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return self.channels, *self.size

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in words, where words were given; else their names."""
        return self.names or self.classes

    @property
    def labels(self) -> dict[str, Tensor]:
        """int64 tensor (N,) by part."""
        return {key: part.labels for key, part in self.parts.items()}

    @property
    def description(self) -> dict[str, Any]:
        """What the folder holds and how it is read, in plain values.

        ``classes`` are their names; ``counts`` the images of each class in ``train`` and ``test``; ``files`` a sha256
        of the list of files of each. None of these depends on where the folder lies.
        """
        parts = {word: self.parts[key] for word, key in _PARTS}
        return {
            "folder": self.folder,
            "size": self.size[0] if len(set(self.size)) == 1 else list(self.size),
            "resize": self.resize,
            "channels": self.channels,
            "classes": list(self.classes),
            **({"names": list(self.names)} if self.names else {}),
            "counts": {
                word: torch.bincount(part.labels, minlength=self.num_classes).tolist() for word, part in parts.items()
            },
            "files": {word: part.digest for word, part in parts.items()},
        }

    def prepare(self) -> None:
        """Do nothing: the images are there."""

    def select(self, part: Part, indices: Tensor) -> FolderSubset | Subset:
        """Return the images of a part at indices (N,).

        Raises:
            UserError: Training files that are not those that the network was trained on.
        """
        self._check_files(part)
        files = self.parts[part].files
        labels = self.parts[part].labels[indices]
        if self.in_memory:
            images = _kept(files, self.size, self.resize, self.channels, self.workers)
            return Subset(images if len(indices) == len(files) else images[indices], labels, indices)
        chosen = tuple(files[i] for i in indices.tolist())
        return FolderSubset(chosen, labels, indices, self.size, self.resize, self.channels, self.workers)

    def _check_files(self, part: Part) -> None:
        """Refuse other training files than those recorded; warn of other test files."""
        word = "train" if part == "full" else "test"
        if self.recorded is None or self.recorded[word] == self.parts[part].digest:
            return
        where = f"{self.folder}: the {word} files are not those that the network was {word}ed "
        if part == "full":
            raise UserError(
                f"{where}on (their names or lengths differ), so its training images are not known; give "
                "data.folder=... with the same files, or take subset=test"
            )
        warn_once(f"{where}on when its errors were counted (their names or lengths differ)")


@lru_cache(maxsize=2)  # the training and the test images of one folder
def _kept(files: tuple[str, ...], size: tuple[int, int], resize: int | None, channels: int, workers: int) -> Tensor:
    """Read all images of a part (N, C, H, W)."""
    return FolderSubset(
        files, torch.zeros(len(files)), torch.arange(len(files)), size, resize, channels, workers
    ).images


def located(folder: str | Path, root: str | Path, start: str | Path = ".") -> Path:
    """Find a folder of images: below ``start`` first, then below ``root``.

    Args:
        folder: An absolute or a relative path.
        root: The folder of data sets, ``data.root``.
        start: The folder in which the command was started.

    Returns:
        The resolved path of the first place that holds images; of the first folder that is there, where none does;
        of the place below ``root``, where none is there.
    """
    places = _places(folder, root, start)
    for fits in (_has_parts, Path.is_dir):
        if found := next((place for place in places if fits(place)), None):
            return found
    return places[-1]


def not_found(folder: str | Path, root: str | Path, start: str | Path = ".") -> str:
    """Write that no place of a folder holds images, for a message; see ``located`` for the arguments."""
    places = _places(folder, root, start)
    there = [place for place in places if place.is_dir()]
    if not there:
        return (
            f"there is no folder {' nor '.join(map(str, places))}; data.folder is an absolute path, or one that starts "
            "from the folder of the command or from data.root"
        )
    first, *others = there
    more = "".join(f", nor does {place}" for place in others)
    return (
        f"{first} holds neither train/ nor test/ (or val/){more}: expected the layout train/<class>/*.jpg and "
        "test/<class>/*.jpg"
    )


def _places(folder: str | Path, root: str | Path, start: str | Path) -> list[Path]:
    paths = (Path(place).expanduser() / Path(folder).expanduser() for place in (start, root))
    return list(dict.fromkeys(path.resolve() for path in paths))


def _has_parts(place: Path) -> bool:
    return any((place / name).is_dir() for name in ("train", *HELD_OUT))


def image_folder(
    folder: str | Path,
    *,
    root: str | Path = ".",
    size: Size | None = None,
    resize: int | None = None,
    channels: int | None = None,
    workers: int = 0,
    classes: Sequence[str] | None = None,
    recorded: Mapping[str, str] | None = None,
    index: Classes | None = None,
    name: str = "image_folder",
    in_memory: bool = False,
) -> ImageFolders:
    """List the images of a folder, and read the sizes and types of its files where they are not given.

    Hidden files and files that systems leave in folders (``CLUTTER``) are ignored. Other files that are no images by
    their endings (``SUFFIXES``) are passed over, and a warning counts them.

    Args:
        folder: The folder that holds ``train`` and ``test`` (or ``val``); one of the two is enough to evaluate on.
        root: The folder that a relative ``folder`` lies in, if it does not lie in the working folder.
        size: Height and width that an image is cropped to, from its centre; None: that of all images.
        resize: Length that its shorter side is scaled to before; None: as small as the crop allows.
        channels: 1 or 3; None: 1 where no file has colour.
        workers: Threads that read; 0 reads in the caller's.
        classes: Names of the classes that a network was trained on; others are refused.
        recorded: See ``ImageFolders``.
        index: The classes among which a network decides; the folder may hold a part of them. None: the folder's.
        name: See ``ImageFolders``.
        in_memory: See ``ImageFolders``.

    Raises:
        UserError: A folder that is missing, empty or of another layout; training and held-out classes that differ;
            names of classes that differ only in the way their letters are stored; images of several sizes, where
            ``size`` is None.
    """
    given = (size, size) if isinstance(size, int) else tuple(size or ())
    if given and (min(given) < 1 or (resize is not None and resize < max(given))):
        got = f"{size} and {size if resize is None else resize}"
        raise UserError(f"data.size must be at least 1 and data.resize at least as much, got {got}")
    there = located(folder, root)
    held_out = next((name for name in HELD_OUT if (there / name).is_dir()), None)
    names = {"full": "train" if (there / "train").is_dir() else None, "test": held_out}
    found = {key: scan(there / part) for key, part in names.items() if part}
    if not found:
        raise UserError(not_found(folder, root))
    if index is not None:
        found = {key: _numbered(part, index, there) for key, part in found.items()}
    own = next(iter(found.values())).classes
    for key, part in found.items():
        if part.classes != own:
            differ = named(sorted(set(part.classes) ^ set(own)))
            raise UserError(f"{there}: train and {names[key]} must have the same classes, but not both have {differ}")
    if passed := [one for part in found.values() for one in part.passed]:
        warn_once(
            f"{there}: {len(passed)} file{'s' * (len(passed) > 1)} passed over, for example "
            f"{Path(passed[0]).relative_to(there)}; images are read from <class> folders, by the endings "
            f"{' '.join(sorted(SUFFIXES))}"
        )
    if classes is not None:
        _check_classes(there, own, classes)
    files = tuple(file for part in found.values() for file in part.files)
    sides = given or size_of(files, str(there))
    if resize is not None and resize < max(sides):
        raise UserError(f"data.resize={resize} is less than the images' own size, {list(sides)}: give data.size too")
    nothing = ClassFolders(own, (), torch.empty(0, dtype=torch.int64), "", ())
    return ImageFolders(
        folder=str(folder),
        root=str(there),
        classes=own,
        parts={key: found.get(key, nothing) for key in names},
        size=(sides[0], sides[1]),
        resize=resize,
        channels=channels_of(files, str(there)) if channels is None else channels,
        workers=workers,
        recorded=recorded,
        name=name,
        names=() if index is None else index.names,
        in_memory=in_memory,
    )


def _numbered(part: ClassFolders, index: Classes, folder: Path) -> ClassFolders:
    """Number the classes of a part by those among which a network decides."""
    numbers = {name: number for number, name in enumerate(index.folders)}
    if unknown := [name for name in part.classes if name not in numbers]:
        raise UserError(
            f"{folder} has class folders that are none of the {len(numbers):,} classes: {named(unknown)}; "
            "data.classes_file=... lists those of the network, and data=image_folder numbers the folders themselves"
        )
    own = torch.tensor([numbers[name] for name in part.classes], dtype=torch.int64)
    return replace(part, classes=index.folders, labels=own[part.labels])


def _check_classes(folder: Path, own: tuple[str, ...], wanted: Sequence[str]) -> None:
    """Refuse other classes than those of a network: equal labels would mean different classes."""
    if tuple(wanted) == own:
        return
    lacks, more = sorted(set(wanted) - set(own)), sorted(set(own) - set(wanted))
    both = [f"lacks {named(lacks)}"] * bool(lacks) + [f"has {named(more)} besides"] * bool(more)
    raise UserError(
        f"{folder} does not hold the classes that the network was trained on: it "
        f"{' and '.join(both) or 'has them in another order'}; give data.folder=... with the same classes, or train "
        "the network again"
    )

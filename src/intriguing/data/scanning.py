"""List the image files of class folders, and fingerprint their names and lengths, without reading an image."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from intriguing.errors import UserError, shown
from intriguing.storage.ranks import is_first_process

log = logging.getLogger(__name__)
SUFFIXES = frozenset(
    f".{ending}"
    for ending in ("bmp", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff")
) | {".webp"}
"""Endings of image files, in upper case too; other files are passed over and counted."""
# Files that systems leave in folders. Like hidden ones (.DS_Store, ._photo.png) they are neither read nor counted.
CLUTTER = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"))


@lru_cache
def warn_once(message: str) -> None:
    """Log a warning once, and in the first of several processes only."""
    if is_first_process():
        log.warning("%s", message)


@dataclass(frozen=True)
class ClassFolders:
    """Hold the files of one folder of classes.

    Attributes:
        classes: Names, sorted; a label is an index into them.
        files: Paths.
        labels: (N,) int64.
        digest: sha256 of the files' names below the class folders and their lengths in bytes.
        passed: Paths of other files.
    """

    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: Tensor
    digest: str
    passed: tuple[str, ...]


def scan(folder: Path) -> ClassFolders:
    """List the images of a folder that holds one folder a class.

    Raises:
        UserError: A class without images, a name that is not UTF-8, or two names that differ only in the way their
            letters are stored.
    """
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
        what = f"{named(empty)} {'have' if len(empty) > 1 else 'has'} none" if empty else "there is no such folder"
        raise UserError(f"{folder} must hold one folder a class, each with images: {what}")
    _warn_of_case(folder, names)
    numbers = torch.tensor(labels, dtype=torch.int64)
    return ClassFolders(tuple(names), tuple(files), numbers, digest.hexdigest(), tuple(passed))


def _images(folder: str, passed: list[str], within: tuple[str, ...] = ()) -> Iterator[tuple[str, str, int, str]]:
    """Yield the folder within a class folder, name, length in bytes, and path of each image.

    Names are normalised, so that files and their order do not depend on how a disk stores letters.
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
    """List a folder without hidden files and clutter."""
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


def _warn_of_case(folder: Path, names: Sequence[str]) -> None:
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[name.casefold()].append(name)
    if same := [f"{' and '.join(group)}" for group in alike.values() if len(group) > 1]:
        warn_once(
            f"{folder}: the class folders {named(same)} differ by upper and lower case alone; they are read as "
            "different classes, and many systems cannot hold both"
        )


def named(names: Sequence[str]) -> str:
    """Write a few names, and how many more there are."""
    some = ", ".join(shown(name, 40) for name in names[:5])
    return some if len(names) <= 5 else f"{some} and {len(names) - 5} more"

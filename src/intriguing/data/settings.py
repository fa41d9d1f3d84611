"""Open the images that settings describe: of a config, or of a trained network."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from intriguing.data.arrays import CIFAR10_CLASSES, SHAPES, Cifar10, Mnist, blank, digits
from intriguing.data.classes import Classes, imagenet_classes, read_classes
from intriguing.data.datasets import DatasetPair
from intriguing.data.folders import Size, image_folder, located
from intriguing.data.module import ImageData
from intriguing.data.one_against_rest import against_rest
from intriguing.data.scanning import named
from intriguing.data.subsets import DATA_NAMES, DataSet
from intriguing.errors import UserError, shown
from intriguing.validation import choice, flag, whole

FOLDERS = ("image_folder", "imagenet")  # data sets that are read from folders, image by image
IMAGENET_SIZE = (224, 256)  # height and width, and the shorter side before the crop, where a network says nothing else
_NO_FOLDER = "data={name} needs data.folder=..., which holds train/<class> and test/<class> (or val/<class>)"
_AGAIN = "give the same again: data=module data._target_=..."
OwnData = Callable[[], DatasetPair]
"""Opens the Datasets of ``data=module``, which a config names by ``_target_``; each call gives the same object."""
# The data settings that attack.py and analyze.py read; the others are the network's own.
READ_AFTER_TRAINING = ("root", "download", "folder", "size", "resize", "channels", "workers", "classes_file")


def open_images(
    *,
    name: str,
    root: str = "data",
    download: bool = True,
    folder: str | None = None,
    size: Size | None = None,
    resize: int | None = None,
    channels: int | None = None,
    workers: int = 0,
    classes_file: str | None = None,
    classes: Sequence[str] | None = None,
    names: Sequence[str] = (),
    counts: Mapping[str, Sequence[int]] | None = None,
    files: Mapping[str, str] | None = None,
    shape: Sequence[int] = (),
    num_classes: int = 0,
    target: str = "",
    own: OwnData | None = None,
    one_against_rest: str | None = None,
    **splits: Any,
) -> ImageData:
    """Open images by the name of their data set.

    Args:
        name: ``mnist``, ``digits``, ``cifar10``, ``image_folder``, ``imagenet``, ``module`` or ``blank``.
        root: Where MNIST and CIFAR-10 lie; and where a relative ``folder`` lies, if it is not in the working folder.
        download: Whether MNIST and CIFAR-10 may be downloaded.
        folder: With ``train/<class>`` and ``test/<class>``; this and the next five are for images in folders:
            ``image_folder``, ``imagenet``, and ``cifar10`` where a folder is given.
        size: Height and width of the images, one number or two; None: that of all files, of ``imagenet`` 224.
        resize: Length of the shorter side before the crop; None: as small as the crop allows.
        channels: 1 or 3; None: 1 where no file has colour.
        workers: Number of threads that read images.
        classes_file: The classes of ``imagenet``, see ``read_classes``; None: the 1,000 of ILSVRC 2012.
        classes: Names of the classes when a network was trained on the images; others are refused.
        names: The classes of ``imagenet`` in words at that time.
        counts: Numbers of images at that time; not compared, because digests of the files are.
        files: Digests of the files (or Datasets) at that time; others are refused when training images are asked for.
        shape: (C, H, W) of ``blank``.
        num_classes: Number of classes of ``blank``.
        target: The class or function that gave the Datasets of ``module`` at that time, for messages.
        own: Opens the Datasets of ``module``.
        one_against_rest: A class, by name or number: labels are 1 for it and 0 for all others; None: as they are.
        splits: Further arguments of ``ImageData``.

    Raises:
        UserError: An unknown name, wrong arguments of ``ImageData``, or images that are not the recorded ones.
    """
    choice("data", name, DATA_NAMES)
    images: DataSet
    if name in FOLDERS or (name == "cifar10" and folder):
        if not folder:
            raise UserError(_NO_FOLDER.format(name=name))
        here: dict[str, Any] = {"size": size, "resize": resize, "channels": channels}
        index = None
        if name == "imagenet":
            index = _imagenet_index(classes_file, classes, names)
            here |= {
                "channels": 3,
                **(dict(zip(("size", "resize"), IMAGENET_SIZE, strict=True)) if size is None else {}),
            }
        elif name == "cifar10":
            here = {"size": SHAPES[name][0][1:], "resize": None, "channels": 3}
            classes = CIFAR10_CLASSES
        images = image_folder(
            folder,
            root=root,
            workers=workers,
            classes=classes,
            recorded=files,
            index=index,
            name=name,
            in_memory=name == "cifar10",
            **here,
        )
        if images.num_classes < 2:
            only = images.classes[0]
            raise UserError(f"{images.root} holds one class, {only}; a classifier needs two or more folders of classes")
    elif name == "module":
        if own is None:
            raise UserError(f"the images are those of data._target_={target}: {_AGAIN}")
        images = own()
        if classes is not None and tuple(classes) != images.classes:
            raise UserError(
                f"{images.target} has the classes {named(images.classes)}, but the network was trained on "
                f"{named(list(classes))}: give the same Dataset"
            )
        images = replace(images, recorded=files)
    elif name == "blank":
        images = blank(shape, num_classes)
    else:
        published = {"mnist": Mnist, "cifar10": Cifar10}
        images = published[name](root, download=download) if name in published else digits()
    return ImageData(images if one_against_rest is None else against_rest(images, one_against_rest), **splits)


def _imagenet_index(file: str | None, classes: Sequence[str] | None, names: Sequence[str]) -> Classes:
    """Return the classes among which a network decides: those that it recorded, those of a file, or ILSVRC's."""
    if file is not None:
        index = read_classes(file)
        if classes is not None and index.folders != tuple(classes):
            raise UserError(f"data.classes_file={file} does not list the classes that the network was trained on")
        return index
    return imagenet_classes() if classes is None else Classes(tuple(classes), tuple(names))


def reads_folder(data: Mapping[str, Any]) -> bool:
    """Return whether images are read from a folder, of a config's ``data`` or a network's description of its images."""
    return data["name"] in FOLDERS or (data["name"] == "cifar10" and bool(data.get("folder")))


def blank_settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """Check the arguments of ``blank`` in a config's ``data``.

    Returns:
        ``shape`` and ``num_classes``.

    Raises:
        UserError: A shape that is not (C, H, W), or fewer than two classes.
    """
    shape = data["shape"]
    if not isinstance(shape, list) or len(shape) != 3:
        raise UserError(f"data.shape must be a list of channels, height and width, got {shape!r}")
    return {
        "shape": [whole("data.shape", side, 1) for side in shape],
        "num_classes": whole("data.num_classes", data["num_classes"], 2),
    }


def target_of(data: Mapping[str, Any]) -> str:
    """Return the class or function that a config's ``data`` of ``module`` names.

    Raises:
        UserError: It names none, or both one for all images and one for a part.
    """
    parts = [one.get("_target_") for key in ("train", "test") if isinstance(one := data.get(key), Mapping)]
    whole = data.get("_target_")
    if bool(whole) == any(parts):
        raise UserError(
            "data=module needs data._target_=mine.MyDataModule (a LightningDataModule, or a function that returns the "
            "training and the test Dataset), or else data.train._target_=... and data.test._target_=..."
        )
    return str(whole or next(part for part in parts if part))


def folder_settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """Check the arguments of images in folders in a config's ``data``.

    Returns:
        ``folder`` and ``workers``; of ``image_folder`` and ``imagenet`` also ``size`` and ``resize``; of the one
        ``channels``, of the other ``classes_file``. Nothing of images that are not read from a folder.

    Raises:
        UserError: No folder, or a number that cannot be right.
    """
    if not reads_folder(data):
        return {}
    if not data["folder"]:
        raise UserError(_NO_FOLDER.format(name=data["name"]))
    found: dict[str, Any] = {"folder": str(data["folder"]), "workers": whole("data.workers", data["workers"] or 0, 0)}
    if data["name"] in FOLDERS:
        found["size"] = _size(data["size"])
        found["resize"] = None if data["resize"] is None else whole("data.resize", data["resize"], 1)
    if data["name"] == "image_folder":
        found["channels"] = None if data["channels"] is None else _channels(data["channels"])
    if data["name"] == "imagenet":
        file = data.get("classes_file")
        found["classes_file"] = None if file is None else str(file)
    return found


def _size(value: Any) -> int | list[int] | None:
    if value is None or not isinstance(value, list):
        return None if value is None else whole("data.size", value, 1)
    if len(value) != 2:
        raise UserError(f"data.size must be one number, or a list of height and width, got {value!r}")
    return [whole("data.size", side, 1) for side in value]


def _channels(value: Any) -> int:
    if value not in (1, 3) or isinstance(value, bool):
        raise UserError(f"data.channels must be 1 (grey) or 3 (colour), or null, got {value!r}")
    return int(value)


def folder_name(root: str | Path, folder: str) -> str:
    """Name a folder of images within a run's name: by its name, with a hash if that is not all ASCII."""
    name = unicodedata.normalize("NFC", located(folder, root).name)
    return name if name.isascii() else f"{name}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def images_of_network(own: Mapping[str, Any] | None, given: Mapping[str, Any], network: str) -> dict[str, Any]:
    """Combine a network's description of its images with the settings that say where they lie now.

    Args:
        own: The description in the checkpoint (``ImageData.description``).
        given: The ``data`` settings of ``attack.py`` or ``analyze.py``: ``root``, ``download``; and, if they are not
            None, ``name``, ``folder``, ``size``, ``resize``, ``channels``, ``workers``.
        network: Name of the network, for messages.

    Returns:
        Arguments of ``open_images``.

    Raises:
        UserError: See ``check_given``; or the checkpoint does not describe its images.
    """
    if not own or not own.keys() >= {"name", "split", "split_seed"}:
        raise UserError(f"{network} does not say which images it was trained on")
    choice("data", own["name"], DATA_NAMES)
    check_given(own, given, network)
    if own["name"] == "module":
        if given["name"] is None:
            raise UserError(f"{network} was trained on images of data._target_={shown(own.get('target'))}: {_AGAIN}")
        return dict(own)
    found = {**own, "root": given["root"] or "data", "download": flag("data.download", given["download"])}
    if not reads_folder(own):
        return found
    if "classes" not in own:
        raise UserError(f"{network} does not say which classes it was trained on: train it with this version")
    if given.get("folder"):
        found["folder"] = str(given["folder"])
    found |= {"channels": own.get("channels", 3), "workers": whole("data.workers", given.get("workers") or 0, 0)}
    return found | ({"classes_file": given.get("classes_file")} if own["name"] == "imagenet" else {})


def check_given(own: Mapping[str, Any], given: Mapping[str, Any], network: str) -> None:
    """Check that settings of images are the network's.

    Args:
        own: ``name`` of the network's data; for folders of images ``size``, ``resize`` and ``channels``.
        given: See ``images_of_network``.
        network: Name of the network, for messages.

    Raises:
        UserError: A setting is not the network's, or has no meaning for its images.
    """
    name = own.get("name")
    if given["name"] not in (None, name):
        raise UserError(f"{network} was trained on {name}, so data={given['name']} cannot be")
    if name == "module":
        return
    if not reads_folder(own):
        for key in READ_AFTER_TRAINING[2:]:
            if given.get(key):
                raise UserError(f"{network} was trained on {name}, for which data.{key}={given[key]} changes nothing")
        return
    its = {"size": own["size"], "resize": own["resize"] or own["size"], "channels": own.get("channels") or 3}
    for key, value in its.items():
        if given.get(key) not in (None, value):
            raise UserError(
                f"{network} was trained on images of data.{key}={value}, so data.{key}={given[key]} cannot be"
            )


def check_typed(overrides: Sequence[str]) -> None:
    """Refuse a data setting that was typed to ``attack.py`` or ``analyze.py`` and that neither of them reads.

    Raises:
        UserError: There is one.
    """
    if any(override in ("data=module", "+data=module") for override in overrides):
        return  # what reads the others is the user's own
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.startswith("data.") and key.removeprefix("data.") not in READ_AFTER_TRAINING:
            raise UserError(
                f"{override} changes nothing here: the images are those of the network's training; of the data "
                f"settings, {', '.join(READ_AFTER_TRAINING)} are read"
            )

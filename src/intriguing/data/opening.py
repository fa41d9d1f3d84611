"""Open images by name, from folders or from tensors, as a program or a notebook asks for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from intriguing.data.arrays import ImageArrays
from intriguing.data.folders import Size
from intriguing.data.module import ImageData
from intriguing.data.settings import open_images
from intriguing.errors import UserError

_DIGITS_BATCH = 20  # a small set wants small batches for every network


def digits() -> ImageData:
    """Open scikit-learn's bundled 8x8 digits: 1437 training and 360 test images; no file and no network is needed.

    Example:
        >>> import intriguing as ig
        >>> data = ig.data.digits()
        >>> data.train.images.shape, data.test.labels.shape
        (torch.Size([1437, 1, 8, 8]), torch.Size([360]))
    """
    return open_images(name="digits", batch_size=_DIGITS_BATCH)


def mnist(root: str | Path | None = None, *, download: bool = True) -> ImageData:
    """Open MNIST: 60,000 training and 10,000 test images of 28x28 pixels.

    Args:
        root: folder that holds ``MNIST/raw``, torchvision's layout; None: the environment's ``INTRIGUING_DATA``, or
            else ``data`` in the working folder.
        download: whether missing files are downloaded there.

    Raises:
        UserError: a file is missing or is not the published one.
    """
    data = open_images(
        name="mnist", root=str(root or os.environ.get("INTRIGUING_DATA") or "data"), download=download
    )
    data.prepare_data()
    data.setup()
    return data


def image_folder(
    folder: str | Path,
    *,
    size: Size | None = None,
    resize: int | None = None,
    channels: int | None = None,
    workers: int = 0,
) -> ImageData:
    """Open a folder of images, one folder a class: ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``.

    The images, in [0, 1], are read when they are needed.

    Args:
        folder: holds ``train`` and ``test`` (or ``val``); one of the two is enough to evaluate on.
        size: height and width that the images are cropped to, from their centre; None: that of all images, where it is
            one.
        resize: length that the shorter side is scaled to before; None: as small as the crop allows.
        channels: 1 or 3; None: 1 where no file has colour.
        workers: threads that read images.

    Raises:
        UserError: a folder that is missing, empty or of another layout, or images of several sizes without ``size``.
    """
    return open_images(
        name="image_folder", root=".", folder=str(folder), size=size, resize=resize, channels=channels, workers=workers
    )


def from_tensors(
    train: tuple[Any, Any], test: tuple[Any, Any] | None = None, *, num_classes: int | None = None
) -> ImageData:
    """Hold images that are in memory already.

    Args:
        train: images (N, C, H, W), floating-point in [0, 1] or uint8, and labels (N,) from 0: tensors or arrays.
        test: images and labels of the test set; None: there is none.
        num_classes: K; None: one more than the largest label.

    Raises:
        UserError: a shape, a type or a value that cannot be right.

    Example:
        >>> data = from_tensors((torch.rand(8, 3, 5, 5), [0, 1, 2, 0, 1, 2, 0, 1]))
        >>> data.num_classes, data.input_shape, len(data.test)
        (3, (3, 5, 5), 0)
    """
    images, labels = {}, {}
    images["full"], labels["full"] = _checked("train", train)
    shape = images["full"].shape[1:]
    images["test"], labels["test"] = _checked("test", ([], []) if test is None else test, shape)
    if images["test"].shape[1:] != shape:
        raise UserError(f"train has images of shape {tuple(shape)}, test of {tuple(images['test'].shape[1:])}")
    most = max(int(part.max()) for part in labels.values() if len(part)) if len(labels["full"]) else 0
    count = most + 1 if num_classes is None else num_classes
    if count < 2 or most >= count:
        raise UserError(f"labels reach {most}; a classifier needs two or more classes, and num_classes above them all")
    return ImageData(ImageArrays("tensors", images, labels, count))


def _checked(name: str, given: Sequence[Any], shape: Sequence[int] = (1, 1, 1)) -> tuple[Tensor, Tensor]:
    """Return images as float32 in [0, 1] and labels as int64, on the CPU."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise UserError(f"{name} must be a pair of images and labels, got a {type(given).__name__}")
    images, labels = (torch.as_tensor(part).detach().cpu() for part in given)
    if not len(images):
        return torch.empty(0, *shape), torch.empty(0, dtype=torch.int64)
    if images.dim() != 4 or labels.shape != images.shape[:1]:
        raise UserError(
            f"{name} must hold images (N, C, H, W) and labels (N,), got {tuple(images.shape)} and {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool or int(labels.min()) < 0:
        raise UserError(f"the labels of {name} must be whole numbers of at least 0, got {labels.dtype}")
    if images.dtype == torch.uint8:
        images = images.float() / 255
    low, high = (float(end) for end in images.aminmax())
    if not (images.is_floating_point() and low >= 0 and high <= 1):  # a comparison with nan is false
        raise UserError(
            f"the images of {name} must be uint8, or floating-point in [0, 1], got {images.dtype} from {low:.4g} to "
            f"{high:.4g}; leave normalisation to the network"
        )
    return images.float().contiguous(), labels.long()

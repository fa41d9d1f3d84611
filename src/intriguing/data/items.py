"""Convert one image and one label of a user's Dataset, and say in one line what cannot be converted."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from intriguing.data.decoding import grey_or_rgb
from intriguing.errors import UserError, shown


def pair(item: Any, where: str) -> tuple[Any, Any]:
    """Take an item of a Dataset apart.

    Args:
        item: A tuple or list of an image, its label and anything more.
        where: The image in words, for messages.

    Returns:
        The image and the label.

    Raises:
        UserError: The item is something else.
    """
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    got = f"a mapping of {shown(list(item))}" if isinstance(item, Mapping) else f"a {type(item).__name__}"
    raise UserError(f"{where} must be a pair (image, label), got {got}; return such a pair from __getitem__")


def pixels(image: Any, where: str) -> Tensor:
    """Convert an image to pixels in [0, 1].

    Args:
        image: A tensor or NumPy array (C, H, W) of floats in [0, 1] or of uint8, or an image of PIL.
        where: The image in words, for messages.

    Returns:
        float32 tensor (C, H, W).

    Raises:
        UserError: Another type or shape, or pixels outside [0, 1].
    """
    if isinstance(image, Image.Image):
        image = np.array(grey_or_rgb(image, where))
        image = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    found = torch.from_numpy(np.array(image)) if isinstance(image, np.ndarray) else image
    if not isinstance(found, Tensor):
        raise UserError(f"{where} must be a tensor, a NumPy array or an image of PIL, got a {type(image).__name__}")
    if found.ndim != 3 or not found.numel():
        hint = "; add the channel: image[None]" if found.ndim == 2 else ""
        raise UserError(f"{where} must have the shape (C, H, W), got {tuple(found.shape)}{hint}")
    if found.dtype == torch.uint8:
        return found.float().div_(255)
    if not found.is_floating_point():
        raise UserError(f"{where} must have pixels of floats in [0, 1] or of uint8, got {found.dtype}")
    found = found.detach().cpu().float()
    low, high = float(found.min()), float(found.max())
    if not (low >= 0 and high <= 1):  # also where they are nan
        raise UserError(
            f"{where} has pixels from {low:.4g} to {high:.4g}, and images must lie in [0, 1]: leave normalisation to "
            "the network, and divide images of 8 bits by 255"
        )
    return found


def label_number(label: Any, where: str) -> int:
    """Convert a label to a whole number of at least 0.

    Raises:
        UserError: The label is something else.
    """
    if isinstance(label, Tensor | np.ndarray) and label.ndim == 0:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, Integral) or int(label) < 0:
        got = f"shape {tuple(label.shape)}" if isinstance(label, Tensor | np.ndarray) else shown(label)
        raise UserError(f"{where} must have a whole number from 0 to K - 1 as its label, got {got}")
    return int(label)

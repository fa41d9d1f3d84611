"""Choose the images from which an attack begins: the training images of a data set, or the other attacked ones."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from intriguing.attacking.settings import BATCH, NONE, TRAIN, AttackSettings
from intriguing.data import SHAPES, ImageData
from intriguing.errors import UserError

MOST_IMAGES = 5000
MOST_BYTES = 2**28
"""Bounds on the training images that are read: 5,000 of MNIST, 445 in colour of 224 x 224 pixels."""


def chosen_starts(attack: AttackSettings, data: ImageData) -> str:
    """Return where the images come from, from which an attack begins.

    Args:
        attack: the attack; its ``starts`` as typed, empty where nothing was typed.
        data: the images of the data set.

    Returns:
        ``train``, ``batch`` or ``none``. Where nothing was typed: ``train`` if the training images of the network are
        there, else ``none``. Empty for an attack that takes no images to begin from.

    Raises:
        UserError: ``train`` was typed, and they are not there.
    """
    if not attack.takes_starts or attack.starts in (BATCH, NONE):
        return attack.starts
    if data.images.name in SHAPES:  # known before the files are there
        return TRAIN
    try:
        data.require("train")
        data.subset("train")  # refuses other files than those the network was trained on
    except UserError as error:
        if not attack.starts:
            return NONE
        raise UserError(f"attack.starts=train: {error}; or give attack.starts=batch or attack.starts=none") from error
    return TRAIN


def start_images(attack: AttackSettings, data: ImageData, seed: int, device: torch.device) -> dict[str, Tensor | str]:
    """Return the keyword ``starts`` of an attack; no keyword where it begins from no images, or takes none.

    Args:
        attack: the attack; its ``starts`` as `chosen_starts` returned it.
        data: the images of the data set.
        seed: of the draw of training images.
        device: of the images.

    Raises:
        UserError: training images that are not there.
    """
    if attack.starts == TRAIN:
        return {"starts": training_images(data, seed).to(device)}
    return {"starts": BATCH} if attack.starts == BATCH else {}


def training_images(data: ImageData, seed: int) -> Tensor:
    """Draw images that the network was trained on, as many of each class as there are, without duplicates.

    Args:
        data: the images of the data set.
        seed: of the draw.

    Returns:
        (P, C, H, W), at most `MOST_IMAGES` and `MOST_BYTES`, in the order of the data set; all training images where
        these are fewer. They depend on the data set and the seed alone, not on the images under attack. An attacked
        image may be one of them: the network gives it the class that the attack is to leave, so the attack does not
        begin from it.

    Raises:
        UserError: there are no training images.
    """
    data.require("train")
    subset = data.subset("train")
    most = min(MOST_IMAGES, max(1, MOST_BYTES // (4 * math.prod(data.input_shape))))
    images = subset.take(None if len(subset) <= most else balanced(subset.labels, most, seed)).images
    seen: set[bytes] = set()
    kept = []
    for place, image in enumerate(images):
        digest = hashlib.blake2b(image.contiguous().numpy().tobytes(), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            kept.append(place)
    return images if len(kept) == len(images) else images[kept]


def balanced(labels: Tensor, count: int, seed: int) -> Tensor:
    """Draw positions so that each class has equally many, as far as it has that many.

    Args:
        labels: (N,) int64, from 0.
        count: how many positions.
        seed: of the draw.

    Returns:
        (count,) int64, ascending; all N where these are fewer.

    Example:
        >>> import torch
        >>> labels = torch.tensor([0] * 90 + [1] * 8 + [2] * 2)
        >>> labels[balanced(labels, 12, seed=0)].bincount().tolist()
        [5, 5, 2]
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    drawn = labels[order]
    by_class = drawn.argsort(stable=True)
    sizes = drawn.bincount()
    turn = torch.empty_like(by_class)  # an image's number among those of its class
    turn[by_class] = torch.arange(len(drawn)) - (sizes.cumsum(0) - sizes)[drawn[by_class]]
    return order[turn.argsort(stable=True)[:count]].sort().values

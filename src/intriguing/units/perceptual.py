"""Measure how alike images look to people: LPIPS (Zhang et al. 2018, arXiv 1801.03924), between all pairs of images.

LPIPS compares the outputs of five layers of AlexNet: at each position a layer's channels are scaled to length 1, and
the squared differences of two images are weighted by channel, averaged over positions and summed over layers. It is
therefore a squared Euclidean distance between vectors, and all pairs of images cost one matrix product.

The index by which Klindt et al. (2023, arXiv 2310.11431) predict how well people understand a unit is the similarity of
its top images by such a distance; here it is set against that of random pairs, see `perceptual_similarity`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS: tuple[int, ...] = (1, 4, 7, 9, 11)
"""Places in ``torchvision.models.alexnet().features`` of the ReLUs whose outputs are compared."""
SIDE: int = 64
"""Height and width at which images are compared: those of the patches that the weights were fitted to."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1], as published
_BLOCK = 1024  # rows of a distance matrix that are computed at once


def published_heads() -> list[Tensor]:
    """Read the published weights of the channels, version 0.1, which torchmetrics brings with it.

    Returns:
        (64,), (192,), (384,), (256,) and (256,), one for each of `LAYERS`.
    """
    file = files("torchmetrics.functional.image").joinpath("lpips_models", "alex.pth")
    with file.open("rb") as stream:
        weights = torch.load(stream, map_location="cpu", weights_only=True)
    return [weights[f"lin{number}.model.1.weight"].flatten() for number in range(len(LAYERS))]


def lpips_vectors(features: nn.Sequential, heads: Sequence[Tensor], images: Tensor) -> Tensor:
    """Map images to vectors whose squared Euclidean distances are LPIPS.

    Args:
        features: ``torchvision.models.alexnet().features`` with ImageNet weights, or modules like them.
        heads: weights of the channels (C,), at least 0, see `published_heads`.
        images: (N, C, H, W) in [0, 1]. Grey images, and the first three of more channels, are taken as colours; images
            are averaged or interpolated to `SIDE` pixels a side.

    Returns:
        (N, D) float32.

    Raises:
        ValueError: another number of layers or of channels than the weights have.
    """
    images = images.detach().float()
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    if min(images.shape[-2:]) >= SIDE:
        images = F.interpolate(images, (SIDE, SIDE), mode="area")
    else:
        images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)
    shift, scale = (images.new_tensor(values).view(3, 1, 1) for values in (_SHIFT, _SCALE))
    values = (2 * images - 1 - shift) / scale
    if len(features) <= LAYERS[-1] or len(heads) != len(LAYERS):
        raise ValueError(
            f"expected AlexNet's convolutions and {len(LAYERS)} weights, got {len(features)} modules and {len(heads)}"
        )
    found = []
    with torch.no_grad():
        for (start, end), head in zip(pairwise((-1, *LAYERS)), heads, strict=True):
            values = features[start + 1 : end + 1](values)
            if values.shape[1] != len(head):
                raise ValueError(f"expected {len(head)} channels of layer {end}, got {values.shape[1]}")
            lengths = (values.square().sum(1, keepdim=True) + 1e-8).sqrt()
            weights = (head.to(values) / math.prod(values.shape[-2:])).sqrt().view(-1, 1, 1)
            found.append((values / lengths * weights).flatten(1))
    return torch.cat(found, dim=1)


def pair_distances(vectors: Tensor) -> Tensor:
    """Compute the squared Euclidean distances of all pairs: LPIPS, of `lpips_vectors`.

    Args:
        vectors: (N, D).

    Returns:
        (N, N) float32, at least 0, with zeros on the diagonal.
    """
    rows = vectors - vectors.mean(0)
    squares = rows.square().sum(1)
    found = torch.empty(len(rows), len(rows), dtype=rows.dtype)
    for first in range(0, len(rows), _BLOCK):
        part = slice(first, first + _BLOCK)
        found[part] = (squares[part, None] + squares - 2 * rows[part] @ rows.T).clamp_min(0)
    return found.fill_diagonal_(0)


def perceptual_similarity(distances: Tensor, top: Tensor) -> Tensor:
    """Compute by how much top images look more alike than images do on average.

    Args:
        distances: (N, N) of all images, see `pair_distances`.
        top: (M, k) indices of the top images of each direction, k at least 2.

    Returns:
        (M,): 1 minus the mean distance of pairs of top images over that of all pairs. 1 for equal images, 0 for images
        chosen at random, below 0 for more varied ones.

    Raises:
        ValueError: k is below 2, or all images are equal.

    Example:
        >>> import torch
        >>> distances = torch.tensor([[0.0, 1.0, 3.0], [1.0, 0.0, 2.0], [3.0, 2.0, 0.0]])
        >>> perceptual_similarity(distances, torch.tensor([[0, 1], [0, 2]])).tolist()
        [0.5, -0.5]
    """
    num, k = len(distances), top.shape[1]
    if k < 2:
        raise ValueError(f"expected at least two images per row, got {k}")
    chance = float(distances.sum(dtype=torch.float64)) / max(1, num * (num - 1))
    if not chance > 0:
        raise ValueError("all images look alike: no similarity can be set against chance")
    means = [
        distances[part[:, :, None], part[:, None, :]].sum((1, 2), dtype=torch.float64) / (k * (k - 1))
        for part in top.long().split(2**16)
    ]
    return 1 - torch.cat(means) / chance

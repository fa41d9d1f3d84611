"""Order images so that every beginning of the order is a stratified sample."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_order(labels: Tensor, seed: int) -> Tensor:
    """Order images by chance so that any first M hold each class in proportion to its size, as far as M allows.

    The images of a class, shuffled, get the places (rank + u) / size of the class, with one u in [0, 1) for each class;
    the order is that of the places.

    Args:
        labels: (N,) integers.
        seed: of the shuffling.

    Returns:
        (N,) int64, a permutation.

    Example:
        >>> order = stratified_order(torch.tensor([0] * 6 + [1] * 3), seed=0)
        >>> sorted(order[:3].div(6, rounding_mode="floor").tolist())
        [0, 0, 1]
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    places = torch.zeros(len(labels), dtype=torch.float64)
    for label in labels.unique():
        rows = shuffled[labels[shuffled] == label]
        start = torch.rand((), generator=generator, dtype=torch.float64)
        places[rows] = (torch.arange(len(rows), dtype=torch.float64) + start) / len(rows)
    return shuffled[places[shuffled].argsort(stable=True)]

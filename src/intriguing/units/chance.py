"""Scores of random sets of images: what a direction's top images are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from intriguing.units.scores import label_entropy, label_purity, similarity


def random_sets(num_images: int, k: int, num: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Random image sets (num, k), each without repetition: the null of every score of top images."""
    if not 1 <= k <= num_images:
        raise ValueError(f"expected sets of 1 to {num_images} images, got {k}")
    keys = torch.randint(num_images, (num, k), generator=generator)
    while True:  # draw again the few sets in which an image came twice
        ordered = keys.sort(1).values
        twice = (ordered[:, 1:] == ordered[:, :-1]).any(1).nonzero().flatten()
        if not len(twice):
            return keys
        if 4 * k > num_images:  # most would: shuffle instead
            keys[twice] = torch.stack([torch.randperm(num_images, generator=generator)[:k] for _ in twice])
        else:
            keys[twice] = torch.randint(num_images, (len(twice), k), generator=generator)


def null_scores(labels: Tensor, rows: dict[str, Tensor], sets: Tensor) -> dict[str, Tensor]:
    """Scores of random image sets.

    Args:
        labels: (N,).
        rows: by the score's name, what `similarity` compares.
        sets: (B, k), see `random_sets`.

    Returns:
        (B,) by the score's name; the entropy's with its sign changed, so that more is always more.
    """
    found = {"purity": label_purity(labels, sets), "entropy": -label_entropy(labels, sets)}
    return found | {name: similarity(vectors, sets) for name, vectors in rows.items()}

"""Score random sets of images, the null distribution for a direction's top images."""

from __future__ import annotations

import torch
from torch import Tensor

from intriguing.units.perceptual import perceptual_similarity
from intriguing.units.scores import label_entropy, label_purity, similarity


def random_sets(num_images: int, k: int, num: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw random sets of images, each without repetition.

    Args:
        num_images: number of images to draw from.
        k: images per set.
        num: number of sets.
        generator: random generator; None uses PyTorch's global one.

    Returns:
        (num, k) indices, int64.

    Raises:
        ValueError: k is not in 1..num_images.
    """
    if not 1 <= k <= num_images:
        raise ValueError(f"expected sets of 1 to {num_images} images, got {k}")
    keys = torch.randint(num_images, (num, k), generator=generator)
    while True:  # redraw the few sets with a repeated image
        ordered = keys.sort(1).values
        repeated = (ordered[:, 1:] == ordered[:, :-1]).any(1).nonzero().flatten()
        if not len(repeated):
            return keys
        if 4 * k > num_images:  # repetitions are likely: use permutations
            keys[repeated] = torch.stack([torch.randperm(num_images, generator=generator)[:k] for _ in repeated])
        else:
            keys[repeated] = torch.randint(num_images, (len(repeated), k), generator=generator)


def null_scores(
    labels: Tensor, rows: dict[str, Tensor], sets: Tensor, distances: Tensor | None = None
) -> dict[str, Tensor]:
    """Compute the scores of random sets of images.

    Args:
        labels: (N,).
        rows: normalised vectors (N, D) by the name of their similarity score, see ``similarity``.
        sets: (B, k), see ``random_sets``.
        distances: (N, N) LPIPS of all pairs, see ``perceptual.pair_distances``; None leaves that score out.

    Returns:
        (B,) by the name of the score; the entropy is negated, so that larger always means more meaningful.
    """
    found = {"purity": label_purity(labels, sets), "entropy": -label_entropy(labels, sets)}
    if distances is not None:
        found["lpips_similarity"] = perceptual_similarity(distances, sets)
    return found | {name: similarity(vectors, sets) for name, vectors in rows.items()}

"""Change perturbations: the order of their pixels, and the directions they may use."""

from __future__ import annotations

import torch
from torch import Tensor

from intriguing.metrics import difference


def shuffled(inputs: Tensor, adv_inputs: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Permute the values of each image's perturbation at random: equal norm and equal values, no structure.

    Args:
        inputs: (N, ...), the original images.
        adv_inputs: (N, ...), the perturbed images.
        generator: of the permutations; None uses PyTorch's global one.

    Returns:
        (N, ...), not clipped to [0, 1].
    """
    rows = difference(inputs, adv_inputs).flatten(1)
    order = torch.rand(rows.shape, generator=generator).argsort(1).to(rows.device)
    return (inputs + rows.gather(1, order).view_as(inputs)).to(inputs.dtype)


def without_directions(inputs: Tensor, adv_inputs: Tensor, directions: Tensor) -> Tensor:
    """Remove from each perturbation its part in the span of some directions, for example a linear classifier's weights.

    Args:
        inputs: (N, ...), the original images.
        adv_inputs: (N, ...), the perturbed images.
        directions: (M, D), D values of an image; they need not be independent.

    Returns:
        (N, ...), not clipped to [0, 1]; the norms are smaller than before.
    """
    rows = difference(inputs, adv_inputs).flatten(1).double()
    _, sizes, basis = torch.linalg.svd(directions.double().to(rows.device), full_matrices=False)
    basis = basis[sizes > 1e-10 * sizes.max().clamp_min(1e-300)]
    left = rows - rows @ basis.T @ basis
    return (inputs + left.view_as(inputs).to(inputs.dtype)).to(inputs.dtype)

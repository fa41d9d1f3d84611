"""Compare the directions in which networks err: gradients and perturbations, image by image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from intriguing.nn import evaluating, frozen, pick_output

_BATCH = 512  # images per backward pass


def input_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Compute the gradient of the cross-entropy with respect to each image.

    Args:
        model: images (N, ...) to logits (N, K).
        images: (N, ...).
        labels: (N,) integers.

    Returns:
        (N, D), D values of an image.
    """
    found = []
    with torch.enable_grad(), evaluating(model), frozen(model):
        for some, label in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
            inputs = some.detach().clone().requires_grad_()
            loss = F.cross_entropy(pick_output(model(inputs)), label, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, inputs)
            found.append(gradient.flatten(1))
    return torch.cat(found)


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Compute the cosine between the rows of two matrices, without underflow.

    Args:
        first: (N, ...).
        second: (N, ...).

    Returns:
        (N,) float64; nan where a row is zero.

    Example:
        >>> import torch
        >>> cosines(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]])).tolist()
        [0.6]
    """
    rows = []
    for one in (first, second):
        flat = one.flatten(1).double()
        flat = flat / flat.abs().amax(1, keepdim=True)
        rows.append(flat / flat.norm(dim=1, keepdim=True))
    return (rows[0] * rows[1]).sum(1)

"""Read minimal adversarial examples at a given strength: robust accuracy, and examples of a given L2 distance."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from intriguing.metrics import difference, distortion

_DOUBLINGS, _HALVINGS = 60, 60  # of the scale of a perturbation, until it is longer than eps, and between two scales
_SHORTER = 8  # times that the way beyond an example is halved where its end is no example


def l2_norm(inputs: Tensor, adv_inputs: Tensor) -> Tensor:
    """Compute the L2 norm of perturbations.

    Args:
        inputs: (N, ...), the images.
        adv_inputs: (N, ...), the perturbed images.

    Returns:
        (N,), at least float32.
    """
    return distortion(inputs, adv_inputs) * math.sqrt(math.prod(inputs.shape[1:]))


def robust_share(l2: Tensor, eps: Tensor) -> Tensor:
    """Compute the share of images whose example is farther than eps.

    Args:
        l2: (N,), distances of the examples; 0 where the image meets the goal unperturbed, inf where there is none.
        eps: (...) radii.

    Returns:
        (...) float64; nan without images.
    """
    ordered = l2.detach().double().cpu().sort().values
    within = torch.searchsorted(ordered, eps.detach().double().cpu().contiguous(), right=True)
    return (
        1 - within.double() / len(ordered) if len(ordered) else torch.full_like(within, torch.nan, dtype=torch.float64)
    )


def move_on(inputs: Tensor, adv_inputs: Tensor, eps: float, judge: Callable[[Tensor], Tensor]) -> tuple[Tensor, int]:
    """Move examples away from their images along their rays, clamped to the box, as far as eps allows.

    The distance grows with the scale of the perturbation also where pixels are clamped, up to the corner of the box in
    its direction, which may lie within eps. An image that is no example at the end of its way is moved half as far, and
    so on; if none of these is one, it stays.

    Args:
        inputs: (N, ...) in [0, 1], the images.
        adv_inputs: (N, ...) in [0, 1], examples whose L2 distance is at most ``eps``.
        eps: L2 distance.
        judge: returns which images (N, ...) are examples: (N,) bool.

    Returns:
        The images (N, ...), none farther than ``eps``, and how often the judge was asked.
    """

    def at(scale: Tensor) -> Tensor:
        shape = scale.view(-1, *[1] * (inputs.dim() - 1)).to(work)
        return (inputs.to(work) + shape * change).clamp(0, 1).to(inputs.dtype)

    change = difference(inputs, adv_inputs)
    work = change.dtype
    low = torch.ones(len(inputs), dtype=torch.float64, device=inputs.device)
    high, open_end = 2 * low, torch.ones_like(low, dtype=torch.bool)
    for _ in range(_DOUBLINGS):
        open_end = l2_norm(inputs, at(high)) <= eps
        low, high = torch.where(open_end, high, low), torch.where(open_end, 2 * high, high)
        if not bool(open_end.any()):
            break
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        inside = l2_norm(inputs, at(middle)) <= eps
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    moved, asked, found = adv_inputs.clone(), 0, torch.zeros_like(open_end)
    for halvings in range(_SHORTER):
        trial = at(1 + (low - 1) / 2**halvings)
        good = judge(trial) & ~found & (l2_norm(inputs, trial) <= eps)
        asked += 1
        moved[good], found = trial[good], found | good
        if bool(found.all()):
            break
    return moved, asked

"""Descend to the decision boundary with the direction and the length of the perturbation decoupled.

Source: Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and Defenses"
(CVPR 2019). Unlike there, the first radius is given by the caller, the radius changes by much at first and by little at
last, steps are in units of the radius, and the gradient is that of ``Tracker.ascend``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from intriguing.attacks.tracker import Tracker

_STEP = 2.0, 0.3  # length of a step in radii, at the first and at the last step


def descend(
    tracker: Tracker, rows: Tensor, x: Tensor, radius: Tensor, num_steps: int, change: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Descend from start points towards the boundary and keep the nearest successful point of each.

    Args:
        tracker: evaluates the points.
        rows: (R,) int64, the image of each start point.
        x: (R, n) in the box, start points.
        radius: (R,), L2 distance from the image at which to search first.
        num_steps: evaluations with a gradient.
        change: relative change of the radius, at the first and at the last step.

    Returns:
        Points (R, n) in the box and their L2 distances (R,). Where none succeeded: the start point and inf.
    """
    origin = tracker.origin[rows]
    best, best_distance = x.clone(), torch.full_like(radius, torch.inf)
    for index in range(num_steps):
        done = index / max(1, num_steps - 1)
        factor, step = (first * (last / first) ** done for first, last in (change, _STEP))
        excess, gradient = tracker.ascend(x, rows)
        moved = x - origin
        distance = moved.norm(dim=1)
        success = excess > 0
        nearer = success & (distance < best_distance)
        best = torch.where(nearer[:, None], x, best)
        best_distance = torch.where(nearer, distance, best_distance)
        smaller = torch.minimum(radius, distance) * (1 - factor)
        radius = torch.where(success, smaller, torch.minimum(radius * (1 + factor), best_distance))
        moved.addcmul_(unit(gradient), (step * radius)[:, None])
        x = torch.addcmul(origin, unit(moved), radius[:, None]).clamp_(0, 1)
    return best, best_distance


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors (R, n) to length 1; a vector of zeros becomes one fixed random direction.

    The direction does not depend on the row, so that no image depends on its batch.
    """
    largest = vectors.abs().amax(dim=1, keepdim=True)
    scaled = vectors / largest.clamp_min(torch.finfo(vectors.dtype).tiny)  # squares of small entries would underflow
    flat = (largest == 0).squeeze(1).nonzero().squeeze(1)
    if len(flat):
        scaled[flat] = random_direction(vectors, 0)
    return scaled / scaled.norm(dim=1, keepdim=True)


def random_direction(like: Tensor, seed: int) -> Tensor:
    """Draw a direction (n,) of length 1, equal in every call with the same seed, in the dtype of ``like`` (R, n)."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(like.shape[1], generator=generator, dtype=torch.float64)
    return (direction / direction.norm()).to(like)

"""Descend to the decision boundary with the direction and the length of the perturbation decoupled.

Source: Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and Defenses"
(CVPR 2019). Unlike there, the first radius follows from the linearised distance to the boundary; a radius at which all
points so far failed (or all succeeded) changes faster and faster, so that no scale must be known; and steps are in
units of the radius.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from intriguing.attacks.chunk import margin
from intriguing.attacks.network import Network
from intriguing.attacks.progress import report

MARGIN, ENTROPY = 0, 1
"""Objectives of a descent: the margin, with short steps from the linearised distance; or the cross-entropy, with long
steps from twice that distance. Their end points differ often enough to justify running both."""

_FIRST_RADIUS = 1.0, 2.0  # by objective, in linearised distances
_FIRST_STEP = 0.5, 3.0  # by objective, in radii; decreases along a cosine
_LAST_STEP = 0.01  # as a fraction of the first step
_CHANGE = 0.05  # relative change of the radius per step, once it has failed and succeeded
_SEARCH, _FASTEST_SEARCH = 0.05, 0.5  # before that: increase of the relative change per step, and its limit
_DEFAULT_RADIUS = 0.01  # in diagonals of the box, where the gradient gives no distance


def descend(net: Network, origin: Tensor, targets: Tensor, objectives: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """Descend towards target classes and keep the nearest successful images.

    Args:
        net: the network under attack.
        origin: (R, n), flat images in [0, 1].
        targets: (R,) classes.
        objectives: (R,) ``MARGIN`` or ``ENTROPY``.
        num_steps: evaluations with a gradient; one without a gradient follows.

    Returns:
        Images (R, n) in the box, and their L2 distances (R,). Where no point reached the class: the origin and inf.
    """
    entropic = objectives == ENTROPY
    first_radius = torch.where(entropic, _FIRST_RADIUS[1], _FIRST_RADIUS[0]).to(origin.dtype)
    step = torch.where(entropic, _FIRST_STEP[1], _FIRST_STEP[0]).to(origin.dtype)
    x, best = origin, origin.clone()
    radius = norm = torch.zeros_like(first_radius)
    best_norm, search_length = torch.full_like(norm, torch.inf), torch.zeros_like(norm)
    has_failed = has_succeeded = torch.zeros_like(entropic)
    for index in range(num_steps):
        report(index / num_steps)
        logits, _, slopes = net.differentiate(x, _objective, targets, entropic & (index > 0))
        gap = margin(logits, targets) - net.least_margin(logits)
        gradient = slopes[:, 0]
        slope, steepness = _normalise(gradient)
        success = gap > 0
        _keep(best, best_norm, x, norm, success)
        if index == 0:
            linear = -gap / steepness
            diagonal = math.sqrt(origin.shape[1])
            unknown = ~(linear < diagonal)
            radius = first_radius * torch.where(unknown, _DEFAULT_RADIUS * diagonal, linear.clamp_min(0))
        else:
            has_failed, has_succeeded = has_failed | ~success, has_succeeded | success
            searching = ~(has_failed & has_succeeded)
            search_length = search_length + searching
            change = torch.where(searching, (_SEARCH * search_length).clamp_max(_FASTEST_SEARCH), _CHANGE)
            radius = torch.where(success, torch.minimum(radius, norm) * (1 - change), radius * (1 + change))
        share = _LAST_STEP + (1 - _LAST_STEP) * (1 + math.cos(math.pi * index / num_steps)) / 2
        moved = torch.sub(x, origin).addcmul_(gradient, (share * step * radius / slope)[:, None])
        scale = radius / moved.norm(dim=1).clamp_min_(torch.finfo(radius.dtype).tiny)
        x = torch.addcmul(origin, moved, scale[:, None]).clamp_(0, 1)
        norm = torch.sub(x, origin, out=moved).norm(dim=1)
    logits = net.logits(x)
    _keep(best, best_norm, x, norm, margin(logits, targets) > net.least_margin(logits))
    return best, best_norm


def _objective(logits: Tensor, targets: Tensor, entropic: Tensor) -> Tensor:
    """Compute values (r, 1): the target's margin, or its log-probability where ``entropic``."""
    column = targets[:, None]
    logit = logits.gather(1, column)
    rival = logits.scatter(1, column, -torch.inf).amax(dim=1, keepdim=True)
    return logit - torch.where(entropic[:, None], logits.logsumexp(dim=1, keepdim=True), rival)


def _normalise(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Rescale, in place, gradients (R, n) whose squares overflow or underflow, and replace those that are 0.

    Returns:
        The norms (R,) of the changed gradients, and the norms (R,) of the original ones.
    """
    norm = gradient.norm(dim=1)
    limit = torch.finfo(norm.dtype).tiny ** 0.5
    extreme = ((norm < limit / torch.finfo(norm.dtype).eps) | ~norm.isfinite()).nonzero().squeeze(1)
    if len(extreme) == 0:
        return norm, norm
    largest = gradient[extreme].abs().amax(dim=1)
    scaled = gradient[extreme] / largest.clamp_min(torch.finfo(norm.dtype).tiny)[:, None]
    # Rows without a gradient share one fixed direction, so that no image depends on its batch.
    scaled = torch.where((largest > 0)[:, None], scaled, fixed_direction(gradient))
    steepness = norm.clone()
    gradient[extreme], norm[extreme] = scaled, scaled.norm(dim=1)
    steepness[extreme] = (norm[extreme] * largest).clamp_min(torch.finfo(norm.dtype).tiny)
    return norm, steepness


def fixed_direction(like: Tensor) -> Tensor:
    """Make a direction (n,) with independent Gaussian entries, equal in every call, in the dtype of ``like`` (R, n)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(like.shape[1], generator=generator, dtype=torch.float64).to(like)


def _keep(best: Tensor, best_norm: Tensor, x: Tensor, norm: Tensor, success: Tensor) -> None:
    """Store the successful points x (R, n) that are nearer than the best ones so far."""
    better = success & (norm < best_norm)
    rows = better.nonzero().squeeze(1)
    best[rows] = x[rows]
    best_norm[rows] = norm[rows]

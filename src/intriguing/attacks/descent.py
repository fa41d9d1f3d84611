"""Descent with the perturbation's direction and its length decoupled: a cheap way to the boundary, from several sides.

Source: Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and Defenses"
(CVPR 2019). Other than there, the first radius comes from the linearised distance, a radius that has only ever failed
(or only ever succeeded) is changed faster and faster, so that no scale has to be known, and steps are in radii.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from intriguing.attacks.base import margin
from intriguing.attacks.network import Network

MARGIN, ENTROPY = 0, 1
"""Ways to go: along the margin in short steps from the linearised distance, or along the cross-entropy in long steps
from outside. They end in different places often enough to be worth the two of them."""

_FIRST_RADIUS = 1.0, 2.0  # by way, in linearised distances
_FIRST_STEP = 0.5, 3.0  # by way, in radii; falls to _LAST_STEP of itself along a cosine
_LAST_STEP = 0.01
_CHANGE = 0.05  # of the radius, once it is between a failure and a success
_SEARCH, _FASTEST_SEARCH = 0.05, 0.5  # before: that much more at each step, up to
_BLIND_RADIUS = 0.01  # of the box's diagonal, where the gradient says nothing


def descend(net: Network, origin: Tensor, targets: Tensor, ways: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """Find the nearest images of the target classes that a descent passes.

    Args:
        net: the network under attack.
        origin: (R, n), flat images in [0, 1].
        targets: (R,) classes.
        ways: (R,) `MARGIN` or `ENTROPY`.
        num_steps: evaluations with a gradient; one without follows.

    Returns:
        Images (R, n) in the box, and their L2 distances (R,): inf, with the origin, where none reached its class.
    """
    entropic = ways == ENTROPY
    first_radius = torch.where(entropic, _FIRST_RADIUS[1], _FIRST_RADIUS[0]).to(origin.dtype)
    step = torch.where(entropic, _FIRST_STEP[1], _FIRST_STEP[0]).to(origin.dtype)
    x, best = origin, origin.clone()
    radius = norm = torch.zeros_like(first_radius)
    best_norm, run = torch.full_like(norm, torch.inf), torch.zeros_like(norm)
    has_failed = has_succeeded = torch.zeros_like(entropic)
    for index in range(num_steps):
        logits, _, slopes = net.differentiate(x, _objective, targets, entropic & (index > 0))
        gap = margin(logits, targets) - net.least_margin(logits)
        gradient = slopes[:, 0]
        slope, steepness = _normalise(gradient)
        success = gap > 0
        _keep(best, best_norm, x, norm, success)
        if index == 0:
            linear = -gap / steepness
            diagonal = math.sqrt(origin.shape[1])
            blind = ~(linear < diagonal)
            radius = first_radius * torch.where(blind, _BLIND_RADIUS * diagonal, linear.clamp_min(0))
        else:
            has_failed, has_succeeded = has_failed | ~success, has_succeeded | success
            searching = ~(has_failed & has_succeeded)
            run = run + searching
            change = torch.where(searching, (_SEARCH * run).clamp_max(_FASTEST_SEARCH), _CHANGE)
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
    """(r, 1) the target's margin, or its log-probability where `entropic`."""
    column = targets[:, None]
    own = logits.gather(1, column)
    rival = logits.scatter(1, column, -torch.inf).amax(dim=1, keepdim=True)
    return own - torch.where(entropic[:, None], logits.logsumexp(dim=1, keepdim=True), rival)


def _normalise(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Rescale, in place, gradients (R, n) whose squares overflow or vanish, and replace those that are 0.

    Returns:
        (R,) the norms of what `gradient` holds now, and (R,) the norms that it had.
    """
    norm = gradient.norm(dim=1)
    limit = torch.finfo(norm.dtype).tiny ** 0.5
    odd = ((norm < limit / torch.finfo(norm.dtype).eps) | ~norm.isfinite()).nonzero().squeeze(1)
    if len(odd) == 0:
        return norm, norm
    largest = gradient[odd].abs().amax(dim=1)
    scaled = gradient[odd] / largest.clamp_min(torch.finfo(norm.dtype).tiny)[:, None]
    # Where nothing says which way to go, all rows try one: an image does not depend on its batch.
    scaled = torch.where((largest > 0)[:, None], scaled, any_direction(gradient))
    steepness = norm.clone()
    gradient[odd], norm[odd] = scaled, scaled.norm(dim=1)
    steepness[odd] = (norm[odd] * largest).clamp_min(torch.finfo(norm.dtype).tiny)
    return norm, steepness


def any_direction(like: Tensor) -> Tensor:
    """(n,) a direction without a preference, as flat as an image of `like` (R, n); it is always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(like.shape[1], generator=generator, dtype=torch.float64).to(like)


def _keep(best: Tensor, best_norm: Tensor, x: Tensor, norm: Tensor, success: Tensor) -> None:
    better = success & (norm < best_norm)
    rows = better.nonzero().squeeze(1)
    best[rows] = x[rows]
    best_norm[rows] = norm[rows]

"""Descent with the perturbation's direction and its length decoupled: a cheap way to the boundary, from several sides.

Source: Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and Defenses"
(CVPR 2019). Other than there, the first radius comes from the linearised distance, a radius that has only ever failed
(or only ever succeeded) is changed faster and faster, so that no scale has to be known, and steps are in radii.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from intriguing.attacks.base import least_margin

MARGIN, ENTROPY = 0, 1
"""Ways to go: along the margin in short steps from the linearised distance, or along the cross-entropy in long steps
from outside. They end in different places often enough to be worth the two of them."""

_FIRST_RADIUS = 1.0, 2.0  # by way, in linearised distances
_FIRST_STEP = 0.5, 3.0  # by way, in radii; falls to _LAST_STEP of itself along a cosine
_LAST_STEP = 0.01
_CHANGE = 0.05  # of the radius, once it is between a failure and a success
_SEARCH, _FASTEST_SEARCH = 0.05, 0.5  # before: that much more at each step, up to
_BLIND_RADIUS = 0.01  # of the box's diagonal, where the gradient says nothing


def descend(
    model: nn.Module, shape: torch.Size, origin: Tensor, targets: Tensor, ways: Tensor, num_steps: int
) -> tuple[Tensor, Tensor]:
    """The nearest images of the target classes that a descent passes.

    Args:
        model: in evaluation mode, frozen; (N, *shape) in [0, 1] to logits (N, K).
        shape: of one image.
        origin: (N, n), flat images in [0, 1].
        targets: (N,) classes.
        ways: (N,) `MARGIN` or `ENTROPY`.
        num_steps: evaluations with a gradient; one without follows.

    Returns:
        Images (N, n) in the box, and their L2 distances (N,): inf, with the origin, where none reached its class.
    """
    entropic = ways == ENTROPY
    first_radius = torch.where(entropic, _FIRST_RADIUS[1], _FIRST_RADIUS[0]).to(origin.dtype)
    step = torch.where(entropic, _FIRST_STEP[1], _FIRST_STEP[0]).to(origin.dtype)
    x, best = origin, origin.clone()
    radius = norm = torch.zeros_like(first_radius)
    best_norm, run = torch.full_like(norm, torch.inf), torch.zeros_like(norm)
    has_failed = has_succeeded = torch.zeros_like(entropic)
    for index in range(num_steps):
        gap, gradient = _margin_and_gradient(model, shape, x, targets, entropic & (index > 0))
        slope = gradient.norm(dim=1).clamp_min_(torch.finfo(gradient.dtype).tiny)
        success = gap > 0
        _keep(best, best_norm, x, norm, success)
        if index == 0:
            linear = -gap / slope
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
    with torch.no_grad():
        gap = _trusted_margin(model(x.view(-1, *shape)), targets)
    _keep(best, best_norm, x, norm, gap > 0)
    return best, best_norm


def _margin_and_gradient(
    model: nn.Module, shape: torch.Size, x: Tensor, targets: Tensor, entropic: Tensor
) -> tuple[Tensor, Tensor]:
    """The target's margin (N,) less what rounding may hide, and the gradient (N, n) of it or of its log-probability."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x.view(-1, *shape))
        own = logits.gather(1, targets[:, None]).squeeze(1)
        rival = logits.scatter(1, targets[:, None], -torch.inf).amax(dim=1)
        (gradient,) = torch.autograd.grad((own - torch.where(entropic, logits.logsumexp(dim=1), rival)).sum(), x)
    return (own - rival - least_margin(logits)).detach(), gradient


def _trusted_margin(logits: Tensor, targets: Tensor) -> Tensor:
    own = logits.gather(1, targets[:, None]).squeeze(1)
    return own - logits.scatter(1, targets[:, None], -torch.inf).amax(dim=1) - least_margin(logits)


def _keep(best: Tensor, best_norm: Tensor, x: Tensor, norm: Tensor, success: Tensor) -> None:
    better = success & (norm < best_norm)
    rows = better.nonzero().squeeze(1)
    best[rows] = x[rows]
    best_norm[rows] = norm[rows]

"""A search of the whole box, for images that no descent from the image itself brings to where an attack wants them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from intriguing.attacks.base import Goal
from intriguing.attacks.network import Network

_NUM_POINTS = 64
_FRACTIONS = 1.0, 0.6, 0.3  # of the way from the image to each point
_NUM_ASCENTS = 4  # from the points that come nearest to success
_NUM_STEPS = 24
_FIRST_STEP, _LAST_STEP = 0.2, 0.005  # of an ascent, in diagonals of the box
_NUM_HALVINGS = 12


def search_box(net: Network, origin: Tensor, goal: Goal) -> tuple[Tensor, Tensor, int, int]:
    """Look for successful images anywhere in the box.

    Points all over the box (constant images, uniform ones, corners) and on the way to them are tried; then the excess
    is ascended from those that come nearest to success. The nearest success is pulled towards the image by bisection.

    Args:
        net: the network under attack.
        origin: (M, n), flat images in [0, 1].
        goal: what is wanted of each.

    Returns:
        (M, n), the images found, or the point with the largest excess where there is none; (M,) bool, whether one was
        found; and the numbers of forward and backward passes of each image.
    """
    points = _points(origin)
    best, best_excess = origin.clone(), torch.full_like(origin[:, 0], -torch.inf)
    nearest, distance = origin.clone(), torch.full_like(best_excess, torch.inf)

    def look(x: Tensor, logits: Tensor) -> Tensor:
        """Take in the points x (M, n) with their logits; returns their excess beyond rounding (M,)."""
        excess = (goal.excess(logits) - net.least_margin(logits)).nan_to_num(-torch.inf)
        size = (x - origin).norm(dim=1)
        nearer = (excess > 0) & (size < distance)
        nearest[nearer], distance[nearer] = x[nearer], size[nearer]
        higher = excess > best_excess
        best[higher], best_excess[higher] = x[higher], excess[higher]
        return excess

    num_forwards = num_backwards = 0
    all_excess = []
    for fraction in _FRACTIONS:
        for point in points:
            x = torch.lerp(origin, point.expand_as(origin), fraction)
            excess = look(x, net.logits(x))
            num_forwards += 1
            if fraction == 1.0:
                all_excess.append(excess)
    ranked = torch.stack(all_excess).topk(_NUM_ASCENTS, dim=0).indices
    for rank in ranked:
        forwards, backwards = _ascend(net, points[rank], goal, look)
        num_forwards, num_backwards = num_forwards + forwards, num_backwards + backwards
    found = distance.isfinite()
    x = torch.where(found[:, None], nearest, best)
    inner = torch.zeros_like(distance)
    outer = torch.ones_like(distance)
    for _ in range(_NUM_HALVINGS if bool(found.any()) else 0):
        middle = (inner + outer) / 2
        trial = torch.lerp(origin, x, middle[:, None])
        logits = net.logits(trial)
        success = goal.excess(logits) > net.least_margin(logits)
        inner, outer = torch.where(success, inner, middle), torch.where(success, middle, outer)
        num_forwards += 1
    x = torch.where(found[:, None], torch.lerp(origin, x, outer[:, None]), x)
    return x, found, num_forwards, num_backwards


def _points(origin: Tensor) -> Tensor:
    """(P, n) points all over the box, the same for every image, so that none depends on its batch."""
    n = origin.shape[1]
    generator = torch.Generator().manual_seed(0)
    constant = torch.tensor([[0.0], [1.0], [0.5]], dtype=torch.float64).expand(-1, n)
    num_uniform = (_NUM_POINTS - len(constant)) // 2
    uniform = torch.rand(num_uniform, n, generator=generator, dtype=torch.float64)
    num_corners = _NUM_POINTS - len(constant) - num_uniform
    density = torch.linspace(0.1, 0.9, num_corners, dtype=torch.float64)[:, None]
    corners = (torch.rand(num_corners, n, generator=generator, dtype=torch.float64) < density).double()
    return torch.cat([constant, uniform, corners]).to(origin)


def _ascend(net: Network, x: Tensor, goal: Goal, look: Callable[[Tensor, Tensor], Tensor]) -> tuple[int, int]:
    """Ascend the excess by projected gradient steps of falling length; returns the forward and backward passes."""

    def objective(logits: Tensor, classes: Tensor) -> Tensor:
        column = classes[:, None]
        own = logits.gather(1, column)
        others = logits.scatter(1, column, -torch.inf)
        # the logarithm of the odds: unlike the margin it has a slope for every class that comes near
        odds = own - others.logsumexp(dim=1, keepdim=True)
        return odds if goal.targeted else -odds

    diagonal = x.shape[1] ** 0.5
    for index in range(_NUM_STEPS):
        logits, _, slopes = net.differentiate(x, objective, goal.classes)
        look(x, logits)
        slope = slopes[:, 0]
        length = diagonal * _FIRST_STEP * (_LAST_STEP / _FIRST_STEP) ** (index / (_NUM_STEPS - 1))
        largest = slope.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
        slope = slope / largest
        x = (x + length * slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp(0, 1)
    look(x, net.logits(x))
    return _NUM_STEPS + 1, _NUM_STEPS

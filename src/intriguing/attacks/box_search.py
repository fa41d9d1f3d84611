"""Search the whole box for images on which all descents from the image have failed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from intriguing.attacks.chunk import Goal
from intriguing.attacks.network import Network

_NUM_POINTS = 64
_FRACTIONS = 1.0, 0.6, 0.3  # of the way from the image to each point
_NUM_ASCENTS = 4  # from the points nearest to success
_NUM_STEPS = 24
_FIRST_STEP, _LAST_STEP = 0.2, 0.005  # lengths in an ascent, in diagonals of the box
_NUM_HALVINGS = 12


def search_box(net: Network, origin: Tensor, goal: Goal) -> tuple[Tensor, Tensor, int, int]:
    """Search for successful images anywhere in the box.

    The search evaluates points of the whole box (constant images, uniform random images, corners) and points between
    them and the image. From the points nearest to success it ascends the margin of the goal. Bisection then moves the
    nearest success towards the image.

    Args:
        net: the network under attack.
        origin: (M, n), flat images in [0, 1].
        goal: goal of each image.

    Returns:
        The images (M, n), or the points with the largest margin where the search failed; success (M,) bool; and the
        numbers of forward and backward passes per image.
    """
    points = box_points(origin)
    best, best_excess = origin.clone(), torch.full_like(origin[:, 0], -torch.inf)
    nearest, distance = origin.clone(), torch.full_like(best_excess, torch.inf)

    def record(x: Tensor, logits: Tensor) -> Tensor:
        """Keep the nearest successes and the largest margins among points x (M, n); return the margins (M,)."""
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
            excess = record(x, net.logits(x))
            num_forwards += 1
            if fraction == 1.0:
                all_excess.append(excess)
    ranked = torch.stack(all_excess).topk(_NUM_ASCENTS, dim=0).indices
    for rank in ranked:
        forwards, backwards = _ascend(net, points[rank], goal, record)
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


def box_points(origin: Tensor) -> Tensor:
    """Make points (P, n) of the whole box, equal for all images, so that no result depends on the batch."""
    n = origin.shape[1]
    generator = torch.Generator().manual_seed(0)
    constant = torch.tensor([[0.0], [1.0], [0.5]], dtype=torch.float64).expand(-1, n)
    num_uniform = (_NUM_POINTS - len(constant)) // 2
    uniform = torch.rand(num_uniform, n, generator=generator, dtype=torch.float64)
    num_corners = _NUM_POINTS - len(constant) - num_uniform
    density = torch.linspace(0.1, 0.9, num_corners, dtype=torch.float64)[:, None]
    corners = (torch.rand(num_corners, n, generator=generator, dtype=torch.float64) < density).double()
    return torch.cat([constant, uniform, corners]).to(origin)


def _ascend(net: Network, x: Tensor, goal: Goal, record: Callable[[Tensor, Tensor], Tensor]) -> tuple[int, int]:
    """Ascend the goal's margin by projected gradient steps of decreasing length; return the numbers of passes."""

    def objective(logits: Tensor, classes: Tensor) -> Tensor:
        column = classes[:, None]
        logit = logits.gather(1, column)
        others = logits.scatter(1, column, -torch.inf)
        # the log-odds: unlike the margin they have a gradient for every class with a large logit
        odds = logit - others.logsumexp(dim=1, keepdim=True)
        return odds if goal.targeted else -odds

    diagonal = x.shape[1] ** 0.5
    for index in range(_NUM_STEPS):
        logits, _, slopes = net.differentiate(x, objective, goal.classes)
        record(x, logits)
        slope = slopes[:, 0]
        length = diagonal * _FIRST_STEP * (_LAST_STEP / _FIRST_STEP) ** (index / (_NUM_STEPS - 1))
        largest = slope.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
        slope = slope / largest
        x = (x + length * slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp(0, 1)
    record(x, net.logits(x))
    return _NUM_STEPS + 1, _NUM_STEPS

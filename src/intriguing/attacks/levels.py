"""Search adversarial examples on the grid of an image file's values, k / (levels - 1) for k = 0..levels-1.

Rounding a minimal example to the nearest grid point usually takes it back over the decision boundary. The search here
starts from the continuous example and works on the grid itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from intriguing.attacks.chunk import ChunkResult, Goal
from intriguing.attacks.linearise import gap, linearise
from intriguing.attacks.network import Network
from intriguing.attacks.progress import report
from intriguing.attacks.projection import project_onto_halfspaces
from intriguing.validation import whole_number

_MOST_DOUBLINGS = 20  # of a direction, until rounding it gives a success
_HALVINGS = 12, 7  # of the bracket of the scale: along the first direction and along each later one
_NUM_DIRECTIONS = 5  # linearisations at the best grid point
_NUM_RIVALS = 4  # inequalities of each
_NUM_EXCHANGES = 16
_NUM_PAIRS, _NUM_MOVES = 10, 32  # rounds of the search over pairs of grid steps, and the steps that make pairs
_BUDGETS = 1.0, 0.5, 0.15  # fractions of the margin that an exchange may spend, tried in turn


def check_levels(levels: object, dtype: torch.dtype | None = None) -> int | None:
    """Check a number of grid values.

    Args:
        levels: a whole number from 2 on; None for no grid.
        dtype: of the images; None is not checked.

    Raises:
        TypeError: it is no number.
        ValueError: it is out of range, or the dtype has fewer values than the grid.
    """
    if levels is None:
        return None
    count = whole_number("levels", levels, 2)
    if dtype is not None and (count - 1) * torch.finfo(dtype).eps / 2 > 1:  # spacing of numbers just below 1
        raise ValueError(f"levels={count} needs images in a finer dtype: {dtype} has fewer values near 1")
    return count


def to_grid(images: Tensor, levels: int) -> Tensor:
    """Round images in [0, 1] to the nearest grid points k / (levels - 1).

    Example:
        >>> import torch
        >>> to_grid(torch.tensor([0.2, 0.3, 0.6]), levels=3).tolist()
        [0.0, 0.5, 0.5]
    """
    return (images * (levels - 1)).round() / (levels - 1)


def round_for(net: Network, x: Tensor, levels: int) -> Tensor:
    """Round images (M, n) to grid points as the dtype of the caller's images has them."""
    return to_grid(x, levels).to(net.image_dtype).to(net.dtype)


@dataclass
class _Search:
    """Hold the nearest successes on the grid, for M images of n pixels.

    Attributes:
        net: the network under attack.
        goal: the goal of each image.
        origin: (M, n), the images, which need not lie on the grid.
        levels: number of grid values.
        best: (M, n), the nearest success so far; the rounded image where there is none.
        distance: (M,), its squared L2 distance to the image; inf where there is none.
        num_forwards, num_backwards: passes per image.
    """

    net: Network
    goal: Goal
    origin: Tensor
    levels: int
    best: Tensor
    distance: Tensor
    num_forwards: int = 0
    num_backwards: int = 0

    def try_points(self, x: Tensor) -> Tensor:
        """Evaluate grid points (M, n), keep those that succeed and are nearer; return the success (M,)."""
        success = gap(self.net, self.goal, x) > 0
        self.num_forwards += 1
        distance = (x - self.origin).square().sum(dim=1)
        nearer = success & (distance < self.distance)
        self.best = torch.where(nearer[:, None], x, self.best)
        self.distance = torch.where(nearer, distance, self.distance)
        return success

    @property
    def found(self) -> Tensor:
        """Whether there is a success, (M,)."""
        return self.distance.isfinite()


def search_grid(net: Network, origin: Tensor, found: ChunkResult, goal: Goal, levels: int) -> ChunkResult:
    """Find grid points near continuous adversarial examples that are adversarial themselves.

    The minimum over the grid of |x - origin|^2 under one linear inequality with normal w is, but for at most one grid
    step in one pixel, the rounding of origin + s w with the smallest s that satisfies it. So the search

    1. rounds points of the ray from the image through the example, and finds the smallest scale that succeeds;
    2. does this again for the directions of projections of the image onto the decision boundaries, linearised at the
       best grid point so far;
    3. exchanges single grid steps: of the steps back to the image, it takes those that lose the least margin for the
       distance they save, as many as the margin allows, also after one step away from the image that pays for more;
    4. makes the best pairs of grid steps under the inequalities of several classes, also to reach a first success.

    Args:
        net: the network under attack.
        origin: (M, n), flat images in [0, 1].
        found: the continuous result; rows that failed stay failed.
        goal: the goal of each image.
        levels: number of grid values.

    Returns:
        The result on the grid; distances are those to the images, also where these lie beside the grid. The nearest
        grid point of such an image may succeed by itself.
    """
    rows = found.success.nonzero().squeeze(1)
    x, success = found.x.clone(), found.success.clone()
    forwards, backwards = torch.zeros_like(goal.classes), torch.zeros_like(goal.classes)
    if len(rows):
        start, own = found.x[rows], goal.take(rows)
        near = round_for(net, origin[rows], levels)
        work = _Search(net, own, origin[rows], levels, near, torch.full_like(near[:, 0], torch.inf))
        settled = work.try_points(near)  # no grid point is nearer
        _along(work, start - work.origin, _HALVINGS[0])
        for index in range(_NUM_DIRECTIONS):
            report(index / (_NUM_DIRECTIONS + _NUM_EXCHANGES))
            _project(work, torch.where(work.found[:, None], work.best, start))
        for index in range(_NUM_EXCHANGES):
            report((_NUM_DIRECTIONS + index) / (_NUM_DIRECTIONS + _NUM_EXCHANGES))
            if not _exchange(work, work.found & ~settled):
                break
        current = round_for(net, start, levels)
        for _ in range(_NUM_PAIRS):
            before = work.distance
            current = _move_pair(work, torch.where(work.found[:, None], work.best, current))
            if not bool(((work.distance < before) | ~work.found).any()):
                break
        x[rows], success[rows] = work.best, work.found
        forwards[rows], backwards[rows] = work.num_forwards, work.num_backwards
    return ChunkResult(
        x=torch.where(success[:, None], x, origin),
        success=success,
        num_forwards=found.num_forwards + forwards,
        num_backwards=found.num_backwards + backwards,
        c=found.c,
    )


def _along(work: _Search, direction: Tensor, halvings: int) -> None:
    """Find the smallest scale of a direction (M, n) whose rounded point succeeds, by doubling and bisection."""

    def attempt(scale: Tensor) -> Tensor:
        point = torch.addcmul(work.origin, direction, scale[:, None]).clamp_(0, 1)
        return work.try_points(round_for(work.net, point, work.levels))

    scale = torch.ones_like(direction[:, 0])
    low, high = torch.zeros_like(scale), torch.full_like(scale, torch.inf)
    for _ in range(_MOST_DOUBLINGS):
        success = attempt(scale)
        high, low = torch.where(success, torch.minimum(high, scale), high), torch.where(success, low, scale)
        if bool(high.isfinite().all()):
            break
        scale = torch.where(high.isfinite(), high, 2 * scale)
    for _ in range(halvings):
        scale = torch.where(high.isfinite(), (low + high) / 2, low)
        success = attempt(scale)
        high, low = torch.where(success, scale, high), torch.where(success, low, scale)


def _project(work: _Search, x: Tensor) -> None:
    """Search along the direction to the projection of the image onto the boundaries, linearised at x (M, n)."""
    gaps, normals, _ = linearise(work.net, work.goal, x, _NUM_RIVALS)
    work.num_backwards += normals.shape[1]
    work.num_forwards += 1
    offsets = torch.linalg.vecdot(normals, x[:, None]) - gaps
    projected, _ = project_onto_halfspaces(work.origin, normals, offsets)
    _along(work, projected - work.origin, _HALVINGS[1])


def _exchange(work: _Search, active: Tensor) -> bool:
    """Make grid steps that bring the best points nearer to the images; return whether any image came nearer."""
    before, step = work.distance.clone(), 1 / (work.levels - 1)
    rows = active.nonzero().squeeze(1)
    if not len(rows):
        return False
    part = _Search(
        work.net, work.goal.take(rows), work.origin[rows], work.levels, work.best[rows], work.distance[rows].clone()
    )
    gaps, normals, _ = linearise(part.net, part.goal, part.best, 1)
    part.num_forwards, part.num_backwards = 1, 1
    point, offset = part.best, part.best - part.origin
    # Steps back: distance saved and margin lost. Steps away: distance added and margin won.
    side = offset.sign()
    saved = offset.square() - (offset - step * side).square()
    lost = normals[:, 0] * side * step
    uphill = normals[:, 0].sign()
    added = (offset + step * uphill).square() - offset.square()
    won = normals[:, 0].abs() * step
    outside = ((point + step * uphill < -step / 2) | (point + step * uphill > 1 + step / 2)) | (uphill == 0)
    added = torch.where(outside, torch.inf, added)
    for share in _BUDGETS:
        trial = _spend(point, share * gaps[:, 0].clamp_min(0), saved, lost, side, added, won, uphill, step)
        part.try_points(round_for(part.net, trial.clamp(0, 1), part.levels))
    work.best[rows], work.distance[rows] = part.best, part.distance
    work.num_forwards += part.num_forwards
    work.num_backwards += part.num_backwards
    return bool((work.distance < before).any())


def _spend(
    point: Tensor,
    margin: Tensor,
    saved: Tensor,
    lost: Tensor,
    side: Tensor,
    added: Tensor,
    won: Tensor,
    uphill: Tensor,
    step: float,
) -> Tensor:
    """Choose grid steps in the linear model: the steps back that a margin pays for, after the best step away or none.

    Args:
        point: (M, n), grid points.
        margin: (M,), margin to spend.
        saved: (M, n), squared distance that a step back saves; not positive where there is none.
        lost: (M, n), margin that it loses; negative where it wins some.
        side: (M, n), sign of the perturbation, against which a step back goes.
        added: (M, n), squared distance that a step away adds; inf where there is none.
        won: (M, n), margin that it wins.
        uphill: (M, n), its sign.
        step: length of a step.

    Returns:
        The points (M, n) after the steps.
    """
    useful = saved > 0
    price = torch.where(useful, lost / saved.clamp_min(torch.finfo(saved.dtype).tiny), torch.inf)
    order = price.argsort(dim=1)
    costs = torch.where(useful, lost, torch.inf).gather(1, order).cumsum(dim=1)
    savings = torch.where(useful, saved, 0.0).gather(1, order).cumsum(dim=1)
    budgets = torch.cat([margin[:, None], margin[:, None] + won], dim=1)
    lengths = torch.searchsorted(costs.cummax(dim=1).values, budgets, right=True)
    bought = torch.cat([torch.zeros_like(margin[:, None]), savings], dim=1).gather(1, lengths)
    balance = bought - torch.cat([torch.zeros_like(margin[:, None]), added], dim=1)
    choice = balance.argmax(dim=1, keepdim=True)
    length = lengths.gather(1, choice)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    moved = torch.where(rank < length, point - step * side, point)
    away = (choice - 1).clamp_min(0)
    moves = torch.where(choice > 0, step * uphill.gather(1, away), 0.0)
    return moved.scatter_add(1, away, moves)


def _move_pair(work: _Search, x: Tensor) -> Tensor:
    """Make the best pair of grid steps from points x (M, n), in the model linearised there.

    Where the point succeeds, that is the feasible pair that saves the most distance; elsewhere the feasible pair with
    the smallest distance, or the one that violates the inequalities least.

    Returns:
        The points after the steps, on the grid.
    """
    step, num_pixels = 1 / (work.levels - 1), x.shape[1]
    gaps, normals, _ = linearise(work.net, work.goal, x, _NUM_RIVALS)
    work.num_forwards, work.num_backwards = work.num_forwards + 1, work.num_backwards + normals.shape[1]
    offset = x - work.origin
    moves = torch.tensor([step, -step], dtype=x.dtype, device=x.device)[:, None]
    added = (offset[:, None] + moves).square() - offset.square()[:, None]  # (M, 2, n)
    point = x[:, None] + moves
    added = torch.where((point < -step / 2) | (point > 1 + step / 2), torch.inf, added).flatten(1)
    # Near the optimum, the offset is multiplier * normal / 2, and the steps worth a try balance the two.
    normal = normals[:, 0]
    steepness = torch.linalg.vecdot(normal, normal).clamp_min(torch.finfo(x.dtype).tiny)
    multiplier = (2 * torch.linalg.vecdot(offset, normal) / steepness).clamp_min(0)
    balance = added - multiplier[:, None] * (normal[:, None] * moves).flatten(1)
    chosen = balance.topk(min(_NUM_MOVES, 2 * num_pixels), dim=1, largest=False).indices
    which, size = chosen % num_pixels, torch.where(chosen < num_pixels, step, -step).to(x.dtype)
    effect = normals.gather(2, which[:, None].expand(-1, normals.shape[1], -1)) * size[:, None]
    nothing = torch.zeros_like(effect[:, :, :1])  # one step, or none, is a pair too
    effect = torch.cat([effect, nothing], dim=2)
    added = torch.cat([added.gather(1, chosen), nothing[:, 0]], dim=1)
    which, size = torch.cat([which, -torch.ones_like(which[:, :1])], dim=1), torch.cat([size, nothing[:, 0]], dim=1)
    clash = (which[:, :, None] == which[:, None]) & (which >= 0)[:, :, None]
    after = gaps[:, :, None, None] + effect[:, :, :, None] + effect[:, :, None]
    violation = (-after).amax(dim=1).clamp_min(0)
    score = torch.where(violation > 0, num_pixels + violation, added[:, :, None] + added[:, None])
    pair = torch.where(clash, torch.inf, score).flatten(1).argmin(dim=1, keepdim=True)
    moved = x.clone()
    for place in (pair // added.shape[1], pair % added.shape[1]):
        moved.scatter_add_(1, which.gather(1, place).clamp_min(0), size.gather(1, place))
    moved = round_for(work.net, moved.clamp_(0, 1), work.levels)
    work.try_points(moved)
    return moved

"""Find successful images far from images at which all descents from the image have failed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from intriguing.attacks.chunk import Goal, margin
from intriguing.attacks.network import Network
from intriguing.optim import ProjectedLbfgs

_MOST_SCANNED, _SHARE_OF_SCAN = 32, 0.08  # points of the box that are only evaluated: at most, and of the evaluations
_SHARE_OF_DESCENT, _SHARE_OF_LAST = 0.05, 0.15  # of the evaluations of an image: for each descent, and for the last
_NUM_HALVINGS = 8
_FIRST_LENGTH = 0.5  # of a descent's first step
_HISTORY_SIZE = 5


@dataclass
class BoxPoints:
    """Hold the successful images that a search of the box has found, for M images of n pixels.

    Attributes:
        x: (M, n), images on the successful side of the decision boundary; where the search failed, the points with the
            largest margin.
        success: (M,) bool.
        targets: (M,) int64, the classes that were reached or aimed at; the goal's, if it has targets.
        num_forwards, num_backwards: (M,) int64, passes that each image took part in.
        spent: (M,) int64, largest number of forward passes that the search may have needed up to its result: it depends
            on no other image.
    """

    x: Tensor
    success: Tensor
    targets: Tensor
    num_forwards: Tensor
    num_backwards: Tensor
    spent: Tensor


def search_box(net: Network, origin: Tensor, goal: Goal, max_evaluations: int) -> BoxPoints:
    """Search for successful images anywhere in the box.

    The search minimises the cross-entropy alone, by L-BFGS, from one start point after the other: points halfway
    to random images, the image, constant images, and the best point out of a scan of the whole box. The segment from
    the image to the first success is then bisected.

    Args:
        net: the network under attack.
        origin: (M, n), flat images in [0, 1].
        goal: goal of each image.
        max_evaluations: evaluations of an image in the whole attack, 100 at least; the search uses less than three
            quarters of them.
    """
    box = BoxPoints(
        x=origin.clone(),
        success=torch.zeros_like(goal.classes, dtype=torch.bool),
        targets=goal.classes.clone(),
        num_forwards=torch.zeros_like(goal.classes),
        num_backwards=torch.zeros_like(goal.classes),
        spent=torch.zeros_like(goal.classes),
    )
    scale = _scale(net.logits(origin))
    box.num_forwards += 1
    box.spent += 1
    num_steps, num_last = (int(share * max_evaluations) for share in (_SHARE_OF_DESCENT, _SHARE_OF_LAST))
    points = box_points(origin, min(_MOST_SCANNED, int(_SHARE_OF_SCAN * max_evaluations)))
    grey, black, white, uniform, corner = points[0], points[1], points[2], points[3], points[-1]
    # Near the image, a network that masks its gradients misleads; points at some distance give nearer results.
    for point, share in ((uniform, 0.5), (black, 1.0), (corner, 0.5), (uniform, 0.0), (grey, 1.0), (white, 1.0)):
        rows = (~box.success).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        start = torch.lerp(origin[rows], point.expand_as(origin[rows]), share)
        _descend(net, box, rows, start, goal.take(rows), scale[rows], num_steps)
    rows = (~box.success).nonzero().squeeze(1)
    if len(rows):
        start = _scan(net, box, rows, goal.take(rows), points)
        left = ~box.success[rows]
        _descend(net, box, rows[left], start[left], goal.take(rows[left]), scale[rows[left]], num_last)
    _bisect(net, origin, box, goal)
    return box


def box_points(origin: Tensor, count: int) -> Tensor:
    """Make ``count`` >= 5 points (P, n) of the whole box, equal for all images: no result depends on the batch."""
    n = origin.shape[1]
    generator = torch.Generator().manual_seed(0)
    constant = torch.tensor([[0.5], [0.0], [1.0]], dtype=torch.float64).expand(-1, n)
    num_uniform = (count - len(constant)) // 2
    uniform = torch.rand(num_uniform, n, generator=generator, dtype=torch.float64)
    num_corners = count - len(constant) - num_uniform
    density = torch.linspace(0.1, 0.9, num_corners, dtype=torch.float64)[:, None]
    corners = (torch.rand(num_corners, n, generator=generator, dtype=torch.float64) < density).double()
    return torch.cat([constant, uniform, corners]).to(origin)


def _rivals(logits: Tensor, goal: Goal) -> Tensor:
    """Return the classes (R,) to aim at: the targets, or the largest logits (R, K) without the labels."""
    return goal.classes if goal.targeted else logits.scatter(1, goal.classes[:, None], -torch.inf).argmax(dim=1)


def _scale(logits: Tensor) -> Tensor:
    """Compute factors (M,) for logits (M, K) that give the largest one about the weight of all others together."""
    largest = logits.amax(dim=1)
    spread = largest - logits.where(logits.isfinite(), largest[:, None]).amin(dim=1)
    scale = (1 + math.log(logits.shape[1])) / spread
    return torch.where((scale > 0) & (scale < torch.inf), scale, 1.0)


def _descend(net: Network, box: BoxPoints, rows: Tensor, x: Tensor, goal: Goal, scale: Tensor, num_steps: int) -> None:
    """Minimise the cross-entropy from points x (R, n) of the given rows (R,) until the goal is reached.

    The logits are multiplied by ``scale`` (R,) first, so that the success does not depend on their size.
    """
    if len(rows) == 0:
        return

    def cross_entropy(logits: Tensor, classes: Tensor, scale: Tensor) -> Tensor:
        return F.cross_entropy(logits * scale[:, None], classes, reduction="none")[:, None]

    targets = goal.classes if goal.targeted else _rivals(net.logits(x), goal)
    box.num_forwards[rows] += not goal.targeted
    box.spent[rows] += num_steps + (not goal.targeted)
    state, found, nearest = None, torch.zeros_like(rows, dtype=torch.bool), x.clone()
    for _ in range(num_steps):
        trial = x if state is None else state.trial()
        box.num_forwards[rows] += 1
        box.num_backwards[rows] += 1
        logits, loss, slopes = net.differentiate(trial, cross_entropy, targets, scale)
        reached = margin(logits, targets) > net.least_margin(logits)
        first = reached & ~found
        nearest[first], found = trial[first], found | first
        if state is None:
            state = ProjectedLbfgs.start(
                *(x, loss[:, 0], slopes[:, 0]),
                lower=0.0,
                upper=1.0,
                history_size=_HISTORY_SIZE,
                initial_length=_FIRST_LENGTH,
            )
        else:
            state.update(trial, loss[:, 0], slopes[:, 0])
        state.active = ~found
        if bool(found.all()):
            break
    box.x[rows[found]], box.success[rows[found]], box.targets[rows[found]] = nearest[found], True, targets[found]


def _scan(net: Network, box: BoxPoints, rows: Tensor, goal: Goal, points: Tensor) -> Tensor:
    """Evaluate points (P, n) for some rows (R,); return the ones with the largest margins (R, n)."""
    logits = net.logits(points)
    margins = (
        torch.stack([goal.excess(one.expand(len(rows), -1)) for one in logits]) - net.least_margin(logits)[:, None]
    )
    best, place = margins.nan_to_num(-torch.inf).max(dim=0)
    box.num_forwards[rows] += len(points)
    box.spent[rows] += len(points)
    box.x[rows], box.success[rows] = points[place], best > 0
    box.targets[rows] = _rivals(logits[place], goal)
    return box.x[rows]


def _bisect(net: Network, origin: Tensor, box: BoxPoints, goal: Goal) -> None:
    """Move the successful points towards the images, up to the decision boundary."""
    rows = box.success.nonzero().squeeze(1)
    if len(rows) == 0:
        return
    start, far, own = origin[rows], box.x[rows], goal.take(rows)
    inner, outer = torch.zeros_like(start[:, 0]), torch.ones_like(start[:, 0])
    for _ in range(_NUM_HALVINGS):
        middle = (inner + outer) / 2
        logits = net.logits(torch.lerp(start, far, middle[:, None]))
        success = own.excess(logits) > net.least_margin(logits)
        inner, outer = torch.where(success, inner, middle), torch.where(success, middle, outer)
    box.x[rows] = torch.lerp(start, far, outer[:, None])
    box.num_forwards[rows] += _NUM_HALVINGS
    box.spent[rows] += _NUM_HALVINGS

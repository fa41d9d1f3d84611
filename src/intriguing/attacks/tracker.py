"""Evaluate a network for an attack that runs several searches per image: count passes, keep the nearest success."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from intriguing.attacks.chunk import ChunkResult, Goal, margin
from intriguing.attacks.linearise import linearise
from intriguing.attacks.network import Network

_SATURATION = 4.0, 24.0  # temperatures in the clean margin, without and with targets
_INSIDE = 2  # roundings between the box's bounds and points where a gradient is taken


class Tracker:
    """Evaluate points of images under attack.

    Every evaluated point belongs to a row, the index of its image; several points may belong to one image.

    Attributes:
        net: the network under attack.
        origin: (N, n), flat images in [0, 1].
        goal: goal of each image.
        best: (N, n), the nearest success among all evaluated points; the image itself where there is none.
        distance: (N,), its L2 distance; inf where there is none.
        num_forwards, num_backwards: passes per image, (N,) int64.
    """

    def __init__(self, net: Network, origin: Tensor, goal: Goal) -> None:
        """Start without a success, and evaluate the images for the scale of their logits."""
        self.net, self.origin, self.goal = net, origin, goal
        self.best = origin.clone()
        self.distance = torch.full_like(origin[:, 0], torch.inf)
        self.num_forwards, self.num_backwards = torch.zeros_like(goal.classes), torch.zeros_like(goal.classes)
        self._scale = torch.ones_like(self.distance)

    @property
    def passes(self) -> Tensor:
        """Forward and backward passes per image, (N,)."""
        return self.num_forwards + self.num_backwards

    @property
    def found(self) -> Tensor:
        """Whether an image has a success, (N,)."""
        return self.distance.isfinite()

    def result(self) -> ChunkResult:
        """Return the nearest successes."""
        return ChunkResult(self.best, self.found, self.num_forwards, self.num_backwards)

    def add(self, rows: Tensor, found: ChunkResult) -> None:
        """Add the result of another search for the images ``rows``, and its passes."""
        self.num_forwards.index_add_(0, rows, torch.as_tensor(found.num_forwards).expand(len(rows)).to(rows))
        self.num_backwards.index_add_(0, rows, torch.as_tensor(found.num_backwards).expand(len(rows)).to(rows))
        length = torch.where(found.success, (found.x - self.origin[rows]).norm(dim=1), torch.inf)
        nearer = length < self.distance[rows]
        self.best[rows[nearer]], self.distance[rows[nearer]] = found.x[nearer], length[nearer]

    def gap(self, x: Tensor, rows: Tensor) -> Tensor:
        """Compute the margin (R,) by which points x (R, n) meet the goal, minus the least margin to trust."""
        logits = self.net.logits(x)
        self._count(rows, 0)
        return self._keep(x, rows, logits)

    def linearise(self, x: Tensor, rows: Tensor, num_rivals: int) -> tuple[Tensor, Tensor, Tensor]:
        """Linearise the conditions of success near points x (R, n): gaps + normals (x' - x) >= 0.

        With targets, there is one inequality for each of the classes nearest to beating the target. Without targets,
        there is one, for the class nearest to beating the label.

        Returns:
            Gaps (R, q), normals (R, q, n), and the margin (R,) by which x meets the goal.
        """
        gaps, normals, logits = linearise(self.net, self.goal.take(rows), self._inside(x), num_rivals)
        self._count(rows, normals.shape[1])
        return gaps, normals, self._keep(x, rows, logits)

    def ascend(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiate a smooth form of the margin, in which all competing classes have a weight.

        It is the log-odds of the goal at a temperature that follows from the margin of the unperturbed image, so that
        a factor or a number common to all logits changes no direction.

        Returns:
            The margin (R,) by which points x (R, n) meet the goal, and the gradient (R, n).
        """

        def odds(logits: Tensor, classes: Tensor, scale: Tensor) -> Tensor:
            column, logits = classes[:, None], logits / scale[:, None]
            value = logits.gather(1, column) - logits.scatter(1, column, -torch.inf).logsumexp(dim=1, keepdim=True)
            return value if self.goal.targeted else -value

        logits, _, slopes = self._differentiate(x, rows, odds, self._scale[rows])
        return self._keep(x, rows, logits), slopes[:, 0]

    def boundaries(self, num_classes: int) -> tuple[Tensor, Tensor]:
        """Linearise, at the images, the boundaries to the classes with the largest logits, or to the target.

        Also sets the scale of the logits. With targets, the second boundary is that of the smooth margin, at twice the
        distance of the first: where it differs from the first, it often leads to another minimum.

        Args:
            num_classes: number of boundaries without targets.

        Returns:
            Distances (N, k) to the boundaries, nearest first, inf where a slope vanishes, and the directions to them
            (N, k, n) of length 1, 0 where a slope vanishes.
        """
        targeted = self.goal.targeted
        count = 1 if targeted else min(num_classes, self.net.num_classes - 1)

        def gaps(logits: Tensor, classes: Tensor) -> Tensor:
            column = classes[:, None]
            own, others = logits.gather(1, column), logits.scatter(1, column, -torch.inf)
            rivals = others.topk(count, dim=1).values
            if not targeted:
                return rivals - own
            scale = _temperature(logits.detach(), classes, _SATURATION[1])[:, None]
            return torch.cat([own - rivals, own - (others / scale).logsumexp(dim=1, keepdim=True) * scale], dim=1)

        rows = torch.arange(len(self.origin), device=self.origin.device)
        logits, values, slopes = self._differentiate(self.origin, rows, gaps)
        self._scale = _temperature(logits, self.goal.classes, _SATURATION[targeted])
        largest = slopes.abs().amax(dim=2).clamp_min(torch.finfo(slopes.dtype).tiny)
        slopes = slopes / largest[:, :, None]  # squares of small slopes would underflow
        norms = slopes.norm(dim=2)
        distances = (-values / (norms * largest)).clamp_min(0)
        distances = torch.where(norms > 0, distances, torch.inf).nan_to_num(torch.inf)
        directions = slopes / norms.clamp_min(1e-12)[:, :, None]
        if targeted:
            distances = distances[:, :1] * distances.new_tensor([1.0, 2.0])
            return distances, directions
        distances, order = distances.sort(dim=1)
        return distances, directions.gather(1, order[:, :, None].expand_as(directions))

    def _differentiate(
        self, x: Tensor, rows: Tensor, objective: Callable[..., Tensor], *columns: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits, values, slopes = self.net.differentiate(self._inside(x), objective, self.goal.classes[rows], *columns)
        self._count(rows, slopes.shape[1])
        return logits, values, slopes

    def _inside(self, x: Tensor) -> Tensor:
        """Move points off the bounds, where many pixels lie and a network that clips its input has no gradient."""
        if torch.finfo(self.net.image_dtype).bits < 32:
            return x
        inside = _INSIDE * torch.finfo(self.net.image_dtype).eps
        return x.clamp(inside, 1 - inside)

    def _count(self, rows: Tensor, num_backwards: int) -> None:
        one = torch.ones_like(rows)
        self.num_forwards.index_add_(0, rows, one)
        if num_backwards:
            self.num_backwards.index_add_(0, rows, one, alpha=num_backwards)

    def _keep(self, x: Tensor, rows: Tensor, logits: Tensor) -> Tensor:
        """Store the points that succeed and are nearer; return the margins (R,) of all, less the least to trust."""
        excess = self.goal.take(rows).excess(logits) - self.net.least_margin(logits)
        reached = (excess > 0).nonzero().squeeze(1)
        if len(reached):
            x, rows = x[reached], rows[reached]
            length = (x - self.origin[rows]).norm(dim=1)
            nearest = self.distance.scatter_reduce(0, rows, length, "amin")
            chosen = ((length <= nearest[rows]) & (length < self.distance[rows])).nonzero().squeeze(1)
            self.best[rows[chosen]] = x[chosen]
            self.distance = nearest
        return excess


def _temperature(logits: Tensor, classes: Tensor, saturation: float) -> Tensor:
    """Choose the temperature (N,) of the smooth margin from the margins of logits (N, K)."""
    clean = margin(logits, classes).abs().nan_to_num(1.0, 1.0, 1.0)
    return (clean / saturation).clamp_min(torch.finfo(clean.dtype).tiny ** 0.5)

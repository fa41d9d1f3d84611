"""Walk along the decision boundary towards the nearest point on it."""

from __future__ import annotations

import torch
from torch import Tensor

from intriguing.attacks.projection import project_onto_halfspaces
from intriguing.attacks.tracker import Tracker

_FIRST_FRACTION = 0.5  # of the way to the projection
_STEP_UP, _STEP_DOWN = 1.5, 0.65  # factors of the fraction after a step that came nearer, and after one that did not
_MEMORY = 3  # points whose linearisations hold at once
_NEWTON_STEPS = 6
_TRIES = 4  # points evaluated on a ray
_WORTHWHILE = 0.3  # a ray is searched on while the expected gain exceeds this share of the gain so far
_NO_CONDITION = -1e9  # offset that every point satisfies with a normal of 0
_SETTLED = 2e-3  # a smaller relative gain counts as none


class Walk:
    """Hold points on the decision boundary, each of which walks towards its image.

    A step linearises the conditions of success at a point, projects the image onto the part of the box that satisfies
    them, goes a fraction of the way to this projection, and searches the ray from the image through the new point for
    its crossing with the boundary. A step that comes no nearer is undone and shortened, and the linearisation at the
    point where it failed is added to the conditions: on a network with rectified units the slopes on both sides of a
    kink are needed to move along it.

    Attributes:
        rows: (R,) int64, the image of each point.
        x: (R, n), successful points.
        distance: (R,), their L2 distances to the images.
        idle: (R,) int64, number of steps without a gain since the last gain.
    """

    def __init__(self, tracker: Tracker, rows: Tensor, x: Tensor, num_rivals: int) -> None:
        """Start at successful points x (R, n) of the images ``rows``."""
        self._tracker, self._num_rivals = tracker, num_rivals
        self.rows, self.x = rows, x
        self.distance = (x - tracker.origin[rows]).norm(dim=1)
        self.idle = torch.zeros_like(rows)
        self._fraction = torch.full_like(self.distance, _FIRST_FRACTION)
        self._failed_at = x
        self._failed = torch.zeros_like(rows, dtype=torch.bool)
        self._conditions: tuple[Tensor, Tensor] | None = None
        self._slot = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def cost(self) -> int:
        """Largest number of passes of a step, forward and backward."""
        return 1 + _TRIES + (self._num_rivals if self._tracker.goal.targeted else 1)

    def take(self, kept: Tensor) -> None:
        """Go on with a part of the points, given as a bool mask (R,)."""
        if bool(kept.all()):
            return
        for name in ("rows", "x", "distance", "idle", "_fraction", "_failed_at", "_failed"):
            setattr(self, name, getattr(self, name)[kept])
        if self._conditions is not None:
            normals, offsets = self._conditions
            self._conditions = normals[kept], offsets[kept]

    def settle(self) -> None:
        """Move the points along their rays to the boundary."""
        origin = self._tracker.origin[self.rows]
        x, crossed = _cross(self._tracker, self.rows, self.x, None, self.distance)
        length = (x - origin).norm(dim=1)
        nearer = crossed & (length < self.distance)
        self.x, self.distance = torch.where(nearer[:, None], x, self.x), torch.where(nearer, length, self.distance)

    def step(self) -> None:
        """Make one step with every point."""
        tracker, rows = self._tracker, self.rows
        origin = tracker.origin[rows]
        at = torch.where(self._failed[:, None], self._failed_at, self.x)
        gaps, normals, _ = tracker.linearise(at, rows, self._num_rivals)
        offsets = torch.linalg.vecdot(normals, at[:, None]) - gaps
        # The point itself must satisfy the conditions of a failed point.
        here = torch.linalg.vecdot(normals, self.x[:, None])
        offsets = torch.where(self._failed[:, None], torch.minimum(offsets, here), offsets)
        projected, _ = project_onto_halfspaces(origin, *self._remember(normals, offsets), num_steps=_NEWTON_STEPS)
        trial = torch.lerp(self.x, projected, self._fraction[:, None])
        slope = torch.linalg.vecdot(normals[:, 0], trial - origin)
        x, crossed = _cross(tracker, rows, trial, slope, self.distance)
        length = (x - origin).norm(dim=1)
        nearer = crossed & (length < self.distance)
        gained = nearer & (length < (1 - _SETTLED) * self.distance)
        self.idle = torch.where(gained, 0, self.idle + 1)
        self.x, self.distance = torch.where(nearer[:, None], x, self.x), torch.where(nearer, length, self.distance)
        self._failed, self._failed_at = ~nearer, trial
        self._fraction = torch.where(nearer, (_STEP_UP * self._fraction).clamp(max=1), _STEP_DOWN * self._fraction)

    def _remember(self, normals: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Add linearisations (R, q, n) to those that still hold; a step that came nearer has ended all older ones."""
        count = normals.shape[1]
        if self._conditions is None:
            shape = len(normals), _MEMORY * count
            self._conditions = normals.new_zeros(*shape, normals.shape[2]), offsets.new_full(shape, _NO_CONDITION)
        all_normals, all_offsets = self._conditions
        ended = ~self._failed
        all_normals[ended], all_offsets[ended] = 0.0, _NO_CONDITION
        part = slice(self._slot * count, (self._slot + 1) * count)
        all_normals[:, part], all_offsets[:, part] = normals, offsets
        self._slot = (self._slot + 1) % _MEMORY
        return all_normals, all_offsets


def _cross(tracker: Tracker, rows: Tensor, x: Tensor, slope: Tensor | None, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Find points where the rays from the images through x cross the boundary, on the successful side.

    A ray is given up when its crossing must lie farther than ``distance``, and left when little can be gained.

    Args:
        tracker: evaluates the points.
        rows: (R,), the image of each ray.
        x: (R, n) in the box, and so is every evaluated point.
        slope: (R,) derivative of the gap along the ray at x, per length of the ray; None if unknown.
        distance: (R,), distances to improve on.

    Returns:
        The nearest successful points (R, n), and whether one was found (R,) bool; x where none was found.
    """
    origin = tracker.origin[rows]
    ray = x - origin
    scale, length = torch.ones_like(distance), ray.norm(dim=1)
    outer, inner = torch.full_like(scale, torch.inf), torch.zeros_like(scale)  # nearest success, farthest failure
    outer_gap, inner_gap = torch.zeros_like(scale), torch.zeros_like(scale)
    active = torch.arange(len(rows), device=rows.device)
    for remaining in range(_TRIES, 0, -1):
        here = scale[active]
        point = torch.addcmul(origin[active], ray[active], here[:, None]).clamp_(0, 1)
        ahead = tracker.gap(point, rows[active])
        success = ahead > 0
        outer[active] = far = torch.where(success, here, outer[active])
        inner[active] = near = torch.where(success, inner[active], here)
        outer_gap[active] = torch.where(success, ahead, outer_gap[active])
        inner_gap[active] = torch.where(success, inner_gap[active], ahead)
        if remaining == 1:
            break
        bracketed = (near > 0) & far.isfinite()
        share = (inner_gap[active] / (inner_gap[active] - outer_gap[active])).nan_to_num(0.5).clamp(0.05, 0.95)
        if slope is None:
            shift = torch.where(success, 0.05 * here, -0.02 * here)
        else:
            shift = (ahead / slope[active].clamp_min(torch.finfo(ahead.dtype).tiny)).clamp(-0.3, 0.2)
        left = torch.where(bracketed, (1 - share) * (far - near), shift)  # of the scale, that may still be gained
        newton = torch.where(success, here - shift, here - shift + 5e-4)
        if remaining == 2:  # the last point should be a success
            share = share + 0.1 * (1 - share)
            newton = torch.where(success, newton, newton + 2e-3)
        scale[active] = ahead = torch.where(bracketed, near + share * (far - near), newton)
        gain = distance[active] - far * length[active]
        done = (gain > 0) & (left * length[active] < _WORTHWHILE * gain)
        done |= far.isinf() & (ahead * length[active] > distance[active])
        active = active[~done]
        if len(active) == 0:
            break
    crossed = outer.isfinite()
    outer = torch.where(crossed, outer, 1.0)
    return torch.addcmul(origin, ray, outer[:, None]).clamp_(0, 1), crossed

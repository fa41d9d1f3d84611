"""The strongest minimal-L2 attack here: a short descent to the boundary, then projections along it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from intriguing.attacks.base import AttackResult, check_setting, finish, least_margin, margin, run_in_chunks
from intriguing.attacks.descent import ENTROPY, MARGIN, descend
from intriguing.attacks.lbfgs import lbfgs
from intriguing.attacks.projection import project_onto_halfspaces

_STEP_UP, _STEP_DOWN = 1.5, 0.4
_NEWTON_STEPS = 5, 2  # of the first projection and of the later ones, which start from its multipliers
_FIRST_TRIES, _TRIES = 6, 4  # points looked at on a ray
_TRIAL_SHARE = 3  # one projection in three is made for every start, the others for the best


def nearest(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    targets: Tensor | None = None,
    num_steps: int = 30,
    num_projections: int = 6,
    num_rivals: int = 4,
    num_candidates: int = 3,
    chunk_size: int | None = None,
) -> AttackResult:
    """The nearest image (L2) that the model gives the target class, or any class but the label.

    The minimiser of the paper's penalty is not the nearest image, not even for a linear softmax: cross-entropy also
    asks for distance from classes that are not in the way. So a short descent with decoupled direction and norm only
    finds starting points: with targets two, of different ways to go, without targets one for each of a few candidate
    classes; an image for which none arrives is handed to `lbfgs`. From there the boundary itself is followed: the
    classes nearest to winning are linearised, the *original* is projected onto what is left of the box under those
    inequalities, the step there is damped, and the ray from the original through the new point is searched for where it
    crosses the boundary. A step that does not come nearer is undone and shortened. On a linear network the first full
    projection is the optimum.

    Args:
        model: images in [0, 1] of any shape to logits (N, K).
        inputs: (N, ...) in [0, 1].
        labels: (N,) integers in 0..K-1, the classes to get away from. With targets they only matter by their shape.
        targets: (N,) integers in 0..K-1, or None for any class but the label. An image that is already where it should
            be is returned as it is, distortion 0.
        num_steps: of the descents.
        num_projections: steps along the boundary.
        num_rivals: inequalities per step, for the classes nearest to beating the target. More are needed where many
            classes meet; each costs a backward pass.
        num_candidates: without targets, how many classes to start towards: those nearest by the logits' gradients.
        chunk_size: images at once; None takes what the device's memory holds.

    Returns:
        AttackResult; its `c` is None. It is never farther than the starting points.

    Raises:
        TypeError, ValueError: in one line, what was expected and what came.
    """
    check_setting(num_steps >= 1, "num_steps >= 1", num_steps)
    check_setting(num_projections >= 0, "num_projections >= 0", num_projections)
    check_setting(num_rivals >= 1, "num_rivals >= 1", num_rivals)
    check_setting(num_candidates >= 1, "num_candidates >= 1", num_candidates)
    targeted = targets is not None
    num_starts = 2 if targeted else num_candidates

    def attack(images: Tensor, wanted: Tensor, _: int) -> AttackResult:
        with torch.no_grad():
            num_classes = model(images[:1]).shape[1]
        goal = _Goal(model, images.shape[1:], wanted, targeted, num_rivals, num_classes)
        if targeted:
            candidates, ways, num_slopes = wanted[:, None].expand(-1, 2), (MARGIN, ENTROPY), 0
        else:
            candidates, num_slopes = _candidates(goal, images, num_candidates), num_classes
            ways = (ENTROPY,) * candidates.shape[1]
        trials = num_projections // _TRIAL_SHARE if len(ways) > 1 else 0
        start = _start(goal, images, candidates, ways, num_steps, trials)
        x, counts = _follow(goal, images.flatten(1), start.adv_inputs.flatten(1), num_projections - trials)
        return finish(
            model,
            images,
            torch.where(start.success[:, None], x, images.flatten(1)).view_as(images),
            lambda logits: goal.reached(logits) & start.success,
            c=None,
            num_forwards=start.num_forwards + counts[0] + bool(num_slopes),
            num_backwards=start.num_backwards + counts[1] + num_slopes,  # the linearisation of every class
        )

    return run_in_chunks(
        attack,
        model,
        inputs,
        labels if targets is None else targets,
        name="labels" if targets is None else "targets",
        chunk_size=chunk_size,
        floats_per_pixel=(10 + 3 * num_rivals) * num_starts,
    )


@dataclass(frozen=True)
class _Goal:
    """What the attack is after, for a chunk: the targets' classes, or any class but the labels."""

    model: nn.Module
    shape: torch.Size
    classes: Tensor  # (N,) targets or labels
    targeted: bool
    num_rivals: int
    num_classes: int

    def reached(self, logits: Tensor) -> Tensor:
        """(N,) bool, what the model's answer says."""
        answer = logits.argmax(dim=1)
        return answer == self.classes if self.targeted else answer != self.classes

    def gap(self, x: Tensor) -> Tensor:
        """(N,) how far the goal is exceeded at x (N, n), in logits beyond rounding; positive where it is reached."""
        with torch.no_grad():
            logits = self.model(x.view(-1, *self.shape))
        excess = margin(logits, self.classes)
        return (excess if self.targeted else -excess) - least_margin(logits)

    def linearise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The inequalities gaps + normals (x' - x) >= 0 that mean success near x: gaps (N, q), normals (N, q, n);
        and the classes they are about (N, q).

        With targets, one for each of the classes that come nearest to beating the target. Without, one: for the class
        that comes nearest to beating the label.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self.model(x.view(-1, *self.shape))
            own = logits.gather(1, self.classes[:, None])
            others = logits.scatter(1, self.classes[:, None], -torch.inf)
            num_rivals = min(self.num_rivals, logits.shape[1] - 1) if self.targeted else 1
            rivals, classes = others.topk(num_rivals, dim=1)
            gaps = own - rivals if self.targeted else rivals - own
            normals = [
                torch.autograd.grad(gaps[:, i].sum(), x, retain_graph=i + 1 < num_rivals)[0] for i in range(num_rivals)
            ]
        return gaps.detach() - least_margin(logits.detach())[:, None], torch.stack(normals, dim=1), classes


def _candidates(goal: _Goal, images: Tensor, num_candidates: int) -> Tensor:
    """(N, count) the classes whose boundaries, linearised at the images, are nearest; nearest first."""
    labels = goal.classes[:, None]
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        logits = goal.model(x)
        gaps = logits.gather(1, labels) - logits
        slopes = [
            torch.autograd.grad(gaps[:, k].sum(), x, retain_graph=True)[0].flatten(1).norm(dim=1)
            for k in range(logits.shape[1])
        ]
    tiny = torch.finfo(images.dtype).tiny
    linear = (gaps.detach() / torch.stack(slopes, dim=1).clamp_min(tiny)).scatter(1, labels, torch.inf)
    candidates = linear.topk(min(num_candidates, logits.shape[1] - 1), dim=1, largest=False).indices
    # An image that is already wrong is its own candidate; towards any class but its answer it would only get worse.
    answers = logits.detach().argmax(dim=1, keepdim=True)
    return torch.where(answers != labels, answers, candidates)


def _start(
    goal: _Goal, images: Tensor, candidates: Tensor, ways: tuple[int, ...], num_steps: int, num_projections: int
) -> AttackResult:
    """The nearest image of several starts: one towards each candidate class (N, S), in one of the ways (S)."""
    count = len(ways)
    each, targets = images.repeat_interleave(count, dim=0), candidates.flatten()
    origin = each.flatten(1)
    which = torch.tensor(ways, device=images.device).repeat(len(images))
    x, distance = descend(goal.model, goal.shape, origin, targets, which, num_steps)
    num_forwards = torch.full_like(targets, num_steps + 1)
    num_backwards = torch.full_like(targets, num_steps)
    lost = (distance.view(-1, count).amin(dim=1).isinf().nonzero() * count).squeeze(1)  # the first start of each
    if len(lost):
        found = lbfgs(goal.model, each[lost], targets[lost], c_tolerance=1.0, tolerance=0.1, chunk_size=len(lost))
        x[lost], distance[lost] = found.adv_inputs.flatten(1), (found.adv_inputs.flatten(1) - origin[lost]).norm(dim=1)
        distance[lost[~found.success]] = torch.inf
        num_forwards[lost] += found.num_forwards
        num_backwards[lost] += found.num_backwards
    success, counts = distance.isfinite(), (0, 0)
    if count > 1 and num_projections:
        few = max(1, goal.num_rivals // 2)  # enough to see which start is the best
        away = replace(goal, classes=goal.classes.repeat_interleave(count), num_rivals=few)
        x, counts = _follow(away, origin, x, num_projections)
        distance = torch.where(success, (x - origin).norm(dim=1), torch.inf)
    rows = torch.arange(len(images), device=x.device) * count + distance.view(-1, count).argmin(dim=1)
    return AttackResult(
        adv_inputs=x[rows].view_as(images),
        success=success[rows],
        distortion=distance[rows],
        c=None,
        num_forwards=num_forwards.view(-1, count).sum(dim=1) + count * counts[0],
        num_backwards=num_backwards.view(-1, count).sum(dim=1) + count * counts[1],
    )


def _follow(goal: _Goal, origin: Tensor, start: Tensor, num_projections: int) -> tuple[Tensor, tuple[int, int]]:
    """Walk along the boundary from successful images towards the nearest; also (forwards, backwards) per image."""
    x, crossed = _cross(goal, origin, start, None, _FIRST_TRIES)
    x = torch.where(crossed[:, None], x, start)
    distance = (x - origin).norm(dim=1)
    fraction = torch.full_like(distance, 0.7)
    num_backwards, multipliers = 0, None  # of every class, (N, K); a step starts from the last one's
    for _ in range(num_projections):
        gaps, normals, classes = goal.linearise(x)
        num_backwards += normals.shape[1]
        offsets = torch.linalg.vecdot(normals, x[:, None]) - gaps
        if multipliers is None:
            projected, found = project_onto_halfspaces(origin, normals, offsets, num_steps=_NEWTON_STEPS[0])
            multipliers = x.new_zeros(len(x), goal.num_classes)
        else:
            guess = multipliers.gather(1, classes)
            projected, found = project_onto_halfspaces(
                origin, normals, offsets, guess=guess, num_steps=_NEWTON_STEPS[1]
            )
        multipliers = torch.zeros_like(multipliers).scatter_(1, classes, found)
        trial = torch.lerp(x, projected, fraction[:, None])
        slope = torch.linalg.vecdot(normals[:, 0], trial - origin)
        trial, crossed = _cross(goal, origin, trial, slope, _TRIES)
        length = (trial - origin).norm(dim=1)
        nearer = crossed & (length < distance)
        x = torch.where(nearer[:, None], trial, x)
        distance = torch.where(nearer, length, distance)
        fraction = torch.where(nearer, (_STEP_UP * fraction).clamp(max=1), _STEP_DOWN * fraction)
    return x, (_FIRST_TRIES + num_projections * (_TRIES + 1), num_backwards)


def _cross(goal: _Goal, origin: Tensor, x: Tensor, slope: Tensor | None, num_tries: int) -> tuple[Tensor, Tensor]:
    """Where the ray from the origin through x crosses the boundary, from the successful side.

    Args:
        goal, origin: the origin (N, n) is in the box, and so is every point looked at.
        x: (N, n), near the boundary.
        slope: (N,) the gap's derivative along the ray at x, per length of the ray; None if unknown.
        num_tries: forward passes.

    Returns:
        The nearest successful point found (N, n), and (N,) bool, whether there was one; x where there was none.
    """
    ray = x - origin
    scale = torch.ones_like(ray[:, 0])
    outer, inner = torch.full_like(scale, torch.inf), torch.zeros_like(scale)  # nearest success, farthest failure
    outer_gap, inner_gap = torch.zeros_like(scale), torch.zeros_like(scale)
    for remaining in range(num_tries, 0, -1):
        gap = goal.gap(torch.addcmul(origin, ray, scale[:, None]).clamp_(0, 1))
        success = gap > 0
        outer, outer_gap = torch.where(success, scale, outer), torch.where(success, gap, outer_gap)
        inner, inner_gap = torch.where(success, inner, scale), torch.where(success, inner_gap, gap)
        bracketed = (inner > 0) & outer.isfinite()
        share = (inner_gap / (inner_gap - outer_gap)).nan_to_num(0.5).clamp(0.05, 0.95)
        if slope is None:
            newton = torch.where(success, 0.95, 1.02) * scale
        else:
            shift = (gap / slope.clamp_min(torch.finfo(gap.dtype).tiny)).clamp(-0.1, 0.2)
            newton = scale - shift + torch.where(success, 0.0, 5e-4)
        if remaining == 2:  # the last try had better be a success
            share = share + 0.1 * (1 - share)
            newton = torch.where(success, newton, newton + 2e-3)
        scale = torch.where(bracketed, inner + share * (outer - inner), newton)
    crossed = outer.isfinite()
    outer = torch.where(crossed, outer, 1.0)
    return torch.addcmul(origin, ray, outer[:, None]).clamp_(0, 1), crossed

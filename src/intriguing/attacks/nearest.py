"""Find minimal L2 perturbations: a short descent to the decision boundary, then projections along it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from intriguing.attacks.base import attack_in_chunks
from intriguing.attacks.chunk import ChunkResult, Goal
from intriguing.attacks.descent import ENTROPY, MARGIN, descend
from intriguing.attacks.lbfgs import Settings, search, search_from_box_points
from intriguing.attacks.linearise import gap, linearise
from intriguing.attacks.network import Model, Network
from intriguing.attacks.progress import portion, report
from intriguing.attacks.projection import project_onto_halfspaces
from intriguing.attacks.result import AttackResult
from intriguing.validation import whole_number

_STEP_UP, _STEP_DOWN = 1.5, 0.4  # factors of the damping after a step that came nearer, and after one that did not
_NEWTON_STEPS = 5, 2  # of the first projection and of the later ones, which start from its multipliers
_FIRST_TRIES, _TRIES = 6, 4  # points evaluated on a ray: on the first and on each later one
_TRIAL_SHARE = 3  # one projection in three is made from every start point, the others from the best one
_COARSE = Settings(
    c_start=0.1, c_min=1e-8, c_max=1e8, c_factor=10.0, c_tolerance=1.0, search_steps=40, max_iter=100, tolerance=0.1
)
_MOST_CLASSES = 8  # tried for an image on which the descents towards its candidates failed


def nearest(
    model: Model,
    inputs: Tensor,
    labels: Tensor | int,
    *,
    targets: Tensor | int | None = None,
    num_steps: int = 30,
    num_projections: int = 6,
    num_rivals: int = 4,
    num_candidates: int = 3,
    levels: int | None = None,
    chunk_size: int | None = None,
) -> AttackResult:
    """Find the nearest image (L2) of the target class, or of any class but the label.

    The minimiser of the paper's penalty is not the nearest image, not even for a linear softmax classifier:
    cross-entropy also pushes the image away from classes that do not compete for it. Therefore a short descent with
    decoupled direction and norm only finds start points: with targets two, one for each objective (margin and
    cross-entropy); without targets one for each of a few candidate classes. Where all descents fail, ``lbfgs``, other
    classes and points of the whole box are tried. The attack then follows the decision boundary: it linearises the
    classes that are nearest to winning, projects the *original* image onto the part of the box that satisfies these
    inequalities, damps this step, and searches the ray from the original through the new point for its crossing with
    the boundary. A step that does not reduce the distance is undone and shortened. On a linear network the first full
    projection is the optimum.

    Args:
        model: images in [0, 1] of any shape to logits (N, K).
        inputs: (N, ...) in [0, 1]; one image (C, H, W) if the classes are single numbers.
        labels: (N,) integers in 0..K-1, the classes to leave. Not read if targets are given.
        targets: (N,) integers in 0..K-1, or None for any class but the label. An image that already meets the goal is
            returned unchanged, with distortion 0.
        num_steps: steps of each descent.
        num_projections: steps along the boundary.
        num_rivals: inequalities per step, for the classes nearest to beating the target. Points where many classes meet
            need more; each costs a backward pass.
        num_candidates: without targets, number of classes to descend towards: those whose linearised boundaries are
            nearest.
        levels: number of values k / (levels - 1) that a pixel may have, 256 for files with 8 bits (see
            ``levels.search_grid``); None for any value in [0, 1].
        chunk_size: images per chunk; None chooses as many as fit in the memory of the device.

    Returns:
        AttackResult; its ``c`` is None. Its distance is never larger than that of the start points.

    Raises:
        TypeError: an argument has a wrong type, or the network does not return logits.
        ValueError: a shape or a value is wrong, or the network cannot be attacked.

    Example:
        >>> import torch
        >>> def network(images):  # class 1 where the first pixel is above 0.5
        ...     first = images.flatten(1)[:, 0]
        ...     return torch.stack([0.5 - first, first - 0.5], dim=1)
        >>> images = torch.tensor([[[[0.3, 0.8], [0.1, 0.6]]]])
        >>> result = nearest(network, images, labels=torch.tensor([0]))
        >>> result.success.tolist(), round(result.distortion.item(), 2)  # one pixel of four moves by 0.2
        ([True], 0.1)
    """
    settings = NearestSettings(
        num_steps=num_steps, num_projections=num_projections, num_rivals=num_rivals, num_candidates=num_candidates
    )
    targeted = targets is not None

    def attack(net: Network, origin: Tensor, goal: Goal, _: Tensor) -> ChunkResult:
        if goal.targeted:
            candidates, objectives, num_slopes = goal.classes[:, None].expand(-1, 2), (MARGIN, ENTROPY), 0
        else:
            candidates, num_slopes = _candidates(net, origin, goal, settings.num_candidates), net.num_classes
            objectives = (ENTROPY,) * candidates.shape[1]
        trials = settings.num_projections // _TRIAL_SHARE if len(objectives) > 1 else 0
        with portion(0, 0.8):
            start = _start(net, origin, goal, candidates, objectives, settings, trials)
        with portion(0.8, 1):
            x, counts = _follow(net, origin, start.x, goal, settings.num_rivals, settings.num_projections - trials)
        return ChunkResult(
            x=torch.where(start.success[:, None], x, origin),
            success=start.success,
            num_forwards=start.num_forwards + counts[0] + bool(num_slopes),
            num_backwards=start.num_backwards + counts[1] + num_slopes,  # the slopes of all classes
        )

    return attack_in_chunks(
        attack,
        model,
        inputs,
        labels if targets is None else targets,
        name="targets" if targeted else "labels",
        chunk_size=chunk_size,
        levels=levels,
        floats_per_pixel=(10 + 3 * settings.num_rivals) * (2 if targeted else settings.num_candidates),
    )


@dataclass(frozen=True)
class NearestSettings:
    """Hold and check the settings of ``nearest``.

    Raises:
        TypeError: a setting has a wrong type.
        ValueError: a setting is out of range.
    """

    num_steps: int
    num_projections: int
    num_rivals: int
    num_candidates: int

    def __post_init__(self) -> None:
        for name, low in (("num_steps", 1), ("num_projections", 0), ("num_rivals", 1), ("num_candidates", 1)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), low))


def _candidates(net: Network, origin: Tensor, goal: Goal, num_candidates: int) -> Tensor:
    """Choose the classes (N, count) whose boundaries, linearised at the images, are nearest; nearest first."""
    labels = goal.classes[:, None]

    def gaps(logits: Tensor, classes: Tensor) -> Tensor:
        return logits.gather(1, classes[:, None]) - logits

    _, values, slopes = net.differentiate(origin, gaps, goal.classes, reduce=lambda slope: slope.norm(dim=1))
    linear = (values / slopes.clamp_min(torch.finfo(values.dtype).tiny)).nan_to_num(torch.inf)
    linear = linear.scatter(1, labels, torch.inf)
    distances, candidates = linear.topk(min(num_candidates, net.num_classes - 1), dim=1, largest=False)
    return torch.where(distances < torch.inf, candidates, candidates[:, :1])


def _start(
    net: Network,
    origin: Tensor,
    goal: Goal,
    candidates: Tensor,
    objectives: tuple[int, ...],
    settings: NearestSettings,
    num_projections: int,
) -> ChunkResult:
    """Find start points: descend towards each candidate class and keep the nearest successful image.

    Args:
        net: the network under attack.
        origin: (N, n), flat images in [0, 1].
        goal: goal of each image.
        candidates: (N, S), classes to descend towards.
        objectives: (S,), ``MARGIN`` or ``ENTROPY`` for each candidate.
        settings: see ``nearest``.
        num_projections: steps along the boundary from every start, made before the nearest is chosen.
    """
    count = len(objectives)
    each, targets = origin.repeat_interleave(count, dim=0), candidates.flatten()
    which = torch.tensor(objectives, device=origin.device).repeat(len(origin))
    x, distance = descend(net, each, targets, which, settings.num_steps)
    num_forwards = torch.full_like(goal.classes, count * (settings.num_steps + 1))
    num_backwards = torch.full_like(goal.classes, count * settings.num_steps)
    failed = distance.view(-1, count).amin(dim=1).isinf().nonzero().squeeze(1)
    if len(failed):
        found = _retry_failed(net, origin[failed], goal.take(failed), candidates[failed], settings.num_steps)
        first = failed * count  # the first start point of each image
        x[first] = found.x
        distance[first] = torch.where(found.success, (found.x - origin[failed]).norm(dim=1), torch.inf)
        num_forwards[failed] += found.num_forwards
        num_backwards[failed] += found.num_backwards
    success, counts = distance.isfinite(), (0, 0)
    if count > 1 and num_projections:
        num_rivals = max(1, settings.num_rivals // 2)  # enough to compare the start points
        goals = Goal(goal.classes.repeat_interleave(count), goal.targeted)
        x, counts = _follow(net, each, x, goals, num_rivals, num_projections)
        distance = torch.where(success, (x - each).norm(dim=1), torch.inf)
    rows = torch.arange(len(origin), device=x.device) * count + distance.view(-1, count).argmin(dim=1)
    return ChunkResult(
        x=x[rows],
        success=success[rows],
        num_forwards=num_forwards + count * counts[0],
        num_backwards=num_backwards + count * counts[1],
    )


def _retry_failed(net: Network, origin: Tensor, goal: Goal, candidates: Tensor, num_steps: int) -> ChunkResult:
    """Find start points where all descents failed: by the penalty method, other classes, and the whole box."""
    found = search(net, origin, candidates[:, 0], _COARSE)
    failed = (~found.success).nonzero().squeeze(1)
    if len(failed) and not goal.targeted:
        others = _other_classes(net, origin[failed], goal.classes[failed])
        count = others.shape[1]
        each, which = origin[failed].repeat_interleave(count, dim=0), torch.full_like(others, ENTROPY).flatten()
        x, distance = descend(net, each, others.flatten(), which, num_steps)
        distance, best = distance.view(-1, count).min(dim=1)
        found.x[failed] = x.view(-1, count, x.shape[1])[torch.arange(len(failed), device=x.device), best]
        found.success[failed] = distance.isfinite()
        found.num_forwards[failed] += 1 + count * (num_steps + 1)  # pyright: ignore[reportIndexIssue]
        found.num_backwards[failed] += count * num_steps  # pyright: ignore[reportIndexIssue]
        failed = failed[distance.isinf()]
    if len(failed):
        again = search_from_box_points(net, origin[failed], goal.take(failed), _COARSE)
        found.x[failed], found.success[failed] = again.x, again.success
        found.num_forwards[failed] += again.num_forwards  # pyright: ignore[reportIndexIssue]
        found.num_backwards[failed] += again.num_backwards  # pyright: ignore[reportIndexIssue]
    return found


def _other_classes(net: Network, origin: Tensor, labels: Tensor) -> Tensor:
    """Return the classes (N, count) with the largest logits, without the label."""
    others = net.logits(origin).scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(_MOST_CLASSES, net.num_classes - 1), dim=1).indices


def _follow(
    net: Network, origin: Tensor, start: Tensor, goal: Goal, num_rivals: int, num_projections: int
) -> tuple[Tensor, tuple[int, int]]:
    """Follow the boundary from successful images towards the nearest ones.

    Returns:
        Images (N, n), and the numbers of forward and backward passes per image.
    """
    x, crossed = _cross(net, goal, origin, start, None, _FIRST_TRIES)
    x = torch.where(crossed[:, None], x, start)
    distance = (x - origin).norm(dim=1)
    fraction = torch.full_like(distance, 0.7)
    num_backwards, multipliers = 0, None  # (N, K), of all classes; a step starts from those of the last step
    for index in range(num_projections):
        report(index / num_projections)
        gaps, normals, classes = linearise(net, goal, x, num_rivals)
        num_backwards += normals.shape[1]
        offsets = torch.linalg.vecdot(normals, x[:, None]) - gaps
        if multipliers is None:
            projected, found = project_onto_halfspaces(origin, normals, offsets, num_steps=_NEWTON_STEPS[0])
            multipliers = x.new_zeros(len(x), net.num_classes)
        else:
            guess = multipliers.gather(1, classes)
            projected, found = project_onto_halfspaces(
                origin, normals, offsets, guess=guess, num_steps=_NEWTON_STEPS[1]
            )
        multipliers = torch.zeros_like(multipliers).scatter_(1, classes, found)
        trial = torch.lerp(x, projected, fraction[:, None])
        slope = torch.linalg.vecdot(normals[:, 0], trial - origin)
        trial, crossed = _cross(net, goal, origin, trial, slope, _TRIES)
        length = (trial - origin).norm(dim=1)
        nearer = crossed & (length < distance)
        x = torch.where(nearer[:, None], trial, x)
        distance = torch.where(nearer, length, distance)
        fraction = torch.where(nearer, (_STEP_UP * fraction).clamp(max=1), _STEP_DOWN * fraction)
    return x, (_FIRST_TRIES + num_projections * (_TRIES + 1), num_backwards)


def _cross(
    net: Network, goal: Goal, origin: Tensor, x: Tensor, slope: Tensor | None, num_tries: int
) -> tuple[Tensor, Tensor]:
    """Find the point where the ray from the origin through x crosses the boundary, on the successful side.

    Args:
        net: the network under attack.
        goal: goal of each image.
        origin: (N, n) in the box, and so is every evaluated point.
        x: (N, n), near the boundary.
        slope: (N,) derivative of the gap along the ray at x, per length of the ray; None if unknown.
        num_tries: forward passes.

    Returns:
        The nearest successful point (N, n), and whether one was found (N,) bool; x where none was found.
    """
    ray = x - origin
    scale = torch.ones_like(ray[:, 0])
    outer, inner = torch.full_like(scale, torch.inf), torch.zeros_like(scale)  # nearest success, farthest failure
    outer_gap, inner_gap = torch.zeros_like(scale), torch.zeros_like(scale)
    for remaining in range(num_tries, 0, -1):
        ahead = gap(net, goal, torch.addcmul(origin, ray, scale[:, None]).clamp_(0, 1))
        success = ahead > 0
        outer, outer_gap = torch.where(success, scale, outer), torch.where(success, ahead, outer_gap)
        inner, inner_gap = torch.where(success, inner, scale), torch.where(success, inner_gap, ahead)
        bracketed = (inner > 0) & outer.isfinite()
        share = (inner_gap / (inner_gap - outer_gap)).nan_to_num(0.5).clamp(0.05, 0.95)
        if slope is None:
            newton = torch.where(success, 0.95 * scale, 1.02 * scale)
        else:
            shift = (ahead / slope.clamp_min(torch.finfo(ahead.dtype).tiny)).clamp(-0.1, 0.2)
            newton = torch.where(success, scale - shift, scale - shift + 5e-4)
        if remaining == 2:  # the last point should be a success
            share = share + 0.1 * (1 - share)
            newton = torch.where(success, newton, newton + 2e-3)
        scale = torch.where(bracketed, inner + share * (outer - inner), newton)
    crossed = outer.isfinite()
    outer = torch.where(crossed, outer, 1.0)
    return torch.addcmul(origin, ray, outer[:, None]).clamp_(0, 1), crossed

"""The strongest minimal-L2 attack here: a short descent to the boundary, then projections along it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from intriguing.attacks.base import AttackResult, Found, Goal, attack_in_chunks
from intriguing.attacks.descent import ENTROPY, MARGIN, descend
from intriguing.attacks.lbfgs import Settings, search, search_from_afar
from intriguing.attacks.network import Model, Network
from intriguing.attacks.projection import project_onto_halfspaces
from intriguing.validation import whole_number

_STEP_UP, _STEP_DOWN = 1.5, 0.4
_NEWTON_STEPS = 5, 2  # of the first projection and of the later ones, which start from its multipliers
_FIRST_TRIES, _TRIES = 6, 4  # points looked at on a ray
_TRIAL_SHARE = 3  # one projection in three is made for every start, the others for the best
_COARSE = Settings(
    c_start=0.1, c_min=1e-8, c_max=1e8, c_factor=10.0, c_tolerance=1.0, search_steps=40, max_iter=100, tolerance=0.1
)
_MOST_CLASSES = 8  # looked at for an image that the candidates' classes could not be reached from


def nearest(
    model: Model,
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
    classes. For an image that none of them brings there, `lbfgs`, other classes and points all over the box are tried.
    From there the boundary itself is followed: the classes nearest to winning are linearised, the *original* is
    projected onto what is left of the box under those inequalities, the step there is damped, and the ray from the
    original through the new point is searched for where it crosses the boundary. A step that does not come nearer is
    undone and shortened. On a linear network the first full projection is the optimum.

    Args:
        model: images in [0, 1] of any shape to logits (N, K).
        inputs: (N, ...) in [0, 1].
        labels: (N,) integers in 0..K-1, the classes to get away from. They are not read where targets are given.
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
    settings = NearestSettings(
        num_steps=num_steps, num_projections=num_projections, num_rivals=num_rivals, num_candidates=num_candidates
    )
    targeted = targets is not None

    def attack(net: Network, origin: Tensor, goal: Goal, _: Tensor) -> Found:
        if goal.targeted:
            candidates, ways, num_slopes = goal.classes[:, None].expand(-1, 2), (MARGIN, ENTROPY), 0
        else:
            candidates, num_slopes = _candidates(net, origin, goal, settings.num_candidates), net.num_classes
            ways = (ENTROPY,) * candidates.shape[1]
        trials = settings.num_projections // _TRIAL_SHARE if len(ways) > 1 else 0
        start = _start(net, origin, goal, candidates, ways, settings, trials)
        x, counts = _follow(net, origin, start.x, goal, settings.num_rivals, settings.num_projections - trials)
        return Found(
            x=torch.where(start.success[:, None], x, origin),
            success=start.success,
            num_forwards=start.num_forwards + counts[0] + bool(num_slopes),
            num_backwards=start.num_backwards + counts[1] + num_slopes,  # the linearisation of every class
        )

    return attack_in_chunks(
        attack,
        model,
        inputs,
        labels if targets is None else targets,
        name="targets" if targeted else "labels",
        chunk_size=chunk_size,
        floats_per_pixel=(10 + 3 * settings.num_rivals) * (2 if targeted else settings.num_candidates),
    )


@dataclass(frozen=True)
class NearestSettings:
    """The settings of `nearest`, checked.

    Raises:
        TypeError, ValueError: in one line, what was expected and what came.
    """

    num_steps: int
    num_projections: int
    num_rivals: int
    num_candidates: int

    def __post_init__(self) -> None:
        for name, low in (("num_steps", 1), ("num_projections", 0), ("num_rivals", 1), ("num_candidates", 1)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), low))


def _gap(net: Network, goal: Goal, x: Tensor) -> Tensor:
    """(N,) how far the goal is exceeded at x (N, n), in logits beyond rounding; positive where it is reached."""
    logits = net.logits(x)
    return goal.excess(logits) - net.least_margin(logits)


def _linearise(net: Network, goal: Goal, x: Tensor, num_rivals: int) -> tuple[Tensor, Tensor, Tensor]:
    """The inequalities gaps + normals (x' - x) >= 0 that mean success near x: gaps (N, q), normals (N, q, n);
    and the classes they are about (N, q).

    With targets, one for each of the classes that come nearest to beating the target. Without, one: for the class
    that comes nearest to beating the label.
    """
    num_rivals = min(num_rivals, net.num_classes - 1) if goal.targeted else 1

    def split(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        column = classes[:, None]
        rivals, which = logits.scatter(1, column, -torch.inf).topk(num_rivals, dim=1)
        return logits.gather(1, column), rivals, which

    def gaps(logits: Tensor, classes: Tensor) -> Tensor:
        own, rivals, _ = split(logits, classes)
        return own - rivals if goal.targeted else rivals - own

    logits, values, normals = net.differentiate(x, gaps, goal.classes)
    far = torch.finfo(values.dtype).max ** 0.5  # classes that are never answered are no obstacle
    values = values.nan_to_num(-far, far, -far)
    return values - net.least_margin(logits)[:, None], normals, split(logits, goal.classes)[2]


def _candidates(net: Network, origin: Tensor, goal: Goal, num_candidates: int) -> Tensor:
    """(N, count) the classes whose boundaries, linearised at the images, are nearest; nearest first."""
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
    ways: tuple[int, ...],
    settings: NearestSettings,
    num_projections: int,
) -> Found:
    """The nearest image of several starts: one towards each candidate class (N, S), in one of the ways (S)."""
    count = len(ways)
    each, targets = origin.repeat_interleave(count, dim=0), candidates.flatten()
    which = torch.tensor(ways, device=origin.device).repeat(len(origin))
    x, distance = descend(net, each, targets, which, settings.num_steps)
    num_forwards = torch.full_like(goal.classes, count * (settings.num_steps + 1))
    num_backwards = torch.full_like(goal.classes, count * settings.num_steps)
    lost = distance.view(-1, count).amin(dim=1).isinf().nonzero().squeeze(1)
    if len(lost):
        found = _find_lost(net, origin[lost], goal.take(lost), candidates[lost], settings.num_steps)
        first = lost * count  # the first start of each
        x[first] = found.x
        distance[first] = torch.where(found.success, (found.x - origin[lost]).norm(dim=1), torch.inf)
        num_forwards[lost] += found.num_forwards
        num_backwards[lost] += found.num_backwards
    success, counts = distance.isfinite(), (0, 0)
    if count > 1 and num_projections:
        few = max(1, settings.num_rivals // 2)  # enough to see which start is the best
        away = Goal(goal.classes.repeat_interleave(count), goal.targeted)
        x, counts = _follow(net, each, x, away, few, num_projections)
        distance = torch.where(success, (x - each).norm(dim=1), torch.inf)
    rows = torch.arange(len(origin), device=x.device) * count + distance.view(-1, count).argmin(dim=1)
    return Found(
        x=x[rows],
        success=success[rows],
        num_forwards=num_forwards + count * counts[0],
        num_backwards=num_backwards + count * counts[1],
    )


def _find_lost(net: Network, origin: Tensor, goal: Goal, candidates: Tensor, num_steps: int) -> Found:
    """A start for images that no descent has brought there: by the penalty method, other classes, the whole box."""
    found = search(net, origin, candidates[:, 0], _COARSE)
    lost = (~found.success).nonzero().squeeze(1)
    if len(lost) and not goal.targeted:
        others = _other_classes(net, origin[lost], goal.classes[lost])
        count = others.shape[1]
        each, which = origin[lost].repeat_interleave(count, dim=0), torch.full_like(others, ENTROPY).flatten()
        x, distance = descend(net, each, others.flatten(), which, num_steps)
        distance, best = distance.view(-1, count).min(dim=1)
        found.x[lost] = x.view(-1, count, x.shape[1])[torch.arange(len(lost), device=x.device), best]
        found.success[lost] = distance.isfinite()
        found.num_forwards[lost] += 1 + count * (num_steps + 1)  # pyright: ignore[reportIndexIssue]
        found.num_backwards[lost] += count * num_steps  # pyright: ignore[reportIndexIssue]
        lost = lost[distance.isinf()]
    if len(lost):
        again = search_from_afar(net, origin[lost], goal.take(lost), _COARSE)
        found.x[lost], found.success[lost] = again.x, again.success
        found.num_forwards[lost] += again.num_forwards  # pyright: ignore[reportIndexIssue]
        found.num_backwards[lost] += again.num_backwards  # pyright: ignore[reportIndexIssue]
    return found


def _other_classes(net: Network, origin: Tensor, labels: Tensor) -> Tensor:
    """(N, count) the classes other than the label with the largest logits."""
    others = net.logits(origin).scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(_MOST_CLASSES, net.num_classes - 1), dim=1).indices


def _follow(
    net: Network, origin: Tensor, start: Tensor, goal: Goal, num_rivals: int, num_projections: int
) -> tuple[Tensor, tuple[int, int]]:
    """Walk along the boundary from successful images towards the nearest; also (forwards, backwards) per image."""
    x, crossed = _cross(net, goal, origin, start, None, _FIRST_TRIES)
    x = torch.where(crossed[:, None], x, start)
    distance = (x - origin).norm(dim=1)
    fraction = torch.full_like(distance, 0.7)
    num_backwards, multipliers = 0, None  # of every class, (N, K); a step starts from the last one's
    for _ in range(num_projections):
        gaps, normals, classes = _linearise(net, goal, x, num_rivals)
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
    """Where the ray from the origin through x crosses the boundary, from the successful side.

    Args:
        net, goal: what to ask, and what is wanted.
        origin: (N, n); it is in the box, and so is every point looked at.
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
        gap = _gap(net, goal, torch.addcmul(origin, ray, scale[:, None]).clamp_(0, 1))
        success = gap > 0
        outer, outer_gap = torch.where(success, scale, outer), torch.where(success, gap, outer_gap)
        inner, inner_gap = torch.where(success, inner, scale), torch.where(success, inner_gap, gap)
        bracketed = (inner > 0) & outer.isfinite()
        share = (inner_gap / (inner_gap - outer_gap)).nan_to_num(0.5).clamp(0.05, 0.95)
        if slope is None:
            newton = torch.where(success, 0.95 * scale, 1.02 * scale)
        else:
            shift = (gap / slope.clamp_min(torch.finfo(gap.dtype).tiny)).clamp(-0.1, 0.2)
            newton = torch.where(success, scale - shift, scale - shift + 5e-4)
        if remaining == 2:  # the last try had better be a success
            share = share + 0.1 * (1 - share)
            newton = torch.where(success, newton, newton + 2e-3)
        scale = torch.where(bracketed, inner + share * (outer - inner), newton)
    crossed = outer.isfinite()
    outer = torch.where(crossed, outer, 1.0)
    return torch.addcmul(origin, ray, outer[:, None]).clamp_(0, 1), crossed

"""Minimise the paper's penalty c |r|^2 + cross-entropy in the box, and search c for each image (section 4.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from intriguing.attacks.base import check_setting
from intriguing.attacks.box_search import search_box
from intriguing.attacks.chunk import ChunkResult, Goal, margin
from intriguing.attacks.network import Network
from intriguing.attacks.progress import report
from intriguing.optim import ProjectedLbfgs
from intriguing.validation import real_number, whole_number

_COMPACT_BELOW = 0.8  # finished rows are dropped when at most this fraction is still active
_MOST_CUTS = 10  # rejected steps in a row that end a minimisation
_CHECKS = 10  # evaluations outside the search: of the images, of the results, of failures
_FIRST_SHARE = 0.1  # of the evaluations: without success after it, the search from the image has failed
_LOST = 8  # iterations after which a minimisation from another point has failed if it has left the target class
_FIRST_LENGTH = 0.5  # of a first step from the image, L2
_FIRST_FRACTION = 0.2  # and of one from another point, in lengths of its perturbation
_SETTLED = 0.1  # a smaller decrease ends a minimisation; in units of tolerance^2 times the penalty


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold and check the settings of ``lbfgs``.

    Raises:
        TypeError: a setting has a wrong type.
        ValueError: a setting is out of range.
    """

    c_start: float
    c_min: float
    c_max: float
    c_factor: float
    c_tolerance: float
    search_steps: int
    max_iter: int
    tolerance: float
    history_size: int = 5
    max_evaluations: int = 400

    def __post_init__(self) -> None:
        for name in ("c_start", "c_min", "c_max", "c_tolerance", "tolerance"):
            object.__setattr__(self, name, real_number(name, getattr(self, name), 0, open_low=True))
        object.__setattr__(self, "c_factor", real_number("c_factor", self.c_factor, 1, open_low=True))
        for name in ("search_steps", "max_iter", "history_size"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 1))
        object.__setattr__(self, "max_evaluations", whole_number("max_evaluations", self.max_evaluations, 100))
        ordered = self.c_min <= self.c_start <= self.c_max
        check_setting(ordered, "0 < c_min <= c_start <= c_max", (self.c_min, self.c_start, self.c_max))


@dataclass
class _Search:
    """Hold the state of the search for c, one row per image that is still active (B rows, n pixels).

    Attributes:
        row: (B,) index of the image in the chunk.
        origin: (B, n), the image.
        target: (B,) int64, its target class.
        c: (B,), current constant.
        c_low: (B,), largest c that succeeded; 0 for none.
        c_high: (B,), smallest c that failed; inf for none.
        margin: (B,), margin of the target class at the current iterate.
        distance: (B,), squared L2 norm of the perturbation at the current iterate.
        margin_low: (B,), margin at the minimiser for ``c_low``.
        margin_high: (B,), margin at the minimiser for ``c_high``.
        num_c: (B,) int64, number of values of c that were tried.
        iterations_before: (B,) int64, L-BFGS iterations spent on earlier values of c.
        best: (B, n), nearest successful image among all evaluated points.
        best_distance: (B,), its squared L2 distance.
        best_c: (B,), c at which it was found.
        limit: (B,) int64, number of evaluations at which the search ends.
        known: the point to which the search returns when a c has failed; None continues from the failure.
    """

    row: Tensor
    origin: Tensor
    target: Tensor
    c: Tensor
    c_low: Tensor
    c_high: Tensor
    margin: Tensor
    distance: Tensor
    margin_low: Tensor
    margin_high: Tensor
    num_c: Tensor
    iterations_before: Tensor
    best: Tensor
    best_distance: Tensor
    best_c: Tensor
    limit: Tensor
    known: _Known | None

    def take(self, rows: Tensor) -> _Search:
        """Select rows, given as int64 indices."""
        kept: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        known = None if self.known is None else self.known.take(rows)
        return _Search(**{name: value[rows] for name, value in kept.items() if name != "known"}, known=known)


@dataclass
class _Known:
    """Hold the minimiser for the largest c that succeeded, or the start point, and the cross-entropy there.

    Attributes:
        x: (B, n).
        loss: (B,), the cross-entropy.
        slope: (B, n), its gradient.
        margin: (B,), margin of the target class.
    """

    x: Tensor
    loss: Tensor
    slope: Tensor
    margin: Tensor

    def take(self, rows: Tensor) -> _Known:
        """Select rows, given as int64 indices."""
        return _Known(self.x[rows], self.loss[rows], self.slope[rows], self.margin[rows])


@dataclass(frozen=True)
class Start:
    """Hold the points from which searches for c start elsewhere than at the images.

    Attributes:
        x: (M, n), inside the box.
        limit: (M,) int64, number of evaluations of each search.
    """

    x: Tensor
    limit: Tensor


def search(
    net: Network, origin: Tensor, targets: Tensor, settings: Settings, start: Start | None = None
) -> ChunkResult:
    """Run the whole search for c on a chunk.

    Each pass evaluates every active image once, at its current c.

    Args:
        net: the network under attack.
        origin: (M, n), flat images in [0, 1].
        targets: (M,) int64.
        settings: see ``lbfgs``.
        start: where the search starts; None starts from the images, and ends without a result where a tenth of the
            evaluations reached no success.

    Returns:
        The result with c.
    """
    work, state = _start(net, origin, targets, settings, start)
    first = math.ceil(_FIRST_SHARE * settings.max_evaluations) if start is None else 0
    stops = {first} if start is None else set(start.limit.tolist())
    found = ChunkResult(
        x=origin.clone(),
        success=torch.zeros_like(targets, dtype=torch.bool),
        num_forwards=torch.zeros_like(targets),
        num_backwards=torch.zeros_like(targets),
        c=work.best_c.clone(),
    )
    done = torch.zeros_like(found.success)
    num_passes, total = 1, 1
    while True:
        # images whose evaluations have ended take part in no further pass
        ended = total in stops and bool((done & (work.best_distance.isinf() | (total >= work.limit))).any())
        state.active = ~done
        num_active = int(state.active.sum())  # the one synchronisation with the host in a pass
        report(1 - num_active / len(targets))
        if ended or num_active <= _COMPACT_BELOW * len(done):
            _store(found, work, num_passes)
            if num_active == 0:
                return found
            kept = state.active.nonzero().squeeze(1)
            work, state, done, num_passes = work.take(kept), state.take(kept), done[kept], 0
        trial = state.trial()
        loss, gradient, margins, least = _evaluate(net, trial, work.target)
        num_passes, total = num_passes + 1, total + 1
        perturbation = trial - work.origin
        distance = torch.linalg.vecdot(perturbation, perturbation)
        _keep_best(work, trial, distance, (margins > least) & state.active)
        gradient.addcmul_(perturbation, 2 * work.c[:, None])
        moved = state.update(trial, loss + work.c * distance, gradient)
        work.margin = torch.where(moved, margins, work.margin)
        work.distance = torch.where(moved, distance, work.distance)
        done = done | _next_c(work, state, settings) | (total >= work.limit)
        if total >= first > 0:
            done |= work.best_distance.isinf()


def search_from_box_points(net: Network, origin: Tensor, goal: Goal, settings: Settings) -> ChunkResult:
    """Run the search for c from points of the whole box, where the search from the image has failed.

    The minimiser for a given c is local: another start point gives another one.
    """
    box = search_box(net, origin, goal, settings.max_evaluations)
    spent = math.ceil(_FIRST_SHARE * settings.max_evaluations) + _CHECKS + box.spent
    limit = (settings.max_evaluations - spent).clamp_min(1)
    found = search(net, origin, box.targets, settings, Start(box.x, limit))
    found.num_forwards += box.num_forwards
    found.num_backwards += box.num_backwards
    return found


def _store(found: ChunkResult, work: _Search, num_passes: int) -> None:
    """Store the results of the active images, and add the passes since the last call."""
    assert found.c is not None
    found.x[work.row], found.success[work.row] = work.best, work.best_distance.isfinite()
    found.c[work.row] = work.best_c
    found.num_forwards[work.row] += num_passes  # pyright: ignore[reportIndexIssue]
    found.num_backwards[work.row] += num_passes  # pyright: ignore[reportIndexIssue]


def _start(
    net: Network, origin: Tensor, targets: Tensor, settings: Settings, start: Start | None
) -> tuple[_Search, ProjectedLbfgs]:
    """Make the states of the search and of L-BFGS at the start points (M, n)."""
    x = origin if start is None else start.x
    loss, gradient, margins, least = _evaluate(net, x, targets)
    perturbation = x - origin
    distance = torch.linalg.vecdot(perturbation, perturbation)
    c = torch.full_like(loss, settings.c_start)
    known, length = None, torch.full_like(loss, _FIRST_LENGTH)
    if start is not None:
        known = _Known(x.clone(), loss.clone(), gradient.clone(), margins.clone())
        c = torch.where(margins > least, _balanced_c(perturbation, gradient, c), c)
        c = c.clamp(settings.c_min, settings.c_max)
        length = torch.where(distance > 0, _FIRST_FRACTION * distance.sqrt(), length).clamp(max=_FIRST_LENGTH)
    gradient.addcmul_(perturbation, 2 * c[:, None])
    state = ProjectedLbfgs.start(
        x.clone(),
        loss + c * distance,
        gradient,
        lower=0.0,
        upper=1.0,
        history_size=settings.history_size,
        initial_length=length,
        ridge=2 * c,
    )
    zero, count = torch.zeros_like(loss), torch.zeros_like(targets)
    reached = margins > least
    search = _Search(
        row=torch.arange(len(targets), device=targets.device),
        origin=origin,
        target=targets,
        c=c,
        c_low=zero.clone(),
        c_high=zero + torch.inf,
        margin=margins,
        distance=distance,
        margin_low=zero.clone(),
        margin_high=zero.clone(),
        num_c=count.clone(),
        iterations_before=count.clone(),
        best=torch.where(reached[:, None], x, origin),
        best_distance=torch.where(reached, distance, torch.inf),
        best_c=torch.where(reached, c, torch.nan),
        limit=count + (settings.max_evaluations - _CHECKS) if start is None else start.limit,
        known=known,
    )
    return search, state


def _balanced_c(perturbation: Tensor, slope: Tensor, default: Tensor) -> Tensor:
    """Compute the c (B,) at which a point is stationary on its ray: the cross-entropy balances the penalty.

    Args:
        perturbation: (B, n).
        slope: (B, n), gradient of the cross-entropy.
        default: (B,), where the cross-entropy does not fall along the ray.
    """
    size = torch.linalg.vecdot(perturbation, perturbation)
    c = -torch.linalg.vecdot(slope, perturbation) / (2 * size)
    return torch.where((c > 0) & (c < torch.inf), c, default)


def _evaluate(net: Network, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Evaluate the cross-entropy at points x (B, n).

    Returns:
        The cross-entropy (B,), its gradient (B, n), the target's margin (B,) and the least margin to trust (B,).
    """
    logits, loss, slopes = net.differentiate(x, _cross_entropy, targets)
    return loss[:, 0], slopes[:, 0], margin(logits, targets), net.least_margin(logits)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross-entropy of logits (r, K) as values (r, 1)."""
    return F.cross_entropy(logits, targets, reduction="none")[:, None]


def _keep_best(work: _Search, trial: Tensor, distance: Tensor, success: Tensor) -> None:
    """Store the trial points (B, n) that succeed and are nearer than the best ones so far."""
    better = (success & (distance < work.best_distance)).nonzero().squeeze(1)
    work.best[better] = trial[better]
    work.best_distance[better] = distance[better]
    work.best_c[better] = work.c[better]


def _next_c(work: _Search, state: ProjectedLbfgs, settings: Settings) -> Tensor:
    """Choose the next c for the images whose minimisation has ended.

    Returns:
        (B,) bool, True where the search for c has ended.
    """
    residual = state.free_norm
    iterations = state.num_iterations - work.iterations_before
    width = (work.c_high / work.c_low).log().nan_to_num(nan=1.0, posinf=1.0).clamp(max=1.0)
    tolerance = settings.tolerance * (width * 3).clamp(0.1, 3)
    # A decrease of second order also means convergence. Where f has kinks (rectified units), the gradient does not
    # vanish, and this is the only sign of it.
    penalty = work.c * work.distance
    settled = (state.last_decrease <= _SETTLED * tolerance**2 * penalty) & (state.num_cuts == 0) & (iterations > 0)
    ended = (
        settled
        | (residual <= tolerance * 2 * work.c * work.distance.sqrt())
        | (iterations >= settings.max_iter)
        | (state.num_cuts >= _MOST_CUTS)
    ) & state.active
    if work.known is not None:
        ended |= (iterations >= _LOST) & (work.margin <= 0) & state.active
    succeeded, failed = ended & (work.margin > 0), ended & ~(work.margin > 0)
    work.c_low = torch.where(succeeded, work.c, work.c_low)
    work.margin_low = torch.where(succeeded, work.margin, work.margin_low)
    work.c_high = torch.where(failed, work.c, work.c_high)
    work.margin_high = torch.where(failed, work.margin, work.margin_high)
    work.num_c = work.num_c + ended
    work.iterations_before = torch.where(ended, state.num_iterations, work.iterations_before)

    bracketed = (work.c_low > 0) & work.c_high.isfinite()
    done = ended & (
        (bracketed & (work.c_high <= work.c_low * (1 + settings.c_tolerance)))
        | (work.num_c >= settings.search_steps)
        | (failed & (work.c <= settings.c_min))
        | (succeeded & (work.c >= settings.c_max))
    )
    if work.known is not None:
        _return_to_known(work, work.known, state, succeeded, failed & ~done)
    fraction = work.margin_low / (work.margin_low - work.margin_high)
    fraction = fraction.nan_to_num(0.5).clamp(0.1, 0.9)
    inside = torch.exp(work.c_low.log() * (1 - fraction) + work.c_high.log() * fraction)
    outside = torch.where(succeeded, work.c * settings.c_factor, work.c / settings.c_factor)
    c = torch.where(bracketed, inside, outside).clamp(settings.c_min, settings.c_max)
    _change_c(work, state, torch.where(ended & ~done, c, work.c))
    return done


def _return_to_known(work: _Search, known: _Known, state: ProjectedLbfgs, succeeded: Tensor, failed: Tensor) -> None:
    """Keep the minimisers of the rows that succeeded (B,) bool, and return those that failed to the last such point."""
    rows = succeeded.nonzero().squeeze(1)
    if len(rows):
        known.x[rows], known.margin[rows] = state.x[rows], work.margin[rows]
        known.loss[rows] = state.value[rows] - work.c[rows] * work.distance[rows]
        offset = state.x[rows] - work.origin[rows]
        known.slope[rows] = state.gradient[rows].addcmul_(offset, 2 * work.c[rows, None], value=-1)
    rows = failed.nonzero().squeeze(1)
    if len(rows):
        x, c = known.x[rows], work.c[rows]
        offset = x - work.origin[rows]
        distance = torch.linalg.vecdot(offset, offset)
        gradient = known.slope[rows].addcmul_(offset, 2 * c[:, None])
        state.move(rows, x, known.loss[rows] + c * distance, gradient)
        work.margin[rows], work.distance[rows] = known.margin[rows], distance


def _change_c(work: _Search, state: ProjectedLbfgs, c: Tensor) -> None:
    """Change the objective's c without an evaluation: its quadratic part is known."""
    change = c - work.c
    rows = change.nonzero().squeeze(1)
    if len(rows) == 0:
        return
    state.change_ridge(rows, 2 * c[rows], work.origin[rows])
    work.c = c

"""`minimize_box`: the plain loop over `ProjectedLbfgs`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from intriguing.optim.projected_lbfgs import ProjectedLbfgs

_COMPACT_BELOW = 0.75  # rows are dropped from the work when fewer than this fraction of them are still active
_MOST_CUTS = 20


class Status(IntEnum):
    """Why a row stopped."""

    ACTIVE = 0
    GRADIENT = 1  # first-order conditions hold to `gradient_tolerance`
    VALUE = 2  # the last step lowered f by less than `value_tolerance`, relatively
    MAX_ITER = 3
    STALLED = 4  # no shorter step lowers f: rounding, or a gradient that is not f's
    NON_FINITE = 5  # f or its gradient was not finite at the start


@dataclass(frozen=True)
class MinimizeResult:
    """What `minimize_box` found; N rows.

    Attributes:
        x: (N, n), inside the box exactly.
        value: (N,), the objective at x.
        gradient: (N, n).
        status: (N,) int64, see `Status`.
        num_iterations: (N,) int64, accepted steps.
        num_evaluations: (N,) int64, evaluations of the objective and its gradient while the row was active.
    """

    x: Tensor
    value: Tensor
    gradient: Tensor
    status: Tensor
    num_iterations: Tensor
    num_evaluations: Tensor

    @property
    def converged(self) -> Tensor:
        """(N,) bool."""
        return (self.status == Status.GRADIENT) | (self.status == Status.VALUE)


def minimize_box(
    fun: Callable[..., Tensor | tuple[Tensor, Tensor]],
    x0: Tensor,
    *,
    lower: float | Tensor,
    upper: float | Tensor,
    max_iter: int = 1000,
    history_size: int = 10,
    gradient_tolerance: float = 1e-5,
    value_tolerance: float = 2e-9,
    initial_length: float = 1.0,
) -> MinimizeResult:
    """Minimise N independent functions of n variables in a box, all at once, by projected L-BFGS.

    Args:
        fun: `fun(x)` maps (N, n) to (N,), row by row; its gradient comes from autograd. It may return
            `(value, gradient)` instead. If it has a parameter called `rows`, it is called as `fun(x, rows=rows)` with
            the points of the active rows only, and rows (int64) says which; otherwise it always gets all N rows, and
            those that have stopped stay where they stopped.
        x0: (N, n) float32 or float64, on any device; clamped into the box first.
        lower: a number, or a tensor that broadcasts to (N, n); may be -inf.
        upper: likewise; may be inf.
        max_iter: most accepted steps per row.
        history_size: pairs remembered per row.
        gradient_tolerance: stop when no entry of x - P(x - g) is larger.
        value_tolerance: stop when a step lowers f by no more than this times max(|f|, 1); never below the
            rounding of x0's dtype.
        initial_length: Euclidean length of the first step.

    Returns:
        MinimizeResult, on x0's device, with x0's dtype.

    Raises:
        TypeError: x0 is not floating point.
        ValueError: a shape, a bound or a setting is out of range.
    """
    _check(x0, max_iter, history_size)
    low, high = (torch.as_tensor(bound, dtype=x0.dtype, device=x0.device) for bound in (lower, upper))
    if bool((low > high).any()):
        raise ValueError("expected lower <= upper everywhere, got a lower bound above its upper bound")
    x = torch.minimum(torch.maximum(x0.detach(), low), high)
    evaluate = _evaluator(fun, x)
    rows = torch.arange(len(x), device=x.device)
    value, gradient = evaluate(x, rows)
    state = ProjectedLbfgs.start(
        x,
        value,
        gradient,
        lower=float(low) if low.dim() == 0 else low.expand_as(x),
        upper=float(high) if high.dim() == 0 else high.expand_as(x),
        history_size=history_size,
        initial_length=initial_length,
    )
    value_tolerance = max(value_tolerance, 4 * torch.finfo(x.dtype).eps)
    result = _Rows(state)
    status = _judge(state, torch.zeros_like(rows, dtype=torch.bool), gradient_tolerance, value_tolerance, max_iter)
    status = torch.where(value.isfinite() & gradient.isfinite().all(dim=1), status, int(Status.NON_FINITE))
    while True:
        state.active = status == Status.ACTIVE
        num_active = int(state.active.sum())  # the one synchronisation with the host in a pass
        if num_active <= _COMPACT_BELOW * len(rows):
            result.store(rows, state, status)
            if num_active == 0:
                return result.freeze()
            kept = state.active.nonzero().squeeze(1)
            rows, status, state = rows[kept], status[kept], state.take(kept)
        trial = state.trial()
        value, gradient = evaluate(trial, rows)
        moved = state.tell(trial, value, gradient)
        judged = _judge(state, moved, gradient_tolerance, value_tolerance, max_iter)
        status = torch.where(state.active, judged, status)


def _judge(
    state: ProjectedLbfgs, moved: Tensor, gradient_tolerance: float, value_tolerance: float, max_iter: int
) -> Tensor:
    """(N,) the status of each row after a pass; rows whose line search gave up start afresh along -g first."""
    flat = state.projected_gradient().abs().amax(dim=1) <= gradient_tolerance
    settled = moved & (state.last_decrease <= value_tolerance * state.value.abs().clamp_min(1.0))
    gave_up = state.num_cuts >= _MOST_CUTS
    stalled = gave_up & ~state.has_memory()
    afresh = gave_up & ~stalled & state.active
    if bool(afresh.any()):
        state.forget(afresh)
    status = torch.zeros_like(state.num_cuts)
    for reached, code in (
        (stalled, Status.STALLED),
        (state.num_iterations >= max_iter, Status.MAX_ITER),
        (settled, Status.VALUE),
        (flat, Status.GRADIENT),
    ):
        status = torch.where(reached, int(code), status)
    return status


class _Rows:
    """Where the rows of a shrinking state are put back in their original order."""

    def __init__(self, state: ProjectedLbfgs) -> None:
        self.x, self.value, self.gradient = state.x.clone(), state.value.clone(), state.gradient.clone()
        self.status = torch.zeros_like(state.num_iterations)
        self.num_iterations, self.num_evaluations = self.status.clone(), self.status.clone()

    def store(self, rows: Tensor, state: ProjectedLbfgs, status: Tensor) -> None:
        for name in ("x", "value", "gradient", "num_iterations", "num_evaluations"):
            getattr(self, name)[rows] = getattr(state, name)
        self.status[rows] = status

    def freeze(self) -> MinimizeResult:
        return MinimizeResult(**vars(self))


def _evaluator(
    fun: Callable[..., Tensor | tuple[Tensor, Tensor]], x0: Tensor
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """`fun` as a function of (points, rows) that returns (value, gradient)."""
    takes_rows = "rows" in inspect.signature(fun).parameters
    everything = x0.clone()

    def evaluate(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        if takes_rows:
            return _value_and_gradient(fun, x, rows=rows)
        everything[rows] = x
        value, gradient = _value_and_gradient(fun, everything.clone())
        return value[rows], gradient[rows]

    return evaluate


def _value_and_gradient(fun: Callable[..., Tensor | tuple[Tensor, Tensor]], x: Tensor, **rows: Tensor):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        answer = fun(x, **rows)
        if isinstance(answer, tuple):
            value, gradient = answer
        else:
            _check_value(answer, x)
            value, gradient = answer, torch.autograd.grad(answer.sum(), x)[0]
    _check_value(value, x)
    if gradient.shape != x.shape:
        raise ValueError(f"expected fun to return a gradient of shape {tuple(x.shape)}, got {tuple(gradient.shape)}")
    return value.detach(), gradient.detach()


def _check_value(value: Tensor, x: Tensor) -> None:
    if value.shape != x.shape[:1]:
        raise ValueError(f"expected fun to return one value per row, shape {(len(x),)}, got {tuple(value.shape)}")


def _check(x0: Tensor, max_iter: int, history_size: int) -> None:
    if not x0.is_floating_point():
        raise TypeError(f"expected x0 of a floating-point dtype, got {x0.dtype}")
    if x0.dim() != 2:
        raise ValueError(f"expected x0 of shape (N, n), got {tuple(x0.shape)}")
    if max_iter < 0:
        raise ValueError(f"expected max_iter >= 0, got {max_iter}")
    if history_size < 1:
        raise ValueError(f"expected history_size >= 1, got {history_size}")

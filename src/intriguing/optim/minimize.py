"""`minimize_box`: the plain loop over `ProjectedLbfgs`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from intriguing.optim.projected_lbfgs import ProjectedLbfgs, full_precision
from intriguing.validation import real_number, whole_number

_COMPACT_BELOW = 0.75  # rows are dropped from the work when fewer than this fraction of them are still active
_MOST_CUTS = 20
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Status(IntEnum):
    """Why a row stopped."""

    ACTIVE = 0
    GRADIENT = 1  # first-order conditions hold to `gradient_tolerance`
    VALUE = 2  # the last step lowered f by less than `value_tolerance`, relatively
    MAX_ITER = 3
    STALLED = 4  # no shorter step lowers f: rounding, or a gradient that is not f's
    NON_FINITE = 5  # x0, f or all of its gradient was not finite at the start, or a slope at x is nan or infinite


@dataclass(frozen=True)
class MinimizeResult:
    """What `minimize_box` found; N rows.

    Attributes:
        x: (N, n), inside the box exactly, with x0's dtype.
        value: (N,), the objective at x, with the finest of x0's and fun's dtypes, float32 at least.
        gradient: (N, n), with value's dtype; inf or nan where fun's is.
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
    fun: Callable[..., Any],
    x0: Any,
    *,
    lower: Any,
    upper: Any,
    max_iter: int = 1000,
    history_size: int = 10,
    gradient_tolerance: float = 1e-5,
    value_tolerance: float = 2e-9,
    initial_length: float = 1.0,
) -> MinimizeResult:
    """Minimise N independent functions of n variables in a box, all at once, by projected L-BFGS.

    Works under `torch.no_grad` and `torch.inference_mode` too. Nothing that is passed in is written to, and `fun` may
    write to its argument and use its output tensors again.

    Where a slope is infinite, as that of x ** 0.5 is at 0, its sign is followed; where it is nan, the variable stays
    where it is while the others go on. A trial at which f is not finite is refused and a shorter step is taken.

    Args:
        fun: `fun(x)` maps (N, n), with x0's dtype, to (N,), row by row; its gradient comes from autograd. It may return
            `(value, gradient)` instead, as tensors or arrays. If it has a parameter called `rows`, it is called as
            `fun(x, rows=rows)` with the points of the active rows only, and rows (int64) says which; otherwise it
            always gets all N rows, and those that have stopped stay where they stopped.
        x0: (N, n) tensor or array of a floating-point dtype, on any device, or lists of numbers; clamped into the box
            first.
        lower: a number, or a tensor, array or list that broadcasts to (N, n); may be -inf. Rounded to x0's dtype.
        upper: likewise; may be inf.
        max_iter: most accepted steps per row.
        history_size: pairs remembered per row.
        gradient_tolerance: stop when no entry of x - P(x - g) is larger, P the projection onto the box. It has f's
            scale: where all slopes of f are smaller, x0 itself meets it.
        value_tolerance: stop when a step lowers f by no more than this times max(|f|, 1); never below the
            rounding of fun's values. Multiply an f whose values are far below 1 by a number that brings them there.
        initial_length: Euclidean length of the first step; longer where x0 is so large that rounding would undo it.

    Returns:
        MinimizeResult, on x0's device.

    Raises:
        TypeError: an argument of a wrong type, or x0 not of a floating-point dtype.
        ValueError: a shape, a bound or a setting is out of range, or fun returns no gradient or wrong shapes.
    """
    if not callable(fun):
        raise TypeError(f"expected fun as a function of x, got a value of type {type(fun).__name__}")
    max_iter = whole_number("max_iter", max_iter, 0)
    history_size = whole_number("history_size", history_size, 1)
    gradient_tolerance = real_number("gradient_tolerance", gradient_tolerance, 0)
    value_tolerance = real_number("value_tolerance", value_tolerance, 0)
    initial_length = real_number("initial_length", initial_length, 0, open_low=True)
    with torch.inference_mode(False):
        x, low, high = _box(x0, lower, upper)
        objective = _Objective(fun, x)
        rows = torch.arange(len(x), device=x.device)
        value, gradient = objective(x, rows)
        scale = _scale(gradient)
        state = ProjectedLbfgs.start(
            x.to(value.dtype),
            value * scale,
            gradient * scale[:, None],
            lower=low,
            upper=high,
            history_size=history_size,
            initial_length=_first_length(x.to(value.dtype), x.dtype, initial_length),
            resolution=objective.resolution,
        )
        result = _Rows(state)
        judge = _Judge(gradient_tolerance, max(value_tolerance, 4 * objective.resolution), max_iter)
        status = judge(state, torch.zeros_like(rows, dtype=torch.bool), scale)
        status = torch.where(_usable(x, value, gradient), status, int(Status.NON_FINITE))
        while True:
            state.active = status == Status.ACTIVE
            num_active = int(state.active.sum())  # the one synchronisation with the host in a pass
            if num_active <= _COMPACT_BELOW * len(rows):
                result.store(rows, state, status, scale)
                if num_active == 0:
                    return result.freeze(x.dtype)
                kept = state.active.nonzero().squeeze(1)
                rows, status, state, scale = rows[kept], status[kept], state.take(kept), scale[kept]
            trial = state.trial().to(x.dtype)  # which leaves it in the box, whose ends have this dtype too
            value, gradient = objective(trial, rows)
            moved = state.tell(trial.to(value.dtype), value * scale, gradient * scale[:, None])
            status = torch.where(state.active, judge(state, moved, scale), status)


def _usable(x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """(N,) bool: the rows that can be worked on."""
    slopes = ~gradient.isnan().all(dim=1) if x.shape[1] else torch.ones_like(value, dtype=torch.bool)
    return x.isfinite().all(dim=1) & value.isfinite() & slopes


def _scale(gradient: Tensor) -> Tensor:
    """(N,): powers of two that bring a gradient (N, n) near enough to 1 that its products neither overflow nor vanish.

    1 for the rows that are near enough, which is almost always all.
    """
    if gradient.numel() == 0:
        return gradient.new_ones(len(gradient))
    reach = int(math.log2(torch.finfo(gradient.dtype).max)) // 4
    largest = torch.where(gradient.isfinite(), gradient, 0).abs().amax(dim=1)
    exponent = torch.frexp(largest).exponent
    return torch.ldexp(torch.ones_like(largest), torch.where(largest > 0, exponent.clamp(-reach, reach) - exponent, 0))


def _first_length(x: Tensor, dtype: torch.dtype, length: float) -> Tensor:
    """(N,): the first step's length, at least what rounding to `dtype` leaves of a step at x (N, n)."""
    return (x.norm(dim=1) * torch.finfo(dtype).eps ** 0.5).clamp_min(length)


@dataclass(frozen=True)
class _Judge:
    """Why each row stops, if it does.

    Attributes:
        gradient_tolerance, value_tolerance: in fun's scale.
        max_iter: most accepted steps.
    """

    gradient_tolerance: float
    value_tolerance: float
    max_iter: int

    def __call__(self, state: ProjectedLbfgs, moved: Tensor, scale: Tensor) -> Tensor:
        """(N,) the status after a pass; rows whose line search gave up start afresh along -g first."""
        largest = _projected_gradient(state, scale).abs()
        flat = largest.amax(dim=1) <= self.gradient_tolerance if largest.shape[1] else torch.ones_like(moved)
        settled = moved & (state.last_decrease <= self.value_tolerance * torch.maximum(state.value.abs(), scale))
        gave_up = state.num_cuts >= _MOST_CUTS
        stalled = gave_up & ~state.has_memory()
        afresh = gave_up & ~stalled & state.active
        if bool(afresh.any()):
            state.forget(afresh)
        reasons = [
            (stalled, Status.STALLED),
            (state.num_iterations >= self.max_iter, Status.MAX_ITER),
            (settled, Status.VALUE),
            (flat, Status.GRADIENT),
        ]
        doubt = state.doubt()
        if doubt is not None:
            steep, unknown = doubt
            done = (settled | flat | stalled) & ~steep
            reasons[2:] = [(settled & ~steep, Status.VALUE), (flat & ~steep, Status.GRADIENT)]
            reasons.append((done & unknown, Status.NON_FINITE))
        status = torch.zeros_like(state.num_cuts)
        for reached, code in reasons:
            status = torch.where(reached, int(code), status)
        return status


def _projected_gradient(state: ProjectedLbfgs, scale: Tensor) -> Tensor:
    """(N, n): x - P(x - g) in fun's scale, written so that x does not swallow a small g."""
    gradient = state.gradient / scale[:, None]
    return torch.clamp(gradient, state.x - state.upper, state.x - state.lower)


class _Rows:
    """Where the rows of a shrinking state are put back in their original order."""

    def __init__(self, state: ProjectedLbfgs) -> None:
        self.x, self.value, self.gradient = state.x.clone(), state.value.clone(), state.gradient.clone()
        self.status = torch.zeros_like(state.num_iterations)
        self.num_iterations, self.num_evaluations = self.status.clone(), self.status.clone()

    def store(self, rows: Tensor, state: ProjectedLbfgs, status: Tensor, scale: Tensor) -> None:
        for name in ("x", "num_iterations", "num_evaluations"):
            getattr(self, name)[rows] = getattr(state, name)
        self.value[rows], self.gradient[rows] = state.value / scale, state.full_gradient() / scale[:, None]
        self.status[rows] = status

    def freeze(self, dtype: torch.dtype) -> MinimizeResult:
        return MinimizeResult(**vars(self) | {"x": self.x.to(dtype)})


class _Objective:
    """`fun` as a function of (points, rows) that returns (value, gradient), tensors that nobody else holds.

    Attributes:
        resolution: relative rounding of fun's values, known after the first call.
    """

    def __init__(self, fun: Callable[..., Any], x0: Tensor) -> None:
        self._fun, self._everything = fun, x0.clone()
        self._takes_rows, self._is_first = _takes_rows(fun), True
        self._dtype = torch.promote_types(x0.dtype, torch.float32)
        self.resolution = torch.finfo(self._dtype).eps

    def __call__(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate at points x (R, n) of the given rows (R,)."""
        if len(rows) == 0:
            return x.new_empty(0, dtype=self._dtype), x.to(self._dtype)
        if self._takes_rows:
            value, gradient = self._evaluate(x, rows=rows.clone())
        else:
            self._everything[rows] = x
            value, gradient = (answer[rows] for answer in self._evaluate(self._everything))
        return value.to(self._dtype, copy=True), gradient.to(self._dtype, copy=True)

    def _evaluate(self, x: Tensor, **rows: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            point = leaf.clone()  # which fun may write to, as it could not to a leaf
            point.retain_grad()
            answer = self._fun(point, **rows)
            if isinstance(answer, tuple | list):
                if len(answer) != 2:
                    raise ValueError(f"expected fun to return a value or (value, gradient), got {len(answer)} parts")
                value, gradient = _returned("value", answer[0], x), _returned("gradient", answer[1], x)
            else:
                value = _returned("value", answer, x)
                _check_shape("one value per row, shape", value, x.shape[:1])
                gradient = _slopes(value, leaf)
        _check_shape("one value per row, shape", value, x.shape[:1])
        _check_shape("a gradient of shape", gradient, x.shape)
        if self._is_first:
            self._refine(value, gradient)
        return value.detach(), gradient.detach()

    def _refine(self, *answers: Tensor) -> None:
        """Take the finest dtype that came, and the coarsest rounding of a value."""
        for answer in answers:
            if answer.is_floating_point():
                self._dtype = torch.promote_types(self._dtype, answer.dtype)
        value, self._is_first = answers[0], False
        self.resolution = torch.finfo(value.dtype if value.is_floating_point() else self._dtype).eps


def _takes_rows(fun: Callable[..., Any]) -> bool:
    try:
        return "rows" in inspect.signature(fun).parameters
    except (TypeError, ValueError):  # a function that is not written in Python
        return False


def _slopes(value: Tensor, leaf: Tensor) -> Tensor:
    """The gradient (N, n) of the values (N,) by autograd."""
    if value.requires_grad:
        with full_precision(leaf):  # autocast is meant for forward passes
            (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
        if gradient is not None:
            return gradient
    if leaf.numel() == 0:
        return torch.zeros_like(leaf)
    raise ValueError(
        "expected fun to compute its value from x by operations that autograd follows, or to return (value, gradient); "
        "got a value without a gradient"
    )


def _returned(name: str, answer: Any, x: Tensor) -> Tensor:
    """What fun returned as a tensor of real numbers on x's device."""
    if isinstance(answer, np.ndarray | np.generic) and answer.dtype.kind in "fiu":
        answer = torch.as_tensor(np.array(answer))
    if not isinstance(answer, Tensor) or answer.is_complex() or answer.dtype == torch.bool:
        raise TypeError(f"expected fun to return its {name} as a tensor of real numbers, got {_kind(answer)}")
    return answer.to(x.device)


def _check_shape(what: str, answer: Tensor, shape: torch.Size) -> None:
    if answer.shape != shape:
        raise ValueError(f"expected fun to return {what} {tuple(shape)}, got {tuple(answer.shape)}")


def _box(x0: Any, lower: Any, upper: Any) -> tuple[Tensor, float | Tensor, float | Tensor]:
    """x0 inside the box, a new tensor, and the box: two numbers, or two tensors (N, n) of the dtype of the work."""
    x = _numbers("x0", x0)
    if x.dtype not in _DTYPES:
        raise TypeError(f"expected x0 of a floating-point dtype, 16 to 64 bits, got {x.dtype}")
    if x.dim() != 2:
        raise ValueError(f"expected x0 of shape (N, n), got {tuple(x.shape)}")
    low, high = (_bound(name, bound, x) for name, bound in (("lower", lower), ("upper", upper)))
    if bool((low > high).any()):
        raise ValueError("expected lower <= upper everywhere, got a lower bound above its upper bound")
    if bool((low == torch.inf).any()) or bool((high == -torch.inf).any()):
        raise ValueError(f"expected lower < inf and upper > -inf in {x.dtype}, got a box without a finite point")
    x = torch.minimum(torch.maximum(x, low), high)
    if low.dim() == high.dim() == 0:
        return x, float(low), float(high)
    work = torch.promote_types(x.dtype, torch.float32)
    return x, low.to(work).expand_as(x), high.to(work).expand_as(x)


def _bound(name: str, bound: Any, x: Tensor) -> Tensor:
    """A bound as a tensor of x's dtype, without dimensions where it is one number."""
    tensor = _numbers(name, bound).to(x)
    if tensor.numel() == 1:
        tensor = tensor.reshape(())
    try:
        tensor.expand_as(x)
    except RuntimeError:
        shapes = f"{tuple(x.shape)}, got shape {tuple(tensor.shape)}"
        raise ValueError(f"expected {name} as a number or an array that broadcasts to {shapes}") from None
    if bool(tensor.isnan().any()):
        raise ValueError(f"expected {name} without nan, got nan")
    return tensor


def _numbers(name: str, value: Any) -> Tensor:
    """A detached tensor of real numbers that shares nothing with what was passed; lists get the default dtype."""
    array = value
    if isinstance(value, int | float | list | tuple):
        try:
            array = np.array(value)
        except ValueError:  # lists of unequal lengths
            raise ValueError(f"expected {name} as lists of equal lengths, got lists that differ") from None
    if isinstance(array, np.ndarray | np.generic) and array.dtype.kind in "fiu" and array.dtype.itemsize <= 8:
        array = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
        array = array.to(torch.get_default_dtype()) if isinstance(value, list | tuple) else array
    if not isinstance(array, Tensor) or array.is_complex() or array.dtype == torch.bool:
        raise TypeError(f"expected {name} as real numbers in a tensor, an array or lists, got {_kind(value)}")
    return array.detach().clone()


def _kind(value: Any) -> str:
    arrays = isinstance(value, Tensor | np.ndarray)
    return f"dtype {value.dtype}" if arrays else f"a value of type {type(value).__name__}"

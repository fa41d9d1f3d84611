"""Minimise batches of functions in a box: the standard loop over ``ProjectedLbfgs``."""

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

_COMPACT_BELOW = 0.75  # stopped rows are dropped when at most this fraction is still active
_MOST_CUTS = 20  # rejected trials in a row after which the line search gives up
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Status(IntEnum):
    """Enumerate the reasons why a row stopped."""

    ACTIVE = 0
    GRADIENT = 1  # first-order conditions hold to ``gradient_tolerance``
    VALUE = 2  # the last step decreased f by less than ``value_tolerance``, relatively
    MAX_ITER = 3
    STALLED = 4  # no shorter step decreases f: rounding, or a gradient that does not belong to f
    NON_FINITE = 5  # x0, f or all of its gradient was not finite at the start, or a slope at x is nan or infinite


@dataclass(frozen=True, repr=False)
class MinimizeResult:
    """Hold the result of ``minimize_box`` for N rows.

    Attributes:
        x: (N, n), inside the box exactly, in x0's dtype.
        value: (N,), the objective at x, in the finest of x0's and fun's dtypes, float32 at least.
        gradient: (N, n), gradient at x, in value's dtype; inf or nan where fun's gradient is.
        status: (N,) int64, see ``Status``.
        num_iterations: (N,) int64, accepted steps.
        num_evaluations: (N,) int64, evaluations of the objective and its gradient while the row was active.
    """

    x: Tensor
    value: Tensor
    gradient: Tensor
    status: Tensor
    num_iterations: Tensor
    num_evaluations: Tensor

    def __repr__(self) -> str:
        rows, counts = len(self.status), torch.bincount(self.status, minlength=len(Status)).tolist()
        ends = ", ".join(f"{count} {status.name}" for status, count in zip(Status, counts, strict=True) if count)
        return f"MinimizeResult({rows} x {self.x.shape[1]}: {int(self.converged.sum())} of {rows} converged; {ends})"

    @property
    def converged(self) -> Tensor:
        """Return the rows that met the gradient or the value tolerance: (N,) bool."""
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

    This works under ``torch.no_grad`` and ``torch.inference_mode`` too. No argument is modified. ``fun`` may write to
    its argument and reuse its output tensors.

    Where a slope is infinite, as that of x ** 0.5 is at 0, the step follows its sign; where it is nan, the variable
    keeps its value and the others continue. A trial point at which f is not finite is rejected, and a shorter step is
    tried.

    Args:
        fun: ``fun(x)`` maps (N, n), in x0's dtype, to (N,), row by row; autograd computes its gradient. Alternatively
            it returns ``(value, gradient)``, as tensors or arrays. If it has a parameter named ``rows``, it is called
            as ``fun(x, rows=rows)`` with the points of the active rows only and their indices (int64); otherwise it
            receives all N rows in every call, and rows that have stopped keep their point.
        x0: (N, n) tensor or array of a floating-point dtype, on any device, or lists of numbers; clamped into the box
            first.
        lower: a number, or a tensor, array or list that broadcasts to (N, n); may be -inf. Rounded to x0's dtype.
        upper: a number, or a tensor, array or list that broadcasts to (N, n); may be inf. Rounded to x0's dtype.
        max_iter: largest number of accepted steps per row.
        history_size: number of pairs stored per row.
        gradient_tolerance: stop when no entry of x - P(x - g) is larger, with P the projection onto the box. It has f's
            scale: if all slopes of f are smaller, x0 itself satisfies it.
        value_tolerance: stop when a step decreases f by no more than this times ``max(|f|, 1)``. The effective
            tolerance is at least the rounding error of fun's values. If the values of f are far below 1, multiply
            f by a constant.
        initial_length: Euclidean length of the first step; longer where x0 is so large that rounding would undo the
            step.

    Returns:
        MinimizeResult, on x0's device.

    Raises:
        TypeError: an argument has a wrong type, or x0 is not of a floating-point dtype.
        ValueError: a shape, a bound or a setting is out of range, or fun returns no gradient or wrong shapes.

    Example:
        >>> import torch
        >>> centres = torch.tensor([[0.2, 0.4], [0.5, 3.0]])
        >>> result = minimize_box(lambda x: (x - centres).square().sum(dim=1), torch.ones(2, 2), lower=0, upper=1)
        >>> result.x.mul(100).round().tolist()  # the second minimum is outside the box
        [[20.0, 40.0], [50.0, 100.0]]
        >>> result.converged.tolist()
        [True, True]
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
        result = _Results(state)
        stop_rule = _StopRule(gradient_tolerance, max(value_tolerance, 4 * objective.resolution), max_iter)
        status = stop_rule(state, torch.zeros_like(rows, dtype=torch.bool), scale)
        status = torch.where(_usable_rows(x, value, gradient), status, int(Status.NON_FINITE))
        while True:
            state.active = status == Status.ACTIVE
            num_active = int(state.active.sum())  # the one synchronisation with the host in a pass
            if num_active <= _COMPACT_BELOW * len(rows):
                result.store(rows, state, status, scale)
                if num_active == 0:
                    return result.freeze(x.dtype)
                kept = state.active.nonzero().squeeze(1)
                rows, status, state, scale = rows[kept], status[kept], state.take(kept), scale[kept]
            trial = state.trial().to(x.dtype)  # it stays in the box, since the bounds have this dtype too
            value, gradient = objective(trial, rows)
            moved = state.update(trial.to(value.dtype), value * scale, gradient * scale[:, None])
            status = torch.where(state.active, stop_rule(state, moved, scale), status)


def _usable_rows(x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """Return the rows whose start point, value and gradient can be used: (N,) bool."""
    slopes = ~gradient.isnan().all(dim=1) if x.shape[1] else torch.ones_like(value, dtype=torch.bool)
    return x.isfinite().all(dim=1) & value.isfinite() & slopes


def _scale(gradient: Tensor) -> Tensor:
    """Compute powers of two (N,) that scale gradients (N, n) so that their products neither overflow nor underflow.

    The power is 1 for rows that need no scaling, which is almost always all of them.
    """
    if gradient.numel() == 0:
        return gradient.new_ones(len(gradient))
    reach = int(math.log2(torch.finfo(gradient.dtype).max)) // 4
    largest = torch.where(gradient.isfinite(), gradient, 0).abs().amax(dim=1)
    exponent = torch.frexp(largest).exponent
    return torch.ldexp(torch.ones_like(largest), torch.where(largest > 0, exponent.clamp(-reach, reach) - exponent, 0))


def _first_length(x: Tensor, dtype: torch.dtype, length: float) -> Tensor:
    """Compute the first step's length (N,), large enough at x (N, n) to survive rounding to ``dtype``."""
    return (x.norm(dim=1) * torch.finfo(dtype).eps ** 0.5).clamp_min(length)


@dataclass(frozen=True)
class _StopRule:
    """Decide which rows stop, and why.

    Attributes:
        gradient_tolerance, value_tolerance: in fun's scale.
        max_iter: largest number of accepted steps.
    """

    gradient_tolerance: float
    value_tolerance: float
    max_iter: int

    def __call__(self, state: ProjectedLbfgs, moved: Tensor, scale: Tensor) -> Tensor:
        """Compute the status (N,) after a pass.

        Rows whose line search gave up restart along -g before they stop.
        """
        largest = _projected_gradient(state, scale).abs()
        flat = largest.amax(dim=1) <= self.gradient_tolerance if largest.shape[1] else torch.ones_like(moved)
        settled = moved & (state.last_decrease <= self.value_tolerance * torch.maximum(state.value.abs(), scale))
        gave_up = state.num_cuts >= _MOST_CUTS
        stalled = gave_up & ~state.has_memory()
        restart = gave_up & ~stalled & state.active
        if bool(restart.any()):
            state.clear_memory(restart)
        reasons = [
            (stalled, Status.STALLED),
            (state.num_iterations >= self.max_iter, Status.MAX_ITER),
            (settled, Status.VALUE),
            (flat, Status.GRADIENT),
        ]
        undecided = state.undecided()
        if undecided is not None:
            steep, unknown = undecided
            done = (settled | flat | stalled) & ~steep
            reasons[2:] = [(settled & ~steep, Status.VALUE), (flat & ~steep, Status.GRADIENT)]
            reasons.append((done & unknown, Status.NON_FINITE))
        status = torch.zeros_like(state.num_cuts)
        for reached, code in reasons:
            status = torch.where(reached, int(code), status)
        return status


def _projected_gradient(state: ProjectedLbfgs, scale: Tensor) -> Tensor:
    """Compute x - P(x - g), (N, n), in fun's scale, without rounding away a small g."""
    gradient = state.gradient / scale[:, None]
    return torch.clamp(gradient, state.x - state.upper, state.x - state.lower)


class _Results:
    """Collect the results of a shrinking state in the original order of the rows."""

    def __init__(self, state: ProjectedLbfgs) -> None:
        self.x, self.value, self.gradient = state.x.clone(), state.value.clone(), state.gradient.clone()
        self.status = torch.zeros_like(state.num_iterations)
        self.num_iterations, self.num_evaluations = self.status.clone(), self.status.clone()

    def store(self, rows: Tensor, state: ProjectedLbfgs, status: Tensor, scale: Tensor) -> None:
        """Store the results of the active rows."""
        for name in ("x", "num_iterations", "num_evaluations"):
            getattr(self, name)[rows] = getattr(state, name)
        self.value[rows], self.gradient[rows] = state.value / scale, state.full_gradient() / scale[:, None]
        self.status[rows] = status

    def freeze(self, dtype: torch.dtype) -> MinimizeResult:
        """Return the collected result, with x in the given dtype."""
        return MinimizeResult(**vars(self) | {"x": self.x.to(dtype)})


class _Objective:
    """Evaluate ``fun`` at points of some rows; the returned value and gradient share no memory with other tensors.

    Attributes:
        resolution: relative rounding error of fun's values, known after the first call.
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
            value, gradient = (output[rows] for output in self._evaluate(self._everything))
        return value.to(self._dtype, copy=True), gradient.to(self._dtype, copy=True)

    def _evaluate(self, x: Tensor, **rows: Tensor) -> tuple[Tensor, Tensor]:
        """Call ``fun`` and check its result; return value and gradient."""
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            point = leaf.clone()  # fun may write to this copy, but not to a leaf
            point.retain_grad()
            output = self._fun(point, **rows)
            if isinstance(output, tuple | list):
                if len(output) != 2:
                    raise ValueError(f"expected fun to return a value or (value, gradient), got {len(output)} parts")
                value, gradient = _real_tensor("value", output[0], x), _real_tensor("gradient", output[1], x)
            else:
                value = _real_tensor("value", output, x)
                _check_shape("one value per row, shape", value, x.shape[:1])
                gradient = _slopes(value, leaf)
        _check_shape("one value per row, shape", value, x.shape[:1])
        _check_shape("a gradient of shape", gradient, x.shape)
        if self._is_first:
            self._set_precision(value, gradient)
        return value.detach(), gradient.detach()

    def _set_precision(self, *outputs: Tensor) -> None:
        """Set the dtype to the finest one of the results, and the resolution to the value's."""
        for output in outputs:
            if output.is_floating_point():
                self._dtype = torch.promote_types(self._dtype, output.dtype)
        value, self._is_first = outputs[0], False
        self.resolution = torch.finfo(value.dtype if value.is_floating_point() else self._dtype).eps


def _takes_rows(fun: Callable[..., Any]) -> bool:
    """Return whether ``fun`` has a parameter named ``rows``."""
    try:
        return "rows" in inspect.signature(fun).parameters
    except (TypeError, ValueError):  # a function that is not written in Python
        return False


def _slopes(value: Tensor, leaf: Tensor) -> Tensor:
    """Compute the gradient (N, n) of the values (N,) by autograd."""
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


def _real_tensor(name: str, output: Any, x: Tensor) -> Tensor:
    """Convert a result of fun to a tensor of real numbers on x's device."""
    if isinstance(output, np.ndarray | np.generic) and output.dtype.kind in "fiu":
        output = torch.as_tensor(np.array(output))
    if not isinstance(output, Tensor) or output.is_complex() or output.dtype == torch.bool:
        raise TypeError(f"expected fun to return its {name} as a tensor of real numbers, got {_kind(output)}")
    return output.to(x.device)


def _check_shape(what: str, output: Tensor, shape: torch.Size) -> None:
    """Check the shape of a result of fun."""
    if output.shape != shape:
        raise ValueError(f"expected fun to return {what} {tuple(shape)}, got {tuple(output.shape)}")


def _box(x0: Any, lower: Any, upper: Any) -> tuple[Tensor, float | Tensor, float | Tensor]:
    """Convert the start point and the bounds.

    Returns:
        x0 clamped into the box, a new tensor; and the bounds, two numbers or two tensors (N, n) in the dtype of the
        computation.
    """
    x = _real_copy("x0", x0)
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
    """Convert a bound to a tensor of x's dtype, without dimensions if it is one number."""
    tensor = _real_copy(name, bound).to(x)
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


def _real_copy(name: str, value: Any) -> Tensor:
    """Convert an argument to a detached copy, a tensor of real numbers; lists take the default dtype."""
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
    """Describe the type of a value."""
    arrays = isinstance(value, Tensor | np.ndarray)
    return f"dtype {value.dtype}" if arrays else f"a value of type {type(value).__name__}"

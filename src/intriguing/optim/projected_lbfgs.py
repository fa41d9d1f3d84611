"""Run projected (two-metric) L-BFGS as a state: the caller evaluates its trial points and updates it with the results.

The caller owns the loop. ``minimize_box`` is the standard loop; an attack that changes its objective between
evaluations (the constant c of ``lbfgs``) runs its own loop over the state.

Sources: Bertsekas, "Projected Newton methods for optimization problems with simple constraints" (SIAM J. Control and
Optimization 20, 1982) for the two metrics; Nocedal & Wright, "Numerical Optimization", 2nd ed., algorithm 7.4 for the
two-loop recursion; Chen, Wang & Zhou, "Large-scale L-BFGS using MapReduce" (NIPS 2014) for the recursion on inner
products.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

_SUFFICIENT_DECREASE = 1e-4  # Armijo's constant, Nocedal & Wright (3.4)
_SHORTEST_CUT, _LONGEST_CUT = 0.1, 0.5  # a rejected step is shortened to between these fractions of its length
_TRUSTED_CUTS = 5  # after more cuts, rounding explains no increase of f, and an infinite slope gives no descent


@dataclass
class ProjectedLbfgs:
    """Minimise N independent problems ``f(x) + ridge / 2 |x - centre|^2, lower <= x <= upper``, step by step.

    The quadratic part is for objectives that change it during the minimisation; otherwise ridge is 0. A variable is
    held if it is at a bound and its gradient points outwards; the other variables are free. Pairs are stored on the
    variables that were free when they arrived, so that the matrix they define belongs to the face on which the iterates
    move. Their inner products are stored too: a pass reads the memory twice instead of 4m times. All rows share one
    ring buffer: the pair of a row that did not move is zero and does not count.

    An entry of the gradient may be infinite or nan, as the slope of x ** 0.5 or of a norm is at 0. It enters no pair.
    An infinite slope keeps its sign and takes the size of the row's largest finite one; if steps along it are rejected,
    the variable is held, like a variable whose slope is nan. The other variables of the row continue.

    Tensors have N rows; n is the number of variables, m the history size.

        name              shape       symbol in Nocedal & Wright, chapter 7
        x                 (N, n)      x_k
        value             (N,)        f(x_k), quadratic part included
        gradient          (N, n)      g_k, quadratic part included; finite
        singular          (N, n)      the non-finite entries of g_k, 0 elsewhere; None until there is one
        lower, upper      floats, or (N, n)
        ridge             (N,)        curvature of the quadratic part
        free_gradient     (N, n)      g_k on the free variables, 0 on the others
        free              (N, n)      1.0 where free, 0.0 where held
        free_norm         (N,)        norm of ``free_gradient``
        moved, changed    (N, n)      s_{k-1}, and y_{k-1} without the share of the quadratic part
        pairs             (N, 2m, n)  s_i (first m) and y_i (last m), a ring buffer in order of arrival
        products          (N, 2m, 2m) their inner products
        next_slot         int         position of the next pair in the ring buffer
        step_size         (N,)        alpha of the current trial point
        initial_length    float, (N,) Euclidean length of a first step, taken while the memory is empty
        resolution        float       relative rounding error of f
        num_cuts          (N,)        rejected trials since the last accepted one; at 0 the next trial is a full step
        last_decrease     (N,)        f(x_{k-1}) - f(x_k) of the last accepted step; inf before the first
        num_iterations    (N,)        accepted steps
        num_evaluations   (N,)        evaluations while the row was active
        active            (N,) bool   set by the caller; a row that is not active neither moves nor counts
    """

    x: Tensor
    value: Tensor
    gradient: Tensor
    lower: float | Tensor
    upper: float | Tensor
    ridge: Tensor
    free_gradient: Tensor
    free: Tensor
    free_norm: Tensor
    moved: Tensor
    changed: Tensor
    pairs: Tensor
    products: Tensor
    next_slot: int
    step_size: Tensor
    initial_length: float | Tensor
    resolution: float
    num_cuts: Tensor
    last_decrease: Tensor
    num_iterations: Tensor
    num_evaluations: Tensor
    active: Tensor
    singular: Tensor | None = None

    @classmethod
    def start(
        cls,
        x: Tensor,
        value: Tensor,
        gradient: Tensor,
        *,
        lower: float | Tensor,
        upper: float | Tensor,
        history_size: int,
        initial_length: float | Tensor = 1.0,
        ridge: Tensor | None = None,
        resolution: float | None = None,
    ) -> ProjectedLbfgs:
        """Make a state at ``x``, where f and its gradient are already known.

        Args:
            x: (N, n), inside the box.
            value: (N,), f at ``x``, quadratic part included.
            gradient: (N, n), gradient at ``x``, quadratic part included.
            lower: lower bound, a number or (N, n).
            upper: upper bound, a number or (N, n).
            history_size: number of pairs stored per row.
            initial_length: Euclidean length of a first step, one number or (N,).
            ridge: (N,), curvature of the quadratic part; None for 0.
            resolution: relative rounding error of f; None for that of value's dtype.

        Returns:
            The state; it writes to none of the arguments.
        """
        n_rows, n = x.shape
        count = torch.zeros(n_rows, dtype=torch.int64, device=x.device)
        state = cls(
            x=x,
            value=value.clone(),
            gradient=gradient.clone(),
            lower=lower,
            upper=upper,
            ridge=torch.zeros_like(value) if ridge is None else ridge.clone(),
            free_gradient=gradient,
            free=gradient,
            free_norm=value,
            moved=torch.zeros_like(x),
            changed=torch.zeros_like(x),
            pairs=x.new_zeros(n_rows, 2 * history_size, n),
            products=x.new_zeros(n_rows, 2 * history_size, 2 * history_size),
            next_slot=0,
            step_size=torch.ones_like(value),
            initial_length=initial_length,
            resolution=torch.finfo(value.dtype).eps if resolution is None else resolution,
            num_cuts=count,
            last_decrease=torch.full_like(value, torch.inf),
            num_iterations=count,
            num_evaluations=count + 1,
            active=torch.ones_like(count, dtype=torch.bool),
        )
        finite_norm = _has_finite_norm(gradient)
        if not finite_norm:
            state.gradient, state.singular = _split(state.gradient)
        state._update_free(finite_norm)
        return state

    @property
    def history_size(self) -> int:
        """Return the number of pairs stored per row."""
        return self.pairs.shape[1] // 2

    def take(self, rows: Tensor) -> ProjectedLbfgs:
        """Select rows, given as int64 indices."""
        kept: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        taken: dict[str, Any] = {k: v.index_select(0, rows) if isinstance(v, Tensor) else v for k, v in kept.items()}
        return ProjectedLbfgs(**taken)

    def trial(self) -> Tensor:
        """Compute the next points (N, n) at which the caller must evaluate the objective; inside the box exactly."""
        with full_precision(self.x):
            on_gradient = self._store_pair()
            weights, gamma, has_pairs = self._coefficients(on_gradient)
            direction = (weights[:, None, :] @ self.pairs).squeeze(1).mul_(self.free)
        direction.addcmul_(self.free_gradient, gamma[:, None])
        full = torch.where(has_pairs, 1.0, self.initial_length / self.free_norm.clamp_min(_tiny(self.x)))
        self.step_size = torch.where(self.num_cuts == 0, full, self.step_size)
        step = self.step_size * self.active
        return self.clamp_(torch.addcmul(self.x, direction, step[:, None], value=-1))

    def clamp_(self, x: Tensor) -> Tensor:
        """Clamp x into the box, in place."""
        return x.clamp_(self.lower, self.upper)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def update(self, trial: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Accept or shorten the step of each row, from the objective at the trial points.

        Args:
            trial: (N, n), the result of ``trial()``; the state keeps it and may write to it.
            value: (N,), objective at the trial points, quadratic part included; a value that is not finite rejects the
                step.
            gradient: (N, n), its gradient, quadratic part included; the state keeps it and may write to it. A row that
                is nan in all entries rejects the step, because it gives no direction.

        Returns:
            (N,) bool, the rows that moved.
        """
        usable, finite_norm, singular = (value.abs() < math.inf) & self.active, _has_finite_norm(gradient), None
        if not finite_norm:
            usable &= ~gradient.isnan().all(dim=1)
            gradient, singular = _split(gradient)
        moved = trial - self.x
        predicted = _dot(self.gradient, moved)
        # Near the optimum the differences of f are rounding errors; rejecting these steps would waste evaluations.
        # But a step that was cut down to nothing has not decreased f.
        rounding = self.value.abs() * (4 * self.resolution) + _tiny(value)
        rounding = torch.where(self.num_cuts > _TRUSTED_CUTS, 0.0, rounding)
        rise = value - self.value
        accepted = (rise < _SUFFICIENT_DECREASE * predicted + rounding) & usable

        curvature = rise - predicted  # of f along the step; the next trial is the minimum of the parabola
        fraction = (-predicted / (2 * curvature)).nan_to_num(_SHORTEST_CUT, _SHORTEST_CUT, _SHORTEST_CUT)
        self.step_size = self.step_size * fraction.clamp_(_SHORTEST_CUT, _LONGEST_CUT)
        self.num_cuts = torch.where(accepted, 0, self.num_cuts + 1)
        self.last_decrease = torch.where(accepted, -rise, self.last_decrease)
        self.value = torch.where(accepted, value, self.value)
        self.num_iterations = self.num_iterations + accepted
        self.num_evaluations = self.num_evaluations + self.active

        stay = (~accepted).nonzero().squeeze(1)
        if len(stay):
            trial[stay], gradient[stay], moved[stay] = self.x[stay], self.gradient[stay], 0
        self.changed = (gradient - self.gradient).addcmul_(moved, self.ridge[:, None], value=-1)
        self.x, self.gradient, self.moved = trial, gradient, moved
        if singular is not None or self.singular is not None:
            self._store_singular(accepted, singular)
        self._update_free(finite_norm)
        return accepted

    def clear_memory(self, rows: Tensor) -> None:
        """Clear the memory of the rows in a mask (N,): their next step follows the projected gradient."""
        which = rows.nonzero().squeeze(1)
        self.products[which], self.moved[which] = 0, 0
        self.num_cuts = torch.where(rows, 0, self.num_cuts)

    def has_memory(self) -> Tensor:
        """Return the rows that store at least one pair: (N,) bool."""
        return (self.products.diagonal(dim1=1, dim2=2).amax(dim=1) > 0) | self.moved.any(dim=1)

    def move(self, rows: Tensor, x: Tensor, value: Tensor, gradient: Tensor) -> None:
        """Move some rows to another point, at which the objective is known; this keeps the memory.

        Args:
            rows: (R,) int64.
            x: (R, n), inside the box.
            value: (R,), the objective at ``x``, quadratic part included.
            gradient: (R, n), its finite gradient, quadratic part included.
        """
        if self.singular is not None:
            self.singular[rows] = 0
        free = self._free_mask(x, gradient)
        free_gradient = gradient * free
        self.x = self.x.index_copy(0, rows, x)  # before the first step it is the caller's
        self.value[rows], self.gradient[rows] = value, gradient
        self.free[rows], self.free_gradient[rows], self.free_norm[rows] = free, free_gradient, free_gradient.norm(dim=1)
        self.num_cuts[rows] = 0

    def change_ridge(self, rows: Tensor, ridge: Tensor, centre: Tensor) -> None:
        """Change the quadratic part of some rows; this needs no evaluation and keeps the memory.

        The change is known exactly.

        Args:
            rows: (R,) int64.
            ridge: (R,), the new curvature.
            centre: (R, n), where the quadratic part is 0.
        """
        change = ridge - self.ridge[rows]
        offset = self.x[rows] - centre
        self.ridge[rows] = ridge
        self.value[rows] += 0.5 * change * _dot(offset, offset)
        gradient = self.gradient[rows].addcmul_(offset, change[:, None])
        if self.singular is not None:  # an infinite slope outweighs any quadratic part
            gradient, _ = _split(_joined(gradient, self.singular[rows]))
        free = self._free_mask(self.x[rows], gradient)
        free_gradient = gradient * free
        self.gradient[rows], self.free[rows], self.free_gradient[rows] = gradient, free, free_gradient
        self.free_norm[rows] = free_gradient.norm(dim=1)
        self.num_cuts[rows] = 0

    def full_gradient(self) -> Tensor:
        """Return the gradient (N, n) with its infinite and nan entries."""
        return self.gradient if self.singular is None else _joined(self.gradient, self.singular)

    def undecided(self) -> tuple[Tensor, Tensor] | None:
        """Find the rows whose non-finite slopes leave first-order conditions undecided.

        Returns:
            None if all slopes are finite. Otherwise (N,) bool, the rows with an infinite slope along which a step is
            still to be tried; and (N,) bool, the rows with an infinite slope that was given up or with a slope of nan.
        """
        if self.singular is None:
            return None
        bad = self.singular != 0
        steep = (bad & (self.free != 0)).any(dim=1)
        return steep, (bad & (self.gradient == 0)).any(dim=1)

    def _store_singular(self, accepted: Tensor, singular: Tensor | None) -> None:
        """Store the non-finite entries of the gradient; ``singular`` (N, n) are those at the trial points."""
        new = torch.zeros_like(self.x) if singular is None else singular
        old = torch.zeros_like(self.x) if self.singular is None else self.singular
        no_pair = (new != 0) | (old != 0)
        self.moved.masked_fill_(no_pair, 0)
        self.changed.masked_fill_(no_pair, 0)
        self.singular = torch.where(accepted[:, None], new, old)
        given_up = (self.singular != 0) & (self.gradient != 0) & (self.num_cuts > _TRUSTED_CUTS)[:, None]
        given_up &= self._free_mask(self.x, self.gradient) != 0
        self.gradient = torch.where(given_up, 0, self.gradient)
        self.num_cuts = torch.where(given_up.any(dim=1), 0, self.num_cuts)

    def _free_mask(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Return 1.0 for the variables (R, n) that a step against the gradient moves, 0.0 for the others."""
        step = torch.clamp(gradient, x - self.upper, x - self.lower)  # x - P(x - g), without rounding away a small g
        return torch.ne(step, 0, out=step)

    def _update_free(self, finite_norm: bool) -> None:
        """Update the free variables and the gradient on them."""
        self.free = self._free_mask(self.x, self.gradient)
        self.free_gradient = self.gradient * self.free
        self.free_norm = self.free_gradient.norm(dim=1) if finite_norm else _safe_norm(self.free_gradient)

    def _store_pair(self) -> Tensor:
        """Store the last step's pair; return the products (N, 2m) of all pairs with the free gradient."""
        m, slot = self.history_size, self.next_slot
        new = self.x.new_empty(len(self.x), 3, self.x.shape[1])
        torch.mul(self.moved, self.free, out=new[:, 0])
        torch.mul(self.changed, self.free, out=new[:, 1])
        new[:, 2] = self.free_gradient
        self.pairs[:, slot], self.pairs[:, slot + m] = new[:, 0], new[:, 1]
        columns = self.pairs @ new.mT
        for place, column in ((slot, 0), (slot + m, 1)):
            self.products[:, place] = columns[:, :, column]
            self.products[:, :, place] = columns[:, :, column]
        self.next_slot = (slot + 1) % m
        return columns[:, :, 2]

    def _coefficients(self, on_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Express H g by the pairs and by g.

        The two loops of algorithm 7.4 act on the inner products: each is a triangular solve. The quadratic part's share
        of y is ridge * s; it is added to the products here.

        Returns:
            Weights of the pairs (N, 2m), weight of g (N,), and the rows that have usable pairs (N,) bool.
        """
        m = self.history_size
        order = (torch.arange(m, device=self.x.device) + self.next_slot) % m  # oldest first
        both = torch.cat([order, order + m])
        products = self.products.index_select(1, both).index_select(2, both)
        ridge = self.ridge[:, None, None]
        step_step, step_change = products[:, :m, :m], products[:, :m, m:]
        step_change = torch.addcmul(step_change, step_step, ridge)
        change_change = products[:, m:, m:] + ridge * (step_change.mT + products[:, :m, m:])
        on_gradient = on_gradient.index_select(1, both)
        on_step = on_gradient[:, :m]
        on_change = torch.addcmul(on_gradient[:, m:], on_step, self.ridge[:, None])

        curvature, size = step_change.diagonal(dim1=1, dim2=2), change_change.diagonal(dim1=1, dim2=2)
        usable = curvature > torch.finfo(curvature.dtype).eps * size
        keep = usable.to(curvature.dtype)
        scales = torch.where(usable, curvature / size, 0.0)
        newest = (usable * torch.arange(1, m + 1, device=self.x.device)).argmax(dim=1, keepdim=True)
        gamma = scales.gather(1, newest).squeeze(1)

        grid = keep[:, :, None] * keep[:, None, :]
        newer = (step_change * grid).triu_(1)
        newer.diagonal(dim1=1, dim2=2).copy_(torch.where(usable, curvature, 1.0))
        first = torch.linalg.solve_triangular(newer, (on_step * keep)[:, :, None], upper=True)
        inner = on_change - (change_change @ first).squeeze(2)
        first = first.squeeze(2)
        right = keep * (curvature * first - gamma[:, None] * inner)
        second = torch.linalg.solve_triangular(newer.mT, right[:, :, None], upper=False).squeeze(2)
        first = first * -gamma[:, None]

        # The matrix is positive definite in exact arithmetic; where rounding or overflow broke this, use the gradient.
        descent = gamma * self.free_norm.square() + (second * on_step + first * on_change).sum(dim=1)
        has_pairs = (gamma > 0) & (descent > 0) & (descent < math.inf)
        weights = torch.cat([torch.addcmul(second, first, self.ridge[:, None]), first], dim=1)
        weights = torch.where(has_pairs[:, None], weights, 0.0)
        gamma = torch.where(has_pairs, gamma, 1.0)
        return torch.empty_like(weights).index_copy_(1, both, weights), gamma, has_pairs


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Compute the inner products of rows."""
    return torch.linalg.vecdot(a, b)


def _tiny(x: Tensor) -> float:
    """Return the smallest positive normal number of a dtype."""
    return torch.finfo(x.dtype).tiny


def _has_finite_norm(gradient: Tensor) -> bool:
    """Return whether all entries of a gradient (N, n) are finite, and the sum of their squares too."""
    return math.isfinite(float(torch.linalg.vector_norm(gradient)))


def _split(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Make the entries of a gradient (N, n) finite; also return those that were not finite, 0 elsewhere."""
    finite = gradient.isfinite()
    largest = torch.where(finite, gradient, 0).abs().amax(dim=1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1)
    return torch.where(finite, gradient, gradient.nan_to_num(0, 1, -1) * largest), torch.where(finite, 0, gradient)


def _joined(gradient: Tensor, singular: Tensor) -> Tensor:
    """Put the non-finite entries back into a gradient (N, n)."""
    return torch.where(singular != 0, singular, gradient)


def _safe_norm(rows: Tensor) -> Tensor:
    """Compute the norms (N,) of rows (N, n) whose squares may overflow."""
    largest = rows.abs().amax(dim=1).clamp_min(_tiny(rows))
    return (largest * (rows / largest[:, None]).norm(dim=1)).clamp_max(torch.finfo(rows.dtype).max)


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Make a context in which autocast does not lower the precision of products."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()

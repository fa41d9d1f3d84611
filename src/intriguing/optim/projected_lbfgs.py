"""Projected (two-metric) L-BFGS as a state that is asked for trial points and told what the objective was there.

The loop belongs to the caller. `minimize_box` is the plain one; an attack that changes its objective on the way
(the constant c of `lbfgs`) drives the same state itself.

Sources: Bertsekas, "Projected Newton methods for optimization problems with simple constraints" (SIAM J. Control and
Optimization 20, 1982) for the two metrics; Nocedal & Wright, "Numerical Optimization", 2nd ed., algorithm 7.4 for the
two-loop recursion; Chen, Wang & Zhou, "Large-scale L-BFGS using MapReduce" (NIPS 2014) for doing it on inner products.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

_SUFFICIENT_DECREASE = 1e-4  # Armijo's constant, Nocedal & Wright (3.4)
_SHORTEST_CUT, _LONGEST_CUT = 0.1, 0.5  # a refused step is shortened to between these fractions of itself
_TRUSTED_CUTS = 5  # after more, neither rounding explains a rise of f, nor does an infinite slope lead down


@dataclass
class ProjectedLbfgs:
    """N independent problems `minimise f(x) + ridge / 2 |x - centre|^2, lower <= x <= upper`.

    The quadratic part is there for objectives that have one and change it on the way; without it ridge is 0. A variable
    is held when it is at a bound and its gradient pushes outwards; the others are free. Pairs are stored as they are on
    the variables that were free when they came, so that the matrix they make is one of the face that the iterates move
    on, and their inner products are kept: a pass reads the memory twice and not 4m times. All rows share one ring: the
    pair of a row that did not move is zero, which counts as none.

    An entry of the gradient may be infinite or nan, as the slope of x ** 0.5 or of a norm is at 0. It makes no pair. An
    infinite slope keeps its sign and takes the size of the row's largest finite one; where steps along it are refused,
    the variable is held, as one of slope nan is. The other variables of the row go on.

    Tensors have N rows; n is the number of variables, m the history size.

        name              shape       symbol in Nocedal & Wright, chapter 7
        x                 (N, n)      x_k
        value             (N,)        f(x_k), quadratic part included
        gradient          (N, n)      g_k, likewise; finite
        singular          (N, n)      the entries of g_k that were not finite, 0 elsewhere; None while there were none
        lower, upper      floats, or (N, n)
        ridge             (N,)        curvature of the quadratic part
        downhill          (N, n)      g_k on the free variables, 0 on the others
        free              (N, n)      1.0 where free, 0.0 where held
        free_norm         (N,)        norm of `downhill`
        moved, changed    (N, n)      s_{k-1}, and y_{k-1} less what the quadratic part gave to it
        pairs             (N, 2m, n)  s_i (first m) and y_i (last m), a ring in order of arrival
        products          (N, 2m, 2m) their inner products
        next_slot         int         where in the ring the next pair goes
        step_size         (N,)        alpha of the trial that is out
        initial_length    float, (N,) Euclidean length of a first step, taken while the memory is empty
        resolution        float       relative rounding of f
        num_cuts          (N,)        refused trials since the last accepted one; at 0 the next trial is a full step
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
    downhill: Tensor
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
        """Make a state at `x` (N, n), which must lie in the box, with f and its gradient there already known.

        Args:
            x, value, gradient, lower, upper, ridge: see the class; none is written to.
            history_size: pairs remembered per row.
            initial_length: Euclidean length of a first step, one number or (N,).
            resolution: relative rounding of f; None is that of value's dtype.
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
            downhill=gradient,
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
        tame = _is_tame(gradient)
        if not tame:
            state.gradient, state.singular = _split(state.gradient)
        state._find_free(tame)
        return state

    @property
    def history_size(self) -> int:
        return self.pairs.shape[1] // 2

    def take(self, rows: Tensor) -> ProjectedLbfgs:
        """The state of the given rows alone (int64 indices); the others leave the work."""
        kept: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        taken: dict[str, Any] = {k: v.index_select(0, rows) if isinstance(v, Tensor) else v for k, v in kept.items()}
        return ProjectedLbfgs(**taken)

    def trial(self) -> Tensor:
        """The next point (N, n) at which the caller is to evaluate the objective; inside the box exactly."""
        with full_precision(self.x):
            along = self._store_pair()
            weights, gamma, has_pairs = self._coefficients(along)
            direction = (weights[:, None, :] @ self.pairs).squeeze(1).mul_(self.free)
        direction.addcmul_(self.downhill, gamma[:, None])
        full = torch.where(has_pairs, 1.0, self.initial_length / self.free_norm.clamp_min(_tiny(self.x)))
        self.step_size = torch.where(self.num_cuts == 0, full, self.step_size)
        step = self.step_size * self.active
        return self.clamp_(torch.addcmul(self.x, direction, step[:, None], value=-1))

    def clamp_(self, x: Tensor) -> Tensor:
        """Clamp x into the box, in place."""
        return x.clamp_(self.lower, self.upper)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def tell(self, trial: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Take in the objective at the trial points: accept each row's step or cut it.

        Args:
            trial: (N, n), what `trial()` returned; the state keeps it and may write to it.
            value: (N,), quadratic part included; a value that is not finite refuses the step.
            gradient: (N, n), likewise; the state keeps it and may write to it. One that is nan throughout refuses the
                step, for there would be no way to go on.

        Returns:
            (N,) bool, the rows that moved.
        """
        usable, tame, singular = (value.abs() < math.inf) & self.active, _is_tame(gradient), None
        if not tame:
            usable &= ~gradient.isnan().all(dim=1)
            gradient, singular = _split(gradient)
        moved = trial - self.x
        promised = _dot(self.gradient, moved)
        # Near the optimum the differences of f are rounding errors; refusing those would only waste evaluations.
        # A step that was cut until nothing is left of it has not lowered f either.
        rounding = self.value.abs() * (4 * self.resolution) + _tiny(value)
        rounding = torch.where(self.num_cuts > _TRUSTED_CUTS, 0.0, rounding)
        rise = value - self.value
        accepted = (rise < _SUFFICIENT_DECREASE * promised + rounding) & usable

        bend = rise - promised  # of f along the step; the minimum of its parabola is the next trial
        fraction = (-promised / (2 * bend)).nan_to_num(_SHORTEST_CUT, _SHORTEST_CUT, _SHORTEST_CUT)
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
            self._take_singular(accepted, singular)
        self._find_free(tame)
        return accepted

    def forget(self, rows: Tensor) -> None:
        """Clear the memory of the rows in a mask (N,): their next step is along the projected gradient."""
        which = rows.nonzero().squeeze(1)
        self.products[which], self.moved[which] = 0, 0
        self.num_cuts = torch.where(rows, 0, self.num_cuts)

    def has_memory(self) -> Tensor:
        """(N,) bool, the rows that remember at least one pair."""
        return (self.products.diagonal(dim1=1, dim2=2).amax(dim=1) > 0) | self.moved.any(dim=1)

    def change_ridge(self, rows: Tensor, ridge: Tensor, centre: Tensor) -> None:
        """Give some rows another quadratic part: it is known exactly, so nothing is evaluated and nothing forgotten.

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
        if self.singular is not None:  # no quadratic part outweighs an infinite slope
            gradient, _ = _split(_joined(gradient, self.singular[rows]))
        free = self._free(self.x[rows], gradient)
        downhill = gradient * free
        self.gradient[rows], self.free[rows], self.downhill[rows] = gradient, free, downhill
        self.free_norm[rows] = downhill.norm(dim=1)
        self.num_cuts[rows] = 0

    def full_gradient(self) -> Tensor:
        """(N, n): the gradient with its infinite and nan entries, as it was told."""
        return self.gradient if self.singular is None else _joined(self.gradient, self.singular)

    def doubt(self) -> tuple[Tensor, Tensor] | None:
        """Say where entries of the gradient that are not finite stand in the way of first-order conditions.

        Returns:
            None where all are finite. Otherwise (N,) bool, the rows with an infinite slope along which a step is still
            to be tried; and (N,) bool, those with one that was given up or with a slope of nan.
        """
        if self.singular is None:
            return None
        bad = self.singular != 0
        steep = (bad & (self.free != 0)).any(dim=1)
        return steep, (bad & (self.gradient == 0)).any(dim=1)

    def _take_singular(self, accepted: Tensor, singular: Tensor | None) -> None:
        """Keep the entries of the gradient that are not finite; `singular` (N, n) are those at the trial points."""
        new = torch.zeros_like(self.x) if singular is None else singular
        old = torch.zeros_like(self.x) if self.singular is None else self.singular
        no_pair = (new != 0) | (old != 0)
        self.moved.masked_fill_(no_pair, 0)
        self.changed.masked_fill_(no_pair, 0)
        self.singular = torch.where(accepted[:, None], new, old)
        given_up = (self.singular != 0) & (self.gradient != 0) & (self.num_cuts > _TRUSTED_CUTS)[:, None]
        given_up &= self._free(self.x, self.gradient) != 0
        self.gradient = torch.where(given_up, 0, self.gradient)
        self.num_cuts = torch.where(given_up.any(dim=1), 0, self.num_cuts)

    def _free(self, x: Tensor, gradient: Tensor) -> Tensor:
        """(R, n): 1.0 for the variables that a step against the gradient would move, 0.0 for the others."""
        step = torch.clamp(gradient, x - self.upper, x - self.lower)  # x - P(x - g), but x does not swallow a small g
        return torch.ne(step, 0, out=step)

    def _find_free(self, tame: bool) -> None:
        self.free = self._free(self.x, self.gradient)
        self.downhill = self.gradient * self.free
        self.free_norm = self.downhill.norm(dim=1) if tame else _safe_norm(self.downhill)

    def _store_pair(self) -> Tensor:
        """Put the last step's pair into the ring; the products of all pairs with the free gradient (N, 2m)."""
        m, slot = self.history_size, self.next_slot
        new = self.x.new_empty(len(self.x), 3, self.x.shape[1])
        torch.mul(self.moved, self.free, out=new[:, 0])
        torch.mul(self.changed, self.free, out=new[:, 1])
        new[:, 2] = self.downhill
        self.pairs[:, slot], self.pairs[:, slot + m] = new[:, 0], new[:, 1]
        columns = self.pairs @ new.mT
        for place, column in ((slot, 0), (slot + m, 1)):
            self.products[:, place] = columns[:, :, column]
            self.products[:, :, place] = columns[:, :, column]
        self.next_slot = (slot + 1) % m
        return columns[:, :, 2]

    def _coefficients(self, along: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """H g as a combination of the pairs (N, 2m) and of g (N,), and whether the row has pairs at all.

        The two loops of algorithm 7.4 on the inner products: each is a triangular solve. The quadratic part's share of
        y is ridge * s, added to the products here.
        """
        m = self.history_size
        order = (torch.arange(m, device=self.x.device) + self.next_slot) % m  # oldest first
        both = torch.cat([order, order + m])
        products = self.products.index_select(1, both).index_select(2, both)
        ridge = self.ridge[:, None, None]
        step_step, step_change = products[:, :m, :m], products[:, :m, m:]
        step_change = torch.addcmul(step_change, step_step, ridge)
        change_change = products[:, m:, m:] + ridge * (step_change.mT + products[:, :m, m:])
        along = along.index_select(1, both)
        on_step = along[:, :m]
        on_change = torch.addcmul(along[:, m:], on_step, self.ridge[:, None])

        bend, size = step_change.diagonal(dim1=1, dim2=2), change_change.diagonal(dim1=1, dim2=2)
        usable = bend > torch.finfo(bend.dtype).eps * size
        keep = usable.to(bend.dtype)
        scales = torch.where(usable, bend / size, 0.0)
        newest = (usable * torch.arange(1, m + 1, device=self.x.device)).argmax(dim=1, keepdim=True)
        gamma = scales.gather(1, newest).squeeze(1)

        grid = keep[:, :, None] * keep[:, None, :]
        newer = (step_change * grid).triu_(1)
        newer.diagonal(dim1=1, dim2=2).copy_(torch.where(usable, bend, 1.0))
        first = torch.linalg.solve_triangular(newer, (on_step * keep)[:, :, None], upper=True)
        inner = on_change - (change_change @ first).squeeze(2)
        first = first.squeeze(2)
        right = keep * (bend * first - gamma[:, None] * inner)
        second = torch.linalg.solve_triangular(newer.mT, right[:, :, None], upper=False).squeeze(2)
        first = first * -gamma[:, None]

        # The matrix is positive definite in exact arithmetic; where rounding or overflow won, use the gradient.
        descent = gamma * self.free_norm.square() + (second * on_step + first * on_change).sum(dim=1)
        has_pairs = (gamma > 0) & (descent > 0) & (descent < math.inf)
        weights = torch.cat([torch.addcmul(second, first, self.ridge[:, None]), first], dim=1)
        weights = torch.where(has_pairs[:, None], weights, 0.0)
        gamma = torch.where(has_pairs, gamma, 1.0)
        return torch.empty_like(weights).index_copy_(1, both, weights), gamma, has_pairs


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b)


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny


def _is_tame(gradient: Tensor) -> bool:
    """Whether all entries of a gradient (N, n) are finite, and the sum of their squares too."""
    return math.isfinite(float(torch.linalg.vector_norm(gradient)))


def _split(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """A gradient (N, n) with its entries made finite, and those that were not finite, 0 elsewhere."""
    finite = gradient.isfinite()
    largest = torch.where(finite, gradient, 0).abs().amax(dim=1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1)
    return torch.where(finite, gradient, gradient.nan_to_num(0, 1, -1) * largest), torch.where(finite, 0, gradient)


def _joined(gradient: Tensor, singular: Tensor) -> Tensor:
    return torch.where(singular != 0, singular, gradient)


def _safe_norm(rows: Tensor) -> Tensor:
    """(N,): the norms of rows (N, n) whose squares may overflow."""
    largest = rows.abs().amax(dim=1).clamp_min(_tiny(rows))
    return (largest * (rows / largest[:, None]).norm(dim=1)).clamp_max(torch.finfo(rows.dtype).max)


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which autocast does not lower the precision of products."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()

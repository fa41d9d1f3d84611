"""Projected (two-metric) L-BFGS as a state that is asked for trial points and told what the objective was there.

The loop belongs to the caller. `minimize_box` is the plain one; an attack that changes its objective on the way
(the constant c of `lbfgs`) drives the same state itself.

Sources: Bertsekas, "Projected Newton methods for optimization problems with simple constraints" (SIAM J. Control and
Optimization 20, 1982) for the two metrics; Nocedal & Wright, "Numerical Optimization", 2nd ed., algorithm 7.4 for the
two-loop recursion; Chen, Wang & Zhou, "Large-scale L-BFGS using MapReduce" (NIPS 2014) for doing it on inner products.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

_SUFFICIENT_DECREASE = 1e-4  # Armijo's constant, Nocedal & Wright (3.4)
_SHORTEST_CUT, _LONGEST_CUT = 0.1, 0.5  # a refused step is shortened to between these fractions of itself


@dataclass
class ProjectedLbfgs:
    """N independent problems `minimise f(x), lower <= x <= upper`, each with its own memory, step and count.

    Tensors have N rows; n is the number of variables, m the history size.

        name              shape      symbol in Nocedal & Wright, chapter 7
        x                 (N, n)     x_k
        value             (N,)       f(x_k)
        gradient          (N, n)     g_k
        lower, upper      () or (N, n)
        pairs             (N, 2m, n) s_i (first m) and y_i (last m), a ring in order of arrival
        num_pairs         (N,)       pairs stored since the memory was last cleared; slot = num_pairs mod m is next
        step_size         (N,)       alpha of the trial that is out
        initial_length    (N,)       Euclidean length of a first step, taken while the memory is empty
        num_cuts          (N,)       refused trials since the last accepted one; at 0 the next trial is a full step
        last_decrease     (N,)       f(x_{k-1}) - f(x_k) of the last accepted step; inf before the first
        num_iterations    (N,)       accepted steps
        num_evaluations   (N,)       evaluations while the row was active
        active            (N,) bool  set by the caller; a row that is not active neither moves nor counts
    """

    x: Tensor
    value: Tensor
    gradient: Tensor
    lower: Tensor
    upper: Tensor
    pairs: Tensor
    num_pairs: Tensor
    step_size: Tensor
    initial_length: Tensor
    num_cuts: Tensor
    last_decrease: Tensor
    num_iterations: Tensor
    num_evaluations: Tensor
    active: Tensor

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
        initial_length: float = 1.0,
    ) -> ProjectedLbfgs:
        """A state at `x` (N, n), which must lie in the box, with f and its gradient there already known."""
        n_rows, n = x.shape
        count = torch.zeros(n_rows, dtype=torch.int64, device=x.device)
        return cls(
            x=x.clone(),
            value=value.clone(),
            gradient=gradient.clone(),
            lower=_bound(lower, x),
            upper=_bound(upper, x),
            pairs=x.new_zeros(n_rows, 2 * history_size, n),
            num_pairs=count,
            step_size=torch.ones_like(value),
            initial_length=torch.full_like(value, initial_length),
            num_cuts=count.clone(),
            last_decrease=torch.full_like(value, torch.inf),
            num_iterations=count.clone(),
            num_evaluations=count + 1,
            active=torch.ones_like(count, dtype=torch.bool),
        )

    @property
    def history_size(self) -> int:
        return self.pairs.shape[1] // 2

    def take(self, rows: Tensor) -> ProjectedLbfgs:
        """The state of the given rows alone (indices or a mask); the others leave the work."""
        kept = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            kept[field.name] = tensor[rows] if tensor.dim() else tensor
        return ProjectedLbfgs(**kept)

    def trial(self) -> Tensor:
        """The next point (N, n) at which the caller is to evaluate the objective; inside the box exactly."""
        direction, scale = self._direction()
        first = self.initial_length / direction.norm(dim=1).clamp_min(torch.finfo(self.x.dtype).tiny)
        full = torch.where(scale > 0, 1.0, first)
        self.step_size = torch.where(self.num_cuts == 0, full, self.step_size)
        return self.clamp(torch.addcmul(self.x, direction, (self.step_size * self.active)[:, None]))

    def clamp(self, x: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(x, self.lower), self.upper)

    def tell(self, trial: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Take in the objective at the trial points: accept the step or cut it.

        Args:
            trial: (N, n), what `trial()` returned.
            value: (N,); a value that is not finite refuses the step.
            gradient: (N, n).

        Returns:
            (N,) bool, the rows that moved.
        """
        moved = trial - self.x
        promised = _dot(self.gradient, moved)
        # Near the optimum the differences of f are rounding errors; refusing those would only waste evaluations.
        rounding = 4 * torch.finfo(value.dtype).eps * self.value.abs()
        accepted = (value <= self.value + _SUFFICIENT_DECREASE * promised + rounding) & value.isfinite() & self.active
        self._remember(accepted, moved, gradient - self.gradient)

        curvature = value - self.value - promised  # of f along the step; its parabola's minimum is the next trial
        fraction = torch.where(curvature > 0, -promised / (2 * curvature), _SHORTEST_CUT)
        fraction = fraction.nan_to_num(_SHORTEST_CUT).clamp(_SHORTEST_CUT, _LONGEST_CUT)

        self.last_decrease = torch.where(accepted, self.value - value, self.last_decrease)
        self.x = torch.where(accepted[:, None], trial, self.x)
        self.value = torch.where(accepted, value, self.value)
        self.gradient = torch.where(accepted[:, None], gradient, self.gradient)
        self.num_cuts = torch.where(accepted, 0, self.num_cuts + 1)
        self.num_iterations = self.num_iterations + accepted
        self.num_evaluations = self.num_evaluations + self.active
        self.step_size = self.step_size * fraction
        return accepted

    def forget(self, rows: Tensor) -> None:
        """Clear the memory of the rows in a mask (N,): their next step is along the projected gradient."""
        self.num_pairs = torch.where(rows, 0, self.num_pairs)
        self.num_cuts = torch.where(rows, 0, self.num_cuts)

    def projected_gradient(self) -> Tensor:
        """(N, n): x - P(x - g), zero exactly where the first-order conditions hold."""
        return self.x - self.clamp(self.x - self.gradient)

    def _direction(self) -> tuple[Tensor, Tensor]:
        """-H g with H the L-BFGS matrix of the pairs restricted to the free variables, and its scale (0 if no pair).

        Restricting the pairs themselves, and not H, is what makes a step a quasi-Newton step *of the face*.
        """
        m = self.history_size
        held_low = (self.x <= self.lower) & (self.gradient > 0)
        held_high = (self.x >= self.upper) & (self.gradient < 0)
        weight = (~(held_low | held_high)).to(self.x.dtype)
        gradient = self.gradient * weight
        masked = self.pairs * weight[:, None, :]
        products = masked @ self.pairs[:, m:].mT  # (N, 2m, m): s_i.y_j above y_i.y_j
        along = (masked @ gradient[:, :, None]).squeeze(2)  # (N, 2m): s_i.g above y_i.g

        slots = torch.arange(m, device=self.x.device)
        order = (self.num_pairs[:, None] + slots) % m  # oldest first
        rows, columns = order[:, :, None].expand(-1, -1, m), order[:, None, :].expand(-1, m, -1)
        step_change = products[:, :m].gather(1, rows).gather(2, columns)
        change_change = products[:, m:].gather(1, rows).gather(2, columns)
        step_gradient, change_gradient = along[:, :m].gather(1, order), along[:, m:].gather(1, order)

        bend = step_change.diagonal(dim1=1, dim2=2)
        size = change_change.diagonal(dim1=1, dim2=2)
        usable = (order < self.num_pairs[:, None]) & (bend > torch.finfo(bend.dtype).eps * size)
        both = usable[:, :, None] & usable[:, None, :]
        bend = torch.where(usable, bend, 1.0)
        newer = torch.where(both, step_change, 0.0).triu(1) + torch.diag_embed(bend)
        change_change = torch.where(both, change_change, 0.0)
        step_gradient = torch.where(usable, step_gradient, 0.0)
        change_gradient = torch.where(usable, change_gradient, 0.0)

        newest = (usable * (slots + 1)).argmax(dim=1, keepdim=True)
        scale = (bend / torch.where(usable, size, 1.0)).gather(1, newest).squeeze(1)
        scale = torch.where(usable.any(dim=1), scale, 0.0)
        gamma = torch.where(scale > 0, scale, 1.0)[:, None]

        # The two loops of algorithm 7.4 are two triangular solves.
        first = torch.linalg.solve_triangular(newer, step_gradient[:, :, None], upper=True)
        inner = gamma * (change_gradient - (change_change @ first).squeeze(2))
        right = bend * first.squeeze(2) - inner
        second = torch.linalg.solve_triangular(newer.mT, right[:, :, None], upper=False).squeeze(2)
        on_steps = torch.where(usable, second, 0.0)
        on_changes = torch.where(usable, -gamma * first.squeeze(2), 0.0)
        weights = torch.cat(
            [
                torch.zeros_like(on_steps).scatter(1, order, on_steps),
                torch.zeros_like(on_steps).scatter(1, order, on_changes),
            ],
            dim=1,
        )
        product = gamma * gradient + (weights[:, None, :] @ masked).squeeze(1)
        # Restricted pairs are positive definite together only in exact arithmetic; where rounding won, use -g.
        descends = _dot(product, gradient) > 0
        return -torch.where(descends[:, None], product, gradient), torch.where(descends, scale, 0.0)

    def _remember(self, accepted: Tensor, step: Tensor, change: Tensor) -> None:
        """Store the pair of an accepted step, unless it shows no positive curvature."""
        keep = accepted & (_dot(step, change) > torch.finfo(step.dtype).eps * _dot(change, change))
        rows = torch.arange(len(step), device=step.device)
        slot = self.num_pairs % self.history_size
        for offset, new in ((0, step), (self.history_size, change)):
            self.pairs[rows, slot + offset] = torch.where(keep[:, None], new, self.pairs[rows, slot + offset])
        self.num_pairs = self.num_pairs + keep


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b)


def _bound(bound: float | Tensor, x: Tensor) -> Tensor:
    """A bound as a scalar tensor, or one value per variable and row."""
    tensor = torch.as_tensor(bound, dtype=x.dtype, device=x.device)
    return tensor if tensor.dim() == 0 else tensor.expand_as(x)

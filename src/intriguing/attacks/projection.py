"""Project points onto the intersection of a box and a few half-spaces, for many small problems at once."""

from __future__ import annotations

import torch
from torch import Tensor

_DAMPING = 1e-6  # relative; makes the system solvable for parallel constraints
_TOLERANCE = 1e-5  # relative change of the multipliers that ends the Newton steps


def project_onto_halfspaces(
    origin: Tensor, normals: Tensor, offsets: Tensor, *, guess: Tensor | None = None, num_steps: int = 4
) -> tuple[Tensor, Tensor]:
    """Minimise |x - origin|_2 subject to normals x >= offsets and x in [0, 1]^n, row by row.

    The dual problem has one multiplier per inequality: x(multipliers) = clamp(origin + normals^T multipliers), so x
    lies in the box exactly for any multipliers. These solve a piecewise linear system, by semismooth Newton steps that
    are projected onto multipliers >= 0.

    Args:
        origin: (N, n).
        normals: (N, q, n); q is small.
        offsets: (N, q).
        guess: (N, q), initial multipliers, for example those of an earlier projection; None starts from 0.
        num_steps: most Newton steps; one is enough if neither the active bounds nor the active inequalities change.

    Returns:
        The points (N, n) and the multipliers (N, q). Where the box has no feasible point, the result violates the
        inequalities less than the origin does.

    Source: Qi & Sun, "A nonsmooth version of Newton's method" (Mathematical Programming 58, 1993).
    """
    multipliers = torch.zeros_like(offsets) if guess is None else guess
    for _ in range(num_steps):
        unclamped = torch.baddbmm(origin[:, None], multipliers[:, None], normals).squeeze(1)
        x = unclamped.clamp(0, 1)
        inside = torch.eq(x, unclamped, out=unclamped)
        curvature = (normals * inside[:, None]) @ normals.mT
        lacking = offsets - torch.linalg.vecdot(normals, x[:, None])
        working = ((multipliers > 0) | (lacking > 0)).to(origin.dtype)
        diagonal = curvature.diagonal(dim1=1, dim2=2)
        damping = working * _DAMPING * diagonal + (1 - working) + torch.finfo(origin.dtype).tiny ** 0.5
        system = curvature * (working[:, :, None] * working[:, None, :]) + torch.diag_embed(damping)
        step = torch.linalg.solve_ex(system, (lacking * working)[:, :, None])[0].squeeze(2)
        before, multipliers = multipliers, (multipliers + step.nan_to_num(0.0, 0.0, 0.0)).clamp_min_(0)
        if bool(((multipliers - before).abs() <= _TOLERANCE * multipliers).all()):
            break
    return torch.baddbmm(origin[:, None], multipliers[:, None], normals).squeeze(1).clamp_(0, 1), multipliers

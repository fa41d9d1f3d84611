"""Linear softmax classifiers, on which the paper's problem can be solved exactly (section 4.1)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from intriguing.attacks.projection import project_onto_halfspaces
from intriguing.optim import minimize_box

_STEPS = 50  # Newton steps at most; a handful is usual
_PROVED = 1e-6


class Exact(NamedTuple):
    """Hold the solutions of the paper's problem.

    Attributes:
        norms: (N,) L2 norms of the smallest perturbations, float64.
        proved: (N,) bool: the optimality conditions hold to a relative 1e-6.
    """

    norms: Tensor
    proved: Tensor


def affine_part(module: nn.Module, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the weights (K, n) and the bias (K,) of a network whose logits are linear in its image, float64.

    Args:
        module: images (N, C, H, W) to logits (N, K).
        shape: (C, H, W).
    """
    network = copy.deepcopy(module).cpu().double().eval().requires_grad_(False)
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    slopes = torch.autograd.functional.jacobian(lambda image: network(image)[0], zero)
    with torch.no_grad():
        return torch.as_tensor(slopes).flatten(1), network(zero)[0]


def penalty_minimisers(weight: Tensor, bias: Tensor, inputs: Tensor, targets: Tensor, c: float) -> Tensor:
    """Minimise c |x' - x|_2^2 + cross_entropy(f(x'), target) in the box at one c; the problem is convex.

    Args:
        weight: (K, n), of `affine_part`.
        bias: (K,).
        inputs: (N, n) in [0, 1], float64.
        targets: (N,).
        c: weight of the squared norm.

    Returns:
        (N, n).
    """

    def penalty(x: Tensor) -> Tensor:
        loss = F.cross_entropy(x @ weight.T + bias, targets, reduction="none")
        return loss + c * (x - inputs).square().sum(dim=1)

    return minimize_box(
        penalty, inputs, lower=0.0, upper=1.0, max_iter=5000, gradient_tolerance=1e-8, value_tolerance=1e-14
    ).x


def exact_norms(weight: Tensor, bias: Tensor, inputs: Tensor, targets: Tensor) -> Exact:
    """Solve min |r|_2 subject to f(x + r) = target and x + r in [0, 1]^n: a convex quadratic programme.

    The target's logit is at least each other one: K - 1 half-spaces. The dual value is a lower bound of the minimum for
    any multipliers, and the norms are those of the dual values.

    Args:
        weight: (K, n), of `affine_part`.
        bias: (K,).
        inputs: (N, n) in [0, 1], float64.
        targets: (N,).

    Example:
        >>> weight, bias = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double(), torch.tensor([-0.6, 0.6]).double()
        >>> found = exact_norms(weight, bias, torch.tensor([[0.2, 0.5]]).double(), torch.tensor([0]))
        >>> round(found.norms.item(), 6), found.proved.item()  # class 0 begins where the first pixel is .6
        (0.4, True)
    """
    normals, offsets = _half_spaces(weight, bias, targets)
    _, multipliers = project_onto_halfspaces(inputs, normals, offsets, num_steps=_STEPS)
    found = _of_dual(inputs, normals, offsets, multipliers)
    left = (~found.proved).nonzero().flatten()  # where the Newton steps went round in circles or ended early
    for row in left.tolist():
        multipliers[row] = _maximise_dual(inputs[row], normals[row], offsets[row])
    return _of_dual(inputs, normals, offsets, multipliers) if len(left) else found


def l1_minimisers(weight: Tensor, bias: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """Solve min |r|_1 subject to f(x + r) = target and x + r in [0, 1]^n: a linear programme.

    Args:
        weight: (K, n), of `affine_part`.
        bias: (K,).
        inputs: (N, n) in [0, 1], float64.
        targets: (N,).

    Returns:
        (N, n) images; nan where no image of the box is in the target class.
    """
    normals, offsets = _half_spaces(weight, bias, targets)
    found = []
    for x, rows, least in zip(inputs, normals, offsets, strict=True):
        room = torch.cat([1 - x, x]).numpy()  # r = up - down, both from 0 on
        bounds = np.stack([np.zeros_like(room), room], axis=1)
        lacking = (rows @ x - least).numpy()
        solved = linprog(np.ones_like(room), A_ub=torch.cat([-rows, rows], 1).numpy(), b_ub=lacking, bounds=bounds)
        up, down = torch.from_numpy(solved.x).chunk(2) if solved.success else (torch.full_like(x, torch.nan),) * 2
        found.append(x + up - down)
    return torch.stack(found) if found else inputs


def _half_spaces(weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return normals (N, K - 1, n) and offsets (N, K - 1): normals x >= offsets where the target's logit is largest."""
    num_classes = len(bias)
    others = torch.arange(num_classes)[None].expand(len(targets), -1)
    others = others[others != targets[:, None]].view(-1, num_classes - 1)
    return weight[targets][:, None] - weight[others], bias[others] - bias[targets][:, None]


def _of_dual(inputs: Tensor, normals: Tensor, offsets: Tensor, multipliers: Tensor) -> Exact:
    """Compute the dual values of multipliers (N, q), and check the optimality conditions of their points."""
    x = (inputs + torch.einsum("nq,nqp->np", multipliers, normals)).clamp(0, 1)
    lacking = offsets - torch.linalg.vecdot(normals, x[:, None])
    squared = (x - inputs).square().sum(dim=1)
    norms = (squared + 2 * (multipliers * lacking).sum(dim=1)).clamp_min(0).sqrt()
    size = norms.clamp_min(_PROVED)
    room = _PROVED * torch.linalg.vector_norm(normals, dim=2) * size[:, None]
    closed = (squared.sqrt() - norms).abs() <= _PROVED * size
    return Exact(norms, closed & (lacking <= room).all(dim=1))


def _maximise_dual(inputs: Tensor, normals: Tensor, offsets: Tensor) -> Tensor:
    """Maximise the concave dual of one image by SciPy: (q,) multipliers."""
    origin, rows, least = inputs.numpy(), normals.numpy(), offsets.numpy()

    def negative_dual(multipliers: np.ndarray) -> tuple[float, np.ndarray]:
        x = np.clip(origin + rows.T @ multipliers, 0, 1)
        lacking = least - rows @ x
        return -float(0.5 * ((x - origin) @ (x - origin)) + multipliers @ lacking), -lacking

    options = {"ftol": 1e-18, "gtol": 1e-12, "maxiter": 5000, "maxfun": 20_000}
    bounds = [(0, None)] * len(least)
    start = np.zeros(len(least))
    return torch.from_numpy(
        minimize(negative_dual, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    )

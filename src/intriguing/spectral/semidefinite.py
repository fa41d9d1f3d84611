"""A sharper certified Lipschitz bound of fully connected networks: a semidefinite program (LipSDP-Neuron).

Fazlyab et al. 2019 (arXiv 1906.04893): hidden units with slopes between alpha_i and beta_i satisfy, for any two inputs,
(dh_i - alpha_i dv_i)(dh_i - beta_i dv_i) <= 0, dv_i and dh_i the differences before and after unit i. If multipliers
t_i >= 0 make

    F(rho, t) = rho E_0 - C^T C + sum_i t_i (a_i b_i^T + b_i a_i^T),   a_i^T z = dh_i - alpha_i dv_i, b_i likewise,

positive semidefinite over z = (dx, dh_1, ..., dh_{K-1}), with E_0 the identity on dx and C the last layer, then
|C dh_{K-1}|^2 <= rho |dx|^2: sqrt(rho) is a Lipschitz constant. (One multiplier for each unit, as here, is sound; the
paper's couplings between units are not: Pauli et al. 2021, arXiv 2005.02929.)

For given multipliers the least rho is the largest eigenvalue of a small matrix (a Schur complement of F). Adam
minimises a smooth maximum of the eigenvalues over the logarithms of the multipliers. The bound is certified for the
multipliers found, optimal or not: a Cholesky factorisation shows that F is positive definite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_ROOM = 1e-7  # relative room that the certified rho gets, far above the rounding of float64


@dataclass(frozen=True)
class LipSDPProblem:
    """Hold the constant parts of F for one network; `lipsdp_bound` adds the last layer.

    Attributes:
        a: (m, n) columns a_i, one for each of the n hidden units; m = input dimensions + n.
        b: (m, n) columns b_i.
        num_inputs: dimensions of the input block; no more than units of the first layer, because only the directions
            of the input that reach it matter.
        start: (n,) multipliers that are strictly feasible for a last layer of norm 1.
        last: units of the last hidden layer.
    """

    a: Tensor
    b: Tensor
    num_inputs: int
    start: Tensor
    last: int


def lipsdp_problem(weights: Sequence[Tensor], slopes: Sequence[tuple[Tensor, Tensor]]) -> LipSDPProblem:
    """Build the constant parts of F for a network's hidden layers.

    Args:
        weights: (n_l, n_{l-1}) of each hidden layer, in order.
        slopes: (lowest, highest), each (n_l,), of the units of each hidden layer; 0 <= lowest <= highest.

    Raises:
        ValueError: there is no hidden layer, or the slopes do not fit.
    """
    if not weights or len(weights) != len(slopes):
        raise ValueError(f"expected slopes for each of at least one hidden layer, got {len(weights)} and {len(slopes)}")
    if not all(bool((low >= 0).all()) and bool((low <= high).all()) for low, high in slopes):
        raise ValueError("expected slopes with 0 <= lowest <= highest")
    matrices = [weight.detach().double() for weight in weights]
    if len(matrices[0]) < matrices[0].shape[1]:  # W = R^T Q with orthonormal rows Q: the input enters as Q x
        matrices[0] = torch.linalg.qr(matrices[0].T).R.T
    sizes = [matrices[0].shape[1], *(len(matrix) for matrix in matrices)]
    total, num_inputs = sum(sizes), sizes[0]
    a = torch.zeros(total, total - num_inputs, dtype=torch.float64)
    b, position = a.clone(), 0
    for matrix, (low, high), before, units in zip(matrices, slopes, sizes[:-1], sizes[1:], strict=True):
        rows, columns = slice(position, position + before), slice(position + before, position + before + units)
        own = slice(columns.start - num_inputs, columns.stop - num_inputs)
        for part, slope in ((a, low), (b, high)):
            part[columns, own] = torch.eye(units, dtype=torch.float64)
            part[rows, own] = -(slope.double()[:, None] * matrix).T
        position += before
    # From the last layer back: t 2 (h - alpha v)(h - beta v) >= t (h^2 - (alpha^2 + beta^2) v^2), so it is enough that
    # the multipliers below exceed the remaining factor of v^2. A unit with small weights can have a larger one.
    start, least = list[Tensor](), 1.5
    for matrix, (low, high) in zip(reversed(matrices), reversed(list(slopes)), strict=True):
        lengths = matrix.square().sum(1).clamp(min=1e-12)
        t = least * (lengths.max() / lengths).clamp(max=1e8)
        start.insert(0, t)
        stretched = (t * (low.double().square() + high.double().square())).sqrt()[:, None] * matrix
        least = 1.5 * max(float(torch.linalg.matrix_norm(stretched, 2)) ** 2, 1e-12)
    return LipSDPProblem(a, b, num_inputs, torch.cat(start), sizes[-1])


def lipsdp_bound(
    parts: LipSDPProblem, last: Tensor, *, warm: Tensor | None = None, num_steps: int = 150, rate: float = 0.2
) -> tuple[float, Tensor]:
    """Find a small Lipschitz bound of the network with this last layer, and certify it.

    Args:
        parts: constant parts of the hidden layers.
        last: (K, n) weight of the last layer, or one row (1, n) for one output or one difference of outputs.
        warm: (n,) multipliers to start from, for example those of a similar last layer; ignored if not feasible.
        num_steps: steps of Adam.
        rate: its rate at the first step, in the logarithm of a multiplier; it falls to 0 along a cosine.

    Returns:
        (bound, multipliers); bound is 0 for a last layer of zeros.
    """
    last = last.detach().double()
    scale = float(torch.linalg.matrix_norm(last, 2)) ** 2
    if scale == 0:
        return 0.0, parts.start
    gram = torch.zeros(len(parts.a), len(parts.a), dtype=torch.float64)
    gram[-parts.last :, -parts.last :] = last.T @ last
    start = parts.start * scale
    if warm is not None and _least_rho(parts, gram, warm) is not None:
        start = warm
    best, best_t, feasible = math.inf, start, start.log()
    logs = start.log().requires_grad_()
    adam = torch.optim.Adam([logs], betas=(0.9, 0.98), eps=1e-12)
    for step in range(num_steps):
        with torch.enable_grad():
            eigenvalues = _least_rho(parts, gram, logs.exp())
        if eigenvalues is None:  # too far: half the way back, and more carefully
            logs.data, rate = (logs.detach() + feasible) / 2, 0.7 * rate
            adam.state[logs]["exp_avg"].zero_()
            adam.state[logs]["step"] += 1
            continue
        feasible, top = logs.detach().clone(), float(eigenvalues[-1].detach())
        if top < best:
            best, best_t = top, feasible.exp()
        sharpness = 20 * (1 + 20 * step / num_steps)
        with torch.enable_grad():
            smooth = torch.logsumexp(sharpness * eigenvalues.clamp(min=1e-9 * top).log(), 0) / sharpness
            (logs.grad,) = torch.autograd.grad(smooth, logs)
        adam.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        adam.step()
    return _certified(parts, gram, best_t), best_t


def _form(parts: LipSDPProblem, gram: Tensor, t: Tensor) -> Tensor:
    """Compute F(0, t)."""
    half = (parts.a * t) @ parts.b.T
    return half + half.T - gram


def _least_rho(parts: LipSDPProblem, gram: Tensor, t: Tensor) -> Tensor | None:
    """Compute ascending eigenvalues, the largest the least rho with F(rho, t) semidefinite; None without such a rho."""
    form, k = _form(parts, gram, t), parts.num_inputs
    factor, failed = torch.linalg.cholesky_ex(form[k:, k:])
    if int(failed):
        return None
    side = torch.linalg.solve_triangular(factor, form[k:, :k], upper=False)
    return torch.linalg.eigvalsh(side.T @ side - form[:k, :k])


def _certified(parts: LipSDPProblem, gram: Tensor, t: Tensor) -> float:
    """Certify a Lipschitz bound for these multipliers, with room for rounding, by a Cholesky factorisation."""
    eigenvalues = _least_rho(parts, gram, t)
    assert eigenvalues is not None
    rho, form = max(float(eigenvalues[-1]), 1e-300), _form(parts, gram, t)
    own, room = form.diagonal()[: parts.num_inputs].clone(), _ROOM
    while True:
        form.diagonal()[: parts.num_inputs] = own + (1 + room) * rho
        if not int(torch.linalg.cholesky_ex(form)[1]):
            return math.sqrt((1 + room) * rho)
        room *= 4

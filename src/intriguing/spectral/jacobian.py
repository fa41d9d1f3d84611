"""The largest stretch a network is seen to make: Jacobian norms on data, a lower bound of its Lipschitz constant."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def jacobian_norms(
    model: nn.Module, inputs: Tensor, *, num_steps: int = 50, tolerance: float = 1e-6, batch_size: int = 256
) -> Tensor:
    """The 2-norm of the Jacobian of the outputs at each input, from below, by power iteration on J^T J.

    Args:
        model: inputs (N, ...) to outputs (N, K), each row from its own input alone (evaluation mode).
        inputs: (N, ...).
        num_steps: most steps; each is one product with J and one with its transpose, for the whole batch.
        tolerance: stop when no input's norm rose by more than this, relatively.
        batch_size: inputs at once.

    Returns:
        (N,) norms; each is |J v| of a unit vector v, so never above the Lipschitz constant but for rounding.
    """
    return torch.cat([_norms(model, part, num_steps, tolerance) for part in inputs.split(batch_size)])


@torch.enable_grad()
def _norms(model: nn.Module, inputs: Tensor, num_steps: int, tolerance: float) -> Tensor:
    x = inputs.detach().clone().requires_grad_()
    outputs = model(x)
    # J v as the derivative of u -> J^T u, which is linear: two passes backward instead of one forward
    dummy = torch.zeros_like(outputs, requires_grad=True)
    (pulled,) = torch.autograd.grad(outputs, x, dummy, create_graph=True)
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(outputs.shape, generator=generator, dtype=torch.float64).to(outputs)
    norms = torch.zeros(len(x), dtype=outputs.dtype, device=x.device)
    for _ in range(num_steps):
        (v,) = torch.autograd.grad(outputs, x, w, retain_graph=True)
        v = v / _lengths(v).clamp(min=torch.finfo(v.dtype).tiny).view(-1, *[1] * (x.dim() - 1))
        (w,) = torch.autograd.grad(pulled, dummy, v, retain_graph=True)
        before, norms = norms, torch.maximum(norms, _lengths(w))
        if bool((norms - before <= tolerance * norms).all()):
            break
    return norms.detach()


def _lengths(tensor: Tensor) -> Tensor:
    return tensor.flatten(1).norm(dim=1)

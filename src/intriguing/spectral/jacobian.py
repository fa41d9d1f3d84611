"""The largest stretch a network is seen to make: Jacobian norms on data, a lower bound of its Lipschitz constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from intriguing.spectral.recording import modules, plain, untouched

_LOW = (torch.float16, torch.bfloat16)


def jacobian_norms(
    model: nn.Module, inputs: Tensor, *, num_steps: int = 50, tolerance: float = 1e-6, batch_size: int = 256
) -> Tensor:
    """Estimate the 2-norm of the Jacobian of the outputs at each input from below, by power iteration on J^T J.

    The network is in evaluation mode meanwhile, and is afterwards as it was before, as are the inputs.

    Args:
        model: inputs (N, ...) to outputs (N, ...), each row from its own input alone.
        inputs: (N, ...). A network and inputs of a 16-bit type are worked on in float32, where the network allows it.
        num_steps: most steps; each is one product with J and one with its transpose, for the whole batch.
        tolerance: stop when no input's norm rose by more than this, relatively.
        batch_size: inputs at once.

    Returns:
        (N,) norms; each is ``|J v|`` of a unit vector v, so never above the Lipschitz constant but for rounding. nan
        for an input at which the Jacobian is not finite.

    Raises:
        TypeError: inputs that are no tensor of floating-point numbers, or a network that returns no such tensor.
        ValueError: a setting out of range, or outputs that have no gradient with respect to the inputs.
    """
    if not callable(model):
        raise TypeError(f"expected a torch module, got {type(model).__name__}")
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.dim() < 1:
        got = f"a tensor of {inputs.dtype}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(f"expected inputs as a floating-point tensor (N, ...), got {got}")
    num_steps, batch_size = whole("num_steps", num_steps), whole("batch_size", batch_size)
    if not (isinstance(tolerance, int | float) and tolerance >= 0):
        raise ValueError(f"expected a tolerance of at least 0, got {tolerance!r}")
    if not len(inputs):
        return torch.zeros(0, dtype=inputs.dtype, device=inputs.device)
    with plain(model), untouched(model):
        parts = inputs.detach().split(batch_size)
        _detach(model, torch.float32 if inputs.dtype in _LOW else None)
        if inputs.dtype in _LOW:
            try:
                return torch.cat([_norms(model, part.float(), num_steps, tolerance) for part in parts])
            except RuntimeError:  # the network asks for its own type
                pass
    with plain(model), untouched(model):
        _detach(model, None)
        return torch.cat([_norms(model, part, num_steps, tolerance) for part in parts])


def whole(name: str, value: Any) -> int:
    """Check that a setting is a whole number of at least 1.

    Raises:
        TypeError, ValueError: another value.
    """
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"expected {name} as a whole number, got {value!r}") from error
    if number != value or isinstance(value, bool | str):
        raise TypeError(f"expected {name} as a whole number, got {value!r}")
    if number < 1:
        raise ValueError(f"expected {name} of at least 1, got {value!r}")
    return number


def _detach(model: Any, dtype: torch.dtype | None) -> None:
    """Replace parameters and buffers by detached ones that were not made in inference mode."""
    made: dict[int, Any] = {}

    def replaced(one: Tensor | None, parameter: bool) -> Any:
        if one is None:
            return None
        if id(one) not in made:
            new = one.detach().to(dtype) if dtype is not None and one.dtype in _LOW else one.detach()
            new = new.clone() if new.is_inference() else new
            made[id(one)] = nn.Parameter(new, requires_grad=False) if parameter else new
        return made[id(one)]

    for _, module in modules(model):
        if not isinstance(module, torch.jit.ScriptModule):
            for kind in ("_parameters", "_buffers"):
                own = module.__dict__[kind]
                module.__dict__[kind] = {key: replaced(one, kind == "_parameters") for key, one in own.items()}


def _norms(model: Callable[[Tensor], Any], inputs: Tensor, num_steps: int, tolerance: float) -> Tensor:
    with torch.enable_grad():
        x = inputs.clone().requires_grad_()
        outputs = model(x.clone())  # a first layer may work in place
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
            got = f"a tensor of {outputs.dtype}" if isinstance(outputs, Tensor) else type(outputs).__name__
            raise TypeError(f"expected a network that returns a floating-point tensor, got {got}")
        if not outputs.requires_grad:
            raise ValueError("the network's outputs have no gradient with respect to its inputs")
        if len(outputs) != len(inputs):
            raise ValueError(f"expected outputs (N, ...) for {len(inputs)} inputs, got {tuple(outputs.shape)}")
        # J v as the derivative of u -> J^T u, which is linear: two passes backward instead of one forward
        dummy = torch.zeros_like(outputs, requires_grad=True)
        (pulled,) = torch.autograd.grad(outputs, x, dummy, create_graph=True)
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(outputs.shape, generator=generator, dtype=torch.float64).to(outputs)
    norms = torch.zeros(len(x), dtype=outputs.dtype, device=x.device)
    if not pulled.requires_grad:  # a Jacobian of zeros
        return norms
    for _ in range(num_steps):
        (v,) = torch.autograd.grad(outputs, x, w, retain_graph=True)
        v = v / _lengths(v).clamp(min=torch.finfo(v.dtype).tiny).view(-1, *[1] * (x.dim() - 1))
        (w,) = torch.autograd.grad(pulled, dummy, v, retain_graph=True)
        before, norms = norms, torch.maximum(norms, _lengths(w))
        if bool((norms.isnan() | (norms - before <= tolerance * norms)).all()):
            break
    return norms.detach()


def _lengths(tensor: Tensor) -> Tensor:
    return tensor.reshape(len(tensor), -1).norm(dim=1)

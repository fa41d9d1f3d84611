"""Show images to a network in the type and on the device that it takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from intriguing.attacks.network import Model
from intriguing.nn import evaluating, modules_of, pick_output

_BATCH = 256  # images of one forward pass


class _InItsType(nn.Module):
    """Call a network, or a function of networks, on images of another type."""

    def __init__(self, net: Model, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = net, dtype
        self.parts = nn.ModuleList(modules_of(net))  # whose device, weights and modes are those of the function

    def forward(self, images: Tensor) -> Any:
        return self.net(images.to(self.dtype))


def taking_float32(net: Model, images: Tensor) -> Model:
    """Return a network that takes float32 images, which is how adversarial sets hold them.

    It is the network itself, unless that refuses them: they are then converted to the type of its first floating-point
    parameter, for example float64 or bfloat16.

    Args:
        net: a module, or a function of modules.
        images: (N, ...) float32, on the network's device; the first one is tried.
    """
    if _takes(net, images):
        return net
    parameters = (p for module in modules_of(net) for p in module.parameters() if p.is_floating_point())
    first = next(parameters, None)
    return net if first is None or first.dtype == torch.float32 else _InItsType(net, first.dtype)


def as_module(net: Model) -> nn.Module:
    """Return a network as a module, also if it is a function of modules."""
    return net if isinstance(net, nn.Module) else _InItsType(net, torch.float32)


def device_of(net: Model | None) -> torch.device:
    """Return the device of a network's first parameter; the CPU for None and for a function without parameters."""
    modules = [] if net is None else modules_of(net)
    parameter = next((p for module in modules for p in module.parameters()), None)
    return torch.device("cpu") if parameter is None else parameter.device


def answers(net: Model, images: Tensor) -> Tensor:
    """Return the logits (N, K) of images (N, ...), without gradients and in evaluation mode."""
    with torch.no_grad(), evaluating(net):
        return torch.cat([pick_output(net(some)) for some in images.split(_BATCH)])


def name_of(net: Model) -> str:
    """Return a network's label, or else the name of its class or function."""
    label = getattr(net, "label", None)
    return label if isinstance(label, str) else getattr(net, "__name__", type(net).__name__)


def _takes(net: Model, images: Tensor) -> bool:
    try:
        with torch.no_grad(), evaluating(net):
            net(images[:1].clone())
    except Exception:  # whatever it raises, the attack or the table says it, with a remedy
        return False
    return True

"""Name the layers of a network, and run it with further rows that enter at these layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

INPUT = "input"

RANGES: dict[type[nn.Module], tuple[float, float]] = {
    nn.Sigmoid: (0.0, 1.0),
    nn.ReLU: (0.0, inf),
    nn.Tanh: (-1.0, 1.0),
    nn.ReLU6: (0.0, 6.0),
    nn.LeakyReLU: (-inf, inf),
    nn.GELU: (-0.17, inf),
    nn.SiLU: (-0.2785, inf),
    nn.Softplus: (0.0, inf),
    nn.Hardsigmoid: (0.0, 1.0),
}
"""The range of an activation's output."""


@dataclass(frozen=True)
class InjectionLayer:
    """Describe an output of a network: its images, or a hidden layer after the activation.

    Attributes:
        name: ``input``, ``hidden1``, ``hidden2`` and so on, from below.
        position: number of the network's modules below.
        lower, upper: range of the layer's values.
    """

    name: str
    position: int
    lower: float
    upper: float


def chain_of(network: nn.Module, input_shape: Sequence[int]) -> nn.Sequential:
    """Write a network as the chain of modules that it is, as far as that can be seen.

    A ``Sequential`` is its modules; so is any other module whose children run once each, one on the output of the one
    before, with at most a ``flatten`` between them. That is found out by a run of a copy in training mode.

    Args:
        network: images (N, C, H, W) to logits (N, K).
        input_shape: (C, H, W).

    Returns:
        The chain, with the network's own modules; of a network that computes between its modules, the network alone.
    """
    like = next((one for one in network.parameters() if one.is_floating_point()), torch.zeros(()))
    images = torch.full((2, *input_shape), 0.5, dtype=like.dtype, device=like.device)
    return nn.Sequential(*_links(network, images))


def _links(module: nn.Module, inputs: Tensor) -> list[nn.Module]:
    """List the modules that a module runs one after the other, in the order of its run; itself if it is no chain."""
    children = list(module.children())
    if not children or (type(module).__module__.startswith("torch.nn.") and not isinstance(module, nn.Sequential)):
        return [module]
    if module._forward_hooks or module._forward_pre_hooks:
        return [module]
    calls = _calls(module, inputs)
    if calls is None or len(calls) != len(children):
        return [module]
    found: list[nn.Module] = []
    for position, given, flattened in calls:
        found += [nn.Flatten()] * flattened
        found += _links(children[position], given)
    return found


def _calls(module: nn.Module, inputs: Tensor) -> list[tuple[int, Tensor, bool]] | None:
    """Run a copy of a module, and list the calls of its children if each takes the output of the one before.

    Returns:
        For each call which child it is, its input, and whether the output before was flattened; None for no chain.
    """
    double = copy.deepcopy(module).train()
    calls: list[tuple[int, Tensor, bool]] = []
    last: list[Any] = [inputs]

    def before(position: int, given: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        (value,) = given if len(given) == 1 and not keywords else (None,)
        same, flat = value is last[0], isinstance(value, Tensor) and _is_flattened(value, last[0])
        if not same and not flat:
            raise _NoChainError
        calls.append((position, value.detach().clone(), flat and not same))  # pyright: ignore

    def after(module: nn.Module, given: Any, output: Any) -> None:
        last[0] = output

    for position, child in enumerate(double.children()):
        child.register_forward_pre_hook(lambda _, x, k, position=position: before(position, x, k), with_kwargs=True)
        child.register_forward_hook(after)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            output = double(inputs)
    except Exception:  # of the user's code too: then it is run as a whole
        return None
    each_once = sorted(position for position, _, _ in calls) == list(range(len(calls)))
    return calls if output is last[0] and each_once else None


def _is_flattened(value: Tensor, before: Any) -> bool:
    return (
        isinstance(before, Tensor)
        and value.shape == before.flatten(1).shape
        and value.data_ptr() == before.data_ptr()
        and value.dtype == before.dtype
    )


class _NoChainError(Exception):
    pass


def injectable_layers(network: nn.Sequential) -> list[InjectionLayer]:
    """List the input and every hidden layer of a chain of modules, from below."""
    found = [InjectionLayer(INPUT, 0, 0.0, 1.0)]
    for position, module in enumerate(network, 1):
        if type(module) in RANGES:
            found.append(InjectionLayer(f"hidden{len(found)}", position, *RANGES[type(module)]))
    return found


class SplitNetwork:
    """Run a chain of modules in one pass, with further rows that enter at its layers.

    Args:
        network: images (N, C, H, W) to logits (N, K).
        layers: where rows may enter, from below.
    """

    def __init__(self, network: nn.Sequential, layers: list[InjectionLayer]) -> None:
        ends = [*(layer.position for layer in layers if layer.position), len(network)]
        self.layers = layers
        self._starts = [0, *ends[:-1]]
        self.segments = [network[start:end] for start, end in zip(self._starts, ends, strict=True)]

    def __call__(self, images: Tensor, injected: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the images and the injected rows, each from its layer upwards.

        Args:
            images: (N, C, H, W).
            injected: by layer, values (M, ...) of its output.

        Returns:
            Logits of the images, then of the injected rows in the layers' order; and the output of every layer, whose
            first N rows belong to the images.
        """
        names = {layer.position: layer.name for layer in self.layers}
        first, *others = zip(self._starts, self.segments, strict=True)
        rows, outputs = first[1](_kept(first[1], images)), {INPUT: images}
        if INPUT in injected:  # separately, because the gradient is taken with respect to the images, not to these rows
            rows = torch.cat([rows, first[1](_kept(first[1], injected[INPUT]))])
        for start, segment in others:
            outputs[names[start]] = rows
            if names[start] in injected:
                rows = torch.cat([rows, injected[names[start]]])
            rows = segment(_kept(segment, rows))
        return rows, outputs

    def above(self, layer: str, values: Tensor) -> Tensor:
        """Compute logits (M, K) from values (M, ...) of a layer."""
        position = next(one.position for one in self.layers if one.name == layer)
        for start, segment in zip(self._starts, self.segments, strict=True):
            if start >= position:
                values = segment(_kept(segment, values))
        return values


def _kept(segment: nn.Sequential, values: Tensor) -> Tensor:
    """Return the values (N, ...), copied if a module of the segment may write to them."""
    return values.clone() if any(getattr(module, "inplace", False) for module in segment.modules()) else values

"""Name the layers of a network, and run it with further rows that enter at these layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn

INPUT = "input"

RANGES: dict[type[nn.Module], tuple[float, float]] = {
    nn.Sigmoid: (0.0, 1.0),
    nn.ReLU: (0.0, inf),
    nn.Tanh: (-1.0, 1.0),
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

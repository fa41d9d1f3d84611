"""The layers of a network whose outputs can be looked at or fed: by name, with the range that their values have."""

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
class Layer:
    """An output of a network: its images, or a hidden layer's after the activation.

    Attributes:
        name: ``input``, ``hidden1``, ``hidden2`` and so on, from below.
        position: how many modules of the network lie below.
        lower, upper: the range of its values.
    """

    name: str
    position: int
    lower: float
    upper: float


def layers_of(network: nn.Sequential) -> list[Layer]:
    """The input and every hidden layer of a chain of modules, from below."""
    found = [Layer(INPUT, 0, 0.0, 1.0)]
    for position, module in enumerate(network, 1):
        if type(module) in RANGES:
            found.append(Layer(f"hidden{len(found)}", position, *RANGES[type(module)]))
    return found


class FedNetwork:
    """A chain of modules that takes further rows at its layers, in one pass.

    Args:
        network: images (N, C, H, W) to logits (N, K).
        layers: where rows may come in, from below.
    """

    def __init__(self, network: nn.Sequential, layers: list[Layer]) -> None:
        ends = [*(layer.position for layer in layers if layer.position), len(network)]
        self.layers = layers
        self._starts = [0, *ends[:-1]]
        self.segments = [network[start:end] for start, end in zip(self._starts, ends, strict=True)]

    def __call__(self, images: Tensor, fed: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the images and the fed rows, each from its layer upwards.

        Args:
            images: (N, C, H, W).
            fed: by layer, (M, ...) values of it.

        Returns:
            Logits of the images, then of the fed rows in the layers' order; and what every layer gave out, whose first
            N rows are the images'.
        """
        names = {layer.position: layer.name for layer in self.layers}
        first, *others = zip(self._starts, self.segments, strict=True)
        rows, outputs = first[1](_kept(first[1], images)), {INPUT: images}
        if INPUT in fed:  # apart, because the gradient with respect to the images is wanted and that to these is not
            rows = torch.cat([rows, first[1](_kept(first[1], fed[INPUT]))])
        for start, segment in others:
            outputs[names[start]] = rows
            if names[start] in fed:
                rows = torch.cat([rows, fed[names[start]]])
            rows = segment(_kept(segment, rows))
        return rows, outputs

    def above(self, layer: str, values: Tensor) -> Tensor:
        """Logits (M, K) of values (M, ...) of a layer."""
        position = next(one.position for one in self.layers if one.name == layer)
        for start, segment in zip(self._starts, self.segments, strict=True):
            if start >= position:
                values = segment(_kept(segment, values))
        return values


def _kept(segment: nn.Sequential, values: Tensor) -> Tensor:
    """The values (N, ...), copied where a module of the segment may write to them."""
    return values.clone() if any(getattr(module, "inplace", False) for module in segment.modules()) else values

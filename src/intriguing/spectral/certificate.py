"""Certified radii: how far an image can be moved, in the L2 norm, without the network's answer changing.

A network with Lipschitz constant L keeps its answer within margin / (sqrt 2 L): the difference of two logits changes by
at most sqrt 2 L |r|. Sharper, for a fully connected network: the difference of the logits of classes j and k has a
Lipschitz constant L_jk of its own, and the radius is the least of (logit_j - logit_k) / L_jk over k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from intriguing.spectral.lipschitz import lipschitz_bounds, trace
from intriguing.spectral.semidefinite import Programme, programme, solve

_NEUTRAL = (nn.Flatten, nn.Identity, nn.Dropout, nn.AlphaDropout)
MOST_UNITS = 2000
"""Hidden units up to which the semidefinite programme is tried: its time grows with their cube."""


@dataclass(frozen=True)
class FullyConnectedChain:
    """A fully connected network as matrices.

    Attributes:
        weights, biases: of each affine layer, float64, the last one being that of the logits.
        activations: of each hidden layer.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    activations: tuple[nn.Module, ...]

    @property
    def num_units(self) -> int:
        """Hidden units, all layers together."""
        return sum(len(bias) for bias in self.biases[:-1])


def fully_connected_chain(model: nn.Module, input_shape: Sequence[int]) -> FullyConnectedChain:
    """The matrices of a fully connected network.

    Raises:
        ValueError: a network of any other kind, with the name of the layer that is not expected.
    """
    weights, biases, activations = list[Tensor](), list[Tensor](), list[nn.Module]()
    for layer in trace(model, input_shape, bounds=False).layers:
        module = layer.module
        if isinstance(module, nn.Linear) and len(weights) == len(activations):
            weights.append(module.weight.detach().double())
            zero = torch.zeros(len(module.weight), dtype=torch.float64, device=module.weight.device)
            biases.append(zero if module.bias is None else module.bias.detach().double())
        elif isinstance(module, _ACTIVATIONS) and len(weights) == len(activations) + 1:
            activations.append(module)
        elif not isinstance(module, _NEUTRAL) and layer.kind not in ("flatten", "view", "reshape"):
            raise ValueError(
                f"expected a fully connected network, Linear layers with an activation after each but the last, got "
                f"'{layer.name}' ({layer.kind})"
            )
    if len(weights) != len(activations) + 1:
        raise ValueError("expected a fully connected network that ends with a Linear layer")
    return FullyConnectedChain(tuple(weights), tuple(biases), tuple(activations))


def slope_bounds(chain: FullyConnectedChain, box: tuple[float, float] | None = None) -> list[tuple[Tensor, Tensor]]:
    """The (lowest, highest) slope of every hidden unit, each (n_l,), float64.

    Args:
        chain: the network.
        box: ends of the interval in which every input lies; None for all inputs. Interval arithmetic then bounds what
            reaches each unit, a little outwards for the rounding.
    """
    found = []
    lowest, highest = box or (0.0, 0.0)
    size = chain.weights[0].shape[1]
    centre = chain.weights[0].new_full((size,), (lowest + highest) / 2)
    radius = chain.weights[0].new_full((size,), (highest - lowest) / 2)
    for weight, bias, activation in zip(chain.weights, chain.biases, chain.activations, strict=False):
        lower, upper = weight.new_full((len(weight),), -torch.inf), weight.new_full((len(weight),), torch.inf)
        if box is not None:
            middle, reach = weight @ centre + bias, weight.abs() @ radius
            reach = reach + 1e-9 * (1 + middle.abs() + reach)
            lower, upper = middle - reach, middle + reach
        low, high = _slopes(activation, lower, upper)
        found.append((low, high))
        if box is not None:
            with torch.no_grad():
                ends = activation(lower), activation(upper)
            centre, radius = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
    return found


class Certifier:
    """Certified Lipschitz constants and radii of one network; multipliers found once serve as the start of the next.

    Args:
        model: a fully connected network, images to logits.
        input_shape: shape of one input, (C, H, W).
        box: ends of the interval of every pixel, (0, 1) for images; the certificates then hold inside that box, where
            adversarial images lie. None: everywhere.

    Raises:
        ValueError: another kind of network, or more than `MOST_UNITS` hidden units.
    """

    def __init__(
        self, model: nn.Module, input_shape: Sequence[int], *, box: tuple[float, float] | None = (0.0, 1.0)
    ) -> None:
        chain = fully_connected_chain(model, input_shape)
        if chain.num_units > MOST_UNITS:
            raise ValueError(f"expected at most {MOST_UNITS} hidden units, got {chain.num_units}")
        weights, biases = (tuple(part.cpu() for part in parts) for parts in (chain.weights, chain.biases))
        chain = FullyConnectedChain(weights, biases, chain.activations)
        self._last = chain.weights[-1]
        self._parts: Programme | None = None
        if chain.activations:
            self._parts = programme(chain.weights[:-1], slope_bounds(chain, box))
        self._warm: Tensor | None = None
        self._pairs: dict[tuple[int, int], float] = {}

    def constant(self, *, num_steps: int = 150) -> float:
        """A Lipschitz constant of the logits."""
        value, self._warm = self._solve(self._last, num_steps)
        return value

    def pair_constant(self, first: int, second: int, *, num_steps: int = 40) -> float:
        """A Lipschitz constant of the difference of two logits."""
        if self._warm is None:
            self.constant()
        key = (min(first, second), max(first, second))
        if key not in self._pairs:
            row = (self._last[key[0]] - self._last[key[1]])[None]
            self._pairs[key] = self._solve(row, num_steps)[0]
        return self._pairs[key]

    def _solve(self, last: Tensor, num_steps: int) -> tuple[float, Tensor | None]:
        if self._parts is None:  # softmax regression: the norm itself
            return float(torch.linalg.matrix_norm(last, 2)) * (1 + 1e-12), None
        return solve(self._parts, last, warm=self._warm, num_steps=num_steps)

    def radii(self, logits: Tensor, labels: Tensor, *, num_steps: int = 40) -> Tensor:
        """(N,) L2 radius within which each image's answer is certain to stay its label, from the pairs' constants.

        Args:
            logits: (N, K) of the images.
            labels: (N,) int; an image that is not answered with its label has radius 0.
            num_steps: see `pair_constant`.
        """
        logits, labels = logits.detach().double().cpu(), labels.cpu()
        constants = torch.ones(logits.shape[1], logits.shape[1], dtype=torch.float64)
        for label in labels.unique().tolist():
            for other in range(logits.shape[1]):
                if other != label:
                    constants[label, other] = max(self.pair_constant(label, other, num_steps=num_steps), 1e-300)
        differences = logits.gather(1, labels[:, None]) - logits
        radii = differences / constants[labels]
        radii[torch.arange(len(labels)), labels] = torch.inf
        return radii.amin(dim=1).clamp(min=0)


def certified_radii(logits: Tensor, labels: Tensor, lipschitz_constant: float) -> Tensor:
    """(N,) L2 radius margin / (sqrt 2 L) within which each image's answer is certain to stay its label.

    Args:
        logits: (N, K) of the images.
        labels: (N,) int; an image that is not answered with its label has radius 0.
        lipschitz_constant: L, an upper bound of the Lipschitz constant of the logits in the L2 norm, above 0.
    """
    if not lipschitz_constant > 0:
        raise ValueError(f"expected a Lipschitz constant above 0, got {lipschitz_constant}")
    logits = logits.detach().double()
    own = logits.gather(1, labels[:, None]).squeeze(1)
    margin = own - logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return margin.clamp(min=0) / (math.sqrt(2) * lipschitz_constant)


def product_bound(model: nn.Module, input_shape: Sequence[int]) -> float:
    """The product of `lipschitz_bounds`."""
    return math.prod(layer.bound for layer in lipschitz_bounds(model, input_shape))


def _slopes(activation: nn.Module, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """(lowest, highest) slope of an activation between two points, elementwise."""
    if isinstance(activation, nn.Sigmoid | nn.Tanh):  # steepest at 0, ever flatter away from it
        nearest = torch.where((lower <= 0) & (upper >= 0), 0.0, torch.minimum(lower.abs(), upper.abs()))
        furthest = torch.maximum(lower.abs(), upper.abs())
        slope = _sigmoid_slope if isinstance(activation, nn.Sigmoid) else _tanh_slope
        return slope(furthest), slope(nearest)
    negative = activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0
    ones = torch.ones_like(lower)
    left, right = torch.where(lower < 0, negative, ones), torch.where(upper > 0, ones, negative)
    return torch.minimum(left, right), torch.maximum(left, right)


_ACTIVATIONS = (nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU)


def _sigmoid_slope(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.sigmoid(-x)


def _tanh_slope(x: Tensor) -> Tensor:
    return 4 * torch.sigmoid(2 * x) * torch.sigmoid(-2 * x)

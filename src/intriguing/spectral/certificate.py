"""Certified radii: L2 distances within which no perturbation of an image changes the network's answer.

A network with Lipschitz constant L keeps its answer within margin / (sqrt 2 L): the difference of two logits changes by
at most sqrt 2 L |r|. Sharper: the difference of the logits of classes j and k has a Lipschitz constant L_jk, and the
radius is the least of (logit_j - logit_k) / L_jk over k.

Where a network ends with Linear layers and activations, those get the constant of a semidefinite program (LipSDP),
and the layers before them the product of their bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from intriguing.spectral.jacobian import whole
from intriguing.spectral.layer_bounds import MODULES, Rules
from intriguing.spectral.lipschitz import TracedLayer, lipschitz_bounds, trace
from intriguing.spectral.operator_norm import own_code
from intriguing.spectral.recording import Node
from intriguing.spectral.semidefinite import LipSDPProblem, lipsdp_bound, lipsdp_problem

MOST_UNITS = 2000
"""Hidden units up to which the semidefinite program is tried: its time grows with their cube."""
LIPSDP, PRODUCT, BOTH = "LipSDP", "product", "product and LipSDP"
_ORDER_KEPT = ("view", "reshape", "squeeze", "unsqueeze", "alias", "to")
_ACTIVATIONS: tuple[type[nn.Module], ...] = (nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU)
_ACTIVATIONS = (*_ACTIVATIONS, nn.Softplus, nn.Hardtanh, nn.ReLU6, nn.Softsign, nn.Hardsigmoid, nn.LogSigmoid)
_FUNCTIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


@dataclass(frozen=True)
class FullyConnectedChain:
    """Hold a fully connected network as matrices.

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


def split(
    layers: Sequence[TracedLayer], most_units: int = MOST_UNITS
) -> tuple[Sequence[TracedLayer], FullyConnectedChain | None]:
    """Split a network into its first layers and the fully connected rest, as long a rest as there is.

    Args:
        layers: of the network, in order.
        most_units: hidden units that the rest may have.

    Returns:
        (first layers, chain): no first layers where the whole network is fully connected (constants that are added or
        multiplied, as by a normalisation of the input, are part of the chain); no chain where it ends otherwise.
    """
    affine, active = [_affine(layer) for layer in layers], [_activation(layer) for layer in layers]
    start = len(layers)
    while start and (affine[start - 1] is not None or active[start - 1] is not None):
        start -= 1
    starts = [i for i in range(start, len(layers)) if (step := affine[i]) is not None and step[0].dim() == 2]
    starts = [0, *starts] if start == 0 else starts
    for first in starts:
        chain = _chain(affine[first:], active[first:])
        if chain is not None and chain.num_units <= most_units:
            return layers[:first], chain
    return layers, None


_Affine = tuple[Tensor, Tensor]  # weight: a matrix, or (n,) factors of the entries; bias


def _chain(affine: Sequence[_Affine | None], active: Sequence[nn.Module | None]) -> FullyConnectedChain | None:
    """Join the affine maps between activations; None unless the first and the last are matrices."""
    weights, biases, activations = list[Tensor](), list[Tensor](), list[nn.Module]()
    current: _Affine | None = None
    for step, activation in zip(affine, active, strict=True):
        if step is not None:
            current = step if current is None else _after(step, current)
        elif current is None or activation is None or (not weights and current[0].dim() < 2):
            return None
        else:
            weights.append(_matrix(current[0]))
            biases.append(current[1])
            activations.append(activation)
            current = (torch.ones_like(current[1]), torch.zeros_like(current[1]))
    if current is None or current[0].dim() < 2:
        return None
    return FullyConnectedChain((*weights, current[0]), (*biases, current[1]), tuple(activations))


def _after(step: _Affine, before: _Affine) -> _Affine:
    (weight, bias), (first, shift) = step, before
    if weight.dim() == 2:
        return (weight @ first if first.dim() == 2 else weight * first), weight @ shift + bias
    return (weight[:, None] * first if first.dim() == 2 else weight * first), weight * shift + bias


def _matrix(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 2 else torch.diag(weight)


def _affine(layer: TracedLayer) -> _Affine | None:
    """Return (weight, bias) of a layer that is an affine map of the flattened input; None for any other."""
    node, before = layer.node, layer.source.value[0]
    get: Any = node.arguments.get
    if not layer.alone or not len(before.shape):
        return None
    flat, size = layer.source.value.dim() == 2, before.numel()
    if node.func is None:
        module = layer.module
        if isinstance(module, nn.Linear) and own_code(module, nn.Linear) is None and flat:
            return _pair(get("weight"), get("bias"))
        if isinstance(module, nn.BatchNorm1d) and own_code(module, nn.BatchNorm1d) is None and flat:
            scale = (get("running_var").double() + get("eps")).rsqrt()
            scale = scale if get("weight") is None else scale * get("weight").detach().double()
            shift = -get("running_mean").double() * scale
            return scale.cpu(), (shift if get("bias") is None else shift + get("bias").detach().double()).cpu()
        return None
    if node.kind in _ORDER_KEPT and node.value[0].numel() == size:
        return torch.ones(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    if node.kind == "linear" and isinstance(get("mat1"), Node) and get("beta", 1) == 1 and get("alpha", 1) == 1:
        return _pair(get("mat2").T, get("self").expand(get("mat2").shape[1]) if get("self").dim() < 2 else None)
    if node.kind == "mm" and isinstance(get("self"), Node) and flat:
        return _pair(get("mat2").T, None)
    return _elementwise(node) if node.kind in ("add", "sub", "rsub", "mul", "div") else None


def _elementwise(node: Node) -> _Affine | None:
    """Return (factors, shifts) of a sum with constants or a product with them."""
    source = node.sources[0].value
    if node.value.shape != source.shape or node.arguments.get("rounding_mode") is not None:
        return None
    constants = [one for one in tree_leaves(node.arguments) if isinstance(one, Tensor)]
    if any(one.dim() == source.dim() and one.shape[0] != 1 for one in constants):
        return None  # it differs from image to image
    named = {key: value.double() if isinstance(value, Tensor) else value for key, value in node.arguments.items()}

    def at(x: Tensor) -> Tensor:
        arguments = {key: x if isinstance(value, Node) else value for key, value in named.items()}
        return node.func(**arguments)[0].flatten().cpu()

    shift = at(torch.zeros_like(source, dtype=torch.float64))
    return at(torch.ones_like(source, dtype=torch.float64)) - shift, shift


def _pair(weight: Tensor, bias: Tensor | None) -> _Affine:
    weight = weight.detach().double().cpu()
    return weight, torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.detach().double().cpu()


def _activation(layer: TracedLayer) -> nn.Module | None:
    """Return the activation module of a layer; None for a layer that is no activation."""
    if not layer.alone:
        return None
    module, node = layer.module, layer.node
    if node.func is not None:
        if node.kind == "leaky_relu":
            module = nn.LeakyReLU(float(node.arguments.get("negative_slope", 0.01)))
        else:
            module = _FUNCTIONS[node.kind]() if node.kind in _FUNCTIONS else None
    exact = any(isinstance(module, kind) and own_code(module, kind) is None for kind in _ACTIVATIONS)
    if not exact or (isinstance(module, nn.LeakyReLU) and module.negative_slope < 0):
        return None
    return None if isinstance(module, nn.ELU) and module.alpha < 0 else module


def slope_bounds(chain: FullyConnectedChain, box: tuple[float, float] | None = None) -> list[tuple[Tensor, Tensor]]:
    """Bound the slope of every hidden unit by (lowest, highest), each (n_l,), float64.

    Args:
        chain: the network.
        box: ends of the interval in which every input lies; None for all inputs. Interval arithmetic then bounds the
            input of each unit, rounded outwards.
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
                ends = (
                    activation.forward(lower),
                    activation.forward(upper),
                )  # without hooks, which are separate layers
            centre, radius = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
    return found


class Certifier:
    """Certify Lipschitz constants and radii of one network, by the sharpest bound known for it.

    Args:
        model: a network that `lipschitz_bounds` can bound, images to logits.
        input_shape: shape of one input, (C, H, W).
        box: ends of the interval of every pixel, (0, 1) for images; the certificates then hold inside that box, where
            adversarial images lie. None: everywhere.
        rules: see `lipschitz_bounds`.

    Attributes:
        method: ``LipSDP`` for a network of Linear layers and activations, of which a semidefinite program bounds the
            whole; ``product`` for one of which the layers' bounds are multiplied; ``product and LipSDP`` for one that
            ends with several Linear layers, whose constant is multiplied with the bounds of the layers before them.
        product: the product of the layers' bounds.
        num_classes: logits of one image.

    Raises:
        TypeError, ValueError: see `lipschitz_bounds`; a box that is none; or outputs that are not (N, K).
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        *,
        box: tuple[float, float] | None = (0.0, 1.0),
        rules: Rules | None = None,
    ) -> None:
        if box is not None and not (len(box) == 2 and -math.inf < box[0] <= box[1] < math.inf):
            raise ValueError(f"expected a box (lowest, highest) of finite numbers, or None, got {box!r}")
        with torch.inference_mode(False), torch.no_grad():
            layers = trace(model, input_shape, rules=rules).layers
            outputs = layers[-1].node.value
            if outputs.dim() != 2:
                raise ValueError(
                    f"expected a network to logits (N, K), got outputs (N, {str(tuple(outputs.shape[1:]))[1:]}"
                )
            self.num_classes = outputs.shape[1]
            self.product = math.prod(layer.bound for layer in layers)
            first, chain = split(layers)
            self._first = math.prod(layer.bound for layer in first)
            self._last = None if chain is None else chain.weights[-1]
            self._parts: LipSDPProblem | None = None
            if chain is not None and chain.activations:
                self._parts = lipsdp_problem(chain.weights[:-1], slope_bounds(chain, None if first else box))
        self.method = PRODUCT if self._parts is None else BOTH if first else LIPSDP
        self._warm: Tensor | None = None
        self._constant: dict[int, float] = {}
        self._pairs: dict[tuple[int, int, int], float] = {}

    def __repr__(self) -> str:
        return f"Certifier({self.method}; product of the layers' bounds {self.product:.4g}, {self.num_classes} classes)"

    def constant(self, *, num_steps: int = 150) -> float:
        """Find a Lipschitz constant of the logits.

        Args:
            num_steps: steps that the semidefinite program gets, if there is one.
        """
        num_steps = whole("num_steps", num_steps)
        if num_steps not in self._constant:
            found = self.product
            if self._last is not None:
                value, self._warm = self._solve(self._last, num_steps)
                found = min(found, self._first * value)
            self._constant[num_steps] = found
        return self._constant[num_steps]

    def pair_constant(self, first: int, second: int, *, num_steps: int = 40) -> float:
        """Find a Lipschitz constant of the difference of two logits.

        Args:
            first: class of the one logit.
            second: class of the other.
            num_steps: see `constant`.
        """
        num_steps = whole("num_steps", num_steps)
        for label in (first, second):
            if not 0 <= label < self.num_classes:
                raise ValueError(f"expected classes in 0..{self.num_classes - 1}, got {label}")
        if not self._constant:
            self.constant()
        key = (min(first, second), max(first, second), num_steps)
        if key not in self._pairs:
            found = math.sqrt(2) * (1 + 1e-12) * min(self._constant.values())
            if self._last is not None:
                row = (self._last[key[0]] - self._last[key[1]])[None]
                found = min(found, self._first * self._solve(row, num_steps)[0])
            self._pairs[key] = 0.0 if first == second else found
        return self._pairs[key]

    def _solve(self, last: Tensor, num_steps: int) -> tuple[float, Tensor | None]:
        if self._parts is None:  # one affine layer: the norm itself
            return float(torch.linalg.matrix_norm(last, 2)) * (1 + 1e-12), None
        with torch.inference_mode(False), torch.no_grad():
            return lipsdp_bound(self._parts, last, warm=self._warm, num_steps=num_steps)

    def radii(self, logits: Tensor, labels: Tensor, *, num_steps: int = 40) -> Tensor:
        """Certify the L2 radius within which each image's answer is certain to stay its label, by pairs of classes.

        Args:
            logits: (N, K) of the images.
            labels: (N,) integers; an image that is not answered with its label has radius 0.
            num_steps: see `constant`.

        Returns:
            (N,) radii, float64.

        Raises:
            TypeError, ValueError: logits or labels that are none, or not of this network.
        """
        logits, labels, room = _checked(logits, labels)
        logits, labels, room = logits.cpu(), labels.cpu(), room.cpu()
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"expected logits (N, {self.num_classes}) of this network, got {tuple(logits.shape)}")
        constants = torch.ones(logits.shape[1], logits.shape[1], dtype=torch.float64)
        for label in labels.unique().tolist():
            for other in range(logits.shape[1]):
                if other != label:
                    constants[label, other] = max(self.pair_constant(label, other, num_steps=num_steps), 1e-300)
        radii = (logits.gather(1, labels[:, None]) - logits - room) / constants[labels]
        radii[torch.arange(len(labels)), labels] = torch.inf
        return radii.amin(dim=1).clamp(min=0)


def certified_radii(logits: Tensor, labels: Tensor, lipschitz_constant: float) -> Tensor:
    """Certify the L2 radius margin / (sqrt 2 L) within which each image's answer is certain to stay its label.

    Args:
        logits: (N, K) of the images.
        labels: (N,) integers; an image that is not answered with its label has radius 0.
        lipschitz_constant: L, an upper bound of the Lipschitz constant of the logits in the L2 norm, above 0.

    Returns:
        (N,) radii, float64.

    Raises:
        TypeError, ValueError: logits, labels or a constant that are none.
    """
    try:
        constant = float(lipschitz_constant)
    except (TypeError, ValueError) as error:
        raise TypeError(f"expected a Lipschitz constant above 0, got {lipschitz_constant!r}") from error
    if not constant > 0:
        raise ValueError(f"expected a Lipschitz constant above 0, got {constant}")
    logits, labels, room = _checked(logits, labels)
    margins = logits.gather(1, labels[:, None]) - logits - room
    margin = margins.scatter(1, labels[:, None], torch.inf).amin(dim=1)
    return margin.clamp(min=0) / (math.sqrt(2) * constant)


def _checked(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits in float64, labels in int64, and the largest rounding error of each difference of logits (N, K)."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        got = f"a tensor of {logits.dtype}" if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"expected logits as a floating-point tensor, got {got}")
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(f"expected logits (N, K) of at least two classes, got {tuple(logits.shape)}")
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        got = f"a tensor of {labels.dtype}" if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"expected labels as a tensor of integers, got {got}")
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"expected one label for each of {len(logits)} images, got {tuple(labels.shape)}")
    with torch.inference_mode(False), torch.no_grad():
        bad = (~logits.isfinite()).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f"expected logits that are finite, got {logits[bad[0]].tolist()} for image {bad[0]}")
        labels = labels.detach().to(logits.device, torch.int64, copy=True)
        wrong = labels[(labels < 0) | (labels >= logits.shape[1])].tolist()
        if wrong:
            raise ValueError(f"expected labels in 0..{logits.shape[1] - 1}, got {wrong[0]}")
        double = logits.detach().to(torch.float64, copy=True)
        sizes = double.abs()
        return double, labels, torch.finfo(logits.dtype).eps / 2 * (sizes + sizes.gather(1, labels[:, None]))


def product_bound(model: nn.Module, input_shape: Sequence[int], *, rules: Rules | None = None) -> float:
    """Multiply the bounds of `lipschitz_bounds`: a Lipschitz constant of the network in the L2 norm.

    Args:
        model: a network that `lipschitz_bounds` can bound.
        input_shape: shape of one image, such as (1, 28, 28).
        rules: further bounds by the class of a module, see `lipschitz_bounds`.
    """
    return math.prod(layer.bound for layer in lipschitz_bounds(model, input_shape, rules=rules))


def _slopes(activation: nn.Module, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bound the slope of an activation between two points by (lowest, highest), elementwise."""
    if isinstance(activation, nn.Sigmoid | nn.Tanh):  # steepest at 0, ever flatter away from it
        nearest = torch.where((lower <= 0) & (upper >= 0), 0.0, torch.minimum(lower.abs(), upper.abs()))
        furthest = torch.maximum(lower.abs(), upper.abs())
        slope = _sigmoid_slope if isinstance(activation, nn.Sigmoid) else _tanh_slope
        return slope(furthest), slope(nearest)
    if not isinstance(activation, nn.ReLU | nn.LeakyReLU):  # they increase everywhere; the rule bounds the slope
        highest = MODULES[next(kind for kind in _ACTIVATIONS if isinstance(activation, kind))](activation, lower)
        return torch.zeros_like(lower), torch.full_like(lower, highest)
    negative = activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0
    ones = torch.ones_like(lower)
    left, right = torch.where(lower < 0, negative, ones), torch.where(upper > 0, ones, negative)
    return torch.minimum(left, right), torch.maximum(left, right)


def _sigmoid_slope(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.sigmoid(-x)


def _tanh_slope(x: Tensor) -> Tensor:
    return 4 * torch.sigmoid(2 * x) * torch.sigmoid(-2 * x)

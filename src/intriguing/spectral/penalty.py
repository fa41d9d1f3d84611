"""The penalty that the paper suggests (section 4.3), on the upper bounds of the layers, in two forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from intriguing.spectral.layer_bounds import Rules
from intriguing.spectral.lipschitz import TracedLayer, trace
from intriguing.spectral.operator_norm import CONVOLUTIONS, TRANSPOSED, own_code, padding_sizes

_PENALISED = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)


class OperatorNorms(nn.Module):
    """Compute the operator norms of a network's Linear and convolutional layers at every training step.

    Each layer keeps its leading singular vector as a buffer and moves it by one step of power iteration at each call in
    training mode, so that it follows the weights at the price of one more image in the batch. (Miyato et al. 2018,
    arXiv 1802.05957, keep such a vector in the same way, to divide by the norm.) The estimate comes from below and is
    the norm once the vector has settled. Of a convolution it is the norm of the map with its own padding, not of the
    reshaped kernel.

    Args:
        model: the network; its layers are read, not registered here.
        input_shape: shape of one input, without the batch.

    Raises:
        ValueError: the network cannot be traced, has no such layers, or has one with another forward pass.
    """

    def __init__(self, model: nn.Module, input_shape: Sequence[int]) -> None:
        super().__init__()
        found: list[nn.Module] = []
        for name, module in model.named_modules():
            kind = next((kind for kind in _PENALISED if isinstance(module, kind)), None)
            if kind is not None and (own := own_code(module, kind)) is not None:
                words = f"layer '{name}' ({type(module).__name__}) has its own {own}"
                raise ValueError(f"{words}, so its norm is not that of a {kind.__name__}: it cannot be penalised")
        generator = torch.Generator().manual_seed(0)
        for module, shape in trace(model, input_shape, bounds=False).calls:
            if not isinstance(module, _PENALISED):
                continue
            with torch.inference_mode(False):
                start = torch.randn(1, *shape, generator=generator)
                self.register_buffer(f"vector_{len(found)}", start / start.norm())
            found.append(module)
        if not found:
            raise ValueError("expected a network with Linear or Conv2d layers, or other convolutions, to penalise")
        names = {module: name for name, module in model.named_modules()}
        self._names = tuple(names[module] for module in found)
        self._layers = tuple(found)  # nn.Module does not register modules in a tuple

    @torch.no_grad()
    def bad_layer(self) -> str | None:
        """Return the name of the first layer whose norm is not finite; None where all are finite."""
        for index, (name, layer) in enumerate(zip(self._names, self._layers, strict=True)):
            if not bool(_apply(layer, getattr(self, f"vector_{index}")).norm().isfinite()):
                return name
        return None

    def norms(self) -> Tensor:
        """Compute the norms (layers,); their gradient goes to the weights."""
        if torch.is_inference_mode_enabled():  # a vector made in it could not be trained with afterwards
            with torch.inference_mode(False), torch.no_grad():
                return self.norms()
        norms = []
        for index, layer in enumerate(self._layers):
            name = f"vector_{index}"
            vector: Tensor = getattr(self, name)
            image = _apply(layer, vector)
            with torch.no_grad():
                unit = _of_length_1(image)
                if self.training:  # a new tensor: autograd still needs the old one
                    self._buffers[name] = _of_length_1(_pulled_back(layer, vector, unit))
            norms.append((image * unit).sum())  # |image|, and its gradient, by one product
        return torch.stack(norms)


class LogProductPenalty(OperatorNorms):
    """Compute log(1 + product of the norms of a network's Linear and convolutional layers), see `OperatorNorms`.

    While the product is large the pull on a layer does not depend on how large that layer's norm is; it fades where the
    product is below 1, so that a network is not drawn on to 0.
    """

    def forward(self) -> Tensor:
        """Compute the value, a scalar; its gradient goes to the weights."""
        return F.softplus(self.norms().clamp(min=_TINY).log().sum())


class LipschitzMargin(OperatorNorms):
    """Compute sqrt(2) times the product bound: the largest change of a difference of two logits per unit of L2.

    Added, times a radius, to every logit but the label's, it makes the cross-entropy that of the worst case within that
    radius which the bound allows (Lipschitz-margin training, Tsuzuku et al. 2018, arXiv 1802.04034). So the bound is
    penalised for its cost, and not at all once every image is certified.

    Raises:
        ValueError: also for a network whose layers do not follow one another, where the product is no bound, and for
            one in which other layers are trained too, whose bounds would change (normalisation, PReLU).
    """

    def __init__(self, model: nn.Module, input_shape: Sequence[int]) -> None:
        super().__init__(model, input_shape)
        ones: Rules = dict.fromkeys(_PENALISED, lambda layer, shape: 1.0)
        layers = trace(model, input_shape, rules=ones).layers
        alone = [layer.module for layer in layers]
        if any(not any(one is layer for one in alone) for layer in self._layers):
            raise ValueError("expected a network whose layers follow one another, without branches, for a margin")
        trained = {id(one) for one in model.parameters()}
        for layer in layers:
            if not isinstance(layer.module, _PENALISED) and _is_trained(layer, trained):
                words = "expected no trained layers but Linear and convolutional ones for a margin"
                raise ValueError(f"{words}, got '{layer.name}' ({layer.kind})")
        self._others = math.prod(layer.bound for layer in layers)  # of activations, pools, normalisation

    def forward(self) -> Tensor:
        """Compute the value, a scalar; its gradient goes to the weights."""
        return math.sqrt(2) * self._others * self.norms().prod()


def with_margin(logits: Tensor, labels: Tensor, margin: Tensor) -> Tensor:
    """Raise the logits (N, K) of all classes but each row's label by the margin.

    Args:
        logits: (N, K).
        labels: (N,) int.
        margin: a scalar.
    """
    return logits + margin * (1 - F.one_hot(labels, logits.shape[1]).to(logits))


_TINY = 1e-12


def _of_length_1(vector: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(vector)
    return vector * (norm.clamp(min=_TINY).reciprocal() + 0 * norm)  # nan, not 0, of a length that is not finite


def _is_trained(layer: TracedLayer, trained: set[int]) -> bool:
    """Check whether training changes the bound of a layer."""
    numbers = [id(one) for one in tree_leaves(layer.node.arguments)]
    if layer.module is not None:
        numbers += [id(one) for one in layer.module.parameters()]
    return isinstance(layer.module, nn.modules.batchnorm._BatchNorm) or any(one in trained for one in numbers)


def _pulled_back(layer: nn.Module, vector: Tensor, image: Tensor) -> Tensor:
    """Apply the layer's transpose to an image."""
    if isinstance(layer, nn.Linear):
        return image @ _weight(layer)
    with torch.enable_grad():
        x = vector.clone().requires_grad_()
        return torch.autograd.grad(_apply(layer, x), x, image)[0]


def _apply(layer: nn.Module, vector: Tensor) -> Tensor:
    """Apply the layer without its bias."""
    if isinstance(layer, nn.Linear):
        return F.linear(vector, _weight(layer))
    assert isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED))
    return convolve(layer, vector)


def convolve(layer: Any, images: Tensor) -> Tensor:
    """Apply a convolution, or a transposed one, with its padding and without its bias."""
    axes, weight = len(layer.kernel_size), _weight(layer)
    if isinstance(layer, TRANSPOSED):
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
        settings = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
        return function(images, weight, None, *settings)  # pyright: ignore
    function, padding = (F.conv1d, F.conv2d, F.conv3d)[axes - 1], layer.padding
    if layer.padding_mode != "zeros":
        pads = [pad for axis in reversed(padding_sizes(layer)) for pad in axis]
        images, padding = F.pad(images, pads, mode=layer.padding_mode), 0
    return function(images, weight, None, layer.stride, padding, layer.dilation, layer.groups)  # pyright: ignore


def _weight(layer: Any) -> Tensor:
    """Return a layer's weight, copied if it was made in inference mode."""
    return layer.weight.clone() if layer.weight.is_inference() else layer.weight

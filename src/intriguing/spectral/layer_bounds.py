"""Lipschitz bounds of single layers in the L2 norm and in evaluation mode: one rule for each kind of module.

A rule maps (module, shape of one input without the batch) to a number. A kind without a rule is an error, never a 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from intriguing.spectral.eigenvalues import largest_singular_value
from intriguing.spectral.operator_norm import operator_norm, padding_sizes, zero_padded_norm

LayerRule = Callable[[Any, tuple[int, ...]], float]
Windows = list[tuple[int, int, int]]  # (first, last + 1, divisor) of each window of a pool along one axis


class ContrastNormalization(nn.Module):
    """x / (eps + |x|^2)^gamma, the norm taken over the channels of each position (section 4.3).

    Args:
        eps: above 0.
        gamma: at least 0.

    Raises:
        ValueError: a setting that is out of range.
    """

    def __init__(self, eps: float, gamma: float) -> None:
        super().__init__()
        if not eps > 0 or not gamma >= 0:
            raise ValueError(f"expected eps above 0 and gamma of at least 0, got {eps} and {gamma}")
        self.eps, self.gamma = eps, gamma

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, ...) to the same shape."""
        return inputs / (self.eps + inputs.square().sum(1, keepdim=True)) ** self.gamma


def convolution(layer: nn.Conv2d, shape: tuple[int, ...]) -> float:
    """A Conv2d with its own padding: zeros, or circular, reflected or replicated pixels.

    Padding that repeats pixels is a map of its own: its norm is the root of how often one pixel is repeated. The rest
    is a convolution of the padded image. Where circular padding makes the whole torus' convolution, its norm is exact.
    """
    if layer.padding_mode == "zeros":
        return operator_norm(layer, shape, padding="zeros")
    pads, size = padding_sizes(layer), shape[1:]
    padded = [n + sum(pad) for n, pad in zip(size, pads, strict=True)]
    repeats = 1
    for n, (before, after) in zip(size, pads, strict=True):
        line = torch.arange(n, dtype=torch.float64)[None, None]
        copies = F.pad(line, (before, after), mode=layer.padding_mode) if before + after else line
        repeats *= int(copies.flatten().long().bincount().max())
    bound = math.sqrt(repeats) * zero_padded_norm(layer, padded, [(0, 0), (0, 0)])
    extents = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    outputs = [(n - extent - 1) // s + 1 for n, extent, s in zip(padded, extents, layer.stride, strict=True)]
    whole = all(n % s == 0 and m <= n // s for n, s, m in zip(size, layer.stride, outputs, strict=True))
    return min(bound, operator_norm(layer, shape)) if layer.padding_mode == "circular" and whole else bound


def batch_norm(layer: Any, shape: tuple[int, ...]) -> float:
    """|weight| / sqrt(running variance + eps), the largest over channels."""
    if layer.running_var is None:
        raise ValueError(
            f"{type(layer).__name__} without running statistics mixes the images of a batch: it has no Lipschitz bound"
        )
    scale = torch.ones_like(layer.running_var) if layer.weight is None else layer.weight.detach()
    return float((scale.double().abs() / (layer.running_var.double() + layer.eps).sqrt()).max())


def standardisation(layer: Any, shape: tuple[int, ...]) -> float:
    """(x - mean) / sqrt(variance + eps), or x / sqrt(mean square + eps): steepest, eps^-1/2, where that is 0."""
    if getattr(layer, "running_var", None) is not None:
        return batch_norm(layer, shape)
    eps = torch.finfo(torch.float32).eps if layer.eps is None else layer.eps
    weight = getattr(layer, "weight", None)
    return (1.0 if weight is None else float(weight.detach().double().abs().max())) / math.sqrt(eps)


def response_norm(layer: nn.LocalResponseNorm, shape: tuple[int, ...]) -> float:
    """x_i / d_i^beta with d_i = k + alpha / n * sum of x_j^2 over the n channels around i (Krizhevsky et al. 2012).

    The Jacobian is diag(d^-beta) - A. Row i of A is 2 beta alpha / n * x_i d_i^(-beta - 1) times the window's x, of
    norm at most 2 beta s (k + s)^(-beta - 1) with s = d_i - k, so at most 2 k^-beta (beta / (beta + 1))^(beta + 1). A
    matrix whose rows have norm rho and of which no column meets more than m has norm at most rho sqrt(m).
    """
    beta, members = float(layer.beta), min(layer.size, shape[0])
    if layer.k <= 0 or beta < 0 or layer.alpha < 0:
        raise ValueError(f"expected k above 0, alpha and beta of at least 0, for a Lipschitz bound of {layer}")
    row = 2 * (beta / (beta + 1)) ** (beta + 1) if layer.alpha > 0 else 0.0
    return float(layer.k) ** -beta * (1 + row * math.sqrt(members))


def contrast_norm(layer: ContrastNormalization, shape: tuple[int, ...]) -> float:
    """eps^-gamma (section 4.3)."""
    return layer.eps**-layer.gamma


def max_pool(layer: Any, shape: tuple[int, ...]) -> float:
    """The root of the most windows that one pixel can win: 1 without overlap, 2 for 3x3 windows with stride 2."""
    most = 1
    for n, k, s, p, d in _per_axis(layer, shape, "kernel_size", "stride", "padding", "dilation"):
        count = torch.zeros(n, dtype=torch.long)
        for start in range(-p, -p + s * _num_windows(n, k, s, p, d, layer.ceil_mode), s):
            seen = [i for i in range(start, start + d * k, d) if 0 <= i < n]
            count[seen] += 1
        most *= int(count.max())
    return math.sqrt(most)


def adaptive_max_pool(layer: Any, shape: tuple[int, ...]) -> float:
    """As `max_pool`, with the windows that fit the wanted output."""
    most = 1
    for n, windows in _adaptive(layer, shape):
        count = torch.zeros(n, dtype=torch.long)
        for first, end, _ in windows:
            count[first:end] += 1
        most *= int(count.max())
    return math.sqrt(most)


def average_pool(layer: Any, shape: tuple[int, ...]) -> float:
    """The exact norm: the pool is the product of one small matrix for each axis."""
    norm, volume = 1.0, 1
    for n, k, s, p, d in _per_axis(layer, shape, "kernel_size", "stride", "padding"):
        windows: Windows = []
        for start in range(-p, -p + s * _num_windows(n, k, s, p, d, layer.ceil_mode), s):
            first, end = max(start, 0), min(start + k, n)
            windows.append((first, end, min(start + k, n + p) - start if layer.count_include_pad else end - first))
        volume *= k
        if getattr(layer, "divisor_override", None):
            windows = [(first, end, k) for first, end, _ in windows]
        norm *= _averaging_norm(n, windows)
    return norm * volume / (getattr(layer, "divisor_override", None) or volume)


def adaptive_average_pool(layer: Any, shape: tuple[int, ...]) -> float:
    """The exact norm, as for `average_pool`."""
    return math.prod(_averaging_norm(n, windows) for n, windows in _adaptive(layer, shape))


def _averaging_norm(n: int, windows: Windows) -> float:
    matrix = torch.zeros(len(windows), n, dtype=torch.float64)
    for row, (first, end, divisor) in enumerate(windows):
        matrix[row, first:end] = 1 / divisor
    return largest_singular_value(matrix)


def _per_axis(layer: Any, shape: tuple[int, ...], *names: str) -> list[tuple[int, int, int, int, int]]:
    """(n, kernel, stride, padding, dilation) of each pooled axis."""
    axes = int(type(layer).__name__[-2])  # MaxPool2d
    values = [getattr(layer, name) for name in names]
    columns = [value if isinstance(value, tuple | list) else (value,) * axes for value in values]
    columns += [(1,) * axes] * (4 - len(columns))
    return cast(Any, list(zip(shape[-axes:], *columns, strict=True)))


def _num_windows(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    room = n + 2 * p - d * (k - 1) - 1
    count = (-(-room // s) if ceil_mode else room // s) + 1
    return count - 1 if ceil_mode and (count - 1) * s >= n + p else count  # the last one must start inside


def _adaptive(layer: Any, shape: tuple[int, ...]) -> list[tuple[int, Windows]]:
    axes = int(type(layer).__name__[-2])
    wanted = layer.output_size if isinstance(layer.output_size, tuple | list) else (layer.output_size,) * axes
    found = []
    for n, m in zip(shape[-axes:], wanted, strict=True):
        m = n if m is None else m
        ends = [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        found.append((n, [(first, end, end - first) for first, end in ends]))
    return found


def _always(value: float) -> LayerRule:
    return lambda layer, shape: value


_ONE = (
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(nn.FeatureAlphaDropout, nn.ZeroPad2d, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
    *(nn.ReLU, nn.ReLU6, nn.Tanh, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.CELU),
    *(nn.Softshrink, nn.Tanhshrink),
)

MODULES: dict[type[nn.Module], LayerRule] = {
    **{kind: _always(1.0) for kind in _ONE},
    nn.Sigmoid: _always(1 / 4),
    nn.Hardsigmoid: _always(1 / 6),
    nn.Softmax: _always(1 / 2),  # the largest eigenvalue of diag(p) - p p^T
    nn.LogSoftmax: lambda layer, shape: math.sqrt(max(shape)),  # |I - 1 p^T| at a corner of the simplex
    nn.GELU: _always(1.1291),  # 1.12890 at sqrt 2, and .0001 more in its form by tanh
    nn.SiLU: _always(1.09985),
    nn.Mish: _always(1.0885),
    nn.Hardswish: _always(1.5),
    nn.SELU: _always(1.7580994),
    nn.ELU: lambda layer, shape: max(1.0, abs(layer.alpha)),
    nn.LeakyReLU: lambda layer, shape: max(1.0, abs(layer.negative_slope)),
    nn.PReLU: lambda layer, shape: max(1.0, float(layer.weight.detach().abs().max())),
    nn.Linear: lambda layer, shape: operator_norm(layer, shape[-1:]),
    nn.Conv2d: convolution,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), batch_norm),
    **dict.fromkeys((nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), standardisation),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), standardisation),
    nn.LocalResponseNorm: response_norm,
    ContrastNormalization: contrast_norm,
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), max_pool),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), average_pool),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), adaptive_max_pool),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), adaptive_average_pool),
}
"""Rules by kind of module; a subclass does as its nearest parent does unless it has a forward pass of its own."""


def module_rule(module: nn.Module, rules: dict[type[nn.Module], LayerRule]) -> LayerRule | None:
    """The rule of a module: of its class, or of the nearest parent whose forward pass it shares."""
    for kind in type(module).__mro__:
        if kind in rules:
            return rules[kind] if kind.forward is type(module).forward else None
        if kind.__name__ == "Normalize" and kind.__module__.startswith("torchvision.transforms"):  # not imported here
            return lambda layer, shape: 1 / min(abs(float(value)) for value in torch.as_tensor(layer.std).flatten())
    return None


def functional(target: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> nn.Module | None:
    """The module that does what a call of a function or of a tensor's method does; None for one that is not known.

    Args:
        target: the function, or the method's name.
        args, kwargs: of the call, without the tensor itself.
    """
    if target in (F.dropout, F.dropout2d, F.alpha_dropout):
        training = kwargs.get("training", args[1] if len(args) > 1 else True)
        return None if training else nn.Identity()
    kind = _FUNCTIONS.get(target)
    if kind is None:
        return None
    if kind in (nn.Identity, nn.ReLU, nn.Sigmoid, nn.Tanh):
        return kind()
    return kind(*args, **{name: value for name, value in kwargs.items() if not name.startswith("_")})


_RESHAPING = ("flatten", "view", "reshape", "permute", "transpose", "contiguous", "squeeze", "unsqueeze", "movedim")
_FUNCTIONS: dict[Any, Any] = {
    **dict.fromkeys((torch.relu, F.relu, "relu", "relu_"), nn.ReLU),
    **dict.fromkeys((torch.sigmoid, F.sigmoid, "sigmoid"), nn.Sigmoid),
    **dict.fromkeys((torch.tanh, F.tanh, "tanh"), nn.Tanh),
    **dict.fromkeys((torch.softmax, F.softmax, "softmax"), nn.Softmax),
    **dict.fromkeys((torch.log_softmax, F.log_softmax, "log_softmax"), nn.LogSoftmax),
    **dict.fromkeys(_RESHAPING, nn.Identity),
    **dict.fromkeys((getattr(torch, name) for name in _RESHAPING if hasattr(torch, name)), nn.Identity),
    **dict.fromkeys(("clone", "detach", "float", "double", "to"), nn.Identity),
    F.leaky_relu: nn.LeakyReLU,
    F.elu: nn.ELU,
    F.gelu: nn.GELU,
    F.silu: nn.SiLU,
    F.hardtanh: nn.Hardtanh,
    F.relu6: nn.ReLU6,
    F.local_response_norm: nn.LocalResponseNorm,
    F.max_pool2d: nn.MaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_max_pool2d: nn.AdaptiveMaxPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
}

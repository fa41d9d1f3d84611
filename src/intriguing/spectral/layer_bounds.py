"""Lipschitz bounds of single layers in the L2 norm and in evaluation mode: one rule for each kind of module.

A rule maps (module, batch of inputs) to a number; of the batch it reads shape and type. A kind without a rule is an
error, never a 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from intriguing.nn.local import L2Pool2d, LocalContrastNorm2d, LocallyConnected2d, Standardize
from intriguing.spectral.eigenvalues import largest_singular_value
from intriguing.spectral.local_bounds import l2_pool, local_contrast_norm, locally_connected
from intriguing.spectral.operator_norm import (
    CONVOLUTIONS,
    TRANSPOSED,
    circular_norm,
    convolution_of,
    linear_norm,
    own_code,
    padding_sizes,
    zero_padded_norm,
)

LayerRule = Callable[[Any, Tensor], float]
Rules = Mapping[type[nn.Module], Callable[[Any, tuple[int, ...]], float]]
"""Bounds of further kinds of modules, as users give them: functions of the module and of the shape of one input."""
Windows = list[tuple[int, int, int]]  # (first, last + 1, divisor) of each window of a pool along one axis


class ContrastNormalization(nn.Module):
    """Compute ``x / (eps + |x|^2)^gamma``, the norm taken over the channels of each position (section 4.3).

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
        """Normalise (N, C, ...)."""
        return inputs / (self.eps + inputs.square().sum(1, keepdim=True)) ** self.gamma


def linear(layer: nn.Linear, x: Tensor) -> float:
    """Bound a Linear layer, which acts on the last axis of its input."""
    return linear_norm(layer, tuple(x.shape[-1:]))


def convolution(layer: Any, x: Tensor) -> float:
    """Bound a convolution with its padding: zeros, or circular, reflected or replicated pixels.

    Padding that repeats pixels is a separate map: its norm is the root of the most repetitions of one pixel. The rest
    is a convolution of the padded image. Where circular padding makes the whole torus' convolution, its norm is exact.
    """
    if layer.padding_mode == "zeros":
        return linear_norm(layer, tuple(x.shape[1:]))
    conv, pads, size = convolution_of(layer), padding_sizes(layer), tuple(x.shape[2:])
    padded = [n + sum(pad) for n, pad in zip(size, pads, strict=True)]
    repeats = 1
    for n, (before, after) in zip(size, pads, strict=True):
        line = torch.arange(n, dtype=torch.float64)[None, None]
        copies = F.pad(line, (before, after), mode=layer.padding_mode) if before + after else line
        repeats *= int(copies.flatten().long().bincount().max())
    bound = math.sqrt(repeats) * zero_padded_norm(conv, padded, [(0, 0)] * len(size))
    outputs = [(n - extent - 1) // s + 1 for n, extent, s in zip(padded, conv.extents, conv.stride, strict=True)]
    whole = all(n % s == 0 and m <= n // s for n, s, m in zip(size, conv.stride, outputs, strict=True))
    return min(bound, circular_norm(conv, size)) if layer.padding_mode == "circular" and whole else bound


def transposed(layer: Any, x: Tensor) -> float:
    """Bound a transposed convolution, whose padding is always zeros."""
    return linear_norm(layer, tuple(x.shape[1:]))


def batch_norm(layer: Any, x: Tensor) -> float:
    """Bound batch normalisation by |weight| / sqrt(running variance + eps), the largest over channels."""
    if layer.running_var is None:
        raise ValueError(
            f"{type(layer).__name__} without running statistics mixes the images of a batch: it has no Lipschitz bound"
        )
    scale = torch.ones_like(layer.running_var) if layer.weight is None else layer.weight.detach()
    return float((scale.double().abs() / (layer.running_var.double() + layer.eps).sqrt()).max())


def standardisation(layer: Any, x: Tensor) -> float:
    """Bound a standardisation, (x - mean) / sqrt(variance + eps): steepest, eps^-1/2, where the variance is 0."""
    if getattr(layer, "running_var", None) is not None:
        return batch_norm(layer, x)
    # PyTorch's own eps is that of the input's type; that of a 16-bit type depends on PyTorch's version
    eps = min(torch.finfo(x.dtype).eps, torch.finfo(torch.float32).eps) if layer.eps is None else float(layer.eps)
    if eps <= 0:
        raise ValueError(f"{type(layer).__name__} with eps={eps} has no Lipschitz bound")
    weight = getattr(layer, "weight", None)
    return (1.0 if weight is None else float(weight.detach().double().abs().max())) / math.sqrt(eps)


def response_norm(layer: nn.LocalResponseNorm, x: Tensor) -> float:
    """Bound x_i / d_i^beta with d_i = k + alpha / n * sum of x_j^2 over n channels around i (Krizhevsky et al. 2012).

    The Jacobian is diag(d^-beta) - A. Row i of A is 2 beta alpha / n * x_i d_i^(-beta - 1) times the window's x, of
    norm at most 2 beta s (k + s)^(-beta - 1) with s = d_i - k, so at most 2 k^-beta (beta / (beta + 1))^(beta + 1). A
    matrix whose rows have norm rho and of which no column meets more than m has norm at most rho sqrt(m).
    """
    beta, members = float(layer.beta), min(layer.size, x.shape[1])
    if layer.k <= 0 or beta < 0 or layer.alpha < 0:
        raise ValueError(f"expected k above 0, alpha and beta of at least 0, for a Lipschitz bound of {layer}")
    row = 2 * (beta / (beta + 1)) ** (beta + 1) if layer.alpha > 0 else 0.0
    return float(layer.k) ** -beta * (1 + row * math.sqrt(members))


def contrast_norm(layer: ContrastNormalization, x: Tensor) -> float:
    """Bound contrast normalisation by eps^-gamma (section 4.3)."""
    return layer.eps**-layer.gamma


def max_pool(layer: Any, x: Tensor) -> float:
    """Bound a max pool by the root of the most windows a pixel can win: 1 without overlap, 2 for 3x3 of stride 2."""
    most = 1
    for n, k, s, p, d in _per_axis(layer, x, "kernel_size", "stride", "padding", "dilation"):
        count = torch.zeros(n, dtype=torch.long)
        for start in range(-p, -p + s * _num_windows(n, k, s, p, d, layer.ceil_mode), s):
            seen = [i for i in range(start, start + d * k, d) if 0 <= i < n]
            count[seen] += 1
        most *= int(count.max())
    return math.sqrt(most)


def adaptive_max_pool(layer: Any, x: Tensor) -> float:
    """Bound an adaptive max pool as `max_pool`, by the windows of its output."""
    most = 1
    for n, windows in _adaptive(layer, x):
        count = torch.zeros(n, dtype=torch.long)
        for first, end, _ in windows:
            count[first:end] += 1
        most *= int(count.max())
    return math.sqrt(most)


def average_pool(layer: Any, x: Tensor) -> float:
    """Compute the exact norm of an average pool, the product of one small matrix for each axis."""
    norm, volume = 1.0, 1
    for n, k, s, p, d in _per_axis(layer, x, "kernel_size", "stride", "padding"):
        windows: Windows = []
        for start in range(-p, -p + s * _num_windows(n, k, s, p, d, layer.ceil_mode), s):
            first, end = max(start, 0), min(start + k, n)
            windows.append((first, end, min(start + k, n + p) - start if layer.count_include_pad else end - first))
        volume *= k
        if getattr(layer, "divisor_override", None):
            windows = [(first, end, k) for first, end, _ in windows]
        norm *= _averaging_norm(n, windows)
    return norm * volume / (getattr(layer, "divisor_override", None) or volume)


def adaptive_average_pool(layer: Any, x: Tensor) -> float:
    """Compute the exact norm of an adaptive average pool, as for `average_pool`."""
    return math.prod(_averaging_norm(n, windows) for n, windows in _adaptive(layer, x))


def _averaging_norm(n: int, windows: Windows) -> float:
    matrix = torch.zeros(len(windows), n, dtype=torch.float64)
    for row, (first, end, divisor) in enumerate(windows):
        matrix[row, first:end] = 1 / divisor
    return largest_singular_value(matrix)


def _per_axis(layer: Any, x: Tensor, *names: str) -> list[tuple[int, int, int, int, int]]:
    """List (n, kernel, stride, padding, dilation) of each pooled axis."""
    axes = x.dim() - 2
    values = [getattr(layer, name) for name in names]
    columns = [value if isinstance(value, tuple | list) else (value,) * axes for value in values]
    columns += [(1,) * axes] * (4 - len(columns))
    return cast(Any, list(zip(x.shape[2:], *columns, strict=True)))


def _num_windows(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    room = n + 2 * p - d * (k - 1) - 1
    count = (-(-room // s) if ceil_mode else room // s) + 1
    return count - 1 if ceil_mode and (count - 1) * s >= n + p else count  # the last one must start inside


def _adaptive(layer: Any, x: Tensor) -> list[tuple[int, Windows]]:
    axes = x.dim() - 2
    wanted = layer.output_size if isinstance(layer.output_size, tuple | list) else (layer.output_size,) * axes
    found = []
    for n, m in zip(x.shape[2:], wanted, strict=True):
        m = n if m is None else m
        ends = [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        found.append((n, [(first, end, end - first) for first, end in ends]))
    return found


def _always(value: float) -> LayerRule:
    return lambda layer, x: value


def softplus(layer: Any, x: Tensor) -> float:
    """Bound Softplus by 1, unless its switch to a straight line beyond the threshold is a jump visible in float32."""
    if layer.beta == 0 or math.log1p(math.exp(-layer.threshold)) / abs(layer.beta) > 1e-6:
        raise ValueError(f"{layer} jumps at its threshold: it has no Lipschitz bound")
    return 1.0


def celu(layer: nn.CELU, x: Tensor) -> float:
    """Bound CELU by 1, for a positive alpha."""
    if layer.alpha <= 0:
        raise ValueError(f"{layer} has no Lipschitz bound: expected alpha above 0")
    return 1.0


def log_softmax(layer: nn.LogSoftmax, x: Tensor) -> float:
    """Bound LogSoftmax by the root of the number of classes: |I - 1 p^T| at a corner of the simplex."""
    return math.sqrt(max(x.shape[1:]) if layer.dim is None else x.shape[layer.dim])


_ONE = (
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(nn.FeatureAlphaDropout, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
    *(nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
    *(nn.ReLU, nn.ReLU6, nn.Tanh, nn.Hardtanh, nn.Softsign, nn.LogSigmoid, nn.Softshrink, nn.Tanhshrink),
)

MODULES: dict[type[nn.Module], LayerRule] = {
    **{kind: _always(1.0) for kind in _ONE},
    nn.Sigmoid: _always(1 / 4),
    nn.Hardsigmoid: _always(1 / 6),
    nn.Softmax: _always(1 / 2),  # the largest eigenvalue of diag(p) - p p^T
    nn.LogSoftmax: log_softmax,
    nn.GELU: _always(1.1291),  # 1.12890 at sqrt 2, and .0001 more in its form by tanh
    nn.SiLU: _always(1.09985),
    nn.Mish: _always(1.0885),
    nn.Hardswish: _always(1.5),
    nn.SELU: _always(1.7580994),
    nn.ELU: lambda layer, x: max(1.0, abs(layer.alpha)),
    nn.CELU: celu,
    nn.Softplus: softplus,
    nn.LeakyReLU: lambda layer, x: max(1.0, abs(layer.negative_slope)),
    nn.PReLU: lambda layer, x: max(1.0, float(layer.weight.detach().abs().max())),
    nn.Linear: linear,
    **dict.fromkeys(CONVOLUTIONS, convolution),
    **dict.fromkeys(TRANSPOSED, transposed),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), batch_norm),
    **dict.fromkeys((nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), standardisation),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), standardisation),
    nn.LocalResponseNorm: response_norm,
    ContrastNormalization: contrast_norm,
    LocallyConnected2d: locally_connected,
    L2Pool2d: l2_pool,
    Standardize: lambda layer, x: 1 / float(layer.scale.double().min()),
    LocalContrastNorm2d: local_contrast_norm,
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), max_pool),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), average_pool),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), adaptive_max_pool),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), adaptive_average_pool),
    **dict.fromkeys((nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d), lambda layer, x: copies(layer, x)),
}
"""Rules by kind of module; a subclass has the rule of its nearest parent unless it overrides its code."""


def all_rules(rules: Rules | None) -> dict[type[nn.Module], LayerRule]:
    """Merge the known rules with the user's, which take precedence."""
    given = dict[type[nn.Module], LayerRule]()
    for kind, rule in (rules or {}).items():
        given[kind] = lambda layer, x, rule=rule: float(rule(layer, tuple(x.shape[1:])))
    return {**MODULES, **given}


def module_rule(module: nn.Module, rules: Mapping[type[nn.Module], LayerRule]) -> LayerRule | None:
    """Find the rule of a module: of its class, or of the nearest parent that has one, unless its code was replaced."""
    for kind in type(module).__mro__:
        if kind in rules:
            return rules[kind] if own_code(module, kind) is None else None
    return None


def copies(function: Callable[[Tensor], Any], x: Tensor, index: int = 0) -> float:
    """Compute the norm of a map that only copies its input's entries: the root of the most copies of one entry.

    Args:
        function: the map; zeros that it adds do not count.
        x: an input, of which shape and layout are read.
        index: which of several outputs.
    """
    numbers = torch.empty_like(x, dtype=torch.float64)  # in the layout that strided views rest on
    numbers.copy_(torch.arange(1, x.numel() + 1, dtype=torch.float64).view(x.shape))
    out = function(numbers)
    out = out[index] if isinstance(out, tuple | list) else out
    return math.sqrt(int(out.flatten().long().bincount()[1:].max())) if bool((out != 0).any()) else 0.0

"""Operator norms of linear layers: Linear, and convolutions of any stride, dilation, groups and padding (section 4.3).

A convolution on a torus is block diagonal in the Fourier basis. With stride s the s^2 input frequencies that alias onto
one output frequency share a block, and the block carries the factor 1/s: the paper prints s^-2, which understates the
norm by exactly s. For a stride of 1 see Sedghi, Gupta and Long (2019, arXiv 1805.10408).

A convolution with zero padding is no convolution on a torus, but it is a part of one: on a torus large enough that the
kernel never reaches around it from one end of the image to the other (image size plus padding), it is the circular
convolution of the image surrounded by zeros, read at some of its outputs. A part of a matrix has no larger norm, so
the norm on the larger torus is an upper bound, for every such torus. It is tight up to the image's boundary: both tend
to the largest value of the kernel's Fourier transform as the image grows (the norm of Toeplitz and circulant matrices;
Araujo et al. 2021, arXiv 2006.08391, bound by that value itself, which is never below ours).

A transposed convolution is the adjoint of a convolution, and has its norm.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as _hooks
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from intriguing.spectral.eigenvalues import largest_eigenvalue, largest_singular_value

PADDINGS = ("circular", "zeros")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CHUNK_BYTES = 16 * 2**20  # of one chunk of Fourier blocks; larger ones are slower, for the memory they ask for
_HARMLESS = {"__init__", "__setstate__", "__repr__", "extra_repr", "reset_parameters"}
_CALLS = {"__call__", "_call_impl", "_wrapped_call_impl", "_slow_forward", "__getattr__", "__getattribute__"}


@dataclass(frozen=True)
class Convolution:
    """Describe a convolution along any number of axes, without its padding and bias.

    Attributes:
        weight: (D, C / groups, k_1, ..., k_n).
        stride, dilation: of each axis.
        groups: into how many the channels are divided.
    """

    weight: Tensor
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Taps along each axis."""
        return tuple(self.weight.shape[2:])

    @property
    def extents(self) -> list[int]:
        """How far each axis' last tap lies from the first."""
        return [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]

    def __call__(self, images: Tensor) -> Tensor:
        """Convolve without padding, in the images' type."""
        function = (F.conv1d, F.conv2d, F.conv3d)[len(self.stride) - 1]
        weight = self.weight.detach().to(images)
        return function(images, weight, None, self.stride, 0, self.dilation, self.groups)  # pyright: ignore


def convolution_of(layer: Any) -> Convolution:
    """Return the convolution of a layer, or the convolution whose adjoint a transposed layer is."""
    return Convolution(layer.weight.detach(), layer.stride, layer.dilation, layer.groups)


def operator_norm(layer: nn.Module, input_shape: Sequence[int], *, padding: str = "circular") -> float:
    """Bound the largest factor by which a linear layer can stretch the L2 norm of its input; its bias plays no part.

    Args:
        layer: ``nn.Linear``, ``nn.Conv1d`` to ``nn.Conv3d``, or ``nn.ConvTranspose1d`` to ``nn.ConvTranspose3d``.
        input_shape: shape of one input: (C, H, W) for a convolution of images; for a Linear layer its last number, or
            the product of all, is ``in_features``.
        padding: how a convolution sees the image's boundary. ``circular``: every output of the convolution on the
            H x W torus, ceil(H / s) x ceil(W / s) of them. ``zeros``: the layer's own padding, with zeros. (A layer
            whose own ``padding_mode`` is another is met by ``lipschitz_bounds``.) A transposed convolution always has
            its own padding.

    Returns:
        For a Linear layer, and for circular padding where the stride divides H and W, the exact norm. For zero padding
        an upper bound. For circular padding with another stride the exact norm while the layer's matrix is small
        (2^22 entries), an upper bound otherwise. Numbers are made in float64, of the weights in evaluation mode; see
        `eigenvalues.MARGIN` for the last digits, which are always on the side of the bound.

    Raises:
        TypeError: another kind of layer, or a subclass that computes in its own way.
        ValueError: a shape that does not fit the layer, an unknown padding, a weight that is not finite, or hooks that
            run beside the layer's forward pass.
    """
    if padding not in PADDINGS:
        raise ValueError(f"expected padding among {', '.join(PADDINGS)}, got {padding!r}")
    shape = sizes(input_shape)
    kind = next((one for one in (nn.Linear, *CONVOLUTIONS, *TRANSPOSED) if isinstance(layer, one)), None)
    if kind is None:
        raise TypeError(f"expected a Linear or Conv2d layer, or another convolution, got {type(layer).__name__}")
    if (own := own_code(layer, kind)) is not None:
        raise TypeError(f"{type(layer).__name__} has its own {own}, so its norm is not that of a {kind.__name__}")
    if any(nn.parameter.is_lazy(one) for one in layer.parameters()):
        raise ValueError(f"{type(layer).__name__} has no weights yet: run the layer once first")
    layer = _current(layer)
    with torch.inference_mode(False), torch.no_grad():
        return linear_norm(layer, shape, padding=padding)


def linear_norm(layer: Any, shape: tuple[int, ...], *, padding: str = "zeros") -> float:
    """Bound the norm of a layer whose kind is known, see `operator_norm`."""
    if isinstance(layer, nn.Linear):
        if layer.in_features not in (shape[-1] if shape else 0, math.prod(shape)):
            raise ValueError(f"expected an input of {layer.in_features} numbers for {layer}, got shape {shape}")
        return largest_singular_value(layer.weight)
    axes = len(layer.kernel_size)
    if len(shape) != axes + 1 or shape[0] != layer.in_channels or min(shape) < 1:
        wanted = ", ".join((str(layer.in_channels), *("LHW"[:1] if axes == 1 else "DHW"[3 - axes :])))
        raise ValueError(f"expected an input of shape ({wanted}) for {layer}, got {shape}")
    if isinstance(layer, TRANSPOSED):
        return transposed_norm(convolution_of(layer), shape[1:], layer.padding, layer.output_padding)  # pyright: ignore
    if padding == "zeros":
        return zero_padded_norm(convolution_of(layer), shape[1:], padding_sizes(layer))
    return circular_norm(convolution_of(layer), shape[1:])


def sizes(shape: Any) -> tuple[int, ...]:
    """Check that a shape consists of whole numbers.

    Raises:
        TypeError, ValueError: numbers that are not whole, or below 1.
    """
    try:
        found = tuple(shape)
        whole = tuple(int(size) for size in found)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"expected the shape of one input as whole numbers, got {shape!r}") from error
    if any(one != size or isinstance(size, str | bool) for one, size in zip(whole, found, strict=True)):
        raise TypeError(f"expected the shape of one input as whole numbers, got {shape!r}")
    if any(one < 1 for one in whole):
        raise ValueError(f"expected the shape of one input, numbers of at least 1, got {whole}")
    return whole


def own_code(module: nn.Module, kind: type[nn.Module]) -> str | None:
    """Name the first method that a module overrides from ``kind``, of which it is an instance; None without any."""
    methods = {name for one in kind.__mro__ for name, value in vars(one).items() if callable(value)}
    methods -= set(vars(nn.Module)) | set(vars(object)) | _HARMLESS
    methods |= {"forward"} | _CALLS
    found = methods & module.__dict__.keys()
    for parent in type(module).__mro__[: type(module).__mro__.index(kind)]:
        if not (parent is type(module) and torch.nn.utils.parametrize.is_parametrized(module)):
            found |= methods & vars(parent).keys()
    return min(found, key=lambda name: (name != "forward", name), default=None)


def _current(layer: nn.Module) -> nn.Module:
    """Copy a layer with the weight that its forward pass would compute; the layer itself does not change.

    Raises:
        ValueError: hooks of another kind than those of PyTorch's weight norm, spectral norm and pruning.
    """
    hooks = list(layer._forward_pre_hooks.values())
    known = (WeightNorm, SpectralNorm, BasePruningMethod)
    beside = [hook for hook in hooks if not isinstance(hook, known)] + list(layer._forward_hooks.values())
    if beside or _hooks._global_forward_hooks or _hooks._global_forward_pre_hooks:
        raise ValueError(f"{type(layer).__name__} has hooks that run beside its forward pass: use lipschitz_bounds")
    if not hooks:
        return layer
    layer = copy.copy(layer)
    layer.__dict__ = dict(layer.__dict__, training=False)
    with torch.inference_mode(False), torch.no_grad():
        for hook in hooks:
            hook(layer, ())
    return layer


def zero_padded_norm(conv: Convolution, size: Sequence[int], padding: Sequence[tuple[int, int]]) -> float:
    """Bound the norm of a convolution with zero padding from above, see the module's docstring.

    Args:
        conv: the convolution.
        size: of the input, (H, W).
        padding: (before, after) of each axis.
    """
    least = []
    for n, pads, extent in zip(size, padding, conv.extents, strict=True):
        if n + sum(pads) <= extent:
            raise ValueError(
                f"expected an input at least as large as the kernel {conv.kernel_size}, got {tuple(size)} with padding "
                f"{tuple(padding)}"
            )
        # Outputs that see nothing but padding add nothing to the norm, so no padding counts beyond the kernel's extent.
        least.append(n + min(max(*pads, 0), extent))
    return _torus_norm(conv, [_multiple(n, s) for n, s in zip(least, conv.stride, strict=True)])


def transposed_norm(
    conv: Convolution, size: Sequence[int], padding: Sequence[int], output_padding: Sequence[int]
) -> float:
    """Bound the norm of the adjoint of a convolution: of that convolution of the adjoint's outputs.

    Args:
        conv: the convolution; its weight is that of the transposed layer, (inputs, outputs / groups, ...).
        size: of the transposed layer's input.
        padding: of the transposed layer.
        output_padding: of the transposed layer.
    """
    parts = zip(size, conv.stride, padding, conv.extents, output_padding, strict=True)
    outputs = [(n - 1) * s - 2 * p + extent + more + 1 for n, s, p, extent, more in parts]
    return zero_padded_norm(conv, outputs, [(p, p) for p in padding])


def padding_sizes(layer: Any) -> list[tuple[int, int]]:
    """List (before, after) of a convolution's padding along each axis."""
    if layer.padding == "valid":
        return [(0, 0)] * len(layer.kernel_size)
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(int(p), int(p)) for p in layer.padding]


def circular_norm(conv: Convolution, size: tuple[int, ...]) -> float:
    """Compute the norm of a convolution on a torus, see `operator_norm`."""
    if all(n % s == 0 for n, s in zip(size, conv.stride, strict=True)):
        return _torus_norm(conv, size)
    outputs = [-(-n // s) for n, s in zip(size, conv.stride, strict=True)]
    rows = conv.weight.shape[0] * math.prod(outputs)
    columns = conv.weight.shape[1] * conv.groups * math.prod(size)
    if rows * columns <= 2**22:
        return largest_singular_value(circular_matrix(conv, size))
    # Outputs at the multiples of gcd(n, s) contain those at the multiples of s.
    steps = [math.gcd(n, s) for n, s in zip(size, conv.stride, strict=True)]
    return _torus_norm(conv, size, stride=steps)


def _torus_norm(conv: Convolution, size: Sequence[int], stride: Sequence[int] | None = None) -> float:
    """Compute the norm on a torus that the stride divides: the largest norm of the Fourier blocks over frequencies."""
    if not bool(conv.weight.isfinite().all()):
        raise ValueError("expected weights that are finite, got nan or infinity")
    best = 0.0
    for grams in _fourier_grams(conv, size, stride or conv.stride):
        best = largest_eigenvalue(grams, at_least=best)
    return math.sqrt(best)


def _fourier_grams(conv: Convolution, size: Sequence[int], stride: Sequence[int]) -> Iterator[Tensor]:
    """Yield B B^H or B^H B, the smaller, of the Fourier blocks B (D / g, C / g * s^2), in chunks (F * g, n, n).

    Half the frequencies are enough: the kernel is real, so a frequency and its negative have conjugate blocks. The
    kernel is small, so its transform at a chunk of frequencies is one product with its taps, and memory stays bounded.
    """
    weight, groups = conv.weight.detach().double(), conv.groups
    d, c = weight.shape[0] // groups, weight.shape[1]
    taps = weight.reshape(groups, d, c, -1).permute(3, 0, 1, 2).reshape(-1, groups * d * c)
    aliases = math.prod(stride)
    turns = _turns(conv, size, stride).to(weight.device)
    chunk = max(1, _CHUNK_BYTES // (16 * aliases * max(groups * d * c, 1)))
    for part in turns.split(chunk):  # (F, aliases, taps), in turns
        angle = (2 * math.pi * part).flatten(0, 1)
        blocks = torch.complex(angle.cos() @ taps, -(angle.sin() @ taps)).view(-1, aliases, groups, d, c)
        blocks = blocks.permute(0, 2, 3, 1, 4).reshape(-1, d, aliases * c) / math.sqrt(aliases)
        blocks = blocks if d <= aliases * c else blocks.mT
        yield blocks @ blocks.mH


def _turns(conv: Convolution, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Compute the phase of every tap at every input frequency in turns, (output frequencies, aliases, taps)."""
    total = torch.zeros(1, 1, 1, dtype=torch.float64)
    for axis, (n, s) in enumerate(zip(size, stride, strict=True)):
        outputs = n // s
        kept = outputs // 2 + 1 if axis == len(size) - 1 else outputs
        frequency = torch.arange(kept)[:, None] + outputs * torch.arange(s)  # (kept, s): those that alias
        taps = conv.dilation[axis] * torch.arange(conv.kernel_size[axis])
        phase = (frequency[..., None] * taps % n).double() / n
        total = total[:, None, :, None, :, None] + phase[None, :, None, :, None, :]
        total = total.reshape(*(total.shape[i] * total.shape[i + 1] for i in (0, 2, 4)))
    return total


def circular_matrix(conv: Convolution, size: Sequence[int]) -> Tensor:
    """Build the dense matrix of a small convolution on a torus, float64.

    Returns:
        (D * ceil(H / s) * ceil(W / s), C * H * W), inputs and outputs flattened as (channel, row, column).
    """
    channels = conv.weight.shape[1] * conv.groups
    images = torch.eye(channels * math.prod(size), dtype=torch.float64, device=conv.weight.device)
    images = images.view(-1, channels, *size)
    for axis, (n, extent) in enumerate(zip(size, conv.extents, strict=True)):
        images = images.index_select(2 + axis, torch.arange(n + extent, device=images.device) % n)
    return conv(images).flatten(1).T


def _multiple(value: int, of: int) -> int:
    return -(-value // of) * of

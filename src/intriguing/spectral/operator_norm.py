"""Operator norms of linear layers: Linear, and Conv2d of any stride, dilation, groups and padding (section 4.3).

A convolution on a torus is block diagonal in the Fourier basis. With stride s the s^2 input frequencies that alias onto
one output frequency share a block, and the block carries the factor 1/s: the paper prints s^-2, which understates the
norm by exactly s. For a stride of 1 see Sedghi, Gupta and Long (2019, arXiv 1805.10408).

A convolution with zero padding is no convolution on a torus, but it is a part of one: on a torus large enough that the
kernel never reaches around it from one end of the image to the other (image size plus padding), it is the circular
convolution fed with zeros outside the image, and read at some of its outputs. A part of a matrix has no larger norm, so
the norm on the larger torus is an upper bound, for every such torus. It is tight up to the image's boundary: both tend
to the largest value of the kernel's Fourier transform as the image grows (the norm of Toeplitz and circulant matrices;
Araujo et al. 2021, arXiv 2006.08391, bound by that value itself, which is never below ours).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from intriguing.spectral.eigenvalues import largest_eigenvalue, largest_singular_value

PADDINGS = ("circular", "zeros")
_CHUNK_BYTES = 16 * 2**20  # of one chunk of Fourier blocks; larger ones are slower, for the memory they ask for


def operator_norm(layer: nn.Module, input_shape: Sequence[int], *, padding: str = "circular") -> float:
    """The largest factor by which a linear layer can stretch the L2 norm of its input; its bias plays no part.

    Args:
        layer: ``nn.Linear`` or ``nn.Conv2d``.
        input_shape: shape of one input: (C, H, W) for a convolution; for a Linear layer its last number, or the product
            of all, is ``in_features``.
        padding: how a convolution sees the image's boundary. ``circular``: every output of the convolution on the
            H x W torus, ceil(H / s) x ceil(W / s) of them. ``zeros``: the layer's own padding, with zeros. (A layer
            whose own ``padding_mode`` is another is met by ``lipschitz_bounds``.)

    Returns:
        For a Linear layer, and for circular padding where the stride divides H and W, the exact norm. For zero padding
        an upper bound. For circular padding with another stride the exact norm while the layer's matrix is small
        (2^22 entries), an upper bound otherwise. Numbers are made in float64; see `eigenvalues.MARGIN` for the last
        digits, which are always on the side of the bound.

    Raises:
        TypeError: another kind of layer.
        ValueError: a shape that does not fit the layer, or an unknown padding.
    """
    if padding not in PADDINGS:
        raise ValueError(f"expected padding among {', '.join(PADDINGS)}, got {padding!r}")
    shape = tuple(int(size) for size in input_shape)
    if isinstance(layer, nn.Linear):
        if layer.in_features not in (shape[-1] if shape else 0, math.prod(shape)):
            raise ValueError(f"expected an input of {layer.in_features} numbers for {layer}, got shape {shape}")
        return largest_singular_value(layer.weight)
    if not isinstance(layer, nn.Conv2d) or isinstance(layer, nn.ConvTranspose2d):
        raise TypeError(f"expected a Linear or Conv2d layer, got {type(layer).__name__}")
    if len(shape) != 3 or shape[0] != layer.in_channels or min(shape) < 1:
        raise ValueError(f"expected an input of shape ({layer.in_channels}, H, W) for {layer}, got {shape}")
    if padding == "zeros":
        return zero_padded_norm(layer, shape[1:], padding_sizes(layer))
    return _circular_norm(layer, shape[1:])


def zero_padded_norm(layer: nn.Conv2d, size: Sequence[int], padding: Sequence[tuple[int, int]]) -> float:
    """An upper bound of the norm of a convolution with zero padding, see the module's words.

    Args:
        layer: the convolution; its own padding is not read.
        size: (H, W) of the input.
        padding: (before, after) of each axis.
    """
    extents = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    least = []
    for n, pads, extent in zip(size, padding, extents, strict=True):
        if n + sum(pads) <= extent:
            raise ValueError(f"expected an input at least as large as the kernel of {layer}, got {tuple(size)}")
        # Outputs that see nothing but padding add nothing to the norm, so no padding counts beyond the kernel's extent.
        least.append(n + min(max(pads), extent))
    return _torus_norm(layer, [_multiple(n, s) for n, s in zip(least, layer.stride, strict=True)])


def padding_sizes(layer: nn.Conv2d) -> list[tuple[int, int]]:
    """(before, after) of each axis, of a Conv2d's own padding."""
    if layer.padding == "valid":
        return [(0, 0), (0, 0)]
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(int(p), int(p)) for p in layer.padding]


def _circular_norm(layer: nn.Conv2d, size: tuple[int, ...]) -> float:
    if all(n % s == 0 for n, s in zip(size, layer.stride, strict=True)):
        return _torus_norm(layer, size)
    outputs = [-(-n // s) for n, s in zip(size, layer.stride, strict=True)]
    rows, columns = layer.out_channels * math.prod(outputs), layer.in_channels * math.prod(size)
    if rows * columns <= 2**22:
        return largest_singular_value(circular_matrix(layer, size))
    # Outputs at the multiples of gcd(n, s) contain those at the multiples of s.
    steps = [math.gcd(n, s) for n, s in zip(size, layer.stride, strict=True)]
    return _torus_norm(layer, size, stride=steps)


def _torus_norm(layer: nn.Conv2d, size: Sequence[int], stride: Sequence[int] | None = None) -> float:
    """The norm on a torus that the stride divides: the largest over frequencies of the norms of the Fourier blocks."""
    best = 0.0
    for grams in _fourier_grams(layer, size, stride or layer.stride):
        best = largest_eigenvalue(grams, at_least=best)
    return math.sqrt(best)


def _fourier_grams(layer: nn.Conv2d, size: Sequence[int], stride: Sequence[int]) -> Iterator[Tensor]:
    """B B^H or B^H B, the smaller, of the Fourier blocks B (D / g, C / g * s^2): chunks of (frequencies * g, n, n).

    Half the frequencies are enough: the kernel is real, so a frequency and its negative have conjugate blocks. The
    kernel is small, so its transform at a chunk of frequencies is one product with its taps, and memory stays bounded.
    """
    weight, groups = layer.weight.detach().double(), layer.groups
    d, c = weight.shape[0] // groups, weight.shape[1]
    taps = weight.view(groups, d, c, -1).permute(3, 0, 1, 2).reshape(-1, groups * d * c)
    aliases = math.prod(stride)
    turns = _turns(layer, size, stride).to(weight.device)
    chunk = max(1, _CHUNK_BYTES // (16 * aliases * max(groups * d * c, 1)))
    for part in turns.split(chunk):  # (F, aliases, taps), in turns
        angle = (2 * math.pi * part).flatten(0, 1)
        blocks = torch.complex(angle.cos() @ taps, -(angle.sin() @ taps)).view(-1, aliases, groups, d, c)
        blocks = blocks.permute(0, 2, 3, 1, 4).reshape(-1, d, aliases * c) / math.sqrt(aliases)
        blocks = blocks if d <= aliases * c else blocks.mT
        yield blocks @ blocks.mH


def _turns(layer: nn.Conv2d, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Phase of every tap at every input frequency, in turns (mod 1): (output frequencies, aliases, taps), float64."""
    phases = []
    for axis in (0, 1):
        n, s, k, dilation = size[axis], stride[axis], layer.kernel_size[axis], layer.dilation[axis]
        outputs = n // s
        kept = outputs if axis == 0 else outputs // 2 + 1
        frequency = torch.arange(kept)[:, None] + outputs * torch.arange(s)  # (kept, s): those that alias
        phases.append((frequency[..., None] * dilation * torch.arange(k) % n).double() / n)
    tall, wide = phases
    total = tall[:, None, :, None, :, None] + wide[None, :, None, :, None, :]
    return total.reshape(len(tall) * len(wide), math.prod(stride), -1)


def circular_matrix(layer: nn.Conv2d, size: Sequence[int]) -> Tensor:
    """The dense matrix of a convolution on the H x W torus, float64, for small ones.

    Returns:
        (D * ceil(H / s) * ceil(W / s), C * H * W), inputs and outputs flattened as (channel, row, column).
    """
    weight = layer.weight.detach().double()
    inputs = torch.arange(math.prod(size)).view(*size)
    outputs = [-(-n // s) for n, s in zip(size, layer.stride, strict=True)]
    d, c = weight.shape[0] // layer.groups, weight.shape[1]
    matrix = weight.new_zeros(layer.groups, d, math.prod(outputs), layer.groups, c, math.prod(size))
    rows = torch.arange(math.prod(outputs))
    for i in range(layer.kernel_size[0]):
        for j in range(layer.kernel_size[1]):
            row = (torch.arange(outputs[0]) * layer.stride[0] + i * layer.dilation[0]) % size[0]
            column = (torch.arange(outputs[1]) * layer.stride[1] + j * layer.dilation[1]) % size[1]
            columns = inputs[row][:, column].flatten()
            for group in range(layer.groups):
                own = weight[group * d : (group + 1) * d, :, i, j]
                matrix[group, :, rows, group, :, columns] += own  # (outputs, d, c): advanced indices come first
    return matrix.view(layer.groups * d * math.prod(outputs), -1)


def _multiple(value: int, of: int) -> int:
    return -(-value // of) * of

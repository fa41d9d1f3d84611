"""Operator norms against dense matrices: exact on the torus, never below with zero padding."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from intriguing.spectral import operator_norm
from intriguing.spectral.eigenvalues import largest_eigenvalue, largest_singular_value
from intriguing.spectral.operator_norm import circular_matrix, convolution_of

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


def dense(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear map, by brute force."""
    n = math.prod(shape)
    with torch.no_grad():
        return function(torch.eye(n, dtype=torch.float64).view(n, *shape)).flatten(1).T


def on_the_torus(conv: nn.Conv2d, images: Tensor) -> Tensor:
    extent = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    size = images.shape[2:]
    rows = torch.arange(size[0] + extent[0]) % size[0]
    columns = torch.arange(size[1] + extent[1]) % size[1]
    wrapped = images[:, :, rows][:, :, :, columns]
    return F.conv2d(wrapped, conv.weight, stride=conv.stride, dilation=conv.dilation, groups=conv.groups)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, tuple[int, int, int]]:
    groups, stride = draw(st.integers(1, 2)), draw(PAIR)
    size = [draw(st.integers(1, 8)) if draw(st.booleans()) else s * draw(st.integers(1, 3)) for s in stride]
    torch.manual_seed(draw(st.integers(0, 999)))
    conv = nn.Conv2d(
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        draw(PAIR),
        stride=stride,
        padding=draw(st.tuples(st.integers(0, 3), st.integers(0, 3))),
        dilation=draw(PAIR),
        groups=groups,
        dtype=torch.float64,
    )
    return conv, (conv.in_channels, size[0], size[1])


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_circular_norms_are_those_of_dense_matrices(case: tuple[nn.Conv2d, tuple[int, int, int]]) -> None:
    conv, shape = case
    true = float(torch.linalg.matrix_norm(dense(lambda x: on_the_torus(conv, x), shape), 2))
    assert operator_norm(conv, shape) == pytest.approx(true, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_zero_padding_bounds_are_never_below(case: tuple[nn.Conv2d, tuple[int, int, int]]) -> None:
    conv, shape = case
    extent = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    padding = [int(p) for p in conv.padding]
    assume(all(n + 2 * p > e for n, p, e in zip(shape[1:], padding, extent, strict=True)))
    bias = torch.zeros_like(conv.bias) if conv.bias is not None else None
    settings = (bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    true = float(torch.linalg.matrix_norm(dense(lambda x: F.conv2d(x, conv.weight, *settings), shape), 2))
    assert operator_norm(conv, shape, padding="zeros") >= true * (1 - 1e-12)


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv2d(3, 24, 11, 4, 2, bias=False), (3, 64, 64)),
        (nn.Conv2d(24, 32, 5, padding=2, bias=False), (24, 27, 27)),
        (nn.Conv2d(32, 48, 3, padding=1, bias=False), (32, 13, 13)),
        (nn.Conv2d(32, 48, 3, padding=1, groups=2, bias=False), (32, 13, 13)),
    ],
)
def test_zero_padding_bounds_are_within_5_percent_on_alexnets_shapes(conv: nn.Conv2d, shape: tuple) -> None:
    """Against power iteration, which comes from below; fewer channels than AlexNet's, for the time."""
    torch.manual_seed(0)
    nn.init.normal_(conv.weight)
    with torch.no_grad():
        image = torch.randn(1, *shape)
        for _ in range(200):
            out = conv(image / image.norm())
            image = torch.nn.grad.conv2d_input(image.shape, conv.weight, out, conv.stride, conv.padding, 1, conv.groups)
        reached = float(out.norm())
    assert reached <= operator_norm(conv, shape, padding="zeros") <= 1.05 * reached


def test_the_papers_exponent_understates_by_the_stride() -> None:
    """Section 4.3 prints s^-2 before the aliased blocks; the sum of s^2 aliases with s^-1 is the norm."""
    conv = nn.Conv2d(1, 1, 4, stride=4, bias=False, dtype=torch.float64)
    nn.init.ones_(conv.weight)
    assert operator_norm(conv, (1, 8, 8)) == pytest.approx(4)  # 16 ones in disjoint windows: |w| = 4


@pytest.mark.parametrize("size", [(5, 7), (7, 5), (1100, 1300), (1200, 1024)])
def test_linear_norms_are_singular_values(size: tuple[int, int]) -> None:
    layer = nn.Linear(*size)
    true = float(torch.linalg.svdvals(layer.weight.detach().double())[0])
    assert true <= operator_norm(layer, (size[0],)) <= true * (1 + 1e-6)


def test_degenerate_matrices() -> None:
    assert largest_singular_value(torch.zeros(3, 4)) == 0
    assert largest_singular_value(torch.eye(1200)) == pytest.approx(1)
    assert largest_singular_value(torch.zeros(1200, 1200)) == 0
    assert largest_eigenvalue(torch.zeros(3, 4, 4, dtype=torch.float64)) == 0


def test_the_circular_matrix_is_the_convolution_on_the_torus() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, (2, 3), stride=(2, 1), dilation=(1, 2), bias=False, dtype=torch.float64)
    matrix = circular_matrix(convolution_of(conv), (5, 6))
    images = torch.randn(4, 2, 5, 6, dtype=torch.float64)
    assert matrix.shape == (3 * 3 * 6, 2 * 5 * 6)
    torch.testing.assert_close(images.flatten(1) @ matrix.T, on_the_torus(conv, images).flatten(1))


def test_the_largest_of_many_is_found_wherever_it_is() -> None:
    torch.manual_seed(0)
    factors = torch.randn(50, 6, 6, dtype=torch.complex128)
    grams = factors @ factors.mH
    true = float(torch.linalg.eigvalsh(grams).amax())
    for order in (torch.arange(50), torch.arange(50).flip(0), torch.randperm(50)):
        assert true <= largest_eigenvalue(grams[order]) <= true * (1 + 1e-8)
    assert largest_eigenvalue(grams, at_least=2 * true) == 2 * true


@pytest.mark.parametrize(
    ("layer", "shape", "padding", "error", "words"),
    [
        (nn.ReLU(), (3,), "circular", TypeError, "Linear or Conv2d"),
        (nn.Linear(3, 2), (4,), "circular", ValueError, "3 numbers"),
        (nn.Conv2d(3, 2, 3), (2, 8, 8), "circular", ValueError, r"\(3, H, W\)"),
        (nn.Conv2d(3, 2, 3), (3, 2, 8), "zeros", ValueError, "as large as the kernel"),
        (nn.Conv2d(3, 2, 3), (3, 8, 8), "reflect", ValueError, "circular, zeros"),
    ],
)
def test_wrong_calls_are_named(layer: nn.Module, shape: tuple, padding: str, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        operator_norm(layer, shape, padding=padding)

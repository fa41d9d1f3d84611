"""Local filters against loops, pooling and normalisation against their formulas, gradients against differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from intriguing.nn.local import L2Pool2d, LocalContrastNorm2d, LocallyConnected2d, Standardize


def _images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("channels", "maps", "size", "kernel", "stride", "bias"),
    [(2, 3, (6, 5), 3, 1, False), (1, 2, (7, 9), 4, 3, True), (3, 1, (4, 4), 4, 1, True), (1, 1, (1, 1), 1, 1, False)],
)
def test_local_filters_are_products_with_the_windows_of_their_positions(
    channels: int, maps: int, size: tuple[int, int], kernel: int, stride: int, bias: bool
) -> None:
    layer = LocallyConnected2d(channels, maps, size, kernel, stride, bias=bias).double()
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    images, (rows, columns) = _images(2, channels, *size), layer.out_size
    expected = torch.zeros(2, maps, rows, columns, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            window = images[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel].flatten(1)
            expected[:, :, i, j] = window @ layer.weight[i * columns + j].T
            expected[:, :, i, j] += 0 if layer.bias is None else layer.bias[:, i * columns + j]
    assert layer(images).shape == expected.shape
    torch.testing.assert_close(layer(images), expected)


def test_the_adjoint_is_the_transposed_matrix() -> None:
    layer = LocallyConnected2d(2, 3, (6, 7), 3, 2).double()
    x, y = _images(1, 2, 6, 7), _images(1, 3, *layer.out_size, seed=1)
    torch.testing.assert_close((layer(x) * y).sum(), (x * layer.adjoint(y)).sum())


def test_equal_filters_at_every_position_are_a_convolution() -> None:
    layer = LocallyConnected2d(2, 3, (8, 8), 3, 1).double()
    kernel = _images(3, 2, 3, 3, seed=2)
    with torch.no_grad():
        layer.weight.copy_(kernel.flatten(1).expand_as(layer.weight))
    images = _images(2, 2, 8, 8)
    torch.testing.assert_close(layer(images), nn.functional.conv2d(images, kernel))


def test_l2_pooling_is_the_root_of_the_sum_of_squares() -> None:
    images = _images(1, 2, 5, 6)
    pooled = L2Pool2d(3, 2, eps=1e-3)(images)
    assert pooled.shape == (1, 2, 2, 2)
    expected = math.sqrt(1e-3 + float(images[0, 1, 2:5, 0:3].square().sum()))
    assert float(pooled[0, 1, 1, 0]) == pytest.approx(expected, rel=1e-12)


def _contrast_norm(images: np.ndarray, layer: LocalContrastNorm2d) -> np.ndarray:
    """The formula of Jarrett et al. 2009, by loops."""
    _, height, width = images.shape
    half, line = layer.kernel_size // 2, layer.window()

    def averaged(maps: np.ndarray) -> np.ndarray:
        out = np.zeros((height, width))
        for i in range(height):
            for j in range(width):
                total = mass = 0.0
                for a in range(max(0, i - half), min(height, i + half + 1)):
                    for b in range(max(0, j - half), min(width, j + half + 1)):
                        weight = line[a - i + half] * line[b - j + half]
                        total, mass = total + weight * maps[:, a, b].mean(), mass + weight
                out[i, j] = total / mass
        return out

    centred = images - averaged(images)
    return centred / np.maximum(layer.floor, np.sqrt(averaged(centred**2)))


@pytest.mark.parametrize(("kernel", "scale"), [(3, 1.0), (5, 1e-3), (5, 0.02), (1, 1.0)])
def test_local_contrast_normalisation_is_its_formula(kernel: int, scale: float) -> None:
    layer = LocalContrastNorm2d(kernel)
    images = scale * _images(1, 3, 6, 4)
    np.testing.assert_allclose(layer(images)[0].numpy(), _contrast_norm(images[0].numpy(), layer), rtol=1e-9)


@pytest.mark.parametrize(
    "layer",
    [LocallyConnected2d(1, 2, (5, 5), 3, bias=True).double(), L2Pool2d(2), LocalContrastNorm2d(3)],
    ids=lambda one: type(one).__name__,
)
def test_gradients_are_those_of_finite_differences_and_finite_at_zero(layer: nn.Module) -> None:
    images = _images(2, 1, 5, 5).requires_grad_()
    assert torch.autograd.gradcheck(layer, images)
    zero = torch.zeros(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    layer(zero).sum().backward()
    assert zero.grad is not None
    assert bool(zero.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_layers_keep_the_type_of_their_input(dtype: torch.dtype) -> None:
    network = nn.Sequential(LocallyConnected2d(3, 4, (8, 8), 3), L2Pool2d(2), LocalContrastNorm2d(5)).to(dtype)
    assert network(torch.rand(2, 3, 8, 8, dtype=dtype)).dtype == dtype


def test_what_cannot_be_is_said_in_one_line() -> None:
    with pytest.raises(ValueError, match="4x9 is smaller than a receptive field of 5"):
        LocallyConnected2d(1, 1, (4, 9), 5)
    with pytest.raises(ValueError, match="fit one size of images alone"):
        LocallyConnected2d(1, 1, (4, 4), 2)(torch.zeros(1, 1, 5, 4))
    with pytest.raises(ValueError, match="odd kernel_size"):
        LocalContrastNorm2d(4)
    with pytest.raises(ValueError, match="eps above 0"):
        L2Pool2d(2, eps=0)


def test_features_are_standardised_by_all_images_observed_so_far() -> None:
    layer, images = Standardize((2, 3)).double(), 5 + 2 * _images(50, 2, 3)
    torch.testing.assert_close(layer(images), images / 1.01)
    for part in images.split([20, 1, 0, 29]):
        layer.observe(part)
    torch.testing.assert_close(layer.mean, images.mean(0))
    torch.testing.assert_close(layer.variance, images.var(0, correction=0))
    deviation = images.std(0, correction=0) + 0.01
    torch.testing.assert_close(layer(images), (images - images.mean(0)) / deviation)
    layer.center = False
    torch.testing.assert_close(layer(images), images / deviation)
    torch.testing.assert_close(layer.offset, images.mean(0) / deviation)


def test_features_far_from_zero_keep_the_digits_of_their_variance() -> None:
    layer, images = Standardize((3,)), (1000 + _images(60, 3)).float()
    for part in images.split(30):
        layer.observe(part)
    torch.testing.assert_close(layer.variance.double(), images.double().var(0, correction=0), rtol=1e-4, atol=0)

"""Bounds of QuocNet's layers against dense matrices and Jacobians."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from intriguing.models import QuocNet
from intriguing.nn.local import L2Pool2d, LocalContrastNorm2d, LocallyConnected2d, Standardize
from intriguing.spectral import lipschitz_bounds, local_bounds


def _jacobian(layer: nn.Module, point: Tensor) -> Tensor:
    found = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0].flatten(), point)
    return found.flatten(1)  # pyright: ignore[reportAttributeAccessIssue]


def _norm(layer: nn.Module, point: Tensor) -> float:
    return float(torch.linalg.matrix_norm(_jacobian(layer, point), 2))


@pytest.mark.parametrize(
    ("channels", "maps", "size", "kernel", "stride"),
    [(2, 3, (7, 6), 3, 1), (1, 2, (9, 9), 4, 2), (3, 8, (10, 12), 5, 3), (1, 1, (1, 1), 1, 1), (4, 1, (5, 5), 5, 1)],
)
def test_the_norm_of_local_filters_is_that_of_their_dense_matrix(
    channels: int, maps: int, size: tuple[int, int], kernel: int, stride: int
) -> None:
    torch.manual_seed(0)
    layer = LocallyConnected2d(channels, maps, size, kernel, stride, bias=True).double()
    exact = _norm(layer, torch.zeros(channels, *size, dtype=torch.float64))
    (bound,) = lipschitz_bounds(layer, (channels, *size))
    assert bound.kind == "LocallyConnected2d"
    assert exact <= bound.bound <= exact * (1 + 1e-9)
    assert local_bounds.overlap_bound(layer) >= exact


def test_beyond_the_largest_band_matrix_the_bound_is_the_overlap_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_bounds, "_BAND_ENTRIES", 10)
    layer = LocallyConnected2d(1, 2, (6, 6), 3)
    (bound,) = lipschitz_bounds(layer, (1, 6, 6))
    assert bound.bound == local_bounds.overlap_bound(layer)


def test_the_overlap_s_bound_is_exact_where_one_pixel_alone_has_weights() -> None:
    layer = LocallyConnected2d(1, 1, (5, 5), 3)
    with torch.no_grad():
        layer.weight.zero_()
        for position in range(9):  # every window holds the middle pixel
            i, j = divmod(position, 3)
            layer.weight[position, 0, (2 - i) * 3 + (2 - j)] = 2
    assert local_bounds.overlap_bound(layer) == pytest.approx(6)
    assert local_bounds.locally_connected(layer, torch.empty(0)) == pytest.approx(6)


def test_filters_of_zeros_have_the_norm_0_and_those_that_are_not_numbers_have_none() -> None:
    layer = LocallyConnected2d(1, 2, (5, 5), 3)
    nn.init.zeros_(layer.weight)
    assert lipschitz_bounds(layer, (1, 5, 5))[0].bound == 0
    nn.init.constant_(layer.weight, math.nan)
    with pytest.raises(ValueError, match="finite"):
        lipschitz_bounds(layer, (1, 5, 5))


@pytest.mark.parametrize(("kernel", "stride", "size", "expected"), [(3, 1, 7, 3.0), (2, 2, 6, 1.0), (3, 2, 7, 2.0)])
def test_l2_pooling_is_bounded_by_the_windows_of_a_pixel_and_one_pixel_reaches_it(
    kernel: int, stride: int, size: int, expected: float
) -> None:
    layer = L2Pool2d(kernel, stride, eps=1e-12)
    (bound,) = lipschitz_bounds(layer, (1, size, size))
    assert bound.bound == expected
    one = torch.zeros(1, size, size, dtype=torch.float64)
    at = 3 if size == 7 and stride == 1 else 2
    one[0, at, at] = 1
    assert _norm(layer, one) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("channels", "size", "kernel"), [(3, (6, 5), 5), (1, (5, 5), 3), (2, (2, 7), 5), (1, (1, 1), 5)]
)
def test_local_contrast_normalisation_keeps_its_bound(channels: int, size: tuple[int, int], kernel: int) -> None:
    layer = LocalContrastNorm2d(kernel, floor=0.1)
    (bound,) = lipschitz_bounds(layer, (channels, *size))
    generator = torch.Generator().manual_seed(0)
    steepest = 0.0
    for scale in (1.0, 0.3, 0.15, 0.1, 0.01):
        for _ in range(6):
            point = scale * torch.randn(channels, *size, dtype=torch.float64, generator=generator)
            steepest = max(steepest, _norm(layer, point))
    assert steepest <= bound.bound
    if min(size) > 1:
        assert steepest > bound.bound / 8  # no bound of nothing


def test_standardised_features_are_bounded_by_the_smallest_deviation() -> None:
    layer = Standardize((3,))
    layer.observe(torch.tensor([[0.0, 1.0, 5.0], [4.0, 2.0, 5.5]]))
    (bound,) = lipschitz_bounds(layer, (3,))
    assert bound.bound == pytest.approx(_norm(layer, torch.zeros(3)))
    assert bound.bound == pytest.approx(1 / (0.25 + 0.01))


def test_quocnet_s_bound_is_above_its_steepest_measured_change() -> None:
    torch.manual_seed(0)
    model = QuocNet(
        input_shape=[1, 7, 7], num_classes=2, maps=[2], kernels=[3], strides=[1], pools=[2], norm=3, floor=0.5
    ).double()
    bounds = lipschitz_bounds(model.network, (1, 7, 7))
    kinds = [one.kind for one in bounds]
    assert kinds[-6:] == ["LocallyConnected2d", "L2Pool2d", "LocalContrastNorm2d", "Flatten", "Standardize", "Linear"]
    steepest = max(_norm(model, torch.rand(1, 7, 7, dtype=torch.float64)) for _ in range(5))
    assert 0 < steepest <= math.prod(one.bound for one in bounds)


def test_the_deviation_s_bound_for_large_images_is_above_the_exact_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LocalContrastNorm2d(5)
    exact = local_bounds.local_contrast_norm(layer, torch.empty(1, 1, 9, 12))
    monkeypatch.setattr(local_bounds, "_DENSE", 10)
    above = local_bounds.local_contrast_norm(layer, torch.empty(1, 1, 9, 12))
    assert exact <= above < 2 * exact

"""CKA and Procrustes are invariant to rotation; the matching of units is not."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from intriguing.units import linear_cka, match_units, procrustes, random_rotation


def _layer(seed: int = 0) -> torch.Tensor:
    return torch.empty(300, 8, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(seed))


def test_cka_and_procrustes_are_exactly_invariant_to_rotation_and_scale_and_the_matching_is_not() -> None:
    layer, rotation = _layer(), random_rotation(8, generator=torch.Generator().manual_seed(1))
    turned = 3 * layer @ rotation + 5
    assert linear_cka(layer, turned) == pytest.approx(1, abs=1e-12)
    assert procrustes(layer, turned) == pytest.approx(1, abs=1e-12)
    other = _layer(2)
    assert linear_cka(layer, other) == pytest.approx(linear_cka(turned, other), abs=1e-12)
    assert procrustes(layer, other) == pytest.approx(procrustes(turned, other), abs=1e-12)
    assert match_units(layer, turned).mean < 0.8


def test_a_shuffled_layer_is_matched_exactly_and_constant_units_are_left_out() -> None:
    layer = torch.cat([_layer(), torch.full((300, 1), 0.3)], 1)
    order = torch.tensor([3, 8, 1, 0, 7, 2, 6, 5, 4])
    found = match_units(layer, layer[:, order])
    assert len(found.first) == 8 and found.mean == pytest.approx(1, abs=1e-9)
    assert torch.equal(order[found.second], found.first)


def test_cka_is_the_centred_kernels_cosine() -> None:
    """Kornblith 2019, equation 3, by the (N, N) matrices."""
    x, y = _layer(3), torch.cat([_layer(4)[:, :3], _layer(3)[:, :2]], 1)
    centring = torch.eye(300, dtype=torch.float64) - 1 / 300
    one, two = (centring @ rows @ rows.T @ centring for rows in (x, y))
    assert linear_cka(x, y) == pytest.approx(float((one * two).sum() / (one.norm() * two.norm())), rel=1e-10)


def test_procrustes_equals_the_value_of_scipys_best_rotation() -> None:
    x, y = (rows - rows.mean(0) for rows in (_layer(5), _layer(6)))
    x, y = x / x.norm(), y / y.norm()
    rotation, _ = orthogonal_procrustes(x.numpy(), y.numpy())
    distance = float((x @ torch.from_numpy(rotation) - y).square().sum())
    assert procrustes(_layer(5), _layer(6)) == pytest.approx(1 - distance / 2, rel=1e-9)


def test_a_fit_to_other_images_finds_no_agreement_in_noise() -> None:
    """Fitted to the images that it is scored on, a rotation or a matching of 40 units agrees with noise."""
    generator = torch.Generator().manual_seed(0)
    fit, scored = ([torch.randn(120, 40, generator=generator).double() for _ in range(2)] for _ in range(2))
    assert procrustes(*scored) > 0.4 and match_units(*scored).mean > 0.15
    assert abs(procrustes(*scored, fit=(fit[0], fit[1]))) < 0.06
    assert abs(match_units(*scored, fit=(fit[0], fit[1])).mean) < 0.06
    # Where the layers agree, the fit to other images finds it.
    rotation = random_rotation(40, generator=generator)
    turned = [rows @ rotation for rows in (fit[0], scored[0])]
    assert procrustes(scored[0], turned[1], fit=(fit[0], turned[0])) == pytest.approx(1, abs=1e-9)
    order = torch.randperm(40, generator=generator)
    found = match_units(scored[0], scored[0][:, order], fit=(fit[0], fit[0][:, order]))
    assert found.mean == pytest.approx(1, abs=1e-9)


def test_wrong_layers_are_named() -> None:
    with pytest.raises(ValueError, match="same images"):
        linear_cka(torch.rand(3, 2), torch.rand(4, 2))
    with pytest.raises(ValueError, match="never vary"):
        procrustes(torch.rand(3, 2), torch.ones(3, 2))

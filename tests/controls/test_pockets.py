"""Pockets, transfer and directions of linear networks, in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import nn

from intriguing.controls import (
    adversarial_dimension,
    aligned_directions,
    cosines,
    input_gradients,
    margins,
    noise_distance,
    random_dimension,
    shuffled,
    survival,
    transfer_curve,
    without_directions,
)


def half_space(normal: torch.Tensor, distance: float) -> nn.Module:
    """Class 1 beyond a distance from the grey image along a normal."""
    normal = normal / normal.norm()
    linear = nn.Linear(len(normal), 2)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([torch.zeros_like(normal), normal]))
        linear.bias.copy_(torch.tensor([distance + float(normal.sum()) / 2, 0.0]))
    return nn.Sequential(nn.Flatten(), linear)


GREY, LABEL = torch.full((1, 1, 5, 5), 0.5), torch.tensor([0])
NORMAL = torch.randn(25, generator=torch.Generator().manual_seed(3))


def test_aligned_directions_are_orthonormal_and_equally_aligned() -> None:
    directions = aligned_directions(3 * NORMAL, 7)
    torch.testing.assert_close(directions @ directions.T, torch.eye(7, dtype=torch.float64))
    torch.testing.assert_close(
        directions @ NORMAL.double(), torch.full((7,), float(NORMAL.double().norm()) / math.sqrt(7)).double()
    )


@pytest.mark.parametrize("dimension", [1, 5, 12])
def test_a_planted_subspace_has_its_dimension_and_random_directions_miss_it(dimension: int) -> None:
    norm = 0.2 * math.sqrt(dimension + 0.5)  # floor((norm / distance)^2) orthogonal directions reach the half-space
    network = half_space(NORMAL, 0.2)
    assert adversarial_dimension(network, GREY, LABEL, norm).tolist() == [dimension]
    if dimension == 5:
        random = random_dimension(network, GREY, LABEL, norm, generator=torch.Generator().manual_seed(0))
        assert int(random) < 5
    assert adversarial_dimension(network, GREY, LABEL, norm, most=3).item() == min(dimension, 3)


def test_half_of_the_perturbations_keep_an_example_on_a_flat_boundary_and_a_cap_one_beyond_it() -> None:
    generator = torch.Generator().manual_seed(0)
    unit = (NORMAL / NORMAL.norm()).view(1, 1, 5, 5)
    network = half_space(NORMAL, 0.2)
    on = survival(network, GREY + 0.2 * unit, LABEL, 0.3, num_draws=800, generator=generator)
    beyond = survival(network, GREY + 0.3 * unit, LABEL, 0.3, num_draws=800, generator=generator)
    lost = float(stats.beta.cdf(1 - (0.1 / 0.3) ** 2, 12, 0.5)) / 2
    assert float(on) == pytest.approx(0.5, abs=0.07)
    assert float(beyond) == pytest.approx(1 - lost, abs=0.05)


def test_a_linear_networks_transfer_is_the_cosine_of_the_normals() -> None:
    """A perturbation along one normal reaches another half-space at its distance over the cosine."""
    other = NORMAL + torch.randn(25, generator=torch.Generator().manual_seed(4))
    cosine = float(cosines(NORMAL[None], other[None]))
    network = half_space(other, 0.2)
    moved = GREY + 0.05 * (NORMAL / NORMAL.norm()).view(1, 1, 5, 5)
    needed = 0.2 / cosine / 5  # per-pixel RMS of 25 pixels
    curve = transfer_curve(
        network, GREY, moved, LABEL, torch.tensor([1]), (0.99 * needed, 1.01 * needed), generator=torch.Generator()
    )
    assert curve.wrong.flatten().tolist() == [False, True]
    assert torch.equal(curve.wrong, curve.targeted) and not bool(curve.clean.any())
    assert curve.noise.shape == (2, 1)


def test_gradients_point_along_the_normal() -> None:
    gradient = input_gradients(half_space(NORMAL, 0.2), GREY, LABEL)
    assert float(cosines(gradient, NORMAL[None])) == pytest.approx(1, abs=1e-6)


def test_the_distance_of_a_half_space_is_predicted_from_noise() -> None:
    images = torch.cat([GREY, GREY, GREY + 0.4 * (NORMAL / NORMAL.norm()).view(1, 1, 5, 5)])
    found = noise_distance(
        half_space(NORMAL, 0.2), images, torch.zeros(3, dtype=torch.int64), stddevs=(0.02, 0.1, 0.3), num_draws=2000
    )
    assert float(found[0]) == pytest.approx(0.2, rel=0.1) and float(found[2]) == 0
    assert bool(noise_distance(half_space(NORMAL, 9.0), GREY, LABEL, num_draws=20).isnan().all())


def test_margins_are_those_of_the_label() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]])
    network = nn.Flatten()
    assert margins(network, logits.view(2, 1, 1, 3), torch.tensor([1, 1])).tolist() == [1.0, -5.0]


def test_a_shuffled_perturbation_has_the_values_and_one_without_directions_is_orthogonal_to_them() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 5, 5, generator=generator)
    moved = images + torch.randn(images.shape, generator=generator)
    mixed = shuffled(images, moved, generator=generator) - images
    torch.testing.assert_close(
        mixed.flatten(1).sort(1).values, (moved - images).flatten(1).sort(1).values, atol=1e-6, rtol=1e-5
    )
    assert not torch.allclose(mixed, moved - images)
    directions = torch.stack([NORMAL, 2 * NORMAL, NORMAL.flip(0)])
    left = (without_directions(images, moved, directions) - images).flatten(1)
    assert float((left @ directions.T).abs().max()) < 1e-4

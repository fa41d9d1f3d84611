"""Densities that are known: a Gaussian, a hand-counted neighbour, a bound below the integral."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats

from intriguing.controls import DENSITIES, MixtureDensity, NeighbourDensity, VariationalDensity, fit_density
from intriguing.statistics.ranking import area_under_roc


def test_one_gaussian_on_all_components_is_the_normal_density() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 4, generator=generator, dtype=torch.float64) @ torch.randn(
        4, 4, generator=generator, dtype=torch.float64
    )
    density = MixtureDensity(rows, components=1, dimensions=4, floor=1e-9)
    covariance = torch.cov(rows.T, correction=0)
    normal: Any = stats.multivariate_normal
    exact = normal(rows.mean(0).numpy(), covariance.numpy()).logpdf(rows[:20].numpy())
    torch.testing.assert_close(density.log_prob(rows[:20]), torch.from_numpy(exact), rtol=1e-5, atol=1e-5)


def test_what_leaves_the_principal_components_is_unlikely_by_the_rests_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = 0.1 * torch.randn(2000, 6, generator=generator, dtype=torch.float64)
    rows[:, :2] *= 10
    density = MixtureDensity(rows, components=1, dimensions=2)
    point, off = torch.zeros(1, 6, dtype=torch.float64), torch.zeros(1, 6, dtype=torch.float64)
    off[0, 4] = 0.3
    fall = float(density.log_prob(point) - density.log_prob(off))
    assert fall == pytest.approx(0.3**2 / (2 * 0.1**2), rel=0.1)  # 4.5 nats


def test_the_neighbours_density_is_counted_by_hand() -> None:
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    found = NeighbourDensity(rows, neighbours=2).log_prob(torch.tensor([[0.0, 0.0]]))
    assert float(found) == pytest.approx(math.log(2 / (3 * math.pi * 1.0**2)))


def test_the_bound_is_below_the_models_log_density() -> None:
    """With one value of the code, log p(x) is an integral on a line."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(200, 1, generator=generator) * torch.tensor([1.0, 0.5, 0.2])
    density = VariationalDensity(rows, hidden=8, latent=1, epochs=150, samples=64)
    codes = torch.linspace(-9, 9, 4001)
    scaled = (rows[:30] - density.mean) / density.scale
    with torch.no_grad():
        decoded = density.head.decode(codes[:, None, None]).expand(-1, 30, -1)
        joint = density.head.log_likelihood(scaled, decoded) - codes[:, None].square() / 2 - math.log(2 * math.pi) / 2
    exact = torch.logsumexp(joint.double(), 0) + math.log(18 / 4000) - 3 * math.log(density.scale)
    gap = exact - density.log_prob(rows[:30])
    assert float(gap.mean()) > 0 and float(gap.min()) > -0.7  # one estimate of 64 codes scatters
    assert float(gap.mean()) < 2


@pytest.mark.parametrize("kind", DENSITIES)
def test_every_density_ranks_points_of_the_data_above_points_far_from_it(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    line = torch.rand(400, 1, generator=generator).repeat(1, 9).view(-1, 1, 3, 3)
    line = line + 0.02 * torch.randn(line.shape, generator=generator)
    density = fit_density(kind, line[:300])
    clean, far = line[300:], line[300:] + 0.3 * torch.randn(100, 1, 3, 3, generator=generator)
    assert area_under_roc(density.log_prob(clean), density.log_prob(far), paired=True).value > 0.95
    torch.testing.assert_close(density.log_prob(clean[:3]), density.log_prob(clean)[:3], rtol=1e-4, atol=1e-3)


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a density out of"):
        fit_density("kde", torch.rand(5, 2))
    with pytest.raises(ValueError, match="two rows"):
        fit_density("mixture", torch.rand(1, 2))

"""Splitting on half-spaces, whose probability is known; areas under ROC curves of known samples."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from scipy import stats

from intriguing.controls import hit_probability
from intriguing.statistics.noise import predicted_distance
from intriguing.statistics.ranking import area_under_roc
from intriguing.statistics.rare import rare_probability


@pytest.mark.parametrize("distance", [0.5, 3.0, 4.5])
def test_a_half_space_has_the_probability_of_the_normal(distance: float) -> None:
    found = rare_probability(
        lambda z: distance - z[:, 0], 20, num_runs=8, num_draws=400, generator=torch.Generator().manual_seed(1)
    )
    exact = float(stats.norm.sf(distance))
    spread = float(found.runs.std()) / math.sqrt(8)
    assert abs(found.value - exact) < 4 * spread + 0.15 * exact
    assert found.interval.low <= found.value <= found.interval.high
    assert not found.is_below and found.num_scores >= 8 * 400


def test_what_is_below_the_limit_is_said_to_be_below() -> None:
    found = rare_probability(lambda z: 9 - z[:, 0], 3, lowest=1e-4, generator=torch.Generator().manual_seed(0))
    assert found.is_below and found.value < 1e-4 and found.num_scores < 4 * 500 * 10 * 6


def test_noise_of_a_norm_hits_a_half_space_as_often_as_the_sphere_says() -> None:
    """The cap at height h of the unit sphere in n dimensions has the share I_{1 - h^2}((n - 1) / 2, 1 / 2) / 2."""
    values, distance, norm = 12, 0.3, 0.4
    linear = torch.nn.Linear(values, 2)
    with torch.no_grad():
        linear.weight.zero_()
        linear.weight[1, 0] = 1
        linear.bias.copy_(torch.tensor([distance + 0.5, 0.0]))
    image = torch.full((1, 3, 4), 0.5)
    found = hit_probability(
        torch.nn.Sequential(torch.nn.Flatten(), linear),
        image,
        0,
        norm,
        num_runs=8,
        num_draws=400,
        generator=torch.Generator().manual_seed(2),
    )
    exact = float(stats.beta.cdf(1 - (distance / norm) ** 2, (values - 1) / 2, 0.5)) / 2
    assert exact < 2e-3
    assert abs(found.value - exact) < 4 * float(found.runs.std()) / math.sqrt(8) + 0.15 * exact


@pytest.mark.parametrize("change", [{"keep": 0.7}, {"lowest": 0}, {"num_runs": 1}, {"num_draws": 3}])
def test_settings_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        rare_probability(lambda z: z[:, 0], 2, **change)  # pyright: ignore[reportArgumentType]


def test_a_score_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="one finite number for each draw"):
        rare_probability(lambda z: z, 2)


def test_the_area_is_the_share_of_ordered_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(0, 6, (17,), generator=generator), torch.randint(0, 5, (11,), generator=generator)
    pairs = [(a > b) + (a == b) / 2 for a, b in product(first.tolist(), second.tolist())]
    assert area_under_roc(first, second).value == pytest.approx(sum(pairs) / len(pairs))


def test_the_area_of_two_normals_is_inside_its_interval_as_often_as_it_says() -> None:
    """P(X + 1 > Y) of two standard normals is Phi(1 / sqrt 2)."""
    generator = torch.Generator().manual_seed(0)
    exact, inside = float(stats.norm.cdf(1 / math.sqrt(2))), 0
    for _ in range(200):
        found = area_under_roc(torch.randn(60, generator=generator) + 1, torch.randn(60, generator=generator))
        assert found.interval is not None
        inside += found.interval.low <= exact <= found.interval.high
    assert 181 <= inside <= 198


def test_pairs_that_move_together_have_a_narrower_interval() -> None:
    base = torch.randn(80, generator=torch.Generator().manual_seed(0))
    together, apart = area_under_roc(base + 0.3, base, paired=True), area_under_roc(base + 0.3, base)
    assert together.value == apart.value
    assert together.interval is not None and apart.interval is not None
    assert together.interval.high - together.interval.low < 0.5 * (apart.interval.high - apart.interval.low)
    with pytest.raises(ValueError, match="pairs need equally many"):
        area_under_roc(base, base[1:], paired=True)


def test_the_half_space_that_errs_as_often_lies_where_it_should() -> None:
    distances = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    errors = torch.from_numpy(stats.norm.sf(distances / 0.7))
    torch.testing.assert_close(predicted_distance(errors, 0.7), distances)
    assert predicted_distance(torch.tensor([0.0, 0.5, 0.9]), 1.0).tolist() == [math.inf, 0.0, 0.0]

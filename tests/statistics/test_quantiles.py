"""Intervals of quantiles from order statistics."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from intriguing.statistics.quantiles import quantile, quantile_interval


def test_a_quantile_is_an_order_statistic_also_among_infinite_values() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, math.inf, math.inf])
    assert quantile(values, 0.5) == 3.0
    assert quantile(values, 0.9) == math.inf
    assert quantile(values[:3], 0.5) == 2.0


@pytest.mark.parametrize("count", [12, 60, 150])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_intervals_cover_the_true_quantile_nineteen_times_in_twenty(count: int, share: float) -> None:
    generator = torch.Generator().manual_seed(count)
    truth, trials = float(stats.expon.ppf(share)), 600
    held = 0
    for _ in range(trials):
        values = torch.empty(count, dtype=torch.float64).exponential_(generator=generator)
        low, high = quantile_interval(values, share)
        held += low <= truth <= high
    assert 0.92 <= held / trials <= 0.995


def test_ends_without_an_order_statistic_are_open() -> None:
    low, high = quantile_interval(torch.tensor([1.0, 2.0, 3.0]), 0.5)
    assert (low, high) == (0.0, math.inf)
    few_failures = torch.cat([torch.arange(1.0, 96.0), torch.full((5,), math.inf)])
    low, high = quantile_interval(few_failures, 0.5)
    assert 35 < low < 50 < high < 62
    assert quantile_interval(few_failures, 0.95).high == math.inf


def test_exact_order_statistics_hold_where_the_binomial_meets_the_level() -> None:
    """With 6 values the extremes cover the median with probability 1 - 2 / 64: the exact interval at that level."""
    low, high = quantile_interval(torch.arange(1.0, 7.0), 0.5, confidence=1 - 2 / 64)
    assert low == pytest.approx(1.0)
    assert high == pytest.approx(6.0)


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([math.nan], 0.5), ([1.0], 0.0), ([1.0], 1.0)])
def test_what_is_no_sample_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match=r"expected|share"):
        quantile_interval(torch.tensor(values), share)

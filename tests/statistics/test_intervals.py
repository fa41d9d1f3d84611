"""Counts and confidence intervals against SciPy, published values and simulation."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binomtest, norm, ttest_1samp

from intriguing.statistics.counts import Count, PairedCounts, paired_counts
from intriguing.statistics.intervals import Interval, excess_interval, intervals_meet, mean_interval, wilson_interval

COUNTS = st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))).filter(lambda kn: kn[1] > 0)


def test_counts_have_a_rate_and_are_summed():
    one, other = Count(1, 3), Count.of(torch.tensor([True, True, False]))
    assert other == Count(2, 3)
    assert sum([one, other], Count(0, 0)) == Count(3, 6)
    assert (one + other).rate == 0.5 and (one + other).percent == 50
    assert math.isnan(Count(0, 0).rate) and math.isnan(Count(0, 0).percent)


@pytest.mark.parametrize(("k", "n"), [(4, 3), (-1, 3)])
def test_a_count_is_no_larger_than_its_number(k, n):
    with pytest.raises(ValueError, match="k must lie between 0 and n"):
        Count(k, n)


def test_an_interval_of_fractions_is_written_in_percent():
    assert Interval(0.25, 0.5).percent == (25, 50)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", Table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_has_its_published_values(k, n, low, high):
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=5e-5)


@given(COUNTS, st.floats(0.5, 0.999))
def test_wilson_interval_is_scipys_and_solves_its_equation(count, confidence):
    k, n = count
    interval = wilson_interval(k, n, confidence=confidence)
    reference = binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert interval == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert 0 <= interval.low <= k / n <= interval.high <= 1
    z = norm.ppf((1 + confidence) / 2)
    if k < n:  # its ends are the p whose score test is exactly at its limit
        end = brentq(lambda p: (k / n - p) + z * math.sqrt(p * (1 - p) / n), k / n + 1e-12, 1 - 1e-15)
        assert interval.high == pytest.approx(end, abs=1e-6)


def test_wilson_interval_is_exact_at_the_ends():
    assert wilson_interval(0, 256).low == 0.0
    assert wilson_interval(256, 256).high == 1.0


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0), (math.nan, 5)])
def test_wilson_interval_says_what_came(k, n):
    with pytest.raises(ValueError, match="0 <= k <= n"):
        wilson_interval(k, n)


def test_confidence_must_be_a_probability():
    with pytest.raises(ValueError, match="strictly between 0 and 1, got 95"):
        wilson_interval(1, 2, confidence=95)


def test_intervals_meet_if_they_share_a_point():
    assert intervals_meet(Interval(0, 1), Interval(1, 2))
    assert intervals_meet(Interval(0, 3), Interval(1, 2))
    assert not intervals_meet(Interval(0, 1), Interval(1.001, 2))


def test_mean_interval_is_students_t():
    values = [0.05, 0.07, 0.055, 0.1]
    mean, std = statistics.fmean(values), statistics.stdev(values)
    assert mean_interval(mean, std, 4) == pytest.approx(ttest_1samp(values, 0).confidence_interval(0.95), abs=1e-12)
    assert all(math.isnan(end) for end in mean_interval(0.05, 0.0, 1))


@given(st.lists(st.integers(1, 60), min_size=4, max_size=4), st.integers(1, 5))
def test_a_repeated_table_with_its_design_effect_is_the_table_once(entries, times):
    once, repeated = PairedCounts(*entries), PairedCounts(*(times * k for k in entries))
    assert excess_interval(repeated, design_effect=times) == pytest.approx(excess_interval(once), abs=1e-12)
    with pytest.raises(ValueError, match="design_effect must be at least 1"):
        excess_interval(once, design_effect=0.5)


def test_paired_counts_are_a_two_by_two_table():
    first = torch.tensor([True, True, True, False, False, False])
    second = torch.tensor([True, False, False, True, False, False])
    counts = paired_counts(first, second)
    assert counts == PairedCounts(1, 2, 1, 2)
    assert (counts.n, counts.first, counts.second) == (6, Count(3, 6), Count(2, 6))
    assert counts + counts == PairedCounts(2, 4, 2, 4)
    assert counts.excess == pytest.approx(1 / 6)
    assert math.isnan(PairedCounts(0, 0, 0, 0).excess)


def test_excess_interval_has_its_published_value():
    # Airway hyper-responsiveness (Bentur 2009), the worked example of R's contingencytables: -.507 to -.026.
    assert excess_interval(PairedCounts(1, 1, 7, 12)) == pytest.approx((-0.507, -0.026), abs=5e-4)


@given(st.lists(st.integers(0, 60), min_size=4, max_size=4).filter(any))
def test_excess_interval_holds_its_estimate_and_is_antisymmetric(entries):
    counts = PairedCounts(*entries)
    interval = excess_interval(counts)
    assert -1 <= interval.low <= counts.excess <= interval.high <= 1
    mirrored = excess_interval(PairedCounts(entries[0], entries[2], entries[1], entries[3]))
    assert mirrored == pytest.approx((-interval.high, -interval.low), abs=1e-12)


def test_excess_interval_covers_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    truth, hits, trials = 0.15 - 0.05, 0, 600
    for _ in range(trials):  # second: 5 % wrong; first: those and 10.5 % of the others, so 15 % in all
        second = torch.rand(256, generator=generator) < 0.05
        first = second | (torch.rand(256, generator=generator) < 0.1 / 0.95)
        interval = excess_interval(paired_counts(first, second))
        hits += interval.low <= truth <= interval.high
    assert 0.93 <= hits / trials <= 0.99

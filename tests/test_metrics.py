import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binomtest, norm, ttest_1samp

from intriguing import metrics
from intriguing.metrics import distortion, equal_norm_gaussian, wrong
from intriguing.statistics.intervals import (
    Interval,
    PairedCounts,
    excess,
    excess_interval,
    intervals_meet,
    mean_interval,
    paired_counts,
    wilson_interval,
)

COUNTS = st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))).filter(lambda kn: kn[1] > 0)


def test_distortion_is_the_rms_change_per_pixel():
    inputs = torch.zeros(3, 1, 28, 28)
    adv_inputs = inputs.clone()
    adv_inputs[1] = 0.25
    adv_inputs[2, 0, 0, 0] = 1
    assert distortion(inputs, adv_inputs) == pytest.approx([0, 0.25, 1 / 28])


def test_l2_norm_is_28_times_the_distortion_on_mnist():
    torch.manual_seed(0)
    inputs, adv_inputs = torch.rand(2, 5, 1, 28, 28)
    l2 = (adv_inputs - inputs).flatten(1).norm(dim=1)
    torch.testing.assert_close(28 * distortion(inputs, adv_inputs), l2)


@pytest.mark.parametrize(("one", "other"), [((2, 3), (2, 4)), ((2,), (2,)), ((2, 1, 3), (1, 1, 3))])
def test_distortion_names_the_wrong_shapes(one, other):
    with pytest.raises(ValueError, match="must share one shape"):
        distortion(torch.zeros(one), torch.zeros(other))


def test_wrong_answers_are_counted_by_hand():
    logits = torch.eye(3)[[0, 1, 2, 2]]
    labels = torch.tensor([0, 1, 1, 2])
    assert wrong(logits, labels).tolist() == [False, False, True, False]


def test_wrong_refuses_logits_that_are_not_numbers():
    with pytest.raises(ValueError, match="NaN"):
        wrong(torch.tensor([[0.0, math.nan]]), torch.tensor([0]))


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
def test_wilson_interval_names_the_wrong_counts(k, n):
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
    assert (counts.n, counts.first, counts.second) == (6, 3, 2)
    assert counts + counts == PairedCounts(2, 4, 2, 4)
    assert excess(counts) == pytest.approx(1 / 6)
    assert math.isnan(excess(PairedCounts(0, 0, 0, 0)))


def test_excess_interval_has_its_published_value():
    # Airway hyper-responsiveness (Bentur 2009), the worked example of R's contingencytables: -.507 to -.026.
    assert excess_interval(PairedCounts(1, 1, 7, 12)) == pytest.approx((-0.507, -0.026), abs=5e-4)


@given(st.lists(st.integers(0, 60), min_size=4, max_size=4).filter(any))
def test_excess_interval_holds_its_estimate_and_is_antisymmetric(entries):
    counts = PairedCounts(*entries)
    interval = excess_interval(counts)
    assert -1 <= interval.low <= excess(counts) <= interval.high <= 1
    mirrored = excess_interval(PairedCounts(entries[0], entries[2], entries[1], entries[3]))
    assert mirrored == pytest.approx((-interval.high, -interval.low), abs=1e-12)


def test_excess_interval_has_its_nominal_coverage():
    generator = torch.Generator().manual_seed(0)
    truth, hits, trials = 0.15 - 0.05, 0, 600
    for _ in range(trials):  # second: 5 % wrong; first: those and 10.5 % of the others, so 15 % in all
        second = torch.rand(256, generator=generator) < 0.05
        first = second | (torch.rand(256, generator=generator) < 0.1 / 0.95)
        interval = excess_interval(paired_counts(first, second))
        hits += interval.low <= truth <= interval.high
    assert 0.93 <= hits / trials <= 0.99


def test_equal_norm_gaussian_has_exactly_the_given_distortion():
    inputs = torch.rand(6, 1, 8, 8)
    wanted = torch.tensor([0.0, 0.01, 0.06, 0.1, 0.3, 1.0])
    noisy = equal_norm_gaussian(inputs, wanted, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(distortion(inputs, noisy), wanted, rtol=1e-5, atol=1e-7)
    assert noisy.min() < 0  # not clipped, as in the paper
    again = equal_norm_gaussian(inputs, wanted, generator=torch.Generator().manual_seed(0))
    assert torch.equal(noisy, again)


@pytest.mark.parametrize("bad", [math.inf, math.nan, -0.1])
def test_equal_norm_gaussian_refuses_failed_rows(bad):
    with pytest.raises(ValueError, match="finite"):
        equal_norm_gaussian(torch.zeros(2, 4), torch.tensor([0.1, bad]))


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-30, 1e-4, 300.0, 1e30])
def test_distortion_neither_underflows_nor_overflows(dtype, size):
    inputs = torch.zeros(2, 1, 3, 3, dtype=dtype)
    adv_inputs = inputs + torch.tensor([size, 0.0]).view(2, 1, 1, 1).to(dtype)
    expected = adv_inputs[:, 0, 0, 0].double()
    found = metrics.distortion(inputs, adv_inputs)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_distortion_is_that_of_exact_arithmetic_at_every_scale(scale):
    change = torch.rand(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = scale * (change.square().mean(dim=1)).sqrt()
    torch.testing.assert_close(
        metrics.distortion(torch.zeros_like(change), scale * change), expected, rtol=1e-12, atol=0
    )


def test_distortion_of_two_dtypes_is_taken_in_the_finer():
    inputs = torch.full((1, 4), 0.1, dtype=torch.float16)
    adv_inputs = inputs.double() + 1e-9
    torch.testing.assert_close(metrics.distortion(inputs, adv_inputs), torch.tensor([1e-9]).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-3, 0.1, 50.0])
def test_noise_of_equal_norm_has_its_distortion_in_half_precision_too(dtype, size):
    inputs = torch.zeros(2, 400, dtype=dtype)
    noisy = metrics.equal_norm_gaussian(inputs, torch.full((2,), size), generator=torch.Generator().manual_seed(0))
    assert noisy.dtype == dtype
    torch.testing.assert_close(
        metrics.distortion(inputs, noisy).double(), torch.full((2,), size).double(), rtol=1e-2, atol=0
    )


@pytest.mark.parametrize("dtype", INTEGERS)
def test_labels_of_every_integer_type_are_compared(dtype):
    labels = torch.tensor([0, 100, 127], dtype=dtype)
    logits = torch.nn.functional.one_hot(torch.tensor([0, 100, 199]), 200).to(torch.bfloat16)
    logits[:, 150] = -torch.inf  # a class that is masked
    assert metrics.wrong(logits, labels).tolist() == [False, False, True]


@pytest.mark.parametrize("labels", [torch.zeros(2), torch.zeros(2, dtype=torch.bool), [0, 0]])
def test_labels_that_are_not_integers_are_refused(labels):
    with pytest.raises(TypeError, match="labels must be"):
        metrics.wrong(torch.zeros(2, 3), labels)


def test_metrics_do_not_modify_their_arguments():
    inputs, adv_inputs = torch.rand(2, 4), torch.rand(1, 4).expand(2, 4)
    logits, labels = torch.rand(2, 3), torch.tensor([0, 1])
    given = (inputs, adv_inputs, logits, labels)
    versions = [one._version for one in given]
    metrics.distortion(inputs, adv_inputs)
    metrics.equal_norm_gaussian(inputs, metrics.distortion(inputs, adv_inputs))
    metrics.wrong(logits, labels)
    assert [one._version for one in given] == versions

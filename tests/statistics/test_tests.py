"""Intervals that cover, p-values that are uniform under their null, corrections against SciPy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from intriguing.statistics.intervals import bootstrap_interval, t_interval
from intriguing.statistics.tests import effect_size, holm, least_p, permutation_p, rotation_p
from intriguing.units import TopImages, random_orthonormal, sample_vectors, stream, unit_directions, whitening
from intriguing.units.activations import respond
from intriguing.units.chance import null_scores, random_sets
from intriguing.units.scores import label_entropy, label_purity, similarity, unit_rows


def test_random_sets_hold_no_image_twice_and_every_image_equally_often() -> None:
    for num_images, k in ((1000, 9), (12, 9), (9, 9)):
        sets = random_sets(num_images, k, 3000, generator=torch.Generator().manual_seed(0))
        assert all(len(set(row)) == k for row in sets.tolist())
        counts = torch.bincount(sets.flatten(), minlength=num_images).double()
        assert float((counts - 3000 * k / num_images).abs().max()) < 6 * math.sqrt(3000 * k / num_images)


def test_p_values_by_hand() -> None:
    null = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert permutation_p(torch.tensor([2.5, 2.0, 9.0, -1.0]), null).tolist() == [2 / 5, 3 / 5, 1 / 5, 1.0]
    assert permutation_p(torch.tensor([torch.nan]), null).tolist() == [1.0]
    assert rotation_p(9.0, null) == 2 / 5 and rotation_p(-9.0, null) == 2 / 5 and rotation_p(1.5, null) == 1.0


def test_p_values_of_random_sets_are_uniform_and_never_too_small_without_the_tie_breaking() -> None:
    """The row test under its null: labels that the images know nothing of. A purity of nine images has few values."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (1000,), generator=generator)
    rows = {"pixel_similarity": unit_rows(torch.randn(1000, 30, generator=generator))}
    null = null_scores(labels, rows, random_sets(1000, 9, 20_000, generator=generator))
    drawn = random_sets(1000, 9, 1500, generator=generator)
    observed = {
        "purity": label_purity(labels, drawn),
        "entropy": -label_entropy(labels, drawn),
        "pixel_similarity": similarity(rows["pixel_similarity"], drawn),
    }
    # With other random numbers a true null fails a test at level p once in 1 / p times: the level is far out.
    for name, values in observed.items():
        exact = permutation_p(values, null[name], generator=generator)
        assert stats.kstest(exact.numpy(), "uniform").pvalue > 1e-5, name
        careful = permutation_p(values, null[name])
        for level in (0.01, 0.05, 0.2):
            assert float((careful <= level).double().mean()) <= level + 4 * math.sqrt(level / 1500) + 0.01


def test_p_values_of_a_basis_are_uniform_on_an_untrained_whitened_control() -> None:
    """The basis test under its null: Gaussian weights prefer no basis, and whitening leaves no axis to prefer.

    The images are real digits with their labels, so the scores themselves are far from those of random sets.
    """
    from intriguing.data.arrays import digits

    arrays = digits()
    images, labels = arrays.images["full"], arrays.labels["full"]
    generator = torch.Generator().manual_seed(0)
    found = []
    for seed in range(120):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 12, bias=False))
        nn.init.normal_(model[1].weight)
        white = whitening(sample_vectors(model, ["1"], [(images, labels)])["1"])
        units = unit_directions(torch.arange(12), 12) @ white.matrix
        others = [random_orthonormal(12, 12, generator=generator) @ white.matrix for _ in range(39)]
        top = TopImages(9)
        for vectors, _, first in stream(model, ["1"], [(images, labels)]):
            responses = respond(vectors["1"], torch.cat([units, *others]))
            top.update(responses, torch.arange(first, first + len(responses)))
        means = similarity(unit_rows(images), top.indices).view(40, 12).mean(1)
        found.append(rotation_p(float(means[0]), means[1:]))
    # Twice the smaller of two values that each lie on multiples of 1 / 40: uniform on multiples of 1 / 20.
    assert (
        stats.kstest(torch.tensor(found).numpy() - torch.rand(120, generator=generator).numpy() / 20, "uniform")[1]
        > 1e-5
    )


SKEWED = {
    "normal": (lambda g, n: g.standard_normal(n), 0.0),
    "exponential": (lambda g, n: g.exponential(size=n), 1.0),
    "mostly zero": (lambda g, n: np.where(g.random(n) < 0.3, g.exponential(size=n), 0.0), 0.3),
    "shares of nine": (lambda g, n: g.binomial(9, 0.5, size=n) / 9, 0.5),
}


@pytest.mark.parametrize("kind", SKEWED)
def test_the_bootstrap_interval_of_32_values_covers_as_often_as_it_says(kind: str) -> None:
    """Also of skewed values, where the percentile bootstrap covers 90 %; 600 draws leave a standard error of 1 %."""
    draw, mean = SKEWED[kind]
    generator = np.random.default_rng(0)
    samples = [torch.from_numpy(draw(generator, 32)) for _ in range(600)]
    found = [bootstrap_interval(sample, num=400, seed=seed) for seed, sample in enumerate(samples)]
    assert 0.925 <= np.mean([one is not None and one.low <= mean <= one.high for one in found]) <= 0.99


@pytest.mark.parametrize("num", [3, 5])
def test_students_interval_of_a_few_values_covers_as_often_as_it_says(num: int) -> None:
    rows = torch.randn(2000, num, generator=torch.Generator().manual_seed(num))
    found = [t_interval(row) for row in rows]
    assert 0.93 <= np.mean([one is not None and one.low <= 0 <= one.high for one in found]) <= 0.97
    low, high = stats.t.interval(0.95, num - 1, rows[0].double().mean(), stats.sem(rows[0].double()))
    assert found[0] == pytest.approx((low, high))


def test_strata_add_their_variances_and_a_single_value_has_no_interval() -> None:
    groups = torch.tensor([0] * 20 + [1] * 20)
    assert bootstrap_interval(torch.tensor([0.0] * 20 + [1.0] * 20), groups=groups) == (0.5, 0.5)  # groups are given
    values = torch.randn(40, generator=torch.Generator().manual_seed(0)) + 100 * groups
    error = math.sqrt(sum(float(values[groups == g].double().var()) / 20 / 4 for g in (0, 1)))
    found = t_interval(values, groups=groups)
    assert found is not None
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 38) * error)
    assert t_interval(torch.ones(1)) is None and bootstrap_interval(torch.ones(1)) is None
    assert t_interval(torch.ones(2), groups=torch.arange(2)) is None


def test_the_least_p_of_a_number_of_bases_is_reached() -> None:
    for num in (19, 99, 999):
        assert rotation_p(2.0, torch.rand(num)) == pytest.approx(least_p(num)) == pytest.approx(2 / (1 + num))


def test_the_rotation_test_is_uniform_where_the_basis_is_one_of_the_random_ones() -> None:
    means = torch.randn(3000, 40, generator=torch.Generator().manual_seed(0))
    found = np.array([rotation_p(float(row[0]), row[1:]) for row in means])
    for level in (0.05, 0.1, 0.5):
        assert np.mean(found <= level + 1e-9) == pytest.approx(level, abs=0.035)


def test_effect_sizes_in_closed_form() -> None:
    first, second = torch.tensor([1.0, 2, 3, 4]), torch.tensor([3.0, 4, 5, 6])
    assert effect_size(first, second) == pytest.approx(-2 / math.sqrt(5 / 3) * (1 - 3 / 23))
    assert math.isnan(effect_size(first[:1], second))
    assert effect_size(torch.ones(3), torch.ones(3)) == 0
    assert effect_size(torch.ones(3), torch.zeros(3)) == math.inf


def test_the_correction_for_many_tests_is_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []


def test_wrong_calls_are_named() -> None:
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval(torch.tensor([1.0, torch.nan]))
    with pytest.raises(ValueError, match="1 to 5"):
        random_sets(5, 6, 1)

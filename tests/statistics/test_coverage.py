"""Every interval of a page holds the truth, and every p-value is small, as often as it says, at the studies' sizes."""

import interval_draws
import pytest
import torch

from intriguing.analysis.cells import distortion_cell, error_cell, excess_cell
from intriguing.statistics.clusters import clustered_mean, count_images, design_effect, sharing
from intriguing.statistics.counts import Count, PairedCounts
from intriguing.statistics.intervals import mean_interval, wilson_interval

TOO_WIDE = ("counts only", "0 decimals", "meet")  # and said to be
SCENARIOS = [*interval_draws.scenarios(), *interval_draws.more_scenarios()]
TESTS = list(interval_draws.tests())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[f"{s.interval}: {s.sample}" for s in SCENARIOS])
def test_an_interval_covers_as_often_as_it_says(scenario):
    share = interval_draws.coverage(scenario, 300)
    assert share >= 0.91  # .95 less three standard errors of 300 draws
    assert share <= 0.99 or any(words in f"{scenario.interval} {scenario.sample}" for words in TOO_WIDE)


@pytest.mark.parametrize("scenario", TESTS, ids=[f"{s.interval}: {s.sample}" for s in TESTS])
def test_a_p_value_is_small_as_often_as_it_says(scenario):
    share = interval_draws.coverage(scenario, 400)
    assert share <= 0.085  # .05 and three standard errors of 400 draws
    assert share >= 0.015


def test_one_network_has_no_design_effect():
    wrong, indices = torch.tensor([True, False, False, True, False]), torch.tensor([7, 1, 4, 0, 9])
    assert design_effect([wrong], [indices]) == 1
    cell = error_cell([(0, Count(2, 5))], by_image=[(wrong, indices)])
    assert cell is not None
    assert cell.interval == pytest.approx([100 * end for end in wilson_interval(2, 5)])


@pytest.mark.parametrize("seeds", [2, 5])
def test_networks_that_agree_on_every_image_are_one(seeds):
    generator = torch.Generator().manual_seed(seeds)
    wrong, indices = torch.rand(400, generator=generator) < 0.3, torch.randperm(400, generator=generator)
    sizes = torch.rand(400, generator=generator)
    k = int(wrong.sum())
    cell = error_cell([(s, Count(k, 400)) for s in range(seeds)], by_image=[(wrong, indices)] * seeds)
    assert cell is not None and (cell.k, cell.n, cell.num_images) == (seeds * k, seeds * 400, 400)
    # the variance of clusters is divided by 399, that of a proportion by 400
    assert cell.interval == pytest.approx([100 * end for end in wilson_interval(k, 400)], rel=2e-3)
    paired = [PairedCounts(0, k, 0, 400 - k)] * seeds
    difference = excess_cell(paired, by_image=[(wrong.int(), indices)] * seeds)
    once = excess_cell(paired[:1])
    assert difference is not None and once is not None and once.interval is not None
    assert difference.interval == pytest.approx(once.interval, rel=5e-3)
    mean = distortion_cell([sizes] * seeds, indices=[indices] * seeds)
    assert mean is not None
    assert mean.interval == pytest.approx(mean_interval(float(sizes.mean()), float(sizes.std()), 400))


def test_a_mean_over_clusters_is_that_of_their_sums():
    """Networks on the same images: the mean over all is the mean of the images' means, which are independent."""
    values = torch.rand(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = [torch.randperm(50, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    mean, interval = clustered_mean([row[o] for row, o in zip(values, order, strict=True)], order)
    images = values.mean(0)
    assert mean == pytest.approx(float(images.mean()))
    assert interval == pytest.approx(mean_interval(float(images.mean()), float(images.std()), 50))


def test_networks_on_other_images_are_independent():
    values = torch.rand(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wrong = values < 0.4
    indices = [torch.arange(50) + 50 * s for s in range(3)]
    assert design_effect(list(wrong), indices) == 1
    assert count_images(indices) == 150
    assert clustered_mean(list(values), indices)[1] == pytest.approx(
        mean_interval(float(values.mean()), float(values.flatten().std()), 150)
    )


def test_few_errors_count_as_if_networks_agreed():
    wrong = torch.zeros(3, 256, dtype=torch.bool)
    indices = [torch.arange(256)] * 3
    assert design_effect(list(wrong), indices) == 3
    wrong[0, :4] = wrong[1, 4:9] = True  # no image twice, but nine images tell little
    assert design_effect(list(wrong), indices) == 3
    wrong[2, 9:40] = True
    assert design_effect(list(wrong), indices) < 1.2
    assert design_effect(list(~wrong), indices) == design_effect(list(wrong), indices)


def test_without_images_seeds_count_as_if_they_agreed():
    cell = error_cell([(s, Count(k, 2000)) for s, k in enumerate((30, 40, 50))])
    assert cell is not None and (cell.k, cell.n, cell.num_images) == (120, 6000, 2000)
    assert cell.interval == pytest.approx([100 * end for end in wilson_interval(40, 2000)])
    mean = distortion_cell([torch.tensor([1.0, 2.0, 3.0])] * 2)
    assert mean is not None and mean.interval is not None and mean.num_images == 3
    assert mean.interval.high - mean.interval.low >= 2 * 4.30 * 0.8 / 3**0.5
    single = distortion_cell([torch.tensor([1.0])])
    assert single is not None and single.interval is None


def test_sharing_is_what_the_indices_say():
    first, second, third = torch.arange(10), torch.arange(8, 18), torch.arange(100, 110)
    assert sharing([first]) == ""
    assert sharing([first, first.flip(0)]) == "all"
    assert sharing([first, third]) == "none"
    assert sharing([first, second]) == "2 of 10"
    assert sharing([first, second, third]) == "0 to 2 of 10"


def test_values_must_fit_their_images():
    with pytest.raises(ValueError, match="one \\(N,\\) vector each"):
        design_effect([torch.zeros(3)], [torch.arange(2)])
    with pytest.raises(ValueError, match="at least one value"):
        clustered_mean([], [])

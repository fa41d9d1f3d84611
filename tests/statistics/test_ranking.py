"""The area under the ROC curve by brute force, and intervals with their coverage."""

from __future__ import annotations

import math

import pytest
import torch

from intriguing.statistics.counts import Count
from intriguing.statistics.ranking import area_under_roc, balanced_error


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randint(0, 6, (n,), generator=generator).double() for n in (17, 23))
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in one.tolist() for b in two.tolist()]
    assert area_under_roc(one, two).value == pytest.approx(sum(pairs) / len(pairs))
    assert area_under_roc(two, one).value == pytest.approx(1 - sum(pairs) / len(pairs))


def test_scores_that_do_not_overlap_have_no_interval() -> None:
    assert area_under_roc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == (1.0, None)
    with pytest.raises(ValueError, match="finite scores of both classes"):
        area_under_roc(torch.tensor([math.nan]), torch.tensor([0.0]))


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Normal scores one apart: the area is Phi(1 / sqrt 2). Errors of 20 and 10 %: the balanced error is 15 %."""
    generator = torch.Generator().manual_seed(0)
    truth = 0.5 * (1 + math.erf(0.5))
    held = [0, 0]
    for _ in range(600):
        one = torch.randn(40, generator=generator) + 1
        interval = area_under_roc(one, torch.randn(200, generator=generator)).interval
        held[0] += interval is not None and interval.low <= truth <= interval.high
        counts = [Count.of(torch.rand(n, generator=generator) < p) for n, p in ((60, 0.2), (300, 0.1))]
        found = balanced_error(*counts)
        assert found.interval is not None
        assert found.value == pytest.approx(sum(count.rate for count in counts) / 2)
        held[1] += found.interval.low <= 0.15 <= found.interval.high
    assert all(0.92 <= k / 600 <= 0.98 for k in held)

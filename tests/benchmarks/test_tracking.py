"""Propagations are counted around a network, and the nearest adversarial image within a budget is kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from tracking import BudgetSpent, RowsMixed, Tracked, judge


class Threshold(nn.Module):
    """Answer class 1 where the first pixel is above 0.5; the slope of the margin is 2."""

    def forward(self, images: Tensor) -> Tensor:
        first = images.flatten(1)[:, 0]
        return torch.stack([0.5 - first, first - 0.5], dim=1)


INPUTS = torch.tensor([[0.1, 0.9], [0.4, 0.0]]).view(2, 1, 1, 2)
LABELS = torch.tensor([0, 0])


def _moved(*firsts: float) -> Tensor:
    images = INPUTS[: len(firsts)].clone()
    images[:, 0, 0, 0] = torch.tensor(firsts)
    return images


def test_each_gradient_counts_and_a_forward_without_one_too() -> None:
    tracked = Tracked(Threshold(), INPUTS, LABELS, False, 10)
    with torch.no_grad():
        tracked(INPUTS)
    x = INPUTS.clone().requires_grad_()
    logits = tracked(x)
    torch.autograd.grad(logits[:, 0].sum(), x, retain_graph=True)
    torch.autograd.grad(logits[:, 1].sum(), x)
    assert tracked.total == 8
    assert tracked.spent.tolist() == [4, 4]


def test_the_nearest_success_within_the_budget_is_kept() -> None:
    tracked = Tracked(Threshold(), INPUTS, LABELS, False, 3)
    tracked(_moved(0.9, 0.3))
    tracked(_moved(0.7, 0.8))
    tracked(_moved(0.8, 0.6))
    torch.testing.assert_close(tracked.nearest, torch.tensor([0.6, 0.2]))
    with pytest.raises(BudgetSpent):
        tracked(_moved(0.51, 0.51))
    torch.testing.assert_close(tracked.nearest, torch.tensor([0.6, 0.2]))


def test_of_many_rows_of_one_image_those_beyond_the_budget_do_not_count() -> None:
    tracked = Tracked(Threshold(), INPUTS[:1], LABELS[:1], False, 2)
    tracked(torch.cat([_moved(0.9), _moved(0.7), _moved(0.6)]))
    torch.testing.assert_close(tracked.nearest, torch.tensor([0.6]))
    assert tracked.spent.tolist() == [3]


def test_passes_that_many_images_share_are_not_counted() -> None:
    tracked = Tracked(Threshold(), INPUTS[:1], LABELS[:1], False, 2, shared=3)
    tracked(torch.cat([_moved(0.9)] * 4))
    tracked(_moved(0.7))
    assert tracked.spent.tolist() == [2]
    torch.testing.assert_close(tracked.nearest, torch.tensor([0.6]))
    with pytest.raises(BudgetSpent):
        tracked(_moved(0.6))


def test_rows_that_cannot_be_given_to_their_images_are_refused_with_a_budget_only() -> None:
    with pytest.raises(RowsMixed):
        Tracked(Threshold(), INPUTS, LABELS, False, 9)(INPUTS[:1])
    tracked = Tracked(Threshold(), INPUTS, LABELS, False)
    tracked(INPUTS[:1])
    assert tracked.total == 1


def test_no_attack_hides_the_end_of_a_budget() -> None:
    assert not issubclass(BudgetSpent, Exception) and not issubclass(RowsMixed, Exception)


def test_an_image_outside_by_a_rounding_is_clipped_and_keeps_its_gradient() -> None:
    tracked = Tracked(Threshold(), INPUTS, LABELS, False)
    x = torch.tensor([[1.0, 0.0], [-1e-7, 1.0]]).view(2, 1, 1, 2).requires_grad_()
    logits = tracked(x)
    (slope,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), x)
    assert slope[:, 0, 0, 0].tolist() == [2.0, 2.0]
    assert logits[1, 0].item() == 0.5


def test_what_an_attack_returns_is_classified_again() -> None:
    found = torch.cat([_moved(0.6), INPUTS[1:] + 5])
    distances = judge(Threshold(), INPUTS, found, LABELS, targeted=False)
    torch.testing.assert_close(distances, torch.tensor([0.5, torch.inf]))
    assert judge(Threshold(), INPUTS, found, torch.tensor([0, 0]), targeted=True).isinf().all()
    assert judge(Threshold(), INPUTS, INPUTS * torch.nan, LABELS, targeted=False).isinf().all()

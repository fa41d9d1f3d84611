"""Answers over batches: counted by hand, in evaluation mode, whatever the size of a batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from intriguing.data import Subset
from intriguing.nn.evaluation import count_wrong, logits, wrong_answers
from intriguing.nn.nonfinite import NotFiniteError
from intriguing.statistics.counts import Count

IMAGES = nn.functional.one_hot(torch.tensor([0, 1, 2, 2, 1]), 3).float().view(5, 3, 1, 1)
LABELS = torch.tensor([0, 1, 2, 1, 0])
SUBSET = Subset(IMAGES, LABELS, torch.arange(5))


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_wrong_answers_do_not_depend_on_the_batches(size: int) -> None:
    model = nn.Flatten()  # its answer is the pixel that is 1
    assert wrong_answers(model, SUBSET.batches(size)).tolist() == [False, False, False, True, True]
    assert count_wrong(model, SUBSET.batches(size)) == Count(2, 5)


def test_the_network_is_evaluated_without_gradients_and_left_in_its_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 3), nn.Dropout(0.9))
    model.train()
    outputs, labels = next(logits(model, SUBSET.batches(5)))
    assert not outputs.requires_grad and torch.equal(labels, LABELS)
    torch.testing.assert_close(outputs, model[1](IMAGES.flatten(1)))  # no dropout
    assert all(module.training for module in model.modules())


def test_no_image_is_no_answer() -> None:
    assert count_wrong(nn.Flatten(), []) == Count(0, 0)
    assert wrong_answers(nn.Flatten(), []).shape == (0,)


def test_logits_that_are_not_finite_name_the_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    with pytest.raises(NotFiniteError, match="is 1 "):
        count_wrong(model, SUBSET.batches(2))

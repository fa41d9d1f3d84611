"""Removing a direction against brute force; random directions of given variance."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from intriguing.statistics.counts import Count
from intriguing.units import ablate, equal_variance_directions


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))


def test_removing_is_projecting_for_all_directions_at_once_or_one_by_one() -> None:
    model, images, labels = _network(), torch.rand(50, 1, 8, 8), torch.randint(0, 5, (50,))
    directions = torch.cat([torch.eye(4)[:2], torch.tensor([[0.6, 0.0, 0.8, 0.0]])])
    mean = torch.tensor([0.1, 0.2, 0.0, 0.3])
    found = ablate(model, "1", [(images[:30], labels[:30]), (images[30:], labels[30:])], directions, mean)
    with torch.no_grad():
        hidden = model[1](model[0](images))
        assert found.whole == Count(int((model(images).argmax(1) != labels).sum()), 50)
        for v, wrong in zip(directions, found.removed, strict=True):
            projection = torch.outer(v, v)
            left = hidden - torch.einsum("dc,nchw->ndhw", projection, hidden - mean[None, :, None, None])
            assert int(wrong) == int((model[2:](left).argmax(1) != labels).sum())
    torch.testing.assert_close(found.drop, (found.removed - found.whole.k).double() / 50)
    assert not model[1]._forward_hooks


def test_removing_the_unit_of_a_class_costs_the_class_and_a_silent_unit_nothing() -> None:
    model = nn.Sequential(nn.Identity(), nn.Identity())
    labels = torch.arange(3).repeat(20)
    images = nn.functional.one_hot(labels, 3).float()
    images = torch.cat([images, torch.zeros(60, 1)], 1)
    found = ablate(model, "0", [(images, labels)], torch.eye(4), torch.tensor([0.0, 0.0, 0.0, 0.0]))
    assert found.whole.k == 0 and found.removed.tolist() == [0, 20, 20, 0]  # of equal logits the first class wins


def test_random_directions_have_the_given_variance_and_are_random() -> None:
    torch.manual_seed(0)
    mixing = torch.randn(10, 10)
    covariance = mixing @ mixing.T
    values = torch.linalg.eigvalsh(covariance)
    wanted = torch.linspace(float(values[0]) * 1.05, float(values[-1]) * 0.95, 40)
    rows = equal_variance_directions(covariance, wanted, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(40))
    torch.testing.assert_close((rows @ covariance * rows).sum(1), wanted, rtol=1e-3, atol=1e-4)
    again = equal_variance_directions(covariance, wanted, generator=torch.Generator().manual_seed(1))
    assert float((rows * again).sum(1).abs()[10:30].mean()) < 0.8


def test_wrong_calls_are_named() -> None:
    model, batch = _network(), [(torch.rand(2, 1, 8, 8), torch.zeros(2).long())]
    with pytest.raises(ValueError, match="no layer x"):
        ablate(model, "x", batch, torch.eye(4), torch.zeros(4))
    with pytest.raises(ValueError, match="3 channels"):
        ablate(model, "1", batch, torch.eye(3), torch.zeros(3))
    with pytest.raises(ValueError, match="at least one image"):
        ablate(model, "1", [], torch.eye(4), torch.zeros(4))

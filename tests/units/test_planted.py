"""All scores on a network with units that are the labels, where the answers are known."""

from __future__ import annotations

import torch
from torch import nn

from intriguing.units import TopImages, fractional_rotation, linear_cka, random_rotation, stream
from intriguing.units.activations import respond
from intriguing.units.scores import RunningMoments, label_entropy, label_purity

K = 10


def _labels_as_units() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """An image of class c has pixel c at 1 and the others anywhere below .5; the layer passes it on."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2000) % K
    images = 0.5 * torch.rand(2000, K, generator=generator)
    images[torch.arange(2000), labels] = 1.0
    return nn.Sequential(nn.Identity()), images, labels


def _purity(directions: torch.Tensor) -> tuple[float, float, float]:
    model, images, labels = _labels_as_units()
    top, moments = TopImages(9), RunningMoments(K)
    for vectors, theirs, first in stream(model, ["0"], [(images, labels)]):
        responses = respond(vectors["0"], directions.float())
        top.update(responses, torch.arange(first, first + len(theirs)))
        moments.update(responses, theirs)
    purity, entropy = label_purity(labels, top.indices), label_entropy(labels, top.indices)
    return float(purity.mean()), float(entropy.mean()), float(moments.finish().selectivity.mean())


def test_planted_units_score_one_and_fall_along_the_rotation() -> None:
    curve = []
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        found = [
            _purity(fractional_rotation(random_rotation(K, generator=torch.Generator().manual_seed(seed)), fraction))
            for seed in range(20)
        ]
        curve.append(torch.tensor(found).mean(0))
    purity, entropy, selectivity = torch.stack(curve).T
    assert float(purity[0]) == 1 and float(entropy[0]) == 0
    # From three quarters of the rotation on, nothing remains of the units, and differences are chance.
    assert bool((purity[:4].diff() <= 0).all()) and float(purity[3:].max()) < 0.9
    assert bool((entropy[:4].diff() >= 0).all()) and float(entropy[3:].min()) > 0.2
    assert bool((selectivity[:4].diff() < 0).all()) and float(selectivity[3:].max()) < 0.7 * float(selectivity[0])


def test_the_unit_scores_see_a_rotation_that_cka_does_not() -> None:
    _, images, _ = _labels_as_units()
    purity = []
    for seed in range(10):
        rotation = random_rotation(K, generator=torch.Generator().manual_seed(seed))
        assert abs(linear_cka(images, images.double() @ rotation) - 1) < 1e-12
        purity.append(_purity(rotation)[0])
    assert _purity(torch.eye(K))[0] == 1 and sum(purity) / 10 < 0.9

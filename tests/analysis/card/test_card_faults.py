"""Ten wrong calls, each noticed in one line that has the remedy."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import intriguing as ig
from intriguing.analysis.card import Notice, RobustnessCard
from intriguing.errors import UserError


class Centres(nn.Module):
    """Answer with the nearest of four grey levels of the first row, which no normalisation changes by itself."""

    def __init__(self, *, scale: tuple[float, float] = (0.0, 1.0), dropout: float = 0.0) -> None:
        super().__init__()
        self.scale, self.drop = scale, nn.Dropout(dropout)
        self.register_buffer("centres", torch.tensor([0.1, 0.35, 0.65, 0.9]))

    def forward(self, images: Tensor) -> Tensor:
        mean, std = self.scale
        level = self.drop(images * std + mean).flatten(1).mean(1, keepdim=True)
        return -8 * (level - self.centres).square()


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    levels = torch.tensor([0.1, 0.35, 0.65, 0.9]).repeat(12).view(-1, 1, 1, 1)
    return (levels + 0.04 * torch.randn(48, 1, 4, 4, generator=generator)).clamp(0, 1)


LABELS = torch.arange(4).repeat(12)


def made(net: Callable, images: Tensor, labels: Tensor = LABELS) -> RobustnessCard:
    return ig.robustness_card(net, images, labels, name="net", minutes=30, max_images=40)


def notice(card: RobustnessCard, kind: str) -> Notice:
    found = [one for one in card.warnings if one.kind == kind]
    assert found, f"{kind} is not among {[one.kind for one in card.warnings]}"
    assert "\n" not in found[0].text + found[0].remedy
    return found[0]


def test_a_network_that_fits_its_images_gives_no_warning(images: Tensor) -> None:
    card = made(Centres(), images)
    assert [one.text for one in card.warnings] == []
    assert card.accuracy.value > 0.9


def test_probabilities(images: Tensor) -> None:
    net = Centres()
    found = notice(made(lambda x: net(x).softmax(1), images), "probabilities")
    assert "leave the softmax out" in found.remedy


def test_renumbered_labels(images: Tensor) -> None:
    found = notice(made(Centres(), images, (LABELS + 1) % 4), "permuted_labels")
    assert "100%" in found.text
    assert "number the classes" in found.remedy


def test_training_mode_is_measured_in_evaluation_mode_and_stays(images: Tensor) -> None:
    net = Centres(dropout=0.5).train()
    card = made(net, images)
    assert "model.eval()" in notice(card, "training_mode").remedy
    assert card.accuracy.value > 0.9
    assert net.training


def test_a_normalisation_that_the_network_lacks(images: Tensor) -> None:
    net = Centres(scale=(0.1307, 0.3081))  # right on (x - 0.1307) / 0.3081, which it undoes
    found = notice(made(net, images), "normalisation")
    assert "MNIST" in found.text
    assert "Normalize([0.1307], [0.3081])" in found.remedy


def test_constant_outputs(images: Tensor) -> None:
    card = made(lambda x: torch.zeros(len(x), 4) + 0 * x.sum(), images)
    assert "weights were loaded" in notice(card, "constant_outputs").remedy


def test_a_network_without_a_gradient_is_measured_without_an_attack(images: Tensor) -> None:
    net = Centres()
    card = made(lambda x: net(x.detach()), images)
    assert "without detach" in notice(card, "no_gradient").remedy
    assert card.l2 is None
    assert "minimal L2 distances" in [one.part for one in card.missing]
    assert card.noise_curve
    assert "could not be measured" in card._repr_html_()


def test_masked_gradients(images: Tensor) -> None:
    """Rounded inputs: the gradient is there, of another function, and misleads."""
    net = Centres()

    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, *grad_outputs):
            return -grad_outputs[0]

    card = made(lambda x: net(Rounded.apply(x)), images)
    found = {one.name: one for one in card.signs}
    assert found["no_descent"].suspicious
    assert found["no_descent"].value.value > 0.9
    notice(card, "masked_gradients")


def test_random_outputs(images: Tensor) -> None:
    net = Centres()
    found = notice(made(lambda x: net(x) + 0.05 * torch.randn(len(x), 4), images), "random_outputs")
    assert "random in evaluation mode" in found.text


def test_outputs_that_depend_on_the_batch(images: Tensor) -> None:
    net = Centres()
    card = made(lambda x: net(x) * x.std(dim=(0, 1, 2, 3)) / x[:1].std(), images)
    assert "by itself" in notice(card, "batch_dependent").remedy
    assert "random_outputs" not in [one.kind for one in card.warnings]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: made(nn.Sequential(nn.Flatten(), nn.Linear(9, 4)), x), "does not take images of shape (1, 4, 4)"),
        (lambda x: made(Centres(), 255 * x), "divide by 255"),
        (lambda x: made(Centres(), (x - 0.5) / 0.2), "leave normalisation to the network"),
        (lambda x: made(Centres(), x, LABELS + 5), "the labels go from 5 to 8, and net has 4 classes"),
        (lambda x: made(lambda y: Centres()(y) * math.nan, x), "nan"),
        (lambda x: made(lambda y: Centres()(y).argmax(1), x), "must return logits"),
        (lambda x: made(Centres(), x[:0], LABELS[:0]), "no image"),
        (lambda x: ig.robustness_card(Centres(), x, LABELS, minutes=0), "minutes must be a finite number above 0"),
        (lambda x: ig.robustness_card(Centres(), x, LABELS, effort="best"), "unknown effort 'best'"),
        (lambda x: ig.robustness_card(Centres(), x, LABELS, classes=["a"]), "classes has 1 names"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(images: Tensor, call: Callable, words: str) -> None:
    with pytest.raises(UserError) as caught:
        call(images)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)

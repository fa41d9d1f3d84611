"""A network that numbers its classes otherwise is found out; one that guesses is not explained away."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from intriguing.data import ImageData, from_tensors
from intriguing.models import ModuleClassifier
from intriguing.training.label_check import explained, renumbered, warn_of_labels

CLASSES = 12
ORDER = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(3))


class Reads(nn.Module):
    """Answer with the class that an image shows in its first pixel, under the network's own number."""

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        shown = (images[:, 0, 0, 0] * CLASSES).round().long().clamp(max=CLASSES - 1)
        return self.scale * nn.functional.one_hot(self.order[shown], CLASSES).float()


def _data(per_class: int) -> ImageData:
    labels = torch.arange(CLASSES).repeat(per_class)
    images = (labels / CLASSES).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return from_tensors((images, labels), (images, labels))


def _warned(order: Tensor, per_class: int, caplog: pytest.LogCaptureFixture, layers: tuple[str, ...] = ()) -> str:
    data = _data(per_class)
    net = ModuleClassifier(Reads(order), input_shape=data.input_shape, num_classes=CLASSES, label="net")
    wrong = int((order[data.test.labels] != data.test.labels).sum())
    with caplog.at_level(logging.WARNING):
        warn_of_labels(net, data, layers, wrong, len(data.test))
    return caplog.text


def test_a_right_network_is_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    assert not _warned(torch.arange(CLASSES), 4, caplog)


def test_a_permuted_order_is_found_from_several_images_of_a_class(caplog: pytest.LogCaptureFixture) -> None:
    text = _warned(ORDER.roll(1) if bool((torch.arange(CLASSES) == ORDER).any()) else ORDER, 4, caplog)
    assert "as many as by chance with 12 classes" in text
    assert "another order, as its answers show (24 of 24 images are right then" in text


def test_usual_orders_are_found_from_one_image_of_a_class(caplog: pytest.LogCaptureFixture) -> None:
    assert "one further (12 of 12 images are right then; for example, it calls 0 1)" in _warned(
        (torch.arange(CLASSES) + 1) % CLASSES, 1, caplog
    )
    names = tuple(f"{(5 * i) % CLASSES:02d}" for i in range(CLASSES))
    by_name = torch.tensor([int(name) for name in names])  # its place among the sorted names
    found = renumbered(by_name, torch.arange(CLASSES), names)
    assert found is not None and found.words == "that of their names" and found.right == CLASSES


def test_a_network_that_knows_nothing_is_not_explained() -> None:
    labels = torch.arange(CLASSES).repeat(20)
    guesses = torch.randint(CLASSES, labels.shape, generator=torch.Generator().manual_seed(0))
    assert renumbered(guesses, labels, tuple("abcdefghijkl")) is None
    assert "its weights are random, or" in explained(guesses, labels, tuple("abcdefghijkl"))
    assert renumbered(ORDER, torch.arange(CLASSES), tuple("abcdefghijkl")) is None  # one image a class shows nothing


def test_layers_without_weights_are_named(caplog: pytest.LogCaptureFixture) -> None:
    assert "do not fill fc, which is random: the network cannot tell 12 classes" in _warned(ORDER, 1, caplog, ("fc",))
    caplog.clear()
    assert "do not fill fc1, fc2, which are random: the network" in _warned(ORDER, 1, caplog, ("fc1", "fc2"))

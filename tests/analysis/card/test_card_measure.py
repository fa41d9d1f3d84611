"""A robustness card of networks whose truth is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import intriguing as ig
from intriguing.analysis.card.card import RobustnessCard
from intriguing.analysis.card.compare import BETTER, SAME, WORSE
from intriguing.analysis.card.numbers import Number, calibration_error
from intriguing.analysis.card.sample import stratified_order
from intriguing.errors import UserError

FAST = {"minutes": 30, "name": "linear"}  # all images are measured long before, on any machine


class Linear(nn.Module):
    """Two classes, with the boundary where the mean of the pixels is one half."""

    def __init__(self, pixels: int = 16) -> None:
        super().__init__()
        self.flatten, self.last = nn.Flatten(), nn.Linear(pixels, 2)
        with torch.no_grad():
            self.last.weight.copy_(torch.stack([-torch.ones(pixels), torch.ones(pixels)]))
            self.last.bias.copy_(torch.tensor([pixels / 2, -pixels / 2]))

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.flatten(images))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return 0.5 + 0.2 * (torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5)


@pytest.fixture(scope="module")
def card(images: Tensor) -> RobustnessCard:
    net = Linear()
    return ig.robustness_card(net, images, net(images).argmax(1), reference=Linear(), **FAST)


def test_distances_of_a_linear_network_are_those_to_its_boundary(card: RobustnessCard, images: Tensor) -> None:
    assert card.l2 is not None
    truth = (images.flatten(1).mean(1) - 0.5).abs() * 4  # |mean - 1/2| sqrt(16)
    found = torch.tensor(card.l2.distances)
    torch.testing.assert_close(found, truth[list(card.l2.indices)].to(found), rtol=1e-3, atol=1e-6)
    assert card.l2.median.low <= float(truth.median()) <= card.l2.median.high
    assert card.l2.rms.value == pytest.approx(card.l2.median.value / 4)


def test_the_certificate_of_a_linear_network_is_its_distance_and_never_above_the_attack(card: RobustnessCard) -> None:
    assert card.certificate is not None
    assert card.certified_curve is not None
    assert card.certificate.contradictions == 0
    attack = {point.at: point.accuracy.value for point in card.security_curve}
    shared = [point for point in card.certified_curve if point.at in attack]
    assert len(shared) > 2
    for point in shared:
        assert point.accuracy.value == pytest.approx(attack[point.at], abs=2 / 40)
        assert point.accuracy.value <= attack[point.at] + 1e-9


def test_noise_predicts_the_distance_of_a_flat_boundary(images: Tensor) -> None:
    """All images at one distance from a flat boundary: Ford's prediction is that distance."""
    net = Linear()
    many = torch.full((300, 1, 4, 4), 0.5 + 0.15 / 4)  # at L2 distance 0.15
    found = ig.robustness_card(net, many, torch.ones(300, dtype=torch.int64), **FAST).noise_prediction
    assert found is not None
    assert found.measured.value == pytest.approx(0.15, rel=1e-3)
    assert found.predicted.low <= 0.15 <= found.predicted.high


def test_examples_transfer_between_equal_networks(card: RobustnessCard) -> None:
    assert card.transfer is not None
    assert card.transfer.to.value == card.transfer.from_.value == 1.0


def test_a_card_repeats_and_a_larger_one_begins_with_a_smaller_one(images: Tensor) -> None:
    net = Linear()
    labels = net(images).argmax(1)
    first, again = (ig.robustness_card(net, images, labels, **FAST) for _ in range(2))
    without = {"cost": first.cost, "seconds": 0.0}
    assert replace(again, examples=(), **without).to_dict() == replace(first, examples=(), **without).to_dict()
    small = ig.robustness_card(net, images, labels, max_images=16, **FAST)
    assert small.l2 is not None
    assert first.l2 is not None
    assert small.l2.indices == first.l2.indices[:16]
    torch.testing.assert_close(torch.tensor(small.l2.distances), torch.tensor(first.l2.distances[:16]))


def test_a_saved_card_is_read_back(card: RobustnessCard, tmp_path) -> None:
    card.save(tmp_path / "card.json")
    back = RobustnessCard.load(tmp_path / "card.json")
    assert back.to_dict() == card.to_dict() == json.loads((tmp_path / "card.json").read_text())
    assert back.to_dict()["schema"] == 1
    infinite = replace(card, accuracy=Number(0.5, 0.0, math.inf, 3))
    assert infinite.to_dict()["accuracy"] == {"value": 0.5, "low": 0.0, "high": None, "n": 3}
    assert RobustnessCard.from_dict(infinite.to_dict()).accuracy.high == math.inf
    with pytest.raises(UserError, match=r"ends in \.html"):
        card.save(tmp_path / "card.pdf")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 99}, "schema 99"),
        ({"accuracy": 3}, "accuracy must be a mapping"),
        ({"extra": 3}, "extra is not known"),
        ({"name": 3}, "name must be a text"),
        ({"security_curve": [{"l2": 1}]}, "point of a curve"),
    ],
)
def test_a_file_that_is_no_card_is_refused_with_the_place(card: RobustnessCard, change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        RobustnessCard.from_dict(card.to_dict() | change)


def test_the_page_is_one_file_that_asks_for_nothing(card: RobustnessCard, tmp_path) -> None:
    card.save(tmp_path / "card.html")
    page = (tmp_path / "card.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count('class="number"') == 3
    for word in ("Transfer", "Accuracy under attack", "Gaussian noise", "Common corruptions", "Layer by layer", "Cost"):
        assert word in page
    assert card._repr_html_().startswith("<iframe")


def test_a_network_that_became_worse_is_named_and_an_equal_one_is_not(card: RobustnessCard, images: Tensor) -> None:
    assert {one.verdict for one in card.compare(card)} == {SAME}
    net = Linear()
    near = 0.5 + (images - 0.5) / 10  # ten times nearer to the boundary
    worse = ig.robustness_card(net, near, net(images).argmax(1), **FAST)
    verdicts = {one.name: one.verdict for one in worse.compare(card)}
    assert verdicts["median L2 distance"] == WORSE
    assert verdicts["accuracy"] == SAME
    assert {one.name: one.verdict for one in card.compare(worse)}["median L2 distance"] == BETTER
    with pytest.raises(UserError, match="cannot be compared"):
        card.compare(replace(card, shape=(3, 4, 4)))


def test_the_sample_is_stratified_at_every_length() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    order = stratified_order(labels, seed=3)
    assert sorted(order.tolist()) == list(range(100))
    for length in (10, 20, 50):
        counts = labels[order[:length]].bincount(minlength=3)
        for count, part in zip(counts.tolist(), (0.6, 0.3, 0.1), strict=True):
            assert abs(count - part * length) <= 1
    assert not torch.equal(order, stratified_order(labels, seed=4))


def test_the_calibration_error_of_calibrated_answers_covers_zero_and_that_of_others_the_gap() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = 0.5 + 0.5 * torch.rand(400, generator=generator)
    drawn = torch.rand(400, generator=generator)
    assert calibration_error(confidence, drawn < confidence).low == 0
    off = calibration_error(confidence, drawn < confidence - 0.2)
    assert off.low <= 0.2 <= off.high
    assert off.low > 0.1


def test_a_network_that_is_never_right_has_a_card_without_distances() -> None:
    net = Linear()
    images = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    card = ig.robustness_card(net, images, 1 - net(images).argmax(1), **FAST)
    assert card.accuracy.value == 0
    assert card.l2 is None
    assert card.security_curve[0].accuracy.value == 0
    assert "Robustness card" in card._repr_html_()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_layers_of_networks_of_every_type_are_followed(dtype: torch.dtype, images: Tensor) -> None:
    net = Linear().to(dtype)
    card = ig.robustness_card(net, images[:12].to(dtype), net(images[:12].to(dtype)).argmax(1), **FAST)
    assert card.layers is not None
    last = [one for one in card.layers if one.name.endswith("last")]
    assert len(last) == 1 and last[0].bound == pytest.approx(32**0.5, rel=1e-2)
    assert all(0 < one.adversarial < 10 for one in card.layers)

"""Section "filters": the first layer of any network, set beside the network before training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from intriguing.analysis import filters
from intriguing.analysis.inputs import Network
from intriguing.analysis.sections import SectionInputs
from intriguing.models import Classifier, ConvNet, FullyConnected, QuocNet

QUOCNET = {"maps": [3], "kernels": [4], "strides": [2], "pools": [2]}


def _network(label: str, module: Classifier, seed: int = 0) -> Network:
    config = {"seed": seed, "data": {"name": "cifar10"}, "model": {"name": module.name}}
    return Network.in_memory(label, module.eval(), name=f"{label}{seed}", errors={"test": [1, 10]}, config=config)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (ConvNet(input_shape=[3, 8, 8], num_classes=2, channels=[5], kernels=[3], widths=[]), (5, 3, 3, 3)),
        (FullyConnected(input_shape=[3, 8, 8], num_classes=2, widths=[4]), (4, 3, 8, 8)),
        (QuocNet(input_shape=[3, 8, 8], num_classes=2, **QUOCNET), (27, 3, 4, 4)),
    ],
)
def test_the_filters_are_those_of_the_first_layer(module: Classifier, shape: tuple[int, ...]) -> None:
    found = filters.first_filters(module, (3, 8, 8))
    assert found is not None
    assert tuple(found.shape) == shape


def test_a_first_layer_that_is_not_of_pixels_has_none() -> None:
    assert filters.first_filters(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), (3, 8, 8)) is None
    assert filters.first_filters(nn.Sequential(nn.Flatten()), (3, 8, 8)) is None


def test_local_filters_answer_in_the_picture_as_they_do_in_the_layer() -> None:
    module = QuocNet(input_shape=[3, 8, 8], num_classes=2, **QUOCNET)
    found, images = filters.first_filters(module, (3, 8, 8)), torch.rand(1, 3, 8, 8)
    assert found is not None
    layer = module.network.get_submodule("stage1.filter")
    second_position = (images[0, :, 0:4, 2:6] * found[3 + 1]).sum()  # 3 maps a position
    torch.testing.assert_close(layer(images)[0, 1, 0, 1], second_position)


def test_planted_edges_are_found_and_random_filters_are_not() -> None:
    nets = [ConvNet(input_shape=[3, 8, 8], num_classes=2, channels=[64], kernels=[7], widths=[]) for _ in range(2)]
    edge = torch.ones(7, 7)
    edge[:, 4:], edge[:, 3] = -1, 0
    with torch.no_grad():
        conv = nets[0].network.get_submodule("conv1")
        conv.weight.copy_(edge.expand_as(conv.weight))  # pyright: ignore[reportCallIssue, reportArgumentType]
    made = filters.section(
        SectionInputs(
            networks=[_network("edges", nets[0]), _network("noise", nets[1])], settings=filters.FilterSettings(shown=10)
        )
    )
    (table,) = made.tables
    assert table.cells["edges", filters.ABOVE].value == 1
    assert table.cells["edges", filters.WAVES].value == 1
    assert abs(table.cells["noise", filters.ABOVE].value - 0.5) < 0.2
    assert [figure.detail for figure in made.figures] == ["edges", "noise"]
    assert made.figures[0].note == "10 of 64 filters."
    assert len(made.summary) == 2


def test_the_probability_of_a_larger_value_counts_ties_half() -> None:
    one, two = torch.tensor([1.0, 2.0, math.nan]), torch.tensor([1.0, 0.0])
    assert filters.above(one, two) == pytest.approx((1.5 + 2) / 4)

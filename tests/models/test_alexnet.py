"""AlexNet: Table 5's sizes, and the walk of all its layers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from intriguing.models import AlexNet
from intriguing.spectral import jacobian_norms, lipschitz_bounds

COMMON: dict[str, Any] = {"label": "AlexNet", "weight_decay": [0.0] * 8}
IMAGENET: dict[str, Any] = {**COMMON, "input_shape": [3, 224, 224], "num_classes": 1000}
SMALL: dict[str, Any] = {**COMMON, "input_shape": [3, 63, 63], "num_classes": 5}


def test_table_5_has_these_sizes() -> None:
    model = AlexNet(**IMAGENET)
    layers = [layer for layer in model.network if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [
        *((96, 3, 11, 11), (256, 96, 5, 5), (384, 256, 3, 3), (384, 384, 3, 3), (256, 384, 3, 3)),
        *((4096, 9216), (4096, 4096), (1000, 4096)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("groups", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_every_layer_of_it_has_a_bound(groups: int) -> None:
    model = AlexNet(groups=groups, **SMALL).eval()
    layers = lipschitz_bounds(model, (3, 63, 63))
    kinds = [layer.kind for layer in layers]
    assert (kinds.count("Conv2d"), kinds.count("Linear"), kinds.count("LocalResponseNorm")) == (5, 3, 2)
    assert [layer.bound for layer in layers if layer.kind == "MaxPool2d"] == [2.0, 2.0, 1.0]  # the last is one window
    images = torch.rand(2, 3, 63, 63)
    assert float(jacobian_norms(model, images, num_steps=5).max()) <= math.prod(layer.bound for layer in layers)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"groups": 3}, "groups"), ({"dropout": 1.0}, "dropout"), ({"input_shape": [1, 28, 28]}, "63x63")],
)
def test_wrong_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AlexNet(**{**SMALL, **settings})

"""The convolutional networks: shapes, names of layers, weights that fit, and what is said where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from intriguing.models import ConvNet, TorchvisionModel
from intriguing.units import hidden_layers

LENET: dict[str, Any] = {"channels": [3, 4], "kernels": [5, 3], "widths": [6], "weight_decay": [0.0] * 4}
SMALL: dict[str, Any] = {"architecture": "squeezenet1_1", "weight_decay": 1e-5}


def _common(*shape: int, num_classes: int = 10) -> dict[str, Any]:
    return {"label": "net", "input_shape": list(shape), "num_classes": num_classes}


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 33, 20)])
def test_the_convnet_takes_any_image_that_can_be_pooled_twice(shape: tuple[int, ...]) -> None:
    model = ConvNet(**LENET, **_common(*shape))
    assert model(torch.rand(2, *shape)).shape == (2, 10)
    assert hidden_layers(model) == ["network.relu1", "network.relu2", "network.relu3"]
    assert model.network.conv1.weight.shape == (3, shape[0], 5, 5) and len(model.decayed_weights()) == 4


@pytest.mark.parametrize(
    ("change", "shape", "words"),
    [
        ({"kernels": [5]}, (1, 8, 8), "as long"),
        ({"kernels": [5, 4]}, (1, 8, 8), "odd"),
        ({"channels": [0, 4]}, (1, 8, 8), "model.settings.channels"),
        ({}, (1, 3, 8), "images of 3x8 are too small"),
        ({"weight_decay": [0.0]}, (1, 8, 8), "4 layers with weight decay"),
    ],
)
def test_wrong_sizes_are_named(change: dict[str, Any], shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ConvNet(**{**LENET, **change}, **_common(*shape))


def test_torchvisions_networks_normalise_first_and_are_decayed_at_every_depth() -> None:
    model = TorchvisionModel(**SMALL, **_common(3, 32, 32, num_classes=4)).eval()
    images = torch.rand(2, 3, 32, 32)
    assert model(images).shape == (2, 4)
    pixels = model.network.normalize(images)
    torch.testing.assert_close(pixels[0, 0, 0, 0], (images[0, 0, 0, 0] - 0.485) / 0.229)
    weights = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(model.decayed_weights()) == len(weights) > 10
    assert "network.model.features.1" in hidden_layers(model)


def test_weights_of_a_file_are_read_once_and_another_number_of_classes_keeps_a_fresh_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = TorchvisionModel(**SMALL, **_common(3, 32, 32, num_classes=7))
    file = tmp_path / "weights.pth"
    torch.save(source.network.model.state_dict(), file)
    same = TorchvisionModel(weights=str(file), **SMALL, **_common(3, 32, 32, num_classes=7))
    assert torch.equal(same.network.model.classifier[1].weight, source.network.model.classifier[1].weight)
    fewer = TorchvisionModel(weights=str(file), **SMALL, **_common(3, 32, 32, num_classes=4))
    assert fewer.network.model.classifier[1].weight.shape[0] == 4
    assert torch.equal(fewer.network.model.features[0].weight, source.network.model.features[0].weight)
    file.unlink()
    assert TorchvisionModel(**fewer.hparams)(torch.rand(1, 3, 32, 32)).shape == (1, 4)  # as a checkpoint loads


def test_weights_that_cannot_be_had_or_do_not_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / "none.pth").write_bytes(b"no weights")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for weights, words in (
        ("nowhere.pth", "no file nowhere.pth"),
        (str(tmp_path / "none.pth"), "not a state dict"),
        (str(tmp_path / "other.pth"), "do not fit"),
    ):
        with pytest.raises(ValueError, match=words):
            TorchvisionModel(weights=weights, **SMALL, **_common(3, 32, 32))
    with pytest.raises(ValueError, match=r"unknown model\.settings\.architecture 'alexnot'"):
        TorchvisionModel(architecture="alexnot", weight_decay=[0.0], **_common(3, 32, 32))
    with pytest.raises(ValueError, match="3 channels"):
        TorchvisionModel(**SMALL, **_common(1, 32, 32))

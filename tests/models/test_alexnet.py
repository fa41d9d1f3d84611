"""AlexNet: Table 5's sizes, the walk of its layers, and weights from a file or not at all; nothing is downloaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from intriguing.errors import UserError
from intriguing.models import AlexNet, TorchvisionAlexNet
from intriguing.models.alexnet import PUBLISHED
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


@pytest.mark.parametrize("groups", [1, 2])
def test_every_layer_of_it_has_a_bound(groups: int) -> None:
    model = AlexNet(groups=groups, **SMALL).eval()
    layers = lipschitz_bounds(model, (3, 63, 63))
    kinds = [layer.kind for layer in layers]
    assert (kinds.count("Conv2d"), kinds.count("Linear"), kinds.count("LocalResponseNorm")) == (5, 3, 2)
    assert [layer.bound for layer in layers if layer.kind == "MaxPool2d"] == [2.0, 2.0, 1.0]  # the last is one window
    images = torch.rand(2, 3, 63, 63)
    assert float(jacobian_norms(model, images, num_steps=5).max()) <= math.prod(layer.bound for layer in layers)


def test_published_weights_come_from_a_file_and_a_checkpoint_needs_neither(tmp_path: Path) -> None:
    torch.manual_seed(1)
    inner = torchvision.models.alexnet(num_classes=5)
    torch.save(inner.state_dict(), tmp_path / "weights.pth")
    model = TorchvisionAlexNet(weights=str(tmp_path / "weights.pth"), **SMALL).eval()
    assert model.hparams["weights"] is None
    images = torch.rand(2, 3, 63, 63)
    normalised = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(images)
    torch.testing.assert_close(model(images), inner.eval()(normalised))
    layers = lipschitz_bounds(model, (3, 63, 63))
    assert layers[0].kind == "Normalize" and layers[0].bound == pytest.approx(1 / 0.224)


def test_weights_that_are_not_there_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models.AlexNet_Weights, "get_state_dict", offline)
    with pytest.raises(UserError, match=r"cannot be downloaded here \(no route to host\); give a local file"):
        TorchvisionAlexNet(weights=PUBLISHED, **SMALL)
    with pytest.raises(UserError, match="there is no file"):
        TorchvisionAlexNet(weights=str(tmp_path / "none.pth"), **SMALL)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="do not fit"):
        TorchvisionAlexNet(weights=str(tmp_path / "other.pth"), **SMALL)
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(UserError, match="load safely"):
        TorchvisionAlexNet(weights=str(tmp_path / "text.pth"), **SMALL)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"groups": 3}, "groups"), ({"dropout": 1.0}, "dropout"), ({"input_shape": [1, 28, 28]}, "63x63")],
)
def test_wrong_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AlexNet(**{**SMALL, **settings})

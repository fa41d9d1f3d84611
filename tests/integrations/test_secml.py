"""The attacks as evasion attacks of the real SecML-Torch, where it is installed."""

from __future__ import annotations

import importlib
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "secmlt.adv.evasion.base_evasion_attack", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "intriguing.integrations.secml", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own imports
        with pytest.raises(ImportError, match=r"^this module needs secml-torch \(.*'intriguing\[secml\]'$") as raised:
            importlib.import_module("intriguing.integrations.secml")
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def secml():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own imports
        pytest.importorskip("secmlt.adv.evasion.base_evasion_attack", reason="secml-torch is not installed")
        import intriguing.integrations.secml as module
    return module


@pytest.fixture
def network() -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    model[1].weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]])
    model[1].bias.data = torch.zeros(3)
    return model


IMAGES = torch.tensor([[0.7, 0.4, 0.1, 0.1], [0.3, 0.8, 0.5, 0.2], [0.6, 0.4, 0.2, 0.1]]).view(3, 1, 2, 2)
LABELS = torch.tensor([0, 1, 0])


def test_a_loader_comes_back_with_adversarial_images_and_the_labels(secml, network: nn.Sequential) -> None:
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=2)
    batches = list(secml.Evasion("nearest")(network, loader))
    assert torch.cat([labels for _, labels in batches]).equal(LABELS)
    images = torch.cat([images for images, _ in batches])
    assert (network(images).argmax(dim=1) != LABELS).all()
    distances = (images - IMAGES).flatten(1).norm(dim=1)
    expected = torch.tensor([0.3 / 2**0.5, 0.1 / 3**0.5, 0.2 / 2**0.5])
    torch.testing.assert_close(distances, expected, rtol=1e-3, atol=1e-5)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_classifiers_preprocessing_belongs_to_the_network(secml, network: nn.Sequential) -> None:
    from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier

    model = BasePyTorchClassifier(network, preprocessing=lambda images: 1 - images)
    loader = DataLoader(TensorDataset(1 - IMAGES, LABELS), batch_size=3)
    ((images, _),) = list(secml.Evasion("nearest", y_target=2)(model, loader))
    assert model.predict(images).tolist() == [2, 2, 2]
    # (0.7 - 0.2, 0.8 - 0.7, 0.6 - 0.3) over the norm of a difference of three weights
    distances = (images - (1 - IMAGES)).flatten(1).norm(dim=1)
    torch.testing.assert_close(distances, torch.tensor([0.5, 0.1, 0.3]) / 3**0.5, rtol=1e-3, atol=1e-5)


def test_settings_and_names_are_checked(secml) -> None:
    with pytest.raises(TypeError, match="epsilon is no setting of nearest"):
        secml.Evasion("nearest", epsilon=1)
    with pytest.raises(ValueError, match="expected an attack out of"):
        secml.Evasion("near")
    assert secml.Evasion.get_perturbation_models() == {"l2"}

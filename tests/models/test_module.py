"""Any module as a Classifier: what it returns and takes, its decayed layers, its type; networks built later."""

from __future__ import annotations

import copy
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from planted_networks import ByKeyword, Chained, Double, Functional, Named, Tied
from safetensors.torch import save_file
from torch import nn

from intriguing.errors import UserError
from intriguing.models import FullyConnected, ModuleClassifier, TorchvisionModel
from intriguing.spectral import lipschitz_bounds
from intriguing.units.activations import hidden_layers

GREY: dict[str, Any] = {"input_shape": (1, 8, 8), "num_classes": 10}
IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (Functional, {}),
        (Chained, {}),
        (Named, {"output": "scores"}),
        (ByKeyword, {"input": "pixel_values"}),
        (ByKeyword, {"input": "pixel_values", "output": "logits"}),
        (Tied, {}),
        (Double, {}),
    ],
)
@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), 2), ((3, 8, 6), 300)])
def test_its_logits_are_the_modules_own(kind: Any, more: dict, shape: tuple[int, ...], classes: int) -> None:
    model = ModuleClassifier(kind, input_shape=shape, num_classes=classes, weight_decay=1e-3, **more).eval()
    (module,) = [one for one in model.modules() if type(one) is kind]
    images = torch.rand(3, *shape)
    found = module(pixel_values=images) if "input" in more else module(images.to(next(module.parameters()).dtype))
    found = found if isinstance(found, torch.Tensor) else found["scores"] if isinstance(found, dict) else found.logits
    assert torch.equal(model(images), found) and found.shape == (3, classes)
    loss = model.training_step([images, torch.zeros(3, dtype=torch.long)], 0)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("network", "more", "words"),
    [
        (Named, {}, "model.output=<entry>"),
        (Named, {"output": "score"}, "'embedding', 'scores'"),
        (ByKeyword, {}, "model.input=<keyword>"),
        (
            Functional,
            {"settings": {"widht": 3}},
            "planted_networks.Functional cannot be built with model.widht=3: TypeError: .*widht",
        ),
        (Functional, {"settings": {"num_classes": 7}}, r"shape \(2, 7\) for 2 images of 10 classes"),
        (nn.Flatten(), {}, r"torch.nn.modules.flatten.Flatten returns a tensor of shape \(2, 64\)"),
        (dict, {}, "builtins.dict builds a dict"),
        (Functional, {"weight_decay": [1.0]}, "2 layers with weight decay"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(network: Any, more: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        ModuleClassifier(network, **GREY, **more)
    assert "\n" not in str(caught.value)


def test_a_module_is_trained_as_it_is_and_keeps_the_names_of_its_layers() -> None:
    net = Functional((1, 8, 8), 10)
    model = ModuleClassifier(net, **GREY)
    assert model.network is net and "network" not in model.hparams
    assert model.label == "Functional" and model.hparams["target"] == "planted_networks.Functional"
    assert ModuleClassifier(Functional, settings={"width": 8}, **GREY).label == "Functional(width=8)"
    assert ModuleClassifier(partial(Functional, width=8), **GREY).label == "Functional"
    assert {f"weights/rms_{name}" for name in ("conv", "head")} == set(model.weight_sizes())
    assert hidden_layers(ModuleClassifier(Chained, **GREY)) == ["network.features.1", "network.head.1"]


def test_a_class_builds_an_untrained_copy_and_a_module_cannot() -> None:
    model = ModuleClassifier(Functional, settings={"width": 3}, label="mine", **GREY)
    copied = model.another()
    assert copied is not None and copied.label == "mine" and copied(IMAGES).shape == (5, 10)
    assert not torch.equal(copied.network.head.weight, model.network.head.weight)  # pyright: ignore
    assert ModuleClassifier(Functional((1, 8, 8), 10), **GREY).another() is None


def test_building_and_checking_change_neither_the_module_nor_the_random_state() -> None:
    net = Functional((1, 8, 8), 10).train()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    ModuleClassifier(net, **GREY)
    assert torch.equal(torch.get_rng_state(), state) and net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_decay_of_every_kind_of_layer_is_the_papers_gradient() -> None:
    """Shared weights decay once; weights that are computed from others (weight_norm) decay by the loss."""
    lambdas, rate = 0.3, 0.1
    steps = []
    for value in (0.0, lambdas):
        torch.manual_seed(0)
        net = Tied((1, 8, 8), 10)
        model = ModuleClassifier(
            net, weight_decay=value, normaliser="units", optimizer=partial(torch.optim.SGD, lr=rate), **GREY
        )
        assert [type(layer).__name__ for layer in model.decayed_layers()][:3] == ["Conv1d", "ConvTranspose1d", "Linear"]
        assert len(model.decayed_layers()) == 4
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        optimizer = model.configure_optimizers()
        model.training_step([IMAGES, torch.arange(5)], 0).backward()
        optimizer.step()
        steps.append({name: p.detach() - before[name] for name, p in net.named_parameters()})
    units = {"line.weight": 4, "up.weight": 2, "first.weight": 32}
    for name, k in units.items():
        expected = -rate * 2 * lambdas / k * before[name]
        torch.testing.assert_close(steps[1][name] - steps[0][name], expected, atol=1e-6, rtol=1e-4)
    size = before["head.parametrizations.weight.original0"]  # of weight_norm: the length of each row
    expected = -rate * 2 * lambdas / 10 * size
    moved = steps[1]["head.parametrizations.weight.original0"] - steps[0]["head.parametrizations.weight.original0"]
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=1e-4)
    assert torch.equal(steps[0]["line.bias"], steps[1]["line.bias"])


def test_spectral_penalties_take_what_has_a_bound_and_name_what_has_none() -> None:
    model = ModuleClassifier(Chained, spectral_penalty=0.1, weight_decay=0.0, **GREY)
    double = ModuleClassifier(Double, spectral_penalty=0.1, spectral_penalty_kind="margin", **GREY)
    for one in (model, double):
        assert one.training_step([IMAGES, torch.arange(5)], 0) > F.cross_entropy(one(IMAGES), torch.arange(5))
    with pytest.raises(ValueError, match="to penalise"):
        ModuleClassifier(
            nn.Sequential(nn.Flatten(), nn.Softmax(1)), spectral_penalty=0.1, input_shape=(1, 2, 2), num_classes=4
        )


def test_the_normalisation_is_the_first_layer_and_part_of_the_bound() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    plain = ModuleClassifier(net, input_shape=(3, 2, 2), num_classes=3)
    model = ModuleClassifier(net, mean=[0.1, 0.2, 0.3], std=[0.5, 0.5, 0.25], input_shape=(3, 2, 2), num_classes=3)
    images = torch.rand(4, 3, 2, 2)
    given = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.5, 0.25]).view(3, 1, 1)
    torch.testing.assert_close(model(images), plain(given))
    bounds = [math.prod(layer.bound for layer in lipschitz_bounds(one, (3, 2, 2))) for one in (plain, model)]
    assert bounds[1] == pytest.approx(4 * bounds[0])
    assert FullyConnected(widths=[3], mean=0.5, std=0.5, **GREY)(IMAGES).shape == (5, 10)
    colour = TorchvisionModel(architecture="alexnet", mean=0.5, std=0.5, input_shape=(3, 64, 64), num_classes=2)
    assert float(colour.network.normalize(torch.ones(1, 3, 1, 1)).max()) == 1.0  # pyright: ignore
    for wrong in ({"mean": 0.5}, {"mean": [0.5, 0.5], "std": 1.0}, {"mean": 0.5, "std": 0.0}):
        with pytest.raises(ValueError, match=r"data\.(mean|std)"):
            ModuleClassifier(net, input_shape=(3, 2, 2), num_classes=3, **wrong)


def test_a_network_is_built_when_its_images_are_known() -> None:
    model = FullyConnected(widths=[6])
    assert not model.is_built
    with pytest.raises(UserError, match=r"FullyConnected is not built yet.*\.build\(input_shape, num_classes\)"):
        model(IMAGES)
    torch.manual_seed(0)
    assert model.build((1, 8, 8), 10, weight_decay=[1e-3, 0.0]) is model and model.label == "FC6-10"
    torch.manual_seed(0)
    same = FullyConnected(widths=[6], label="FC6-10", weight_decay=[1e-3, 0.0], input_shape=[1, 8, 8], num_classes=10)
    assert torch.equal(model(IMAGES), same(IMAGES)) and dict(model.hparams) == dict(same.hparams)
    logits = model(IMAGES)
    model.build((1, 8, 8), 10, weight_decay=0.5)
    assert model.weight_decay == [0.5, 0.5] and torch.equal(model(IMAGES), logits)
    with pytest.raises(ValueError, match="is built for images of shape"):
        model.build((3, 8, 8), 10)
    with pytest.raises(ValueError, match="normaliser"):
        FullyConnected(widths=[6], normaliser=0)


def _files(folder: Path, net: nn.Module) -> dict[str, Path]:
    weights = net.state_dict()
    average = {name: value + 1 if value.is_floating_point() else value for name, value in weights.items()}
    contents: dict[str, Any] = {
        "plain.pt": weights,
        "lightning.ckpt": {"epoch": 3, "state_dict": {f"model.{name}": value for name, value in weights.items()}},
        "parallel.pth": {"model": {f"module._orig_mod.{name}": value for name, value in weights.items()}},
        "ema.pt": {"model": weights, "model_ema": average},
    }
    for name, content in contents.items():
        torch.save(content, folder / name)
    save_file(weights, folder / "net.safetensors")
    return {name: folder / name for name in (*contents, "net.safetensors")}


def test_weights_come_from_files_with_their_usual_wrappers(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = Functional((1, 8, 8), 10).eval()
    for name, file in _files(tmp_path, net).items():
        model = ModuleClassifier(Functional, weights=str(file), **GREY)
        shift = 1 if name == "ema.pt" else 0
        assert torch.equal(model.network.head.weight, net.head.weight + shift), name  # pyright: ignore
        assert model.hparams["weights"] is None


def test_weights_that_do_not_fit_or_would_run_code_are_refused(tmp_path: Path) -> None:
    net = Functional((1, 8, 8), 10)
    torch.save(net, tmp_path / "pickled.pt")
    torch.save({**net.state_dict(), "further": torch.zeros(1)}, tmp_path / "more.pt")
    torch.save({"conv.weight": net.conv.weight}, tmp_path / "less.pt")
    torch.save({"accuracy": 0.5}, tmp_path / "none.pt")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    for name, words in (
        ("pickled.pt", "a pickled module.*torch.save\\(net.state_dict"),
        ("more.pt", "1 unexpected \\(further\\)"),
        ("less.pt", "missing \\(conv.bias, head.bias, head.weight, \\.\\.\\.\\)"),
        ("none.pt", "tensors by name"),
        ("x.safetensors", "no file of safetensors"),
        ("nowhere.pt", "there is no file"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            ModuleClassifier(Functional, weights=str(tmp_path / name), **GREY)
        assert "\n" not in str(caught.value)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"conv.weight has shape \(4, 1, 3, 3\) there and \(5, 1, 3, 3\) here"):
        ModuleClassifier(Functional, settings={"width": 5}, weights=str(tmp_path / "net.pt"), **GREY)

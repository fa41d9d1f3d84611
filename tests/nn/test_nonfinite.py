"""A non-finite number stops the run, with one line that names step and layer, and keeps the last good checkpoint."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from intriguing.attacks import adam_l1, closest, lbfgs, nearest
from intriguing.callbacks import LayerPool, Pool, PoolMixing, PoolSettings
from intriguing.callbacks.split_network import injectable_layers
from intriguing.checkpoints import read_checkpoint
from intriguing.cli.config import training_job
from intriguing.errors import UserError
from intriguing.models import AlexNet, Classifier, ConvNet, FullyConnected, SparseAutoencoder, TorchvisionModel
from intriguing.nn.nonfinite import NotFiniteError, check_logits
from intriguing.training import fit

COMMON: dict[str, Any] = {"label": "net", "input_shape": [1, 8, 8], "num_classes": 10}
CODE: dict[str, Any] = {"units": 7, "pretrain_share": 0.5, "sparsity": 0.1, "sparsity_weight": 0.3}
CODE |= {"noise": 0.2}
IMAGES, LABELS = torch.rand(4, 1, 8, 8), torch.arange(4)


def fully_connected(**settings: Any) -> Classifier:
    return FullyConnected(widths=[6, 5], activation="relu", weight_decay=[0.0] * 3, **settings, **COMMON)


def autoencoder(pretraining: bool) -> Classifier:
    model = SparseAutoencoder(weight_decay=[0.0], **CODE, **COMMON)
    model.pretraining = pretraining
    return model


NETWORKS: dict[str, tuple[Callable[[], Classifier], str]] = {
    "fully connected": (fully_connected, "network.3"),
    "with the spectral penalty": (lambda: fully_connected(spectral_penalty=0.1), "network.3"),
    "autoencoder, first phase": (lambda: autoencoder(True), "network.1"),
    "autoencoder, second phase": (lambda: autoencoder(False), "network.3"),
    "convolutional": (
        lambda: ConvNet(channels=[3], kernels=[3], widths=[5], weight_decay=[0.0] * 3, **COMMON),
        "network.fc1",
    ),
    "torchvision": (
        lambda: TorchvisionModel(
            architecture="squeezenet1_1", weight_decay=0.0, **COMMON | {"input_shape": [3, 32, 32]}
        ),
        "network.model.features.3.squeeze",
    ),
    "alexnet": (
        lambda: AlexNet(weight_decay=[0.0] * 8, **COMMON | {"input_shape": [3, 63, 63]}),
        "network.4",
    ),
}


@pytest.mark.parametrize("stage", ["training", "validation", "test"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_weight_that_is_not_finite_is_named_in_every_network_and_stage(kind: str, stage: str) -> None:
    make, layer = NETWORKS[kind]
    model = make().train(stage == "training")
    weight = model.get_submodule(layer).weight
    assert isinstance(weight, torch.Tensor)
    weight.data.view(-1)[1] = torch.nan
    batch = [torch.rand(4, *model.input_shape), LABELS]
    with pytest.raises(NotFiniteError, match=r"loss is nan at epoch 0, batch 7 \(step 0\)") as caught:
        getattr(model, f"{stage}_step")(batch, 7)
    assert f"is {layer} (" in str(caught.value) and "its weight is not finite" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_overflow_names_the_layer_where_it_happens() -> None:
    model = fully_connected()
    for layer in (1, 3, 5):
        model.get_submodule(f"network.{layer}").weight.data.abs_().mul_(1e25)
    with pytest.raises(NotFiniteError, match=r"is network.3 \(Linear\): its weights and its input are finite"):
        model.training_step([IMAGES, LABELS], 0)


def test_non_finite_images_are_named() -> None:
    images = IMAGES.clone()
    images[2, 0, 3, 3] = torch.inf
    model = fully_connected()
    for layer in (1, 3, 5):  # a rectified unit with a negative weight would answer infinity with 0
        model.get_submodule(f"network.{layer}").weight.data.abs_()
    with pytest.raises(NotFiniteError, match="the images themselves are not finite"):
        model.training_step([images, LABELS], 0)


def test_the_spectral_penalty_is_named_if_all_outputs_are_finite() -> None:
    model = fully_connected(spectral_penalty=0.1)
    model.get_submodule("network.5").weight.data.fill_(1e25)
    with pytest.raises(NotFiniteError, match=r"the norm of network.5 in the spectral penalty is not finite"):
        model.training_step([IMAGES, LABELS], 0)


@pytest.mark.parametrize("turns", ["together", "alternate"])
def test_a_non_finite_example_of_a_pool_is_found(turns: str) -> None:
    model = fully_connected()
    numbers: dict[str, Any] = dict.fromkeys(("refresh", "every", "mix", "weight", "num_steps", "max_iter"), 1)
    settings = PoolSettings(**numbers, size=4, c_tolerance=1.0, keep_scale=True, turns=turns, attack="noise")
    pools = [LayerPool(layer, 0.03, Pool(4)) for layer in injectable_layers(model.network)]
    model.mixing = PoolMixing(model.network, pools, settings, seed=0)
    pools[1].pool.renew(torch.full((4, 6), torch.nan), LABELS, torch.zeros(4))
    step, batch = model.training_step, [IMAGES, LABELS]
    with pytest.raises(NotFiniteError, match=r"is network.3 \(Linear\): its input is not finite either"):
        # with turns=alternate the pool is not used in every step
        deque((step(batch, number) for number in range(3)), maxlen=0)


def job(composed: Callable[..., dict], *overrides: str) -> Any:
    return training_job(composed("train", "data=digits", "trainer.max_epochs=4", "name=one", *overrides), (), "")


@pytest.mark.parametrize(
    ("network", "place"), [("fc100_100_10", "before the last batch"), ("ae400_10", "after the last batch")]
)
def test_a_run_stops_with_its_last_good_checkpoint_and_resumes_from_it(
    composed: Callable[..., dict], monkeypatch: pytest.MonkeyPatch, network: str, place: str
) -> None:
    whole = fit(job(composed, f"network={network}", "name=whole"))
    last = place == "after the last batch"

    def break_weights(self: Any, *args: Any) -> None:
        if self.current_epoch == 2 and args[-1] == (self.trainer.num_training_batches - 1 if last else 2):
            self.network[1].weight.data[0, 0] = torch.nan

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_train_batch_end", break_weights)
        words = r"loss is nan at epoch 2, batch 3 .* is network.1 \(Linear\): its weight is not finite"
        if last:
            words = "network.1.weight is not finite at the end of epoch 2"
        with pytest.raises(UserError, match=words) as caught:
            fit(job(composed, f"network={network}"))
    assert "lower optimizer.lr (now" in str(caught.value) and "\n" not in str(caught.value)
    folder = whole.parent / "one"
    assert json.loads((folder / "run.json").read_text())["state"] == "failed"
    assert not (folder / "model.ckpt").exists()
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["epoch"] == 1
    resumed = fit(job(composed, f"network={network}"))
    one, two = (read_checkpoint(one / "model.ckpt")["state_dict"] for one in (whole, resumed))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_command_reports_it_in_one_line(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    rate = ("optimizer.lr=1e30", "model.settings.activation=relu", "trainer.max_epochs=2")
    status, _, err = run_script("train.py", "network=fc100_100_10", "data=digits", "logger=csv", *rate)
    assert status == 1
    assert err.startswith("error: train/loss is ") and err.count("\n") == 1, err
    assert "the first layer whose output is not finite is network." in err and "(now " in err
    assert not list(tmp_path.rglob("*.ckpt"))


class Broken(nn.Module):
    """A network with non-finite logits for images with bright pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.root = nn.Linear(64, 10), Root()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(self.root(images.flatten(1)))


class Root(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (0.5 - images).sqrt()


@pytest.mark.parametrize("attack", [lbfgs, adam_l1, nearest, lambda *args: closest(lbfgs, *args)])
def test_an_attack_names_the_layer_instead_of_failing_silently(attack: Callable[..., Any]) -> None:
    images = torch.zeros(6, 1, 8, 8)
    images[4] = 0.9
    words = (
        r"nan or inf for 1 of 6 images, first for image 4: the first layer whose output is not finite is root \(Root\)"
    )
    with pytest.raises(ValueError, match=words):
        attack(Broken(), images, torch.arange(6))


def test_finite_logits_pass() -> None:
    model = fully_connected()
    check_logits(model, IMAGES, model(IMAGES))

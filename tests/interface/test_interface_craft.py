"""``ig.craft``: any network and images; its set is the attack's, and attack.py's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import intriguing as ig
from intriguing.attacks import ATTACKS, choose_targets, lbfgs, nearest
from intriguing.data import open_images
from intriguing.errors import UserError
from intriguing.models import FullyConnected


def _linear(dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (2, 3, 4), num_classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), num_classes)).to(dtype)


def _images(count: int = 12, shape: tuple[int, ...] = (2, 3, 4)) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("given", [torch.float32, torch.float64])
@pytest.mark.parametrize("attack", ["nearest", "lbfgs"])
def test_the_examples_fool_a_network_of_any_type_as_the_set_holds_them(
    dtype: torch.dtype, given: torch.dtype, attack: str
) -> None:
    net, images = _linear(dtype), _images()
    labels = net(images.to(dtype)).argmax(1)
    found = ig.craft(net, images.to(given), labels.tolist(), attack=attack, targets="random")
    assert found.success.all() and (found.targets != labels).all()
    assert torch.equal(net(found.adv_inputs.to(dtype)).argmax(1), found.targets)
    assert torch.equal(found.inputs, images) and torch.equal(found.labels, labels)


def test_on_a_linear_network_it_finds_the_nearest_point_of_the_boundary() -> None:
    net, images = _linear(num_classes=2), _images() * 0.2 + 0.4  # so that no pixel leaves [0, 1]
    weight, bias = (value.detach() for value in (net[1].weight, net[1].bias))  # pyright: ignore
    normal, offset = weight[1] - weight[0], bias[1] - bias[0]
    exact = (images.flatten(1) @ normal + offset).abs() / normal.norm() / normal.numel() ** 0.5
    found = ig.craft(net, images, net(images).argmax(1))
    torch.testing.assert_close(found.distortion, exact, rtol=1e-3, atol=1e-6)
    assert torch.equal(found.targets, 1 - found.labels)  # the classes that were reached


def test_it_is_the_attack_itself_with_its_settings() -> None:
    net, images = _linear(), _images()
    labels = net(images).argmax(1)
    found = ig.craft(net, images, labels, attack="lbfgs", targets="random", seed=3, max_iter=20)
    wanted = choose_targets("random", labels, net(images), generator=torch.Generator().manual_seed(3))
    alone = lbfgs(net, images, wanted, max_iter=20)
    assert torch.equal(found.targets, wanted) and torch.equal(found.adv_inputs, alone.adv_inputs)
    assert alone.c is not None and torch.equal(found.c, alone.c)
    assert torch.equal(found.num_forwards, alone.num_forwards)
    assert found.metadata["attack"]["settings"] | {"max_iter": 20} == found.metadata["attack"]["settings"]
    given = ig.craft(net, images, labels, attack="lbfgs", targets=wanted.tolist(), max_iter=20)
    assert torch.equal(given.adv_inputs, found.adv_inputs)


def test_it_makes_the_set_of_attack_py(run_script: Callable[..., tuple], tmp_path: Any) -> None:
    model = ig.fit(FullyConnected(widths=[]), ig.data.digits(), epochs=1, folder=tmp_path / "net")
    attack = ("attack=lbfgs", "limit=20", "seed=2", "subset=test", "name=set", "logger=csv")
    assert run_script("attack.py", "checkpoints=net", *attack)[0] == 0
    theirs = ig.AdversarialSet.load(tmp_path / "runs/attack/set/set.safetensors")
    test = open_images(name="digits").subset("test").take()
    own = ig.craft(model, test.images, test.labels, attack="lbfgs", targets="random", limit=20, seed=2)
    for name in ("inputs", "adv_inputs", "labels", "targets", "indices", "success", "distortion", "c", "num_forwards"):
        assert torch.equal(getattr(own, name), getattr(theirs, name)), name
    described = own.metadata["attack"]
    assert described == {key: theirs.metadata["attack"][key] for key in described} | {"settings": described["settings"]}
    given = {key: value for key, value in described["settings"].items() if value is not None}
    assert given.items() <= theirs.metadata["attack"]["settings"].items()


def test_a_limit_draws_images_and_their_targets() -> None:
    net, images = _linear(), _images()
    labels = net(images).argmax(1)
    targets = (labels + 1) % 5
    some = ig.craft(net, images, labels, targets=targets, limit=5, seed=1)
    assert len(some) == 5 and torch.equal(some.inputs, images[some.indices])
    assert torch.equal(some.targets, targets[some.indices]) and some.indices.tolist() == sorted(some.indices.tolist())
    assert some.indices.tolist() != ig.craft(net, images, labels, limit=5, seed=2).indices.tolist()


def test_arrays_single_images_and_functions_will_do() -> None:
    net, images = _linear(), _images()
    labels = net(images).argmax(1)
    alone = ig.craft(lambda some: net(some), images[0].numpy(), int(labels[0]))
    assert torch.equal(alone.adv_inputs, ig.craft(net, images[:1], labels[:1]).adv_inputs)


def test_noise_needs_no_network_and_repeats_by_the_seed() -> None:
    images, labels = _images(), torch.zeros(12, dtype=torch.int64)
    one, again, other = (ig.craft(None, images, labels, attack="gaussian", stddev=0.1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.adv_inputs, again.adv_inputs) and not torch.equal(one.adv_inputs, other.adv_inputs)
    assert one.metadata["source"] is None and one.success.all()


def test_progress_is_reported_to_a_function_or_shown(capsys: pytest.CaptureFixture) -> None:
    net, images = _linear(), _images()
    shares: list[float] = []
    silent = ig.craft(net, images, [0] * 12, attack="lbfgs")
    watched = ig.craft(net, images, [0] * 12, attack="lbfgs", progress=shares.append)
    assert shares and shares == sorted(shares) and all(0 <= share <= 1 for share in shares)
    assert torch.equal(silent.adv_inputs, watched.adv_inputs) and capsys.readouterr().out == ""
    ig.craft(net, images, [0] * 12, progress=True)
    assert "100%" in capsys.readouterr().out


def test_what_it_is_called_with_comes_back_as_it_was() -> None:
    net, images = _linear(), _images().requires_grad_()
    net.train()
    labels = net(images).argmax(1)
    before, state = images.detach().clone(), torch.get_rng_state()
    ig.craft(net, images, labels, attack="lbfgs", targets="random")
    assert net.training and all(p.requires_grad for p in net.parameters())
    assert torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)


def test_any_function_is_an_attack_and_a_network_may_return_a_dict() -> None:
    net, images = _linear(torch.float64), _images()
    labels = net(images.double()).argmax(1)

    def step(model: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor, *, eps: float, how: object) -> Tensor:
        inputs = inputs.requires_grad_()
        loss = nn.functional.cross_entropy(model(inputs), labels, reduction="sum")
        return (inputs + eps * torch.autograd.grad(loss, inputs)[0].sign()).clamp(0, 1).detach()

    found = ig.craft(lambda some: {"logits": net(some)}, images, labels, attack=step, eps=0.3, how=step)
    weight = net[1].weight.detach()  # pyright: ignore[reportAttributeAccessIssue]
    assert found.success.any() and found.metadata["attack"]["name"] == "step"
    assert found.metadata["attack"]["settings"] == {"levels": None, "eps": 0.3, "how": "a function"}
    logits = net(found.adv_inputs.double())
    assert torch.equal(logits.argmax(1) != labels, found.success)
    moved = (found.adv_inputs - images).flatten(1)[found.success]
    assert weight.shape == (5, 24) and float(moved.abs().max()) <= 0.3 + 1e-6


def test_a_networks_label_is_recorded() -> None:
    net = FullyConnected(label="FC5", input_shape=[2, 3, 4], num_classes=5, widths=[])
    found = ig.craft(net, _images(), [0] * 12)
    assert found.metadata["source"]["label"] == "FC5"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_to_begin_from_reach_the_attack(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def adapter(function: Any, model: Any, inputs: Tensor, labels: Tensor, targets: Any, settings: dict) -> Any:
        given.append(settings)
        return nearest(model, inputs, labels, targets=targets)

    monkeypatch.setitem(ATTACKS, "nearest", replace(ATTACKS["nearest"], adapter=adapter))
    net, images, pool = _linear(dtype), _images(), torch.rand(7, 2, 3, 4, dtype=torch.float64)
    labels = net(images.to(dtype)).argmax(1)
    found = [
        ig.craft(net, images, labels, effort="fast", starts=starts) for starts in (pool, pool.numpy(), "batch", None)
    ]
    assert all(settings["effort"] == "fast" for settings in given)
    assert torch.equal(given[0]["starts"], pool.float()) and torch.equal(given[1]["starts"], pool.float())
    assert given[2]["starts"] == "batch" and "starts" not in given[3]
    recorded = [one.metadata["attack"]["settings"].get("starts") for one in found]
    assert recorded[0] == recorded[1] and recorded[0].startswith("7 images (") and recorded[2:] == ["batch", None]
    other = ig.craft(net, images, labels, starts=1 - pool).metadata["attack"]["settings"]["starts"]
    assert other.startswith("7 images (") and other != recorded[0]


@pytest.mark.parametrize("effort", ["fast", "default"])
def test_images_to_begin_from_serve_also_the_attack_itself(effort: str) -> None:
    net, images = _linear(torch.float64), _images()
    labels = net(images.double()).argmax(1)
    for starts in (torch.rand(20, 2, 3, 4), "batch"):
        found = ig.craft(net, images, labels, effort=effort, starts=starts, limit=5)
        assert found.success.all() and (net(found.adv_inputs.double()).argmax(1) != found.labels).all()


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"attack": "nearst"}, ValueError, "expected an attack out of lbfgs, .*, or a function, got 'nearst'"),
        ({"targets": "rnd"}, UserError, "unknown targets 'rnd'; known: random"),
        ({"num_step": 3}, TypeError, "num_step is no setting of nearest"),
        ({"targets": [1]}, ValueError, r"expected targets of shape \(12,\), one for each image, got \(1,\)"),
        ({"targets": [0.5] * 12}, TypeError, "expected targets as whole numbers"),
        ({"limit": 0}, ValueError, "expected limit as a whole number >= 1, got 0"),
        ({"labels": [0] * 3}, ValueError, r"expected labels of shape \(12,\)"),
        ({"labels": [7] * 12}, ValueError, r"expected labels in 0\.\.4"),
        ({"images": torch.zeros(12, 2, 3, 4, dtype=torch.uint8)}, TypeError, "divide by 255"),
        (
            {"starts": "train"},
            ValueError,
            "expected starts as images, such as data.train.images, or 'batch', got 'train'",
        ),
        (
            {"starts": torch.rand(3, 1, 3, 4)},
            ValueError,
            r"expected starts of shape \(P, 2, 3, 4\), that of the images",
        ),
        ({"starts": torch.zeros(3, 2, 3, 4, dtype=torch.uint8)}, TypeError, "expected starts as .*; divide by 255"),
        ({"starts": _images(), "attack": "lbfgs"}, TypeError, "lbfgs takes no starts; nearest does"),
        ({"effort": "hard"}, ValueError, "expected effort"),
        ({"images": torch.zeros(12, 24)}, ValueError, r"expected images of shape \(N, C, H, W\)"),
        ({"images": torch.zeros(12, 1, 9, 9)}, ValueError, r"the network cannot take images of shape \(1, 1, 9, 9\)"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(more: dict, error: type[Exception], message: str) -> None:
    given = {"images": _images(), "labels": [0] * 12, **more}
    with pytest.raises(error, match=message) as caught:
        ig.craft(_linear(), given.pop("images"), given.pop("labels"), **given)
    assert "\n" not in str(caught.value)

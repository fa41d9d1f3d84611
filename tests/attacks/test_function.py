"""Functions of users' as attacks: called with what they take, and judged by what they return."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from attack_networks import curved_network, images, linear_network
from torch import Tensor, nn

from intriguing.attacks import ATTACKS, FunctionAttack, as_attack, lbfgs, nearest


def _problem() -> tuple[nn.Module, Tensor, Tensor]:
    """A linear network of two classes in float64 with grey images: class 1 where w x > 0."""
    network, inputs = linear_network(), images(5, low=0.3, high=0.7)
    with torch.no_grad():
        return network, inputs, network(inputs).argmax(1)


def _toward(network: nn.Module, labels: Tensor, length: float) -> Tensor:
    """Return steps (N, 1, 4, 4) of a length along the normal, towards the other class."""
    normal = (network[1].weight[1] - network[1].weight[0]).detach()  # pyright: ignore
    sign = torch.where(labels == 0, 1.0, -1.0).double()
    return sign.view(-1, 1, 1, 1) * length * (normal / normal.norm()).view(1, 1, 4, 4)


def test_success_and_distortion_of_a_step_along_the_normal_are_the_closed_form() -> None:
    network, inputs, labels = _problem()
    normal = (network[1].weight[1] - network[1].weight[0]).detach()  # pyright: ignore
    distance = (inputs.flatten(1) @ normal).abs() / normal.norm()
    length = float(distance.median()) + 1e-9

    def step(model: Any, x: Tensor, y: Tensor) -> Tensor:
        return x + _toward(network, y, length)

    result = as_attack(step)(network, inputs, labels)
    assert torch.equal(result.success, distance < length) and 0 < int(result.success.sum()) < 5
    torch.testing.assert_close(result.distortion[result.success], torch.full((3,), length / 4).double())
    assert bool(result.distortion[~result.success].isinf().all())
    assert torch.equal(result.adv_inputs[~result.success], inputs[~result.success])
    assert result.inputs is not None and torch.equal(result.inputs, inputs) and torch.equal(result.labels, labels)


def test_a_function_is_called_with_the_keywords_that_it_takes() -> None:
    network, inputs, labels = _problem()
    seen: list[dict[str, Any]] = []

    def plain(model: Any, x: Tensor, y: Tensor) -> Tensor:
        seen.append({})
        return x

    def full(net: Any, x: Tensor, y: Tensor, targets: Any = None, *, generator: Any = None, eps: float = 1) -> Tensor:
        seen.append({"targets": targets, "generator": generator, "eps": eps})
        return x

    def anything(model: Any, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
        seen.append(settings)
        return x

    generator = torch.Generator()
    as_attack(plain)(network, inputs, labels, generator=generator)
    as_attack(full)(network, inputs, labels, targets=1 - labels, generator=generator, eps=0.5)
    as_attack(functools.partial(full, eps=3))(network, inputs, labels)
    as_attack(anything)(network, inputs, labels, generator=generator, speed=2)
    assert seen[0] == {}
    assert torch.equal(seen[1].pop("targets"), 1 - labels) and seen[1] == {"generator": generator, "eps": 0.5}
    assert seen[2] == {"targets": None, "generator": None, "eps": 3}
    assert seen[3] == {"targets": None, "generator": generator, "speed": 2}


def test_targets_decide_success() -> None:
    network, inputs = curved_network(), images(6, dtype=torch.float32)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    targets = (labels + 1) % 4

    def aimed(model: Any, x: Tensor, y: Tensor, targets: Tensor) -> Tensor:
        found = lbfgs(model, x, targets, search_steps=8).adv_inputs
        found[0] = x[0]
        return found

    result = as_attack(aimed)(network, inputs, labels, targets=targets)
    assert result.success.tolist() == [False] + 5 * [True]
    with torch.no_grad():
        assert torch.equal(network(result.adv_inputs).argmax(1)[1:], targets[1:])
    with pytest.raises(ValueError, match="_still takes no targets"):
        as_attack(_still)(network, inputs, labels, targets=targets)


def _still(model: Any, x: Tensor, y: Tensor, *, eps: float = 0.1) -> Tensor:
    return x


def test_images_that_are_misclassified_already_stay_as_they_are() -> None:
    network, inputs, labels = _problem()
    result = as_attack(lambda model, x, y: torch.zeros_like(x))(network, inputs, 1 - labels)
    assert bool(result.success.all()) and torch.equal(result.adv_inputs, inputs)
    assert result.distortion.tolist() == [0.0] * 5
    assert result.summary()["already"] == 5


def test_passes_are_counted_where_calls_can_be_seen() -> None:
    network, inputs, labels = _problem()

    def thrice(model: Any, x: Tensor, y: Tensor) -> Tensor:
        for _ in range(3):
            x = x.detach().requires_grad_()
            model(x).sum().backward()
        model(x.detach())
        return x

    def by_parts(model: Any, x: Tensor, y: Tensor) -> Tensor:
        model[1](x.flatten(1))
        return x

    for model in (network, lambda x: network(x), lambda x: {"logits": network(x)}):
        result = as_attack(thrice)(model, inputs, labels)
        assert (result.num_forwards.tolist(), result.num_backwards.tolist()) == ([4] * 5, [3] * 5)
    result = as_attack(by_parts)(network, inputs, labels)
    assert (result.num_forwards.tolist(), result.num_backwards.tolist()) == ([-1] * 5, [-1] * 5)
    assert (result.summary()["forwards"], result.summary()["backwards"]) == (None, None)


def test_nothing_that_was_passed_is_changed() -> None:
    network, inputs, labels = _problem()
    network.train()
    before, own, kept = (
        inputs.clone(),
        labels.clone(),
        {name: value.clone() for name, value in network.state_dict().items()},
    )

    def rude(model: Any, x: Tensor, y: Tensor) -> Tensor:
        assert not model.training and torch.is_grad_enabled()
        model(x.requires_grad_()).sum().backward()
        y.zero_()
        with torch.no_grad():
            x.zero_()
        model.eval()
        return x

    with torch.inference_mode():
        as_attack(rude)(network, before.clone(), labels)
    as_attack(rude)(network, inputs, labels)
    assert torch.equal(inputs, before) and network.training and torch.equal(labels, own)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in kept.items())
    assert all(one.grad is None and one.requires_grad for one in network.parameters())
    assert not network._forward_hooks


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda m, x, y: [x], TypeError, "returned list; expected the adversarial images as floating-point numbers"),
        (lambda m, x, y: x > 0, TypeError, "returned a tensor of torch.bool"),
        (lambda m, x, y: x[:2], ValueError, r"returned images of shape \(2, 1, 4, 4\); expected that of the inputs"),
        (lambda m, x, y: x / 0, ValueError, "returned nan or inf in 5 images, first in row 0"),
        (lambda m, x, y: x + 1, ValueError, r"returned values from 1\.\d+ to 1\.\d+; clamp them to \[0, 1\], or set"),
    ],
)
def test_what_is_no_image_gets_one_line(function: Any, error: type[Exception], words: str) -> None:
    network, inputs, labels = _problem()
    with pytest.raises(error, match=words) as refusal:
        as_attack(function)(network, inputs, labels)
    assert "\n" not in str(refusal.value)


def test_images_outside_the_box_are_kept_where_that_is_allowed() -> None:
    network, inputs, labels = _problem()
    result = as_attack(lambda m, x, y: x + _toward(network, y, 20), clip=False)(network, inputs, labels)
    assert bool(result.success.all()) and float(result.adv_inputs.max()) > 1
    torch.testing.assert_close(result.distortion, torch.full((5,), 5.0).double())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epsilon": 1}, r"epsilon is no setting of _still \(did you mean eps\?\); it has levels, eps"),
        ({"targets": 1}, "targets is no setting of _still"),
        ({"levels": 1}, "expected levels as a whole number >= 2"),
    ],
)
def test_settings_that_it_does_not_take_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        FunctionAttack(_still).check(settings)
    assert FunctionAttack(_still).check({"eps": 2, "levels": 256}) == {"eps": 2, "levels": 256}


def test_names_functions_and_other_things_become_attacks_or_one_line() -> None:
    assert as_attack("lbfgs") is ATTACKS["lbfgs"] and as_attack(nearest) is ATTACKS["nearest"]
    own = as_attack(_still)
    assert as_attack(own) is own and isinstance(own, FunctionAttack)
    assert (own.name, own.path) == ("_still", f"{__name__}._still")
    assert as_attack(functools.partial(_still, eps=1)).name == "_still"
    with pytest.raises(ValueError, match="expected an attack out of lbfgs, adam_l1, nearest, gaussian, or a function"):
        as_attack("fgsm")
    for wrong in (3, nn.Linear, lambda model, x: x, lambda model, x, y, z, /: x):
        with pytest.raises(TypeError, match="expected"):
            as_attack(wrong)  # pyright: ignore


@pytest.mark.parametrize("name", ["lbfgs", "adam_l1", "nearest", "function"])
def test_a_single_image_gives_a_result_of_one(name: str) -> None:
    attack = as_attack(lambda m, x, y: nearest(m, x, y).adv_inputs) if name == "function" else ATTACKS[name]
    settings = {"num_steps": 20} if name == "adam_l1" else {}
    network, inputs, labels = _problem()
    for label in (labels[0], int(labels[0])):
        result = attack(network, inputs[0], label, **settings)
        assert len(result) == 1 and result.adv_inputs.shape == (1, 1, 4, 4)
        torch.testing.assert_close(result.inputs, inputs[:1])
        assert result.labels is not None and result.labels.tolist() == labels[:1].tolist()
    assert len(lbfgs(network, inputs[0], 1 - int(labels[0]), search_steps=4)) == 1
    assert len(nearest(network, inputs[0], labels[0], targets=1 - labels[0], num_steps=4)) == 1


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (torch.zeros(1, 1, 4, 4).numpy(), r"got ndarray; pass torch.from_numpy\(inputs\)"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), r"got dtype torch.uint8; pass inputs.float\(\) / 255"),
        ([[0.0]], "got list"),
    ],
)
def test_other_images_get_one_line_that_says_what_to_pass(inputs: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        nearest(linear_network(), inputs, torch.tensor([0]))


def test_a_pillow_image_gets_one_line_that_says_what_to_pass() -> None:
    from PIL import Image

    with pytest.raises(TypeError, match=r"torchvision.transforms.functional.to_tensor\(inputs\)"):
        nearest(linear_network(), Image.new("L", (4, 4)), 0)  # pyright: ignore


def test_labels_in_an_array_get_one_line_that_says_what_to_pass() -> None:
    _, inputs, labels = _problem()
    with pytest.raises(TypeError, match=r"got ndarray; pass torch.as_tensor\(labels\)"):
        nearest(linear_network(), inputs, labels.numpy())  # pyright: ignore

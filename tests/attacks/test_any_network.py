"""Attacks on networks, dtypes, labels and contexts of every kind: they work, or one line names a remedy."""

from __future__ import annotations

import functools
import gc
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attack_networks import curved_network, images, linear_network
from torch import Tensor, nn

from intriguing.attacks import (
    AttackResult,
    AttackWarning,
    adam_l1,
    amplify,
    choose_targets,
    closest,
    gaussian,
    lbfgs,
    nearest,
)


def fast_adam(model: Any, inputs: Tensor, targets: Tensor, **settings: Any) -> AttackResult:
    generator = torch.Generator().manual_seed(0)
    return adam_l1(model, inputs, targets, num_steps=60, learning_rate=2e-2, generator=generator, **settings)


ATTACKS: dict[str, Callable[..., AttackResult]] = {
    "lbfgs": lbfgs,
    "adam_l1": fast_adam,
    "nearest": lambda model, inputs, targets, **settings: nearest(model, inputs, targets, targets=targets, **settings),
    "nearest_any": lambda model, inputs, targets, **settings: nearest(model, inputs, (targets - 1) % 4, **settings),
    "closest": lambda model, inputs, targets, **settings: closest(
        functools.partial(lbfgs, c_tolerance=0.3), model, inputs, (targets - 1) % 4, **settings
    ),
}
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


def problem(dtype: torch.dtype = torch.float32, num: int = 4) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network, images, and for each the class after the network's answer."""
    model, inputs = curved_network(dtype=dtype), images(num, dtype=dtype)
    return model, inputs, (model(inputs).argmax(dim=1) + 1) % 4


class Returns(nn.Module):
    """A network that returns changed logits of another one."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.network(x))


@every_attack
def test_attacks_do_not_modify_their_arguments(attack):
    model, inputs, targets = problem()
    shared = torch.from_numpy(inputs.numpy())
    many = torch.rand(8, 2, 4, 4)
    view = many[::2, :1]
    expanded = inputs[:1].expand(4, -1, -1, -1)
    for images_, classes in ((shared, targets), (view, targets[::1]), (expanded, targets[:1].expand(4))):
        versions, values = (images_._version, classes._version), (images_.clone(), classes.clone())
        loss = nn.functional.cross_entropy(model(images_), classes)
        attack(model, images_, classes)
        loss.backward()  # the graph from before the attack is intact
        assert (images_._version, classes._version) == versions
        assert torch.equal(images_, values[0])
        assert torch.equal(classes, values[1])


def test_attacks_work_on_images_in_read_only_memory(tmp_path):
    np.save(tmp_path / "x.npy", problem()[1].numpy())
    model, _, targets = problem()
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    with pytest.warns(UserWarning, match="not writable"):
        inputs = torch.from_numpy(mapped)
    for attack in ATTACKS.values():
        assert attack(model, inputs, targets).success.any()  # a write would be a segmentation fault


class Power(nn.Module):
    """x ** exponent: an infinite slope at 0 for exponents below 1."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, x: Tensor) -> Tensor:
        return x**self.exponent


@every_attack
def test_an_infinite_slope_at_one_pixel_does_not_stop_the_attack(attack):
    network, inputs, _ = problem(num=8)
    model = nn.Sequential(Power(0.5), network)
    inputs[:, 0, 0, 0] = 0
    targets = (model(inputs).argmax(dim=1) + 1) % 4
    result = attack(model, inputs, targets)
    without = attack(model, inputs.clamp(min=1e-4), targets)
    assert torch.equal(result.success, without.success)
    assert result.success.sum() >= 7


def test_an_image_with_zero_gradient_is_attacked():
    """The distance to a prototype has no gradient at the prototype; the nearest other class begins half way."""
    prototypes = torch.rand(4, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def distances(x: Tensor) -> Tensor:
        return -(x.flatten(1)[:, None] - prototypes).norm(dim=2)

    inputs, labels = prototypes.view(4, 1, 4, 4), torch.arange(4)
    exact = torch.cdist(prototypes, prototypes).fill_diagonal_(torch.inf).amin(dim=1) / 2 / 4
    result = nearest(distances, inputs, labels)
    torch.testing.assert_close(result.distortion, exact, rtol=1e-3, atol=0)
    targets = torch.cdist(prototypes, prototypes).fill_diagonal_(torch.inf).argmin(dim=1)
    penalty = lbfgs(distances, inputs, targets)
    assert penalty.success.all()
    assert (penalty.distortion < 1.2 * exact).all()  # the penalty's minimiser is not the nearest image


def test_no_call_keeps_memory():
    model, inputs, targets = problem(num=1)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(one), Tensor) for one in gc.get_objects())

    for attack in ATTACKS.values():
        attack(model, inputs, targets)
        before = tensors()
        attack(model, inputs, targets)
        assert tensors() <= before


class Counting(nn.Module):
    """A network that counts its rows, forwards and backwards, and the largest batch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.forwards, self.backwards, self.most = network, 0, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        self.most = max(self.most, len(x))
        if x.requires_grad:

            def count(gradient: Tensor) -> None:
                self.backwards += len(gradient)

            x = x * 1
            x.register_hook(count)
        return self.network(x)


@every_attack
@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_counts_are_exact_and_batches_no_larger_than_the_chunk(attack, chunk_size):
    network, inputs, targets = problem(num=7)
    targets[2] = network(inputs)[2].argmax()  # this image is in its target class
    model = Counting(network)
    result = attack(model, inputs, targets, chunk_size=chunk_size)
    assert int(result.num_forwards.sum()) == model.forwards
    assert int(result.num_backwards.sum()) == model.backwards
    assert chunk_size is None or model.most <= chunk_size


class Coarse(nn.Module):
    """A network whose logits depend on the batch size, as those of reduced precision do."""

    def __init__(self, network: nn.Module, size: float) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        noise = torch.sin(1e3 * logits.detach() + len(x))  # its own for every image, class and batch size
        return logits + self.size * noise


@pytest.fixture
def reduced_precision():
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


@every_attack
def test_an_example_succeeds_in_other_batches_too_where_precision_is_reduced(attack, reduced_precision):
    network, inputs, targets = problem(num=12)
    coarse = Coarse(network, size=2e-3)
    result = attack(coarse, inputs, targets)
    assert result.success.float().mean() > 0.8
    found = result.adv_inputs[result.success]
    before, wanted = network(inputs).argmax(dim=1)[result.success], targets[result.success]
    for size in (1, 5, 12):
        answers = torch.cat([coarse(part).argmax(dim=1) for part in found.split(size)])
        assert ((answers == wanted) | (answers != before)).all()
    counted = Counting(coarse)
    again = attack(counted, inputs, targets)
    assert int(again.num_forwards.sum()) == counted.forwards


class Inside(nn.Module):
    """A network that computes in another dtype and returns logits of it, unless `back` is given."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, back: torch.dtype | None = None) -> None:
        super().__init__()
        self.network, self.dtype, self.back = network.to(dtype), dtype, back

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x.to(self.dtype))
        return logits if self.back is None else logits.to(self.back)


TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


PAIRS = [(inner, outer) for inner in TYPES for outer in TYPES if inner == outer or torch.float32 in (inner, outer)]


@every_attack
@pytest.mark.parametrize(("inner", "outer"), PAIRS, ids=str)
def test_images_and_logits_of_any_dtype(attack, inner, outer):
    model = Inside(curved_network(), inner)
    inputs = images(4, dtype=outer)
    targets = (model(inputs).argmax(dim=1) + 1) % 4
    result = attack(model, inputs, targets)
    assert result.adv_inputs.dtype == outer
    assert result.distortion.dtype == (torch.float64 if torch.float64 in (inner, outer) else torch.float32)
    assert result.success.sum() >= 3
    wrong = model(result.adv_inputs).argmax(dim=1) != (targets - 1) % 4
    assert torch.equal(result.success, wrong | (result.distortion == 0))
    rms = (result.adv_inputs.double() - inputs.double()).flatten(1).square().mean(dim=1).sqrt()
    torch.testing.assert_close(result.distortion[result.success].double(), rms[result.success], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_does_not_matter(dtype):
    model, inputs, targets = problem()
    before = nearest(model, inputs, targets, targets=targets)
    torch.set_default_dtype(dtype)
    try:
        again = nearest(model, inputs, targets, targets=targets)
        assert lbfgs(model, inputs, targets).success.all()
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(again.distortion, before.distortion, rtol=1e-2, atol=0)


def test_a_network_with_another_dtype_than_the_images_is_refused_in_one_line():
    model, inputs, targets = problem(torch.float64)
    with pytest.raises(ValueError, match=r"cannot take images of shape \(1, 1, 4, 4\), torch.float32") as caught:
        nearest(model, inputs.float(), targets)
    assert "\n" not in str(caught.value)


@every_attack
def test_autocast_around_the_attack_applies_to_the_network_only(attack):
    network, inputs, targets = problem()
    seen: list[torch.dtype] = []
    model = Returns(network, lambda logits: seen.append(logits.dtype) or logits)
    plain = attack(network, inputs, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = attack(model, inputs, targets)
        assert torch.is_autocast_enabled("cpu")
    assert set(seen) == {torch.bfloat16}
    assert torch.equal(result.success, plain.success)
    assert result.distortion[result.success].mean() <= 1.1 * plain.distortion[plain.success].mean()


@pytest.mark.parametrize("offset", [-1e4, 300.0, 1e4])
def test_a_number_added_to_all_logits_changes_no_result(offset):
    network, inputs, targets = problem(num=12)
    shifted = Returns(network, lambda logits: logits + offset)
    labels = (targets - 1) % 4
    for attack, tolerance in ((nearest, 3e-3), (lambda m, x, y: lbfgs(m, x, (y + 1) % 4), 3e-2)):
        plain, moved = attack(network, inputs, labels), attack(shifted, inputs, labels)
        assert torch.equal(plain.success, moved.success)
        torch.testing.assert_close(moved.distortion.mean(), plain.distortion.mean(), rtol=tolerance, atol=0)


def test_an_image_that_is_misclassified_by_a_tiny_margin_has_distortion_zero():
    model = linear_network(2, (1, 1, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
        model[1].bias.copy_(torch.tensor([1e5, 1e5 - 0.5]))
    inputs = torch.tensor([0.5 + 1e-9], dtype=torch.float64).view(1, 1, 1, 1)
    for result in (nearest(model, inputs, torch.tensor([0])), lbfgs(model, inputs, torch.tensor([1]))):
        assert result.success.tolist() == [True]
        assert result.distortion.tolist() == [0.0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_labels_of_every_integer_type_and_a_hundred_classes(dtype):
    prototypes = torch.rand(100, 6, generator=torch.Generator().manual_seed(0))

    def model(x: Tensor) -> Tensor:
        return 2 * x @ prototypes.T - prototypes.square().sum(dim=1)

    labels = torch.tensor([99, 50, 10])
    inputs, narrow = prototypes[labels].clone(), labels.to(dtype)
    coarse = functools.partial(lbfgs, c_tolerance=1.0, max_iter=5, search_steps=3)

    def short(model: Any, inputs: Tensor, targets: Tensor) -> AttackResult:
        seen.append(targets)
        return nearest(model, inputs, targets, targets=targets, num_steps=2, num_projections=0, num_restarts=0)

    seen: list[Tensor] = []
    right, result = nearest(model, inputs, labels), nearest(model, inputs, narrow)
    assert torch.equal(result.distortion, right.distortion)
    assert (model(result.adv_inputs).argmax(dim=1) != labels).all()
    if dtype in (torch.int8, torch.uint8):
        result = closest(short, model, inputs, narrow)
        assert torch.equal(
            torch.stack(seen).sort(dim=0).values,
            torch.stack([torch.arange(100)[torch.arange(100) != k] for k in labels], dim=1),
        )
        assert (model(result.adv_inputs).argmax(dim=1) != labels).all()
    targets = choose_targets("runner_up", narrow, model(inputs))
    assert torch.equal(targets, choose_targets("runner_up", labels, model(inputs)))
    assert torch.equal(coarse(model, inputs, targets.to(dtype)).distortion, coarse(model, inputs, targets).distortion)


@pytest.mark.parametrize("labels", [[1, 2, 3, 4], [-1, 0, 1, 2], [0, 1, 2, 300]])
def test_labels_out_of_range_are_refused_alike(labels):
    model, inputs, _ = problem()
    wrong = torch.tensor(labels)
    for call in (
        lambda: nearest(model, inputs, wrong),
        lambda: lbfgs(model, inputs, wrong),
        lambda: fast_adam(model, inputs, wrong),
        lambda: closest(lbfgs, model, inputs, wrong),
        lambda: choose_targets("random", wrong, model(inputs)),
    ):
        with pytest.raises(ValueError, match=r"in 0\.\.3, got"):
            call()


def test_classes_with_logits_of_minus_infinity_are_no_targets():
    network, inputs, _ = problem(num=30)
    masked = torch.tensor([False, True, False, True])
    model = Returns(network, lambda logits: logits.masked_fill(masked, -torch.inf))
    labels = model(inputs).argmax(dim=1)
    logits = model(inputs)
    for rule in ("random", "runner_up", "least_likely"):
        targets = choose_targets(rule, labels, logits, generator=torch.Generator().manual_seed(0))
        assert torch.equal(targets, 2 - labels)  # the other of the two classes
    untargeted = nearest(model, inputs, labels)
    assert untargeted.success.all()
    pair = Returns(network, lambda logits: logits[:, ::2])
    alone = nearest(pair, inputs, labels // 2)
    torch.testing.assert_close(untargeted.distortion, alone.distortion, rtol=1e-2, atol=1e-6)
    assert not lbfgs(model, inputs[:2], torch.tensor([1, 3])).success.any()
    with pytest.raises(ValueError, match="a class other than the label"):
        choose_targets(
            "runner_up",
            labels[:1],
            torch.tensor([[1.0, -torch.inf]])[:, [0, 1]]
            if labels[0] == 0
            else torch.tensor([[-torch.inf, -torch.inf, 1.0]]),
        )


@pytest.mark.parametrize("seed", range(4))
def test_an_image_of_two_pixels_succeeds_where_a_grid_search_does(seed):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5))
    with torch.no_grad():
        for layer in (model[0], model[2], model[4]):
            layer.weight.copy_(4 * torch.randn(layer.weight.shape, generator=generator) / layer.in_features**0.5)
            layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))
    inputs = torch.rand(12, 2, generator=generator)
    line = torch.linspace(0, 1, 101)
    grid = torch.cartesian_prod(line, line)
    answers, labels = model(grid).argmax(dim=1), model(inputs).argmax(dim=1)
    distance = torch.cdist(inputs, grid) / math.sqrt(2)
    best = distance.where(answers[None] != labels[:, None], torch.inf).amin(dim=1)
    result = nearest(model, inputs, labels)
    assert (result.success | best.isinf()).all()
    for target in answers.unique():
        reached = nearest(model, inputs, labels, targets=target.expand(12))
        assert reached.success.all()
        assert lbfgs(model, inputs, target.expand(12)).success.all()


@every_attack
def test_contexts_without_gradients(attack):
    model, inputs, targets = problem()
    plain = attack(model, inputs, targets)
    with torch.no_grad():
        torch.testing.assert_close(attack(model, inputs, targets).distortion, plain.distortion)
    torch.set_grad_enabled(False)
    try:
        torch.testing.assert_close(attack(model, inputs, targets).distortion, plain.distortion)
    finally:
        torch.set_grad_enabled(True)
    with torch.inference_mode():
        made, images_, classes = curved_network(), inputs.clone(), targets.clone()
        inside = attack(made, images_, classes)
        assert torch.is_inference_mode_enabled()
    outside = attack(made, images_, classes)
    for result in (inside, outside):
        torch.testing.assert_close(result.distortion, plain.distortion)
    assert all(parameter.requires_grad for parameter in made.parameters())


def test_the_model_can_be_a_function_in_many_forms():
    model, inputs, targets = problem()
    model.train()
    plain = lbfgs(model, inputs, targets).distortion

    class Wrapper:
        def __init__(self) -> None:
            self.network = nn.Sequential(model, nn.Dropout(0.9))

        def __call__(self, x: Tensor) -> Tensor:
            return self.network(x)

        def logits(self, x: Tensor) -> Tensor:
            return self.network(x)

    dropped = nn.Sequential(model, nn.Dropout(0.9))  # has no effect in evaluation mode only
    forms: list[Any] = [
        lambda x: dropped(x),
        functools.partial(lambda network, x: network(x), dropped),
        dropped.forward,
        Wrapper(),
        Wrapper().logits,
    ]
    for form in forms:
        torch.testing.assert_close(lbfgs(form, inputs, targets).distortion, plain)
    assert all(module.training for module in dropped.modules() if module is not dropped[0][0])
    assert all(parameter.requires_grad and parameter.grad is None for parameter in dropped.parameters())


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_frozen_scripts_and_exported_programs():
    model, inputs, targets = problem()
    plain = nearest(model, inputs, targets, targets=targets)
    script = torch.jit.freeze(torch.jit.script(model.eval()))
    exported = torch.export.export(model, (inputs,)).module()  # for batches of four only
    for form in (script, exported):
        result = nearest(form, inputs, targets, targets=targets)
        torch.testing.assert_close(result.distortion, plain.distortion, rtol=1e-3, atol=0)


def test_a_network_may_work_in_place_and_squeeze_its_batch_away():
    network, inputs, targets = problem()
    plain = nearest(network, inputs, targets)

    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x.mul_(2).sub_(1)
            return network((x + 1) / 2)

    before = inputs.clone()
    for chunk_size in (None, 4):
        result = nearest(InPlace(), inputs, targets, chunk_size=chunk_size)
        torch.testing.assert_close(result.distortion, plain.distortion, rtol=1e-3, atol=1e-6)
        assert torch.equal(inputs, before)
    squeezing = Returns(network, lambda logits: logits.squeeze())
    torch.testing.assert_close(nearest(squeezing, inputs, targets).distortion, plain.distortion, rtol=1e-3, atol=1e-6)
    one = nearest(squeezing, inputs[:1], targets[:1])
    torch.testing.assert_close(one.distortion, plain.distortion[:1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda logits: (logits, logits),
            TypeError,
            r"a tuple of 2; name the entry: intriguing\.nn\.PickOutput\(n",
        ),
        (lambda logits: {"out": logits}, TypeError, "a dict with 'out'"),
        (lambda logits: None, TypeError, "got NoneType"),
        (lambda logits: logits[:, :1], ValueError, r"K >= 2, got \(1, 1\) for N = 1; for one logit z"),
        (lambda logits: logits[:, 0], ValueError, "for one logit z"),
        (lambda logits: logits.argmax(dim=1), TypeError, "floating-point numbers, got dtype torch.int64"),
        (lambda logits: logits[:, :, None], ValueError, r"shape \(N, K\) with K >= 2, got \(1, 4, 1\)"),
        (lambda logits: logits.detach(), ValueError, "no gradient with respect to the images"),
        (lambda logits: torch.eye(4)[[0] * len(logits)], ValueError, "no gradient with respect to the images"),
        (lambda logits: logits @ torch.zeros(3, 3), ValueError, "cannot take images of shape"),
    ],
)
def test_outputs_that_cannot_be_attacked_get_one_line(change, error, message):
    network, inputs, targets = problem()
    for attack in ATTACKS.values():
        with pytest.raises(error, match=message) as caught:
            attack(Returns(network, change), inputs, targets)
        assert "\n" not in str(caught.value)


def test_an_output_with_named_logits_is_accepted():
    network, inputs, targets = problem()

    class Output:
        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    plain = lbfgs(network, inputs, targets)
    for change in (lambda logits: {"logits": logits, "loss": None}, Output):
        torch.testing.assert_close(lbfgs(Returns(network, change), inputs, targets).distortion, plain.distortion)


def test_threads_that_attack_one_network_restore_its_state():
    model, inputs, targets = problem()
    model.train()
    plain = nearest(model, inputs, targets).distortion
    results: list[Tensor] = []
    threads = [
        threading.Thread(target=lambda: results.append(nearest(model, inputs, targets).distortion)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        torch.testing.assert_close(result, plain)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x, t: lbfgs(m, x, t, max_iter=2.5), "max_iter as a whole number >= 1, got 2.5"),
        (lambda m, x, t: lbfgs(m, x, t, c_start=math.nan), "c_start"),
        (lambda m, x, t: lbfgs(m, x, t, c_start=10, c_max=1), "c_min <= c_start <= c_max"),
        (lambda m, x, t: lbfgs(m, x, t, chunk_size=0), "chunk_size"),
        (lambda m, x, t: lbfgs(m, x, t, search_steps="5"), "search_steps"),
        (lambda m, x, t: nearest(m, x, t, num_steps=True), "num_steps"),
        (lambda m, x, t: nearest(m, x, t, num_projections=-1), "num_projections"),
        (lambda m, x, t: fast_adam(m, x, t, chunk_size=1.5), "chunk_size"),
        (lambda m, x, t: adam_l1(m, x, t, learning_rate=math.inf), "learning_rate"),
        (lambda m, x, t: gaussian(x, "0.1"), "stddev"),
        (lambda m, x, t: amplify(x, x, math.nan), "stddev"),
    ],
)
def test_settings_of_a_wrong_type_or_range_get_one_line(call, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call(*problem())
    assert "\n" not in str(caught.value)


def test_whole_numbers_of_other_types_are_accepted():
    model, inputs, targets = problem()
    settings = {"max_iter": 1e2, "search_steps": np.int64(40), "c_start": np.float32(0.125), "chunk_size": 4.0}
    expected = lbfgs(model, inputs, targets, max_iter=100, search_steps=40, c_start=0.125)
    torch.testing.assert_close(lbfgs(model, inputs, targets, **settings).distortion, expected.distortion)


def test_pixels_outside_by_rounding_are_clamped_and_others_refused():
    model, inputs, targets = problem()
    inputs[0, 0, 0, 0], inputs[0, 0, 0, 1] = 1 + 1.2e-7, -1e-7
    result = lbfgs(model, inputs, targets)
    assert result.adv_inputs.min() >= 0
    assert result.adv_inputs.max() <= 1
    assert result.success.all()
    for factor, remedy in ((255.0, "divide by 255"), (1.001, r"got values from 0 to 1\.00"), (-1.0, "first layer")):
        with pytest.raises(ValueError, match=remedy):
            lbfgs(model, inputs.clamp(0, 1).round() * factor, targets)


def test_probabilities_and_permuted_labels_are_warned_of():
    model, inputs, _ = problem(num=40)
    labels = model(inputs).argmax(dim=1)
    with pytest.warns(AttackWarning, match="seems to return probabilities"):
        nearest(nn.Sequential(model, nn.Softmax(dim=1)), inputs[:4], labels[:4])
    with pytest.warns(AttackWarning, match="number the classes differently"):
        nearest(model, inputs, (labels + 1) % 4)


def test_a_random_network_is_warned_of():
    model, inputs, targets = problem()
    noisy = nn.Sequential(model, Returns(nn.Identity(), lambda logits: logits + torch.randn_like(logits)))
    with pytest.warns(AttackWarning, match="random in evaluation mode.+mean of the logits over several calls"):
        lbfgs(noisy, inputs, targets)
    fixed = nn.Sequential(model, Returns(nn.Identity(), lambda logits: logits + torch.arange(4.0)))
    assert nearest(fixed, inputs, fixed(inputs).argmax(dim=1)).success.all()


@pytest.mark.parametrize("size", [1e-2, 0.5])
def test_rounding_that_changes_with_the_batch_size_is_no_dependence_on_other_images(size):
    """Coarse logits change with the size of the batch alone; warnings are errors here."""
    model, inputs, targets = problem(num=12)
    lbfgs(Coarse(model, size=size), inputs, targets, c_tolerance=0.5)


def test_logits_that_depend_on_the_rest_of_the_batch_are_warned_of():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(4 * 36, 4)).eval()
    inputs = torch.rand(12, 1, 8, 8) * torch.linspace(0.1, 1, 12).view(-1, 1, 1, 1)
    labels = torch.cat([model(one) for one in inputs.split(1)]).argmax(dim=1)
    with pytest.warns(AttackWarning, match="depend on the other images of its batch.+chunk_size=1"):
        nearest(model, inputs, labels)
    found = nearest(model, inputs, labels, chunk_size=1)
    answers = torch.cat([model(one) for one in found.adv_inputs.split(1)]).argmax(dim=1)
    assert found.success.all() and (answers != labels).all()


def test_non_finite_logits_name_their_first_layer():
    network, inputs, targets = problem()
    with pytest.raises(ValueError, match="the logits computed from them are not"):
        nearest(lambda x: network(x) * math.nan, inputs, targets)
    broken = curved_network()
    with torch.no_grad():
        broken[3].bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"first layer whose output is not finite is 3 \(Linear\): its bias"):
        nearest(lambda x: broken(x), inputs, targets)

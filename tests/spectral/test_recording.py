"""What a bound is read from: all that a network computes counts, and what cannot be seen is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from intriguing.spectral import Certifier, jacobian_norms, layer_outputs, lipschitz_bounds, operator_norm, product_bound


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def unused_product(x: Tensor) -> Tensor:
    h = 1.0 * x
    h.mul_(5)
    return h


def unused_activation(x: Tensor) -> Tensor:
    h = 1.0 * x
    F.elu(h, 3.0, True)
    return h


def through_a_view(x: Tensor) -> Tensor:
    h = 1.0 * x
    turned = h.view(-1, 2, 2).transpose(1, 2)
    turned *= 4
    return h


def through_an_old_name(x: Tensor) -> Tensor:
    h = 1.0 * x
    scaled = h.mul_(5)
    return scaled + h


def augmented(x: Tensor) -> Tensor:
    h = 1.0 * x
    h += x
    h /= 0.25
    h -= x
    return h


def a_part(x: Tensor) -> Tensor:
    h = 1.0 * x
    h[:, :2] *= 7
    return h


def filled(x: Tensor) -> Tensor:
    h = torch.zeros(len(x), 8)
    h[:, :4] = x
    h[:, 4:] = 3 * x
    return h


def into_a_buffer(x: Tensor) -> Tensor:
    h = torch.empty_like(x)
    torch.mul(x, 5, out=h)
    return h


def through_data(x: Tensor) -> Tensor:
    h = 1.0 * x
    h.data.mul_(5)
    return h


@pytest.mark.parametrize(
    ("function", "truth", "most"),
    [
        (unused_product, 5, 5),
        (unused_activation, 3, 3),
        (through_a_view, 4, 4),
        (through_an_old_name, 10, 10),
        (augmented, 7, 9),
        (a_part, 7, 10),
        (filled, 10**0.5, 10**0.5),
        (into_a_buffer, 5, 5),
        (through_data, 5, 5),
    ],
)
def test_writes_in_place_count(function: Callable[[Tensor], Tensor], truth: float, most: float) -> None:
    x = torch.full((1, 4), -1e-4, dtype=torch.float64)  # where an ELU is steepest
    moves = 1e-5 * torch.eye(4, dtype=torch.float64)
    met = max(float((function((x + move).float()) - function(x.float())).norm()) / 1e-5 for move in moves)
    assert met == pytest.approx(truth, rel=1e-2)
    assert truth * (1 - 1e-9) <= product_bound(Calls(function), (4,)) <= most * (1 + 1e-9)


def ten_times(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return 10 * output


def ten_times_before(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (10 * inputs[0],)


class OwnConvolution(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, 10 * weight, bias)


class OwnForward(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, 10 * self.weight, self.bias)


class MyReLU(nn.ReLU):
    """A name that says nothing: it is a ReLU."""


class AlsoReLU(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return 3 * super().forward(input)


def dense() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 3)


def beside(where: str) -> nn.Module:
    layer = dense()
    model = nn.Sequential(layer)
    if where == "before a layer":
        layer.register_forward_pre_hook(ten_times_before)
    elif where == "in place after a layer":
        layer.register_forward_hook(lambda module, inputs, output: output.mul_(10))
    elif where == "own forward of one object":
        layer.forward = lambda input: 10 * F.linear(input, layer.weight)
    else:
        (layer if where == "after a layer" else model).register_forward_hook(ten_times)
    return model


@pytest.mark.parametrize(
    "where",
    ["before a layer", "after a layer", "in place after a layer", "after the network", "own forward of one object"],
)
def test_what_runs_beside_forward_counts(where: str) -> None:
    assert product_bound(beside(where), (6,)) == pytest.approx(10 * operator_norm(dense(), (6,)))


def test_hooks_of_all_modules_count() -> None:
    layer = dense()
    with torch.nn.modules.module.register_module_forward_hook(ten_times):  # runs for the Linear and for the Sequential
        bound = product_bound(nn.Sequential(layer), (6,))
        with pytest.raises(ValueError, match="hooks that run beside"):
            operator_norm(layer, (6,))
    assert bound == pytest.approx(100 * operator_norm(layer, (6,)))


@pytest.mark.parametrize("kind", [OwnConvolution, OwnForward])
def test_convolutions_with_code_of_their_own(kind: type[nn.Conv2d]) -> None:
    torch.manual_seed(0)
    layer = kind(1, 2, 3)
    plain = nn.Conv2d(1, 2, 3)
    plain.load_state_dict(layer.state_dict())
    assert product_bound(layer, (1, 5, 5)) == pytest.approx(10 * operator_norm(plain, (1, 5, 5), padding="zeros"))
    with pytest.raises(TypeError, match="has its own"):
        operator_norm(layer, (1, 5, 5))


def test_subclasses_are_what_they_compute() -> None:
    assert lipschitz_bounds(MyReLU(), (4,)) == [("0", "MyReLU", 1.0)]
    assert product_bound(AlsoReLU(), (4,)) == 3

    class MyPool(nn.MaxPool2d):
        pass

    assert product_bound(MyPool(3, 2), (1, 9, 9)) == 2


def loaded_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning):
        layer = nn.utils.weight_norm(dense())
    state = layer.state_dict()
    layer.load_state_dict(state | {"weight_g": 100 * state["weight_g"]})
    return layer


def pruned() -> nn.Module:
    layer = prune.l1_unstructured(dense(), "weight", 0.5)
    layer.weight_orig.data.mul_(10)
    return layer


@pytest.mark.parametrize(
    "make",
    [
        loaded_weight_norm,
        pruned,
        lambda: parametrizations.weight_norm(dense()),
        lambda: parametrizations.spectral_norm(dense()),
    ],
)
def test_the_weight_is_that_of_the_next_forward_pass(make: Callable[[], nn.Module]) -> None:
    layer = make().eval()
    found, bound = operator_norm(layer, (6,)), product_bound(layer, (6,))
    matrix = layer(torch.eye(6)) - layer(torch.zeros(1, 6))
    assert found == pytest.approx(float(torch.linalg.matrix_norm(matrix.detach().double(), 2)), rel=1e-5)
    assert bound == pytest.approx(found)


@pytest.mark.parametrize("nested", [False, True])
def test_parallel_wrappers_are_looked_through(nested: bool) -> None:
    wrapped: nn.Module = nn.DataParallel(nn.Sequential(dense(), nn.ReLU()))
    wrapped = nn.Sequential(wrapped, nn.Flatten()) if nested else wrapped
    assert product_bound(wrapped, (6,)) == pytest.approx(operator_norm(dense(), (6,)))


JUMPS = {
    "round": torch.round,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "trunc": torch.trunc,
    "sign": torch.sign,
    "frac": torch.frac,
    "heaviside": lambda x: torch.heaviside(x, torch.tensor(0.5)),
    "rounding_mode='floor'": lambda x: torch.div(255 * x, 1, rounding_mode="floor"),
    "floor_divide": lambda x: x // 1,
    "remainder": lambda x: x % 1,
    "uint8": lambda x: (x * 255).to(torch.uint8).float(),
    "bool": lambda x: x.bool().float(),
    "gt": lambda x: torch.where(x > 0.5, x, 2 * x),
    "argmax": lambda x: x + x.argmax(1, keepdim=True),
    "fake_quantize": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, 0, 255),
    "hardshrink": F.hardshrink,
    "threshold": lambda x: F.threshold(x, 0.5, 0.0),
    "Softplus": lambda x: F.softplus(x, 1, 1),
}


@pytest.mark.parametrize("name", JUMPS)
def test_jumps_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        product_bound(Calls(JUMPS[name]), (4,))


UNSEEN = {
    "a branch on values": lambda x: x if x.sum() > 0 else 2 * x,
    "a number read": lambda x: x * float(x.max()),
    "NumPy": lambda x: x + torch.from_numpy(3 * x.detach().numpy()),
    "lists": lambda x: x + torch.tensor(x.tolist()),
    "random numbers": lambda x: x + torch.rand(x.shape),
    "dropout": lambda x: F.dropout(x, 0.5, True),
    "mixed images": lambda x: x - x.mean(0),
    "a sum over images": lambda x: x + x.sum(0, keepdim=True),
    "a product": lambda x: x * torch.sigmoid(x),
    "a product in place": lambda x: (1.0 * x).mul_(x),
    "a power": lambda x: x**2,
    "two outputs": lambda x: (x, x),
}


@pytest.mark.parametrize("name", UNSEEN)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_bounded_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        product_bound(Calls(UNSEEN[name]), (4,))


def test_an_exception_that_the_network_swallows_is_still_raised() -> None:
    def forward(x: Tensor) -> Tensor:
        try:
            return 10 * x if float(x.sum()) > 0 else x
        except ValueError:
            return x

    with pytest.raises(ValueError, match="cannot be traced"):
        product_bound(Calls(forward), (4,))


def test_lazy_layers_are_not_initialised_by_asking() -> None:
    layer = nn.LazyLinear(3)
    for call in (product_bound, operator_norm):
        with pytest.raises(ValueError, match="no weights yet"):
            call(layer, (4,))
    assert nn.parameter.is_lazy(layer.weight)


# -- contexts, types, and what is left as it was --------------------------------------------------------------------


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rest = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())
        self.last = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.last(self.rest(x))


def state(model: nn.Module) -> list:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    entries: list = [(name, id(one), one._version, one.requires_grad, one.grad, one.tolist()) for name, one in tensors]
    return entries + [(m.training, sorted(m.__dict__), len(m._forward_hooks)) for m in model.modules()]


def test_nothing_is_changed_by_asking() -> None:
    torch.manual_seed(0)
    model, images = Counts().train(), torch.rand(3, 1, 4, 4) - 0.5
    model.rest[1].eval()
    before, values, random = state(model), images.clone(), torch.get_rng_state()
    for call in (lipschitz_bounds, product_bound, Certifier):
        call(model, (1, 4, 4))
    layer_outputs(model, images), jacobian_norms(model, images)
    assert state(model) == before
    assert torch.equal(images, values) and images._version == 0 and images.grad is None
    assert torch.equal(torch.get_rng_state(), random)


def test_the_jacobian_is_that_of_evaluation_mode() -> None:
    torch.manual_seed(0)
    model, images = Counts(), torch.rand(3, 1, 4, 4)
    model(images)  # running statistics unlike the batch's
    assert torch.equal(jacobian_norms(model.train(), images), jacobian_norms(model.eval(), images))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, lambda: torch.set_grad_enabled(False)])
def test_every_context_gives_the_same_numbers(context: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model, images = Counts().eval(), torch.rand(3, 1, 4, 4)

    def numbers(images: Tensor) -> list[float]:
        certifier = Certifier(model, (1, 4, 4))
        with torch.no_grad():
            logits = model(images.clone())  # a copy made outside of inference mode is a tensor as others
        radii = certifier.radii(logits, logits.argmax(1), num_steps=3)
        norm = operator_norm(model.rest[1], (1, 4, 4))
        return [certifier.constant(num_steps=3), norm, *radii.tolist(), *jacobian_norms(model, images).tolist()]

    expected = numbers(images.clone())
    with context():
        assert numbers(images.clone()) == pytest.approx(expected, rel=1e-6)
        made = images.clone()
    assert numbers(made) == pytest.approx(expected, rel=1e-6)


def test_a_network_made_in_inference_mode_can_be_certified_outside() -> None:
    with torch.inference_mode():
        model = Counts().eval()
    images = torch.rand(3, 1, 4, 4)
    assert float(jacobian_norms(model, images).max()) <= Certifier(model, (1, 4, 4)).constant(num_steps=3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_type_gets_the_bound_of_its_numbers(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Counts().to(dtype).eval()
    bound = product_bound(model, (1, 4, 4))
    assert bound == pytest.approx(product_bound(Counts().double().eval(), (1, 4, 4)), rel=0.5)
    exact = Counts().double().eval()
    exact.load_state_dict(model.state_dict())
    assert bound == pytest.approx(product_bound(exact, (1, 4, 4)), rel=1e-12)
    images = torch.rand(5, 1, 4, 4).to(dtype)
    assert float(jacobian_norms(model, images).max()) <= bound
    with torch.autocast("cpu", torch.bfloat16):
        assert product_bound(model, (1, 4, 4)) == bound
    assert layer_outputs(model, images)[-1].dtype == dtype


def test_the_eps_of_a_type_is_that_of_the_input() -> None:
    layer = nn.RMSNorm(4, elementwise_affine=False)
    assert product_bound(layer, (4,)) == pytest.approx(torch.finfo(torch.float32).eps ** -0.5)
    double = nn.Sequential(nn.Linear(4, 4, bias=False).double(), layer)
    nn.init.eye_(double[0].weight)
    assert product_bound(double, (4,)) == pytest.approx(torch.finfo(torch.float64).eps ** -0.5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda model: product_bound(model, (1, 4.5, 4)), TypeError, "whole numbers"),
        (lambda model: product_bound(model, (1, 0, 4)), ValueError, "at least 1"),
        (lambda model: product_bound(model, (2, 4, 4)), ValueError, "does not fit"),
        (lambda model: product_bound(3, (4,)), TypeError, "torch module, got int"),
        (lambda model: layer_outputs(model, torch.ones(2, 1, 4, 4).long()), TypeError, "int64"),
        (lambda model: jacobian_norms(model, torch.ones(2, 1, 4, 4).long()), TypeError, "int64"),
        (lambda model: jacobian_norms(model, torch.rand(2, 1, 4, 4), num_steps=2.5), TypeError, "num_steps.*2.5"),
        (lambda model: jacobian_norms(model, torch.rand(2, 1, 4, 4), batch_size=0), ValueError, "batch_size"),
        (lambda model: jacobian_norms(lambda x: torch.ones(len(x), 2), torch.rand(2, 3)), ValueError, "no gradient"),
        (lambda model: Certifier(model, (1, 4, 4), box=(1.0, 0.0)), ValueError, "box"),
        (lambda model: Certifier(nn.Conv2d(1, 2, 3), (1, 4, 4)), ValueError, r"logits \(N, K\)"),
    ],
)
def test_wrong_calls_get_one_line(call: Callable, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        call(Counts())
    assert "\n" not in str(raised.value)
    assert float(jacobian_norms(nn.Linear(3, 2), torch.rand(1, 3), num_steps=50.0)[0]) > 0  # an exact 50 is one

"""Every bound on random small networks, over types, shapes, labels and contexts: never below what is met."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from intriguing.spectral import (
    Certifier,
    certified_radii,
    jacobian_norms,
    layer_outputs,
    lipschitz_bounds,
    operator_norm,
    product_bound,
)

CONTEXTS: dict[str, Callable[[], Any]] = {
    "plain": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}
SHAPES = [(2, 5), (1, 6, 6), (3, 5, 4)]
CLASSES = 4


class Residual(nn.Module):
    """x + f(x), written in one of several ways."""

    def __init__(self, inner: nn.Module, way: int) -> None:
        super().__init__()
        self.inner, self.way = inner, way

    def forward(self, x: Tensor) -> Tensor:
        if self.way == 0:
            return x + self.inner(x)
        out = self.inner(x).clone()
        out += x
        return out


def layers(channels: int, dims: int, draw: Callable[[st.SearchStrategy], Any]) -> list[nn.Module]:
    """Up to three layers that keep the number of channels."""
    conv = {1: nn.Conv1d, 2: nn.Conv2d}[dims]
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dims]
    made: list[nn.Module] = []
    for kind in draw(st.lists(st.sampled_from(["conv", "residual", "norm", "relu", "tanh", "gelu"]), max_size=3)):
        if kind == "conv":
            made.append(conv(channels, channels, 3, padding=1, stride=draw(st.sampled_from([1, 2]))))
        elif kind == "residual":
            made.append(Residual(conv(channels, channels, 1), draw(st.sampled_from([0, 1]))))
        elif kind == "norm":
            layer = norm(channels)
            layer.running_var.uniform_(0.3, 2)  # type: ignore[union-attr]
            layer.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
            made.append(layer)
        else:
            writes = bool(made) and isinstance(made[-1], conv | norm)  # autograd does not need what these return
            made.append({"relu": nn.ReLU(inplace=writes), "tanh": nn.Tanh(), "gelu": nn.GELU()}[kind])
    return made


@st.composite
def networks(draw: Callable[[st.SearchStrategy], Any]) -> tuple[nn.Module, tuple[int, ...]]:
    shape = draw(st.sampled_from(SHAPES))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    body = layers(shape[0], len(shape) - 1, draw)
    with torch.no_grad():
        size = nn.Sequential(*body).eval()(torch.zeros(1, *shape)).numel()
    head: list[nn.Module] = [nn.Flatten(), nn.Dropout(0.5), nn.Linear(size, CLASSES)]
    if draw(st.booleans()):
        head = [nn.Flatten(), nn.Linear(size, 6), nn.ReLU(), nn.Linear(6, CLASSES)]
    return nn.Sequential(*body, *head), shape


@settings(max_examples=40)
@given(
    made=networks(),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    label_dtype=st.sampled_from([torch.uint8, torch.int8, torch.int32, torch.int64]),
    context=st.sampled_from(sorted(CONTEXTS)),
)
def test_no_bound_is_below_a_ratio_met(made, dtype, label_dtype, context):
    with torch.random.fork_rng():
        model, shape = made
        model.to(dtype).train()
        inputs = torch.rand(6, *shape).to(dtype)
        before, version = inputs.clone(), inputs._version
        weights = [value.clone() for value in model.state_dict().values()]
        state = torch.random.get_rng_state()
        with CONTEXTS[context]():
            bounds = lipschitz_bounds(model, shape)
            product = product_bound(model, shape)
            certifier = Certifier(model, shape)
            constant = certifier.constant(num_steps=20)
            slopes = jacobian_norms(model, inputs, num_steps=30)
            outputs = layer_outputs(model, inputs)
        assert torch.equal(torch.random.get_rng_state(), state)

    # nothing has changed
    assert (inputs._version, inputs.dtype) == (version, dtype)
    assert torch.equal(inputs, before)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), weights, strict=True))
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())

    # what is met: in float64, where rounding adds nothing
    exact = model.double().eval()
    one, other = before.double(), torch.rand(6, *shape, dtype=torch.float64)
    with torch.no_grad():
        met = (exact(one) - exact(other)).norm(dim=1) / (one - other).flatten(1).norm(dim=1)
    assert len(bounds) == len(outputs) > 0
    assert all(bound.bound >= 0 for bound in bounds)
    assert float(met.max()) <= constant * (1 + 1e-6)
    assert constant <= product * (1 + 1e-6)
    jacobian = max(float(torch.linalg.matrix_norm(_jacobian(exact, x), 2)) for x in one)
    assert jacobian <= constant * (1 + 1e-6)
    assert float(slopes.max()) <= jacobian * (1.2 if dtype != torch.float64 and context == "autocast" else 1.05)

    # a certificate holds: no image within the radius has another answer
    logits = exact(one).detach()
    labels = logits.argmax(dim=1)
    radii = certified_radii(logits, labels.to(label_dtype), constant)
    step = torch.randn(6, *shape, dtype=torch.float64)
    step = step / step.flatten(1).norm(dim=1).view(-1, *[1] * len(shape)) * 0.999
    moved = one + step * radii.double().view(-1, *[1] * len(shape))
    with torch.no_grad():
        assert torch.equal(exact(moved).argmax(dim=1)[radii > 0], labels[radii > 0])


def _jacobian(model: nn.Module, image: Tensor) -> Tensor:
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x[None])[0], image)
    assert isinstance(jacobian, Tensor)
    return jacobian.reshape(-1, image.numel())


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    context=st.sampled_from(sorted(CONTEXTS)),
    stride=st.integers(1, 3),
    groups=st.sampled_from([1, 2]),
)
def test_operator_norms_are_those_of_dense_matrices(seed, dtype, context, stride, groups):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = nn.Conv2d(2, 4, 3, stride=stride, padding=1, groups=groups, bias=False).to(dtype)
    weight = layer.weight.detach().clone()
    with CONTEXTS[context]():
        norm = operator_norm(layer, (2, 6, 6), padding="zeros")
    assert torch.equal(layer.weight, weight)
    exact = torch.linalg.matrix_norm(_jacobian(layer.double(), torch.zeros(2, 6, 6, dtype=torch.float64)), 2)
    assert float(exact) <= norm * (1 + 1e-6)
    assert norm <= float(exact) * 1.6  # of the circular convolution, or with a margin

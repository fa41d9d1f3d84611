"""Layer bounds against dense matrices and against the steepest place that a search finds."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from intriguing.spectral import ContrastNormalization, jacobian_norms, layer_outputs, lipschitz_bounds, product_bound


def jacobian_norm(layer: nn.Module, x: Tensor) -> float:
    jacobian = torch.autograd.functional.jacobian(lambda one: layer(one[None])[0].flatten(), x)
    return float(torch.linalg.matrix_norm(jacobian.flatten(1), 2))


def bound(layer: nn.Module, shape: tuple[int, ...]) -> float:
    (entry,) = lipschitz_bounds(layer.eval(), shape)
    assert entry.kind == type(layer).__name__
    return entry.bound


LINEAR = [
    (nn.AvgPool2d(3, 2), (2, 9, 8)),
    (nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), (1, 8, 9)),
    (nn.AvgPool2d((2, 3), (1, 2), padding=1, count_include_pad=False), (1, 7, 8)),
    (nn.AvgPool2d(2, divisor_override=3), (1, 6, 6)),
    (nn.AdaptiveAvgPool2d((3, 2)), (1, 7, 5)),
    (nn.AdaptiveAvgPool2d(1), (1, 6, 6)),
]


@pytest.mark.parametrize(("layer", "shape"), LINEAR)
def test_average_pools_are_exact(layer: nn.Module, shape: tuple[int, ...]) -> None:
    assert bound(layer, shape) == pytest.approx(jacobian_norm(layer, torch.rand(shape, dtype=torch.float64)), rel=1e-8)


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_with_every_padding_are_bounded(mode: str, stride: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, stride, padding=2, padding_mode=mode, dtype=torch.float64)
    true = jacobian_norm(conv, torch.zeros(2, 6, 6, dtype=torch.float64))
    assert true * (1 - 1e-12) <= bound(conv, (2, 6, 6)) <= 3.1 * true


@pytest.mark.parametrize(
    ("pool", "shape", "expected"),
    [
        (nn.MaxPool2d(2), (1, 8, 8), 1.0),
        (nn.MaxPool2d(3, 2), (1, 13, 13), 2.0),  # section 6's erratum: four windows
        (nn.MaxPool2d(3, 1), (1, 8, 8), 3.0),
        (nn.MaxPool2d(3, 2), (1, 3, 3), 1.0),  # a single window
        (nn.MaxPool2d((3, 2), (1, 2)), (1, 9, 8), math.sqrt(3)),
        (nn.MaxPool2d(2, 1, dilation=2), (1, 6, 6), 2.0),
        (nn.AdaptiveMaxPool2d(2), (1, 3, 3), 2.0),
        (nn.MaxPool1d(3, 2), (1, 9), math.sqrt(2)),
    ],
)
def test_max_pools_count_the_windows_a_pixel_can_win(pool: nn.Module, shape: tuple, expected: float) -> None:
    assert bound(pool, shape) == pytest.approx(expected)
    lone = torch.zeros(shape, dtype=torch.float64)
    lone[..., shape[-1] // 2] = 1 if len(shape) == 2 else 0
    lone[(0, *(n // 2 for n in shape[1:]))] = 1  # it wins all its windows
    assert jacobian_norm(pool, lone) <= expected + 1e-12


ACTIVATIONS = [
    *(
        nn.ReLU(),
        nn.LeakyReLU(1.7),
        nn.Sigmoid(),
        nn.Tanh(),
        nn.ELU(1.4),
        nn.SELU(),
        nn.GELU(),
        nn.GELU("tanh"),
        nn.CELU(2.0),
    ),
    *(
        nn.SiLU(),
        nn.Mish(),
        nn.Hardswish(),
        nn.Hardsigmoid(),
        nn.Softplus(3),
        nn.Softsign(),
        nn.LogSigmoid(),
        nn.PReLU(),
    ),
]


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
def test_activations_are_bounded_tightly(layer: nn.Module) -> None:
    x = torch.linspace(-8, 8, 100_001)[None].requires_grad_()
    (slopes,) = torch.autograd.grad(layer(x).sum(), x)
    steepest = float(slopes.abs().max())
    assert steepest * (1 - 1e-4) <= bound(layer, (5,)) <= 1.002 * steepest


def steepest(layer: nn.Module, shape: tuple[int, ...], scale: float) -> float:
    """The largest Jacobian norm that gradient ascent finds from several starts."""
    torch.manual_seed(0)
    best = 0.0
    for start in (0.01, 0.3, 1.0, 3.0):
        x = (start * scale * torch.randn(shape, dtype=torch.float64)).requires_grad_()
        adam = torch.optim.Adam([x], lr=0.05 * scale)
        for _ in range(40):
            jacobian = torch.autograd.functional.jacobian(
                lambda one: layer(one[None])[0].flatten(), x, create_graph=True
            )
            norm = torch.linalg.matrix_norm(jacobian.flatten(1).view(x.numel(), -1), 2)
            best = max(best, float(norm.detach()))
            adam.zero_grad()
            (-norm).backward()
            adam.step()
    return best


def eval_batch_norm() -> nn.Module:
    layer = nn.BatchNorm2d(3, dtype=torch.float64)
    layer.running_var = torch.tensor([0.5, 2.0, 0.1], dtype=torch.float64)
    layer.weight.data = torch.tensor([1.0, -3.0, 0.2], dtype=torch.float64)
    return layer.eval()


@pytest.mark.parametrize(
    ("layer", "shape", "scale", "slack"),
    [
        (eval_batch_norm(), (3, 2, 2), 1.0, 1.0001),
        (nn.LayerNorm(6, eps=0.1, dtype=torch.float64), (6,), 0.1, 1.01),
        (nn.GroupNorm(2, 4, eps=0.1, dtype=torch.float64), (4, 2, 1), 0.1, 1.01),
        (ContrastNormalization(0.5, 0.75), (4, 1, 1), 1.0, 1.01),
        (ContrastNormalization(2.0, 4.0), (3, 1, 1), 1.0, 1.01),
        (nn.LocalResponseNorm(5, alpha=2.0, beta=0.75, k=0.7), (8, 1, 1), 1.0, 2.1),
        (nn.LocalResponseNorm(3, alpha=1.0, beta=2.5, k=2.0), (5, 1, 1), 1.0, 3.0),
    ],
)
def test_normalisations_are_bounded(layer: nn.Module, shape: tuple, scale: float, slack: float) -> None:
    found = steepest(layer, shape, scale)
    assert found <= bound(layer, shape) * (1 + 1e-9)
    assert bound(layer, shape) <= slack * found


def test_the_bound_of_softmax_is_reached_where_two_classes_share_everything() -> None:
    """There the Jacobian is diag(p) - pp' with p = (1/2, 1/2, 0, ...), whose norm is 1/2."""
    shared = torch.tensor([0.0, 0.0, -60.0, -60.0, -60.0], dtype=torch.float64)
    assert jacobian_norm(nn.Softmax(1), shared) == pytest.approx(0.5, rel=1e-12)
    assert bound(nn.Softmax(1), (5,)) == pytest.approx(0.5, rel=1e-12)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Linear(2, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - 0.5) / 0.25
        x = F.relu(x + self.norm(self.first(x)))
        return self.last(torch.cat([x, 2 * x], 2).mean((2, 3)).view(images.size(0), -1))


def test_a_network_with_branches_is_walked_in_order() -> None:
    torch.manual_seed(0)
    model = Residual()
    before = [module.training for module in model.modules()]
    layers = lipschitz_bounds(model, (2, 5, 5))
    kinds = ["sub", "div", "residual sum", "relu", "concatenation", "mean", "view", "Linear"]
    assert [layer.kind for layer in layers] == kinds
    by_kind = {layer.kind: layer.bound for layer in layers}
    branch = math.prod(b for _, _, b in lipschitz_bounds(nn.Sequential(model.first, model.norm), (2, 5, 5)))
    assert by_kind["residual sum"] == pytest.approx(1 + branch)
    assert by_kind["div"] == pytest.approx(4)
    assert by_kind["concatenation"] == pytest.approx(math.sqrt(5))
    assert by_kind["mean"] == pytest.approx(1 / math.sqrt(50))
    assert [module.training for module in model.modules()] == before
    images = torch.rand(20, 2, 5, 5)
    assert float(jacobian_norms(model.eval(), images).max()) <= product_bound(model, (2, 5, 5))
    outputs = layer_outputs(model, images)
    assert len(outputs) == len(layers)
    torch.testing.assert_close(outputs[-1], model(images))
    torch.testing.assert_close(outputs[1], (images - 0.5) / 0.25)


def test_layers_that_work_in_place_do_not_overwrite_what_is_kept() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(inplace=True))
    images = torch.rand(3, 1, 2, 2)
    torch.testing.assert_close(layer_outputs(model, images)[1], model[:2](images))


class Attends(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Doubled(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Bilinear(2, 2, 2)), "does not fit|Bilinear"),
        (nn.Sequential(nn.Linear(4, 4), nn.RReLU()), "layer '1' \\(RReLU\\)"),
        (Attends(), "operation 'mul'"),
        (Branches(), "cannot be traced"),
        (nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False)), "running statistics"),
        (nn.Sequential(nn.Linear(3, 4)), "does not fit"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_bound_is_an_error(model: nn.Module, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lipschitz_bounds(model, (4,))


def test_a_subclass_with_its_own_forward_is_read_and_rules_can_be_given() -> None:
    (double, relu) = sorted(lipschitz_bounds(nn.Sequential(Doubled()), (4,)), key=lambda layer: -layer.bound)
    assert (double.bound, relu.bound) == (2, 1)
    (given,) = lipschitz_bounds(nn.Sequential(nn.RReLU()), (4,), rules={nn.RReLU: lambda layer, shape: 1.0 * shape[0]})
    assert given == ("0", "RReLU", 4.0)


def test_jacobian_norms_are_the_largest_singular_values() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    images = torch.rand(7, 1, 3, 3, dtype=torch.float64)
    found = jacobian_norms(model, images, num_steps=2000, tolerance=1e-12, batch_size=3)
    true = torch.tensor([jacobian_norm(model, image) for image in images], dtype=torch.float64)
    torch.testing.assert_close(found, true, rtol=1e-5, atol=0)
    assert bool((found <= true * (1 + 1e-12)).all())

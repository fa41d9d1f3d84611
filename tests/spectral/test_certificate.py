"""The semidefinite bound against brute force over activation patterns, and certificates against found attacks."""

from __future__ import annotations

import itertools
import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from intriguing.attacks import AttackWarning, nearest
from intriguing.spectral import Certifier, certified_radii, jacobian_norms, product_bound
from intriguing.spectral.certificate import slope_bounds, split
from intriguing.spectral.lipschitz import trace


def network(*widths: int, activation: type[nn.Module] = nn.Sigmoid, seed: int = 0, scale: float = 2.0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    model = nn.Sequential(*layers[:-1]).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
        model[-1].bias.sub_(model(torch.full((1, widths[0]), 0.5, dtype=torch.float64))[0])  # every class is somewhere
    return model


def brute_force(model: nn.Sequential, steepest: float) -> float:
    """The largest |W_K D ... D W_1| over all diagonal D with entries 0 or `steepest`: the bound that patterns allow."""
    weights = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    patterns = [itertools.product((0.0, steepest), repeat=len(weight)) for weight in weights[:-1]]
    best = 0.0
    for choice in itertools.product(*patterns):
        matrix = weights[0]
        for diagonal, weight in zip(choice, weights[1:], strict=True):
            matrix = weight @ (torch.tensor(diagonal, dtype=torch.float64)[:, None] * matrix)
        best = max(best, float(torch.linalg.matrix_norm(matrix.detach(), 2)))
    return best


@pytest.mark.parametrize(
    ("widths", "activation", "steepest"),
    [
        ((4, 6, 3), nn.Sigmoid, 0.25),
        ((3, 6, 3), nn.ReLU, 1.0),
        ((4, 5, 4, 2), nn.Sigmoid, 0.25),
        ((3, 3, 3, 3, 2), nn.ReLU, 1.0),
        ((2, 7, 2), nn.Tanh, 1.0),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_semidefinite_bound_lies_between_all_patterns_and_the_product(
    widths: tuple[int, ...], activation: type[nn.Module], steepest: float, seed: int
) -> None:
    model = network(*widths, activation=activation, seed=seed)
    found = Certifier(model, (widths[0],), box=None).constant()
    assert brute_force(model, steepest) <= found <= product_bound(model, (widths[0],)) * (1 + 1e-3)
    images = torch.rand(500, widths[0], dtype=torch.float64) * 4 - 2
    assert float(jacobian_norms(model, images).max()) <= found


def test_it_is_exact_where_the_optimum_is_known() -> None:
    """One unit in the hidden layer: |w2| |w1| / 4; and no hidden layer: the norm."""
    model = network(5, 1, 3)
    first, last = model[1].weight.detach(), model[3].weight.detach()
    expected = float(first.norm() * last.norm()) / 4
    assert Certifier(model, (5,), box=None).constant() == pytest.approx(expected, rel=1e-4)
    linear = network(5, 3)
    assert Certifier(linear, (5,)).constant() == pytest.approx(
        float(torch.linalg.matrix_norm(linear[1].weight.detach(), 2))
    )


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU])
def test_slopes_over_the_box_hold_at_every_point(activation: type[nn.Module]) -> None:
    model = network(6, 8, 7, 3, activation=activation, scale=1.5)
    model[1].bias.data[:4] = torch.tensor([20.0, -20.0, 20.0, -20.0])  # units whose sign the box decides
    _, chain = split(trace(model, (6,)).layers)
    assert chain is not None
    bounds = slope_bounds(chain, (0.0, 1.0))
    everywhere = slope_bounds(chain)
    sharper = [(low > least) | (high < most) for (low, high), (least, most) in zip(bounds, everywhere, strict=True)]
    assert bool(torch.cat(sharper).any())
    x = torch.rand(2000, 6, dtype=torch.float64).round(decimals=1)
    for layer, (low, high), (least, most) in zip((1, 3), bounds, everywhere, strict=True):
        before = model[: layer + 1](x).detach().requires_grad_()
        (slopes,) = torch.autograd.grad(model[layer + 1](before).sum(), before)
        assert bool((slopes >= low - 1e-12).all()) and bool((slopes <= high + 1e-12).all())
        assert bool((low >= least).all()) and bool((high <= most).all())


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.ReLU])
def test_no_certificate_exceeds_a_found_adversarial_distance(activation: type[nn.Module]) -> None:
    model = network(9, 12, 8, 4, activation=activation, seed=3, scale=4.0)
    images = torch.rand(200, 1, 3, 3, dtype=torch.float64)
    logits = model(images).detach()
    labels = logits.argmax(dim=1)
    found = nearest(model, images, labels)
    distance = found.distortion * math.sqrt(9)
    certifier = Certifier(model, (1, 3, 3))
    by_pairs = certifier.radii(logits, labels)
    single = certified_radii(logits, labels, certifier.constant())
    assert int(found.success.sum()) > 50
    assert bool((by_pairs <= distance).all()) and bool((single <= distance).all())
    assert float(by_pairs.mean()) > float(single.mean())
    wrong = (labels + 1) % 4
    assert bool((certifier.radii(logits, wrong) == 0).all()) and bool((certified_radii(logits, wrong, 1.0) == 0).all())


def test_linear_certificates_are_the_exact_distances_without_a_box() -> None:
    model = network(6, 3)
    images = torch.rand(20, 6, dtype=torch.float64)
    logits = model(images).detach()
    labels = logits.argmax(dim=1)
    radii = Certifier(model, (6,)).radii(logits, labels)
    weight = model[1].weight.detach()
    for logit, label, radius in zip(logits, labels, radii, strict=True):
        others = [k for k in range(3) if k != int(label)]
        exact: list[Tensor] = [(logit[label] - logit[k]) / (weight[label] - weight[k]).norm() for k in others]
        assert float(radius) == pytest.approx(float(min(exact)), rel=1e-6)


def convolutional(*rest: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), *rest).double().eval()
    )


def test_every_network_gets_the_sharpest_bound_and_it_is_said_which() -> None:
    shape = (1, 3, 3)
    last = nn.Linear(18, 3)
    single = Certifier(convolutional(last), shape)
    several = Certifier(convolutional(nn.Linear(18, 6), nn.ReLU(), nn.Linear(6, 3)), shape)
    other = Certifier(convolutional(nn.Linear(18, 3), nn.LogSoftmax(1)), shape)
    dense = Certifier(network(9, 6, 3), shape)
    methods = [one.method for one in (single, several, other, dense)]
    assert methods == ["product", "product and LipSDP", "product", "LipSDP"]
    assert single.constant() == pytest.approx(single.product, rel=1e-9) and several.constant() < several.product
    before = product_bound(convolutional(), shape)
    row = float((last.weight[0] - last.weight[2]).detach().norm())
    assert single.pair_constant(0, 2) == pytest.approx(before * row, rel=1e-6)  # sharper than sqrt 2 times all
    assert other.pair_constant(0, 2) == pytest.approx(math.sqrt(2) * other.product)


def test_certificates_of_a_convolutional_network_hold_against_an_attack() -> None:
    model = convolutional(nn.Linear(18, 8), nn.ReLU(), nn.Linear(8, 3))
    images = torch.rand(40, 1, 3, 3, dtype=torch.float64)
    logits = model(images).detach()
    labels = logits.argmax(dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)  # this random network may have one answer for all images
        found = nearest(model, images, labels)
    radii = Certifier(model, (1, 3, 3)).radii(logits, labels)
    assert bool((radii <= found.distortion * 3).all()) and float(radii.max()) > 0


class Functions(nn.Module):
    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.first, self.last = model[1], model[3]
        self.register_buffer("mean", torch.full((1, 3, 1), 0.3, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.mean) / 0.25
        return self.last(torch.sigmoid(self.first(x.flatten(1))))


def test_a_normalisation_and_functions_are_part_of_the_programme() -> None:
    plain = network(9, 6, 3)
    model = Functions(plain)
    equal = network(9, 6, 3)
    with torch.no_grad():
        equal[1].bias.sub_(equal[1].weight @ torch.full((9,), 0.3 / 0.25, dtype=torch.float64))
        equal[1].weight.div_(0.25)
    certifier = Certifier(model, (1, 3, 3))
    assert certifier.method == "LipSDP"
    assert certifier.constant() == pytest.approx(Certifier(equal, (1, 3, 3)).constant(), rel=1e-9)


LOGITS = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 1.0]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_of_every_integer_type(dtype: torch.dtype) -> None:
    labels = torch.tensor([0, 1], dtype=dtype)
    expected = torch.tensor([1.0, 1.0], dtype=torch.float64) / math.sqrt(2) / 2
    torch.testing.assert_close(certified_radii(LOGITS, labels, 2.0), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(certified_radii(LOGITS.bfloat16(), labels, 2.0), expected, rtol=2e-2, atol=0)
    assert bool((certified_radii(LOGITS, labels, 2.0) <= expected).all())


@pytest.mark.parametrize(
    ("logits", "labels", "constant", "error", "words"),
    [
        (LOGITS, torch.tensor([0, 3]), 1.0, ValueError, r"0\.\.2, got 3"),
        (LOGITS, torch.tensor([0, -1]), 1.0, ValueError, r"0\.\.2, got -1"),
        (LOGITS, torch.tensor([0.0, 1.0]), 1.0, TypeError, "integers"),
        (LOGITS, torch.tensor([True, False]), 1.0, TypeError, "integers"),
        (LOGITS, torch.tensor([0]), 1.0, ValueError, "one label for each of 2"),
        (LOGITS.long(), torch.tensor([0, 1]), 1.0, TypeError, "int64"),
        (LOGITS * torch.nan, torch.tensor([0, 1]), 1.0, ValueError, "finite.*image 0"),
        (LOGITS * torch.inf, torch.tensor([0, 1]), 1.0, ValueError, "finite.*image 0"),
        (LOGITS, torch.tensor([0, 1]), math.nan, ValueError, "above 0"),
        (LOGITS, torch.tensor([0, 1]), "large", TypeError, "above 0"),
    ],
)
def test_wrong_logits_and_labels_get_one_line(
    logits: Tensor, labels: Tensor, constant, error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        certified_radii(logits, labels, constant)
    if not isinstance(constant, str) and constant == 1:
        with pytest.raises(error, match=words):
            Certifier(network(4, 3), (4,)).radii(logits, labels)

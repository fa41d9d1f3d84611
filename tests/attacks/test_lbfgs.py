"""The paper's attack against closed forms, SciPy and brute force."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attack_networks import curved_network, images, linear_network
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

from intriguing.attacks import AttackWarning, lbfgs


def other_class(model: nn.Module, inputs: torch.Tensor, shift: int = 1) -> torch.Tensor:
    logits = model(inputs)
    return (logits.argmax(dim=1) + shift) % logits.shape[1]


def test_far_from_the_box_two_linear_classes_give_the_distance_to_the_boundary():
    model = linear_network(scale=2.0)
    inputs = images(8, low=0.45, high=0.55)
    targets = other_class(model, inputs)
    result = lbfgs(model, inputs, targets, c_tolerance=1e-4, tolerance=1e-3)
    logits = model(inputs).detach()
    gap = (logits[:, 0] - logits[:, 1]).abs()
    exact = gap / (model[1].weight[0] - model[1].weight[1]).norm() / math.sqrt(16)
    assert result.success.all()
    torch.testing.assert_close(result.distortion, exact.detach(), rtol=1e-3, atol=0)
    assert (result.distortion >= exact * (1 - 1e-9)).all()


def test_with_the_box_two_linear_classes_give_the_quadratic_programme():
    model = linear_network(scale=1.0, seed=3)
    inputs = images(6, seed=5).round()  # every pixel at a bound
    targets = other_class(model, inputs)
    result = lbfgs(model, inputs, targets, c_tolerance=1e-4, tolerance=1e-3)
    weight, bias = (p.detach().numpy() for p in (model[1].weight, model[1].bias))
    for row in range(6):
        x, target = inputs[row].flatten().numpy(), int(targets[row])
        w, b = weight[target] - weight[1 - target], bias[target] - bias[1 - target]
        exact = minimize(
            lambda z, x=x: ((z - x) @ (z - x), 2 * (z - x)),
            np.full(16, 0.5),
            jac=True,
            method="SLSQP",
            bounds=[(0, 1)] * 16,
            constraints={"type": "ineq", "fun": lambda z, w=w, b=b: w @ z + b, "jac": lambda _, w=w: w},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        distance = float(result.distortion[row]) * 4
        assert distance == pytest.approx(math.sqrt(exact.fun), rel=2e-3)


def scipy_search(model: nn.Module, image: torch.Tensor, target: torch.Tensor) -> float:
    """Solve the problem by SciPy's L-BFGS-B and bisection of log c; return the distortion."""
    origin = image.flatten()
    low, high, best = math.log(1e-3), math.log(10), math.inf

    def objective(point: np.ndarray, c: float):
        x = torch.tensor(point, requires_grad=True)
        loss = c * (x - origin).square().sum() + F.cross_entropy(model(x.view(1, 1, 4, 4)), target[None])
        (gradient,) = torch.autograd.grad(loss, x)
        return float(loss.detach()), gradient.numpy()

    for _ in range(18):
        middle = (low + high) / 2
        answer = minimize(
            objective,
            origin.numpy(),
            args=(math.exp(middle),),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, 1)] * 16,
            options={"ftol": 1e-12, "gtol": 1e-7},
        )
        x = torch.tensor(answer.x)
        if int(model(x.view(1, 1, 4, 4)).argmax()) == int(target):
            low, best = middle, min(best, float((x - origin).square().mean().sqrt()))
        else:
            high = middle
    return best


def test_a_curved_network_gives_scipys_distortion():
    model, inputs = curved_network(dtype=torch.float64), images(3)
    targets = other_class(model, inputs)
    result = lbfgs(model, inputs, targets, c_tolerance=1e-3, tolerance=1e-2)
    reference = torch.tensor([scipy_search(model, x, t) for x, t in zip(inputs, targets, strict=True)])
    assert result.success.all()
    assert result.distortion.mean() <= 1.005 * reference.mean()


def test_success_and_distortion_are_those_of_the_returned_images():
    model, inputs = curved_network(), images(40, dtype=torch.float32)
    targets = other_class(model, inputs, 2)
    result = lbfgs(model, inputs, targets)
    assert len(result) == 40
    assert torch.equal(result.success, model(result.adv_inputs).argmax(dim=1) == targets)
    rms = (result.adv_inputs - inputs).flatten(1).square().mean(dim=1).sqrt()
    torch.testing.assert_close(result.distortion[result.success], rms[result.success])
    assert result.c is not None
    assert (result.c[result.success] > 0).all()
    assert (result.num_forwards > result.num_backwards).all()


def test_a_fine_search_over_c_beats_a_coarse_one():
    model, inputs = curved_network(), images(20, dtype=torch.float32)
    targets = other_class(model, inputs)
    coarse = lbfgs(model, inputs, targets, c_factor=2.0, c_tolerance=1.0)
    fine = lbfgs(model, inputs, targets)
    assert fine.distortion.mean() < coarse.distortion.mean()
    assert fine.num_forwards.sum() > coarse.num_forwards.sum()


def test_images_already_in_their_target_class_are_returned_unchanged():
    model, inputs = curved_network(), images(5, dtype=torch.float32)
    targets = model(inputs).argmax(dim=1)
    targets[4] = (targets[4] + 1) % 4
    result = lbfgs(model, inputs, targets)
    assert torch.equal(result.adv_inputs[:4], inputs[:4])
    assert result.distortion[:4].tolist() == [0.0] * 4
    assert result.success[:4].all()
    assert result.c is not None
    assert result.c[:4].isinf().all()
    assert result.distortion[4] > 0


def test_unreachable_targets_fail_and_leave_the_image():
    model = linear_network(3)
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    inputs = images(3)
    with pytest.warns(AttackWarning, match=r"2 images .* \(rows 0, 1\): that is no evidence of robustness"):
        result = lbfgs(model, inputs, torch.tensor([1, 2, 0]))
    assert result.success.tolist() == [False, False, True]
    assert result.distortion.tolist() == [math.inf, math.inf, 0.0]
    assert torch.equal(result.adv_inputs, inputs)
    assert result.c is not None
    assert result.c.isnan().tolist() == [True, True, False]


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 500), shift=st.integers(1, 3))
def test_the_box_is_never_left(seed, shift):
    model, inputs = curved_network(seed=seed), images(4, seed=seed, dtype=torch.float32)
    seen = []
    model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    result = lbfgs(model, inputs, other_class(model, inputs, shift), c_tolerance=0.1)
    everything = torch.cat([*seen, result.adv_inputs])
    assert everything.min() >= 0
    assert everything.max() <= 1
    assert (result.success == result.distortion.isfinite()).all()


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 500), chunk_size=st.integers(1, 7))
def test_an_image_does_not_depend_on_its_chunk(seed, chunk_size):
    model, inputs = curved_network(seed=seed, dtype=torch.float64), images(7, seed=seed)
    targets = other_class(model, inputs)
    together, apart = (lbfgs(model, inputs, targets, chunk_size=size) for size in (None, chunk_size))
    torch.testing.assert_close(apart.distortion, together.distortion, rtol=1e-4, atol=1e-9)


def test_never_worse_than_any_evaluated_success():
    model, inputs = curved_network(seed=7), images(6, dtype=torch.float32)
    targets = other_class(model, inputs)
    nearest = torch.full((6,), torch.inf)

    def watch(_, arguments, logits):
        x = arguments[0].detach()
        if len(x) != 6:
            return  # some rows have finished, and the network does not know which
        reached = logits.detach().argmax(dim=1) == targets
        distance = (x - inputs).flatten(1).square().mean(dim=1).sqrt()
        nearest.copy_(torch.where(reached, torch.minimum(nearest, distance), nearest))

    handle = model.register_forward_hook(watch)
    result = lbfgs(model, inputs, targets)
    handle.remove()
    assert (result.distortion <= nearest * (1 + 1e-4)).all()


@pytest.mark.parametrize(
    ("arguments", "settings_", "error", "message"),
    [
        ({"inputs": images(2) + 0.5}, {}, ValueError, r"inputs in \[0, 1\]"),
        ({"inputs": images(2) * torch.nan}, {}, ValueError, r"inputs in \[0, 1\]"),
        ({"inputs": images(2).long()}, {}, TypeError, "floating-point"),
        ({"inputs": images(2)[:0]}, {}, ValueError, "at least one image"),
        ({"targets": torch.tensor([0, 2])}, {}, ValueError, r"targets in 0\.\.1"),
        ({"targets": torch.tensor([-1, 1])}, {}, ValueError, r"targets in 0\.\.1"),
        ({"targets": torch.tensor([0.0, 1.0])}, {}, TypeError, "integer"),
        ({"targets": torch.tensor([0])}, {}, ValueError, r"targets of shape \(2,\)"),
        ({"model": nn.Flatten(0)}, {}, ValueError, r"logits of shape \(N, K\)"),
        ({}, {"chunk_size": 0}, ValueError, "chunk_size"),
        ({}, {"c_start": 0.0}, ValueError, "c_start"),
        ({}, {"c_factor": 1.0}, ValueError, "c_factor"),
        ({}, {"history_size": 0}, ValueError, "history_size"),
        ({}, {"max_evaluations": 99}, ValueError, "max_evaluations"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(arguments, settings_, error, message):
    right = {"model": linear_network(), "inputs": images(2), "targets": torch.tensor([0, 1])} | arguments
    with pytest.raises(error, match=message) as caught:
        lbfgs(right["model"], right["inputs"], right["targets"], **settings_)
    assert "\n" not in str(caught.value)


def test_non_finite_logits_are_refused():
    model = linear_network()
    with torch.no_grad():
        model[1].bias[0] = torch.nan
    with pytest.raises(ValueError, match="finite logits"):
        lbfgs(model, images(2), torch.tensor([0, 1]))


@pytest.mark.parametrize("chunk_size", [1, 40])
def test_in_single_precision_a_chunk_changes_no_more_than_the_search_resolves(chunk_size):
    """BLAS rounding depends on the batch size; the search amplifies it up to its tolerance at most."""
    model, inputs = curved_network(), images(90, dtype=torch.float32)
    targets = torch.arange(90) % 4
    together, apart = (lbfgs(model, inputs, targets, chunk_size=size) for size in (None, chunk_size))
    assert torch.equal(together.success, apart.success)
    torch.testing.assert_close(together.distortion.mean(), apart.distortion.mean(), rtol=1e-2, atol=0)


class Plateau(nn.Module):
    """Class 0 where the mean of the pixels is below 0.8; below 0.7 its logits are constant, so that no gradient is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(1).mean(dim=1)
        return torch.stack([torch.full_like(mean, 0.1), (mean - 0.7).clamp(min=0)], dim=1) * 20


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_where_the_gradient_at_the_image_is_zero_the_search_starts_elsewhere_and_comes_back(scale):
    model, inputs = Plateau(), images(6, low=0.1, high=0.4, dtype=torch.float32)
    point = inputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(point).sum(), point)
    assert not slope.any()
    result = lbfgs(lambda x: scale * model(x), inputs, torch.ones(6, dtype=torch.long))
    exact = 0.8 - inputs.flatten(1).mean(dim=1)  # all pixels rise alike, and none meets its bound
    assert result.success.all()
    torch.testing.assert_close(result.distortion, exact, rtol=1e-2, atol=0)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_logits_of_any_size_give_the_distance_to_the_boundary_of_two_linear_classes(scale):
    model = linear_network(scale=2.0).float()
    inputs = images(8, low=0.45, high=0.55, dtype=torch.float32)
    targets = other_class(model, inputs)
    result = lbfgs(lambda x: scale * model(x), inputs, targets)
    logits = model(inputs).detach()
    exact = (logits[:, 0] - logits[:, 1]).abs() / (model[1].weight[0] - model[1].weight[1]).norm().detach() / 4
    assert result.success.all()
    torch.testing.assert_close(result.distortion, exact, rtol=2e-2, atol=1e-5)


def trap(num_classes: int, *, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network whose last class wins only above a mean of 0.8525; its other logits are waves between 1 and 3.

    At darker images every slope of the last class is zero.
    """
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(16, num_classes - 1, generator=generator, dtype=torch.float64).to(dtype)

    class Trap(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            flat = x.flatten(1)
            far = 400 * (flat.mean(dim=1, keepdim=True) - 0.85).clamp(min=0)
            return torch.cat([2 + (flat @ weight).sin(), far], dim=1)

    return Trap()


@pytest.mark.parametrize("num_classes", [3, 1000])
def test_a_class_far_from_the_image_is_reached_with_few_and_with_many_classes(num_classes):
    model, inputs = trap(num_classes), images(5, high=0.4)
    result = lbfgs(model, inputs, torch.full((5,), num_classes - 1))
    assert result.success.all()
    least = 0.8525 - inputs.flatten(1).mean(dim=1)  # of any image whose last logit is above 1
    assert (result.distortion > least).all()
    assert (result.distortion < 1.2 * least).all()


@pytest.mark.parametrize("max_evaluations", [100, 400])
def test_no_image_takes_more_evaluations_than_allowed(max_evaluations):
    model, inputs = trap(6), images(24, high=0.4)
    targets = torch.arange(24) % 5  # of which some are already met
    targets[::3] = 5
    targets[0], inputs[0] = 5, 0.0
    unreachable = torch.zeros(6, dtype=torch.float64)
    unreachable[4] = -1e3
    evaluated = []

    def network(x: torch.Tensor) -> torch.Tensor:
        evaluated.append(len(x))
        return model(x) + unreachable

    result = lbfgs(network, inputs, targets, c_tolerance=1e-9, tolerance=1e-9, max_evaluations=max_evaluations)
    assert result.success[targets != 4].all()
    assert not result.success[(targets == 4)].any()
    assert result.num_forwards.max() <= max_evaluations
    assert result.num_backwards.max() <= max_evaluations
    assert sum(evaluated) <= int(result.num_forwards.sum()) + 1  # and the first image, to learn the network's shape


def test_more_evaluations_give_no_farther_images():
    model, inputs = curved_network(dtype=torch.float64), images(12)
    targets = other_class(model, inputs)
    few, many = (
        lbfgs(lambda x: 1e3 * model(x), inputs, targets, c_tolerance=1e-9, tolerance=1e-9, max_evaluations=n)
        for n in (100, 200)
    )
    assert (many.distortion <= few.distortion * (1 + 1e-9)).all()
    assert many.num_forwards.max() > 100


def test_an_image_that_needs_other_start_points_does_not_depend_on_its_batch():
    model, inputs = trap(4), images(9, high=0.4)
    targets = torch.tensor([3, 0, 3, 1, 3, 2, 3, 3, 3])
    together = lbfgs(model, inputs, targets)
    for row in (0, 8):
        alone = lbfgs(model, inputs[row : row + 1], targets[row : row + 1])
        torch.testing.assert_close(alone.distortion[0], together.distortion[row], rtol=1e-4, atol=1e-9)
        assert alone.c is not None and together.c is not None
        torch.testing.assert_close(alone.c[0], together.c[row], rtol=1e-2, atol=0)

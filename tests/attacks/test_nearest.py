"""The boundary attack against quadratic programmes solved by SciPy, and against the penalty method."""

import math

import numpy as np
import pytest
import torch
from attack_networks import curved_network, images, linear_network
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from intriguing.attacks import AttackWarning, closest, lbfgs, nearest
from intriguing.attacks.projection import project_onto_halfspaces


class Scale(torch.nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits * self.factor


def exact_projection(origin: np.ndarray, normals: np.ndarray, offsets: np.ndarray) -> float:
    """Distance from origin to {normals x >= offsets} in the unit box: SciPy on the dual, in float64."""

    def dual(multipliers: np.ndarray):
        x = np.clip(origin + normals.T @ multipliers, 0, 1)
        lacking = offsets - normals @ x
        return -(0.5 * ((x - origin) @ (x - origin)) + multipliers @ lacking), -lacking

    answer = minimize(
        dual,
        np.zeros(len(offsets)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * len(offsets),
        options={"ftol": 1e-16, "gtol": 1e-10, "maxiter": 5000},
    )
    return math.sqrt(max(0.0, -2 * answer.fun))


def exact_distance(model: torch.nn.Sequential, image: torch.Tensor, target: int) -> float:
    """The nearest image of a linear network's class: a quadratic programme."""
    weight, bias = (parameter.detach().numpy() for parameter in model[1].parameters())
    others = [k for k in range(len(bias)) if k != target]
    return exact_projection(image.flatten().numpy(), weight[target] - weight[others], bias[others] - bias[target])


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), num_constraints=st.integers(1, 4))
def test_projections_solve_the_quadratic_programme(seed, num_constraints):
    generator = torch.Generator().manual_seed(seed)
    origin, feasible = torch.rand(2, 3, 12, generator=generator, dtype=torch.float64)
    normals = torch.randn(3, num_constraints, 12, generator=generator, dtype=torch.float64)
    offsets = (normals @ feasible[:, :, None]).squeeze(2)
    x, multipliers = project_onto_halfspaces(origin, normals, offsets, num_steps=40)
    again, _ = project_onto_halfspaces(origin, normals, offsets, guess=multipliers, num_steps=1)
    torch.testing.assert_close(again, x, rtol=0, atol=1e-5)
    assert x.min() >= 0
    assert x.max() <= 1
    for row in range(3):
        exact = exact_projection(origin[row].numpy(), normals[row].numpy(), offsets[row].numpy())
        assert float((x[row] - origin[row]).norm()) == pytest.approx(exact, abs=1e-5)


def test_a_linear_network_gives_the_quadratic_programme():
    model, inputs = linear_network(5, scale=1.0), images(8)
    targets = (model(inputs).argmax(dim=1) + 1) % 5
    result = nearest(model, inputs, targets, targets=targets, num_rivals=4)
    exact = torch.tensor([exact_distance(model, x, int(t)) for x, t in zip(inputs, targets, strict=True)])
    assert result.success.all()
    assert (result.distortion * 4 >= exact * (1 - 1e-6)).all()
    assert result.distortion.mean() * 4 <= 1.001 * exact.mean()
    assert result.distortion.mean() < lbfgs(model, inputs, targets).distortion.mean()


def test_untargeted_on_a_linear_network_is_the_nearest_of_all_classes():
    model, inputs = linear_network(5, scale=1.0, seed=2), images(6)
    labels = model(inputs).argmax(dim=1)
    result = nearest(model, inputs, labels, num_candidates=4)
    for row in range(6):
        exact = min(exact_distance(model, inputs[row], k) for k in range(5) if k != int(labels[row]))
        assert float(result.distortion[row]) * 4 == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("targeted", [True, False])
def test_a_curved_network_is_crossed_nearer_than_by_the_penalty_method(targeted):
    model, inputs = curved_network(), images(30, dtype=torch.float32)
    labels = model(inputs).argmax(dim=1)
    targets = (labels + 1) % 4
    if targeted:
        ours, penalty = nearest(model, inputs, labels, targets=targets), lbfgs(model, inputs, targets)
    else:
        ours, penalty = nearest(model, inputs, labels, num_candidates=3), closest(lbfgs, model, inputs, labels)
    answers = model(ours.adv_inputs).argmax(dim=1)
    assert torch.equal(ours.success, answers == targets if targeted else answers != labels)
    reached = ours.success & penalty.success
    assert reached.sum() >= 25
    assert ours.distortion[reached].mean() < penalty.distortion[reached].mean()
    assert ours.adv_inputs.min() >= 0
    assert ours.adv_inputs.max() <= 1


def test_it_never_ends_farther_than_it_started():
    model, inputs = curved_network(seed=4), images(20, dtype=torch.float32)
    targets = (model(inputs).argmax(dim=1) + 2) % 4
    start, *ends = (
        nearest(model, inputs, targets, targets=targets, num_projections=n, num_restarts=0).distortion
        for n in (0, 2, 6)
    )
    for end in ends:
        assert (end <= start * (1 + 1e-6)).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_descent_needs_no_scale(scale):
    """The descent takes its scale from the slope of the logits, for steep and flat logits."""
    model, inputs = curved_network(), images(30, dtype=torch.float64).float()
    targets = (model(inputs).argmax(dim=1) + 1) % 4
    scaled = torch.nn.Sequential(model, Scale(scale))
    once, again = (
        nearest(one, inputs, targets, targets=targets, num_steps=15, num_projections=0) for one in (model, scaled)
    )
    both = once.success & again.success
    assert both.sum() >= 25
    torch.testing.assert_close(once.distortion[both].mean(), again.distortion[both].mean(), rtol=0.05, atol=0)


def test_the_penalty_method_takes_over_where_all_descents_fail():
    model, inputs = curved_network(), images(20, dtype=torch.float32)
    targets = (model(inputs).argmax(dim=1) + 1) % 4
    shortest = nearest(model, inputs, targets, targets=targets, num_steps=1, num_projections=0)
    penalty = lbfgs(model, inputs, targets, c_tolerance=1.0, tolerance=0.1)
    assert torch.equal(shortest.success, penalty.success)
    assert (shortest.num_forwards > 20).any()


def test_images_that_meet_their_goal_and_unreachable_targets():
    model, inputs = curved_network(), images(3, dtype=torch.float32)
    answers = model(inputs).argmax(dim=1)
    there = nearest(model, inputs, answers, targets=answers)
    wrong = nearest(model, inputs, (answers + 1) % 4)
    for result in (there, wrong):
        assert torch.equal(result.adv_inputs, inputs)
        assert result.distortion.tolist() == [0.0] * 3
        assert result.success.all()
    flat = linear_network(3)
    with torch.no_grad():
        flat[1].weight.zero_()
        flat[1].bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    with pytest.warns(AttackWarning, match="no evidence of robustness"):
        failed = nearest(flat, images(2), torch.tensor([0, 0]))
    assert not failed.success.any()
    assert failed.distortion.tolist() == [math.inf] * 2
    assert torch.equal(failed.adv_inputs, images(2))


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 500), chunk_size=st.integers(1, 7), targeted=st.booleans())
def test_an_image_does_not_depend_on_its_chunk(seed, chunk_size, targeted):
    model, inputs = curved_network(seed=seed, dtype=torch.float64), images(7, seed=seed)
    labels = model(inputs).argmax(dim=1)
    targets = (labels + 1) % 4 if targeted else None
    together, apart = (nearest(model, inputs, labels, targets=targets, chunk_size=size) for size in (None, chunk_size))
    torch.testing.assert_close(apart.distortion, together.distortion, rtol=1e-4, atol=1e-9)


def test_wrong_calls_are_refused():
    model, inputs = linear_network(), images(2)
    with pytest.raises(ValueError, match=r"labels in 0\.\.1"):
        nearest(model, inputs, torch.tensor([0, 7]))
    with pytest.raises(ValueError, match=r"targets in 0\.\.1"):
        nearest(model, inputs, torch.tensor([0, 1]), targets=torch.tensor([0, 7]))
    with pytest.raises(ValueError, match="num_rivals"):
        nearest(model, inputs, torch.tensor([0, 1]), num_rivals=0)

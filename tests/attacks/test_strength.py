"""Robust accuracy and examples of a given strength, against the closed form of linear networks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_networks import images, linear_network
from matplotlib.figure import Figure
from torch import Tensor

from intriguing.attacks import AttackResult, lbfgs, nearest


def _linear(count: int = 12) -> tuple[torch.nn.Module, AttackResult, Tensor]:
    """A linear network, the nearest examples of its images, and their distances to its boundary in closed form."""
    network, inputs = linear_network(), images(count, low=0.4, high=0.6)
    layer = network[1]
    normal = layer.weight[1] - layer.weight[0]
    with torch.no_grad():
        labels = network(inputs).argmax(1)
        exact = (inputs.flatten(1) @ normal).abs() / normal.norm()
    return network, nearest(network, inputs, labels), exact


def test_robust_accuracy_is_the_share_of_images_farther_from_the_boundary_than_eps() -> None:
    _, result, exact = _linear()
    torch.testing.assert_close(result.l2, exact, rtol=1e-3, atol=1e-9)
    ordered = exact.sort().values
    between = (ordered[1:] + ordered[:-1]) / 2
    wanted = torch.tensor([(exact > eps).double().mean() for eps in between], dtype=torch.float64)
    torch.testing.assert_close(result.robust_accuracy(between), wanted)
    assert [result.robust_accuracy(float(eps)) for eps in between] == result.robust_accuracy(between).tolist()
    assert (result.robust_accuracy(0), result.robust_accuracy(math.inf)) == (1.0, 0.0)


def test_wrong_images_are_fooled_at_every_eps_and_failed_attacks_at_none() -> None:
    size = torch.tensor([0.0, math.inf, 0.1, 0.2])  # RMS of four pixels: L2 norms of 0, inf, .2 and .4
    count, inputs = torch.zeros(4, dtype=torch.int64), torch.full((4, 1, 2, 2), 0.5)
    step = torch.where(size.isfinite(), size, 0.0).view(-1, 1, 1, 1)
    result = AttackResult(inputs + step, size.isfinite(), size, None, count, count, inputs, count)
    eps = torch.tensor([[0.0, 0.19], [0.21, 9.0]], dtype=torch.float64)
    assert result.robust_accuracy(eps).tolist() == [[0.75, 0.75], [0.5, 0.25]]
    empty = replace(result, adv_inputs=inputs[:0], success=size[:0].bool(), distortion=size[:0])
    assert math.isnan(empty.robust_accuracy(1.0)) and bool(empty.robust_accuracy(eps).isnan().all())
    for wrong in (-0.1, math.nan, torch.tensor([0.1, -1.0])):
        with pytest.raises(ValueError, match="expected eps as distances of at least 0"):
            result.robust_accuracy(wrong)


def test_at_a_strength_the_examples_within_it_remain_and_the_other_images_are_unperturbed() -> None:
    network, result, exact = _linear()
    eps = float(exact.median())
    found = result.at(eps)
    within = exact <= eps * (1 - 1e-3)
    assert bool(found.success[within].all()) and found.success.sum() in (within.sum(), within.sum() + 1)
    assert torch.equal(found.adv_inputs[within], result.adv_inputs[within])
    out = ~found.success
    assert torch.equal(found.adv_inputs[out], result.inputs[out]) and bool(found.distortion[out].isinf().all())
    assert int((~found.success).sum()) / 12 == pytest.approx(result.robust_accuracy(eps))
    assert torch.equal(found.num_forwards, result.num_forwards)
    with torch.no_grad():
        assert torch.equal(network(found.adv_inputs).argmax(1) != found.labels, found.success)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_a_linear_network_they_are_moved_on_to_exactly_eps(dtype: torch.dtype) -> None:
    network, result, exact = _linear()
    network, eps = network.to(dtype), float(exact.max()) + 0.02
    assert result.inputs is not None and result.labels is not None
    result = nearest(network, result.inputs.to(dtype), result.labels)
    found = result.at(eps, model=network)
    assert bool(found.success.all()) and bool((found.l2 <= eps).all())
    torch.testing.assert_close(found.l2, torch.full_like(found.l2, eps), rtol=1e-5, atol=0)
    assert result.inputs is not None and found.inputs is not None
    before, after = (one.adv_inputs - result.inputs for one in (result, found))  # no pixel reaches 0 or 1
    cosine = torch.cosine_similarity(before.flatten(1), after.flatten(1))
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-3, atol=0)
    with torch.no_grad():
        assert bool((network(found.adv_inputs).argmax(1) != found.labels).all())
    assert torch.equal(found.num_forwards, result.num_forwards + 1)


def test_at_the_end_of_the_box_an_example_is_nearer_than_eps() -> None:
    network, result, _ = _linear()
    found = result.at(100.0, model=network)
    moved = found.adv_inputs != found.inputs
    assert bool(((found.adv_inputs == 0) | (found.adv_inputs == 1))[moved].all()) and bool((found.l2 < 4).all())


def test_what_is_moved_on_stays_an_example_also_where_the_ray_leaves_its_class() -> None:
    def band(x: Tensor) -> Tensor:  # class 1 from .5 to .6 of the only pixel, class 0 below, class 2 above
        pixel = x.flatten(1)[:, 0]
        return torch.stack([0.5 - pixel, 0.05 - (pixel - 0.55).abs(), pixel - 0.6], dim=1)

    inputs = torch.tensor([0.4, 0.3, 0.1], dtype=torch.float64).view(3, 1, 1, 1)
    targets = torch.ones(3, dtype=torch.int64)
    for result in (nearest(band, inputs, targets, targets=targets), lbfgs(band, inputs, targets)):
        found = result.at(0.35, model=band)
        assert found.success.tolist() == [True, True, False] and torch.equal(found.adv_inputs[2], inputs[2])
        assert torch.equal(band(found.adv_inputs).argmax(1) == 1, found.success)
        pixels = found.adv_inputs.flatten()[:2]
        assert bool((pixels > result.adv_inputs.flatten()[:2] + 0.005).all()) and bool((pixels < 0.6).all())
        assert int(found.num_forwards[0] - result.num_forwards[0]) > 1
    assert result.c is not None and found.c is not None  # of lbfgs; a failed row has none
    assert torch.equal(found.c.isnan(), ~found.success)


def test_what_is_needed_is_said_in_one_line() -> None:
    _, result, _ = _linear(2)
    with pytest.raises(ValueError, match="expected eps as a distance of at least 0, got -1"):
        result.at(-1)
    with pytest.raises(ValueError, match="expected a result that holds its inputs"):
        replace(result, inputs=None).at(1)
    with pytest.raises(ValueError, match="labels or targets"):
        replace(result, labels=None).at(9.0, model=linear_network())


def test_the_security_curve_is_the_robust_accuracy() -> None:
    _, result, exact = _linear(5)
    figure = result.plot_security_curve(label="linear")
    (axes,) = figure.get_axes()
    line = axes.lines[0]
    x, y = (np.asarray(values, dtype=float) for values in (line.get_xdata(), line.get_ydata()))
    np.testing.assert_allclose(x[1:-1], exact.sort().values.numpy(), rtol=1e-3)
    np.testing.assert_allclose(y, [100, 80, 60, 40, 20, 0, 0], atol=1e-9)
    assert line.get_drawstyle() == "steps-post" and "robust accuracy" in axes.get_ylabel()
    assert axes.get_legend() is not None and figure._repr_png_().startswith(b"\x89PNG")  # pyright: ignore
    other = Figure()
    own = other.subplots()
    assert result.plot_security_curve(own) is other
    far = replace(result, distortion=2 * result.distortion)
    assert far.plot_security_curve(own) is other and len(own.lines) == 2
    assert own.get_xlim()[1] == pytest.approx(2 * 1.05 * float(exact.max()), rel=1e-3)

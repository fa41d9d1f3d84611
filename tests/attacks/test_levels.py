"""Examples on the grid of a file's values: exactly on it, adversarial there, and as near as brute force finds."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from attack_networks import curved_network, images, linear_network
from torch import Tensor, nn

from intriguing.attacks import ATTACKS, AttackWarning, adam_l1, as_attack, lbfgs, nearest
from intriguing.attacks.levels import to_grid

QUICK: dict[str, dict[str, Any]] = {
    "lbfgs": {"search_steps": 8, "max_iter": 20},
    "adam_l1": {"num_steps": 60, "learning_rate": 0.02},
    "nearest": {"num_steps": 10, "num_projections": 3},
}


def _grid(num_pixels: int, levels: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(levels), repeat=num_pixels)), dtype=torch.float64) / (levels - 1)


@pytest.mark.parametrize(("levels", "num_pixels"), [(2, 10), (3, 7), (4, 6)])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("on_grid", [False, True])
def test_on_linear_networks_brute_force_finds_nothing_much_nearer(
    levels: int, num_pixels: int, targeted: bool, on_grid: bool
) -> None:
    grid, ratios = _grid(num_pixels, levels), []
    for seed in range(3):
        network = nn.Linear(num_pixels, 3).double()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            network.weight.copy_(torch.randn(3, num_pixels, generator=generator))
            network.bias.copy_(0.3 * torch.randn(3, generator=generator))
        inputs = torch.rand(8, num_pixels, generator=generator, dtype=torch.float64)
        inputs = to_grid(inputs, levels) if on_grid else inputs
        with torch.no_grad():
            labels, answers = network(inputs).argmax(1), network(grid).argmax(1)
        targets = (labels + 1) % 3
        result = nearest(network, inputs, labels, targets=targets if targeted else None, levels=levels)
        for row in range(8):
            good = answers == targets[row] if targeted else answers != labels[row]
            if not bool(good.any()):
                assert not bool(result.success[row])
                continue
            optimum = float((grid[good] - inputs[row]).square().mean(1).min().sqrt())
            assert bool(result.success[row])
            assert bool((grid == result.adv_inputs[row]).all(dim=1).any())
            assert float(result.distortion[row]) >= optimum - 1e-12
            ratios.append(float(result.distortion[row]) / optimum)
    found = torch.tensor(ratios, dtype=torch.float64)
    assert float(found.mean()) < 1.03 and float((found < 1 + 1e-9).double().mean()) > 0.85


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize(
    ("levels", "dtype"), [(2, torch.float32), (256, torch.float32), (256, torch.float64), (65536, torch.float32)]
)
def test_every_attack_ends_on_the_grid(name: str, levels: int, dtype: torch.dtype) -> None:
    network, inputs = curved_network(dtype=dtype), images(6, dtype=dtype)
    before = inputs.clone()
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    for targets in (None, (labels + 1) % 4) if name == "nearest" else ((labels + 1) % 4,):
        generator = torch.Generator().manual_seed(0)
        result = ATTACKS[name](
            network, inputs, labels, targets=targets, generator=generator, levels=levels, **QUICK[name]
        )
        with torch.no_grad():
            answers = network(result.adv_inputs).argmax(1)
        found = result.adv_inputs[result.success]
        assert len(found) >= 4 and result.adv_inputs.dtype == dtype
        assert torch.equal(found, to_grid(found, levels))
        assert float(found.min()) >= 0 and float(found.max()) <= 1
        fooled = answers != labels if targets is None else answers == targets
        assert bool(fooled[result.success].all())
        root_mean_square = (result.adv_inputs - inputs).flatten(1).square().mean(1).sqrt()
        torch.testing.assert_close(result.distortion[result.success], root_mean_square[result.success])
        assert torch.equal(result.adv_inputs[~result.success], inputs[~result.success])
    assert torch.equal(inputs, before)


def test_a_fine_grid_costs_next_to_nothing_and_a_coarse_one_no_more_than_scaling() -> None:
    network, inputs = curved_network(), to_grid(images(16, dtype=torch.float32), 256)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    free, fine, coarse = (nearest(network, inputs, labels, levels=levels) for levels in (None, 65536, 256))
    assert bool(free.success.all() and fine.success.all() and coarse.success.all())
    assert float((fine.distortion / free.distortion).max()) < 1.01
    assert (
        float(coarse.distortion.mean()) <= float(_scaled(network, inputs, labels, free.adv_inputs, 256).mean()) + 1e-7
    )


def _scaled(network: nn.Module, inputs: Tensor, labels: Tensor, adv_inputs: Tensor, levels: int) -> Tensor:
    """Return the distortions of perturbations that are lengthened by 0.1 % until the rounded image is adversarial."""
    found = torch.full((len(inputs),), torch.inf)
    for step in range(800):
        rounded = to_grid((inputs + 1.001**step * (adv_inputs - inputs)).clamp(0, 1), levels)
        with torch.no_grad():
            wrong = network(rounded).argmax(1) != labels
        size = (rounded - inputs).flatten(1).square().mean(1).sqrt()
        found = torch.where(wrong & found.isinf(), size, found)
    assert bool(found.isfinite().all())
    return found


def test_images_that_meet_the_goal_are_returned_if_they_lie_on_the_grid_and_rounded_if_not() -> None:
    network = linear_network()
    inputs = to_grid(images(4), 256)
    with torch.no_grad():
        wrong = 1 - network(inputs).argmax(1)
    result = nearest(network, inputs, wrong, levels=256)
    assert torch.equal(result.adv_inputs, inputs) and float(result.distortion.max()) == 0
    beside = (inputs + 1e-4).clamp(0, 1)
    result = nearest(network, beside, wrong, levels=256)
    assert bool(result.success.all()) and torch.equal(result.adv_inputs, to_grid(beside, 256))
    assert 0 < float(result.distortion.max()) < 1.1e-4


@pytest.mark.parametrize("attack", [lbfgs, adam_l1, nearest])
@pytest.mark.parametrize(
    ("levels", "dtype", "words"),
    [
        (1, torch.float32, "expected levels as a whole number >= 2, got 1"),
        (2.5, torch.float32, "expected levels as a whole number >= 2, got 2.5"),
        (65536, torch.bfloat16, "levels=65536 needs images in a finer dtype: torch.bfloat16 has fewer values near 1"),
    ],
)
def test_other_grids_are_refused_in_one_line(attack: Any, levels: Any, dtype: torch.dtype, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        attack(curved_network(dtype=dtype), images(1, dtype=dtype), torch.tensor([1]), levels=levels)


def test_half_precision_has_a_grid_of_256() -> None:
    network, inputs = curved_network(dtype=torch.bfloat16), images(6, dtype=torch.bfloat16)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
        result = nearest(network, inputs, labels, levels=256)
        answers = network(result.adv_inputs).argmax(1)
    values = (torch.arange(256) / 255).bfloat16()
    assert bool(result.success.any()) and bool((answers != labels)[result.success].all())
    assert bool(torch.isin(result.adv_inputs[result.success], values).all())


def test_a_users_attack_is_moved_to_the_grid_or_does_it_itself() -> None:
    network, inputs = curved_network(), to_grid(images(6, dtype=torch.float32), 256)
    with torch.no_grad():
        labels = network(inputs).argmax(1)

    def continuous(model: Any, x: Tensor, y: Tensor) -> Tensor:
        return nearest(model, x, y).adv_inputs

    given: list[int] = []

    def gridded(model: Any, x: Tensor, y: Tensor, *, levels: int | None = None) -> Tensor:
        given.append(levels or 0)
        return nearest(model, x, y, levels=levels).adv_inputs

    for attack in (continuous, gridded):
        result = as_attack(attack)(network, inputs, labels, levels=256)
        assert bool(result.success.all()) and torch.equal(result.adv_inputs, to_grid(result.adv_inputs, 256))
        with torch.no_grad():
            assert bool((network(result.adv_inputs).argmax(1) != labels).all())
        beside = None if attack is gridded else nearest(network, inputs, labels).distortion
        assert (result.unrounded_distortion is None) == (beside is None)
        if beside is not None and result.unrounded_distortion is not None:
            torch.testing.assert_close(result.unrounded_distortion, beside)
    assert given == [256]


@pytest.mark.parametrize("name", QUICK)
def test_the_distortion_without_the_grid_stands_beside_that_on_it(name: str) -> None:
    network, inputs = curved_network(dtype=torch.float64), to_grid(images(5), 16)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    labels[0] = (labels[0] + 1) % 4  # wrong, and on the grid
    for targets in (None, (network(inputs).argmax(1) + 1) % 4):
        free, result = (
            ATTACKS[name](
                *(network, inputs, labels),
                targets=targets,
                generator=torch.Generator().manual_seed(0),
                levels=levels,
                **QUICK[name],
            )
            for levels in (None, 16)
        )
        assert free.unrounded_distortion is None and result.unrounded_distortion is not None
        assert torch.equal(result.unrounded_distortion, free.distortion)
        assert bool(result.success.all()) and (targets is not None or float(result.unrounded_distortion[0]) == 0)
        perturbed = result.distortion > 0
        assert result.summary()["mean_unrounded_distortion"] == pytest.approx(float(free.distortion[perturbed].mean()))
        assert "mean_unrounded_distortion" not in free.summary() and "; unrounded mean " in repr(result)
        assert result.to_frame()["unrounded_distortion"].tolist() == free.distortion.tolist()


def test_where_nothing_is_found_there_is_no_distortion_without_the_grid() -> None:
    def constant(x: Tensor) -> Tensor:
        return torch.stack([x.flatten(1).sum(1) * 0 + 1, x.flatten(1).sum(1) * 0], dim=1)

    with pytest.warns(AttackWarning):
        result = nearest(constant, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), levels=256)
    assert result.success.tolist() == [False, True]
    assert result.unrounded_distortion is not None and result.unrounded_distortion.tolist() == [torch.inf, 0.0]

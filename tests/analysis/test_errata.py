"""The errata: closed forms, brute force, and planted networks and sets whose numbers are known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from planted import planted_config
from scipy.optimize import linprog, minimize
from torch import nn

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis import CraftedSet, Network, analyze
from intriguing.analysis.errata import amplified, operators, sample_size
from intriguing.analysis.errata.erratum import ErrataSettings
from intriguing.analysis.errata.linear import affine_part, exact_norms, l1_minimisers, penalty_minimisers
from intriguing.analysis.errata.material import HALF, IMAGE, LINEAR, MEAN, ROOT
from intriguing.analysis.errata.section import CORRECT, MEASURED, PRINTED, SAMPLE
from intriguing.attacks import choose_targets, closest, lbfgs
from intriguing.metrics import wrong
from intriguing.results import AnalysisResult

SIDE, CLASSES, NUM = 3, 4, 14
IMAGES = torch.rand(NUM, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
PLANTED_NAMES = (*LINEAR, "FC200-200-10")
ALONE: Any = {"title": "Errata", "sections": ["errata"], "settings": {"errata": ErrataSettings(kernels=2)}}
HALVES = (("FC100-100-10", "p1"), ("FC123-456-10", "p1"), ("FC100-100-10'", "p2"))


def random_softmax(seed: int, num_classes: int = CLASSES, pixels: int = SIDE * SIDE) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(num_classes, pixels, dtype=torch.float64, generator=generator)
    return weight, -weight.sum(1) / 2 + 0.3 * torch.randn(num_classes, dtype=torch.float64, generator=generator)


def linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Sequential:
    layer = nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return nn.Sequential(nn.Flatten(), layer).eval()


# erratum 4: arithmetic


def test_shares_are_the_roundings_and_the_cuts_of_all_counts() -> None:
    assert sample_size.shares(0, 8) == {0, 12, 13, 25, 37, 38, 50, 62, 63, 75, 87, 88, 100}
    assert sample_size.shares(1, 3) == {0, 333, 666, 667, 1000}


def test_the_probability_of_at_least_so_many_is_that_of_all_outcomes() -> None:
    chances = [0.1, 0.5, 0.9, 0.3]
    for least in range(5):
        brute = sum(
            math.prod(p if hit else 1 - p for p, hit in zip(chances, hits, strict=True))
            for hits in itertools.product((0, 1), repeat=4)
            if sum(hits) >= least
        )
        assert sample_size.at_least(least, chances) == pytest.approx(brute)


def test_the_printed_entries_are_256ths_and_no_smaller_sample_explains_them() -> None:
    one = sample_size.sample_size()
    by_name = {line.what: line.cell for line in one.lines}
    transfer, noise, by_chance, _, smallest = by_name.values()
    assert (transfer.k, transfer.n) == (40, 42)  # 28 of 30 of Table 2, and all 12 of Table 4
    assert (noise.k, noise.n) == (12, 12)
    assert 1e-12 < by_chance.value < 1e-9
    assert smallest.value == 488


# errata 1 and 8: linear networks


def test_the_affine_part_is_the_networks_own_weights_behind_a_normalisation() -> None:
    weight, bias = random_softmax(0)

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = linear(weight, bias)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.net((images - 0.5) / 0.25)

    found = affine_part(Normalised(), (1, SIDE, SIDE))
    stored = weight.float().double()
    assert torch.allclose(found[0], 4 * stored)
    assert torch.allclose(found[1], bias.float().double() - 2 * stored.sum(1))


def test_exact_norms_are_those_of_a_general_solver() -> None:
    compared = 0
    for seed in range(4):
        weight, bias = random_softmax(seed)
        inputs = torch.rand(6, SIDE * SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        inputs[:3] = inputs[:3].round()  # on the box's faces, which bind
        targets = torch.arange(6) % CLASSES
        found = exact_norms(weight, bias, inputs, targets)
        for x, target, norm, proved in zip(inputs.numpy(), targets.tolist(), *found, strict=True):
            others = [k for k in range(CLASSES) if k != target]
            rows = (weight[target] - weight[others]).numpy()
            least = (bias[target] - bias[others]).numpy()
            room = linprog([0] * len(x), A_ub=-rows, b_ub=least, bounds=(0, 1))
            assert bool(proved) == room.success  # else no image of the box is in the target class
            inside = {"type": "ineq", "fun": lambda y, a=rows, b=least: a @ y + b, "jac": lambda y, a=rows: a}
            general = minimize(
                lambda y, x=x: ((y - x) @ (y - x), 2 * (y - x)),
                np.full_like(x, 0.5),
                jac=True,
                bounds=[(0, 1)] * len(x),
                constraints=[inside],
                method="SLSQP",
                options={"ftol": 1e-14, "maxiter": 500},
            )
            if general.success and room.success:
                compared += 1
                assert float(norm) == pytest.approx(math.sqrt(general.fun), abs=2e-6)
    assert compared > 12


def test_the_least_l1_norm_moves_the_pixels_of_the_largest_weights_first() -> None:
    """Of two classes: one half-space, to which the pixels with the largest |w| lead, each until it meets the box."""
    weight, bias = random_softmax(2, num_classes=2)
    inputs, targets = IMAGES.flatten(1).double(), 1 - (IMAGES.flatten(1).double() @ weight.T + bias).argmax(1)
    found = l1_minimisers(weight, bias, inputs, targets)
    for x, target, y in zip(inputs, targets.tolist(), found, strict=True):
        normal = weight[target] - weight[1 - target]
        left = float(bias[1 - target] - bias[target] - normal @ x)
        greedy = x.clone()
        for pixel in normal.abs().argsort(descending=True).tolist():
            end = float(normal[pixel] > 0)
            step = min(left / abs(float(normal[pixel])), abs(end - float(x[pixel])))
            greedy[pixel] += step if end else -step
            left -= step * abs(float(normal[pixel]))
        assert torch.allclose(y, greedy, atol=1e-7) or left > 0


def test_the_penaltys_minimiser_satisfies_its_equation_and_nears_the_image_as_c_grows() -> None:
    weight, bias = random_softmax(1)
    inputs, targets = IMAGES.flatten(1).double(), torch.arange(NUM) % CLASSES
    sizes = []
    for c in (0.01, 0.1, 1.0):
        x = penalty_minimisers(weight, bias, inputs, targets, c)
        slope = (torch.softmax(x @ weight.T + bias, 1) - nn.functional.one_hot(targets, CLASSES)) @ weight
        slope = slope + 2 * c * (x - inputs)
        assert float((x - (x - slope).clamp(0, 1)).abs().max()) < 1e-6
        sizes.append((x - inputs).norm(dim=1))
    assert bool((sizes[0] > sizes[1]).all() and (sizes[1] > sizes[2]).all())


# Table 5: matrices


@pytest.mark.parametrize("stride", operators.STRIDES)
def test_the_printed_formula_understates_the_dense_matrix_by_the_stride(stride: int) -> None:
    weight = operators.random_kernels(2, seed=stride)[1]
    exact = operators.dense_norm(weight, operators.SIZE, stride)
    assert exact == pytest.approx(stride * operators.printed_norm(weight, operators.SIZE, stride), rel=1e-10)


def test_the_printed_exponent_leaves_out_the_high_frequencies() -> None:
    edge = torch.tensor([[[[1.0, -1.0]], [[0.0, 0.0]]]]).double()  # |1 - exp(i xi)| is at most 2, at the highest one
    assert operators.printed_norm(edge, 12, 1) == pytest.approx(2)
    lowest = abs(1 - np.exp(-2j * math.pi * 11 / 144))
    assert operators.printed_norm(edge, 12, 1, power=2) == pytest.approx(lowest)


def test_a_kernel_that_averages_has_its_largest_circular_norm_and_a_smaller_one_with_zeros() -> None:
    """The circular norm of nine ones is 9; with zeros it is (1 + 2 cos(pi / (n + 1)))^2, of a path's adjacency."""
    ones = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    assert operators.dense_norm(ones, 6) == pytest.approx(9)
    assert operators.dense_norm(ones, 6, zeros=True) == pytest.approx((1 + 2 * math.cos(math.pi / 7)) ** 2)


def test_errata_of_operators_have_their_constants() -> None:
    kernels = operators.random_kernels(3, seed=0)
    aliasing = operators.aliasing(kernels)
    assert [line.cell.value for line in aliasing.lines] == pytest.approx([1, 2, 3, 4, 11])
    assert all(line.cell.interval is None for line in aliasing.lines)
    assert [line.cell.value for line in operators.pooling().lines] == [2, 1]
    (exponent,) = operators.exponent(kernels).lines
    assert exponent.cell.value > 1
    ratio, alternating = operators.padding(kernels).lines
    assert ratio.cell.n == 3
    circular, zeros = 1 - 2 * math.cos(0.8 * math.pi), 1 + 2 * math.cos(math.pi / 6)
    assert alternating.cell.value == pytest.approx((zeros / circular) ** 2)


def test_amplification_as_printed_is_a_28th() -> None:
    assert amplified.printed_formula(0).lines[0].cell.value == pytest.approx(0.1 / 28)
    assert amplified.printed_gain().lines[0].cell.value == pytest.approx(200 / 3)


class Wide(nn.Module):
    """Five 1x1 convolutions, which scale by 1 to 5, and three linear layers."""

    input_shape = (1, 4, 4)
    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(1, 1, 1, bias=False) for _ in range(5)]
        for scale, layer in enumerate(convolutions, start=1):
            nn.init.constant_(layer.weight, scale)
        self.layers = nn.Sequential(
            *convolutions, nn.Flatten(), *(nn.Linear(16, 16) for _ in range(2)), nn.Linear(16, 2)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def test_bounds_of_an_alexnet_stand_beside_table_5_unless_it_was_not_trained() -> None:
    def named(epochs: int) -> Network:
        config = {"trainer": {"max_epochs": epochs}, "data": {"name": "blank"}}
        return Network.in_memory("AlexNet", Wide().eval(), name=f"alexnet_{epochs}", errors={}, config=config)

    found = operators.alexnet([named(0), named(3)])
    assert [line.cell.value for line in found.lines] == pytest.approx([1, 2, 3, 4, 5])
    assert [line.cell.paper for line in found.lines] == [2.75, 10, 7, 7.5, 11]
    assert {line.cell.runs for line in found.lines} == {("alexnet_3",)}
    assert operators.alexnet([named(0)]).lines == ()


# the section on planted networks


def planted(label: str, *, split: str = "full", seed: int = 0, name: str = "", **more: Any) -> Network:
    weight, bias = random_softmax(seed + 10 * (*LINEAR, "FC200-200-10", *HALF).index(label))
    module = linear(3 * weight, 3 * bias)
    return Network.in_memory(
        label,
        module,
        name=name or f"{label}_{split}_{seed}",
        errors=more.pop("errors", {"test": (5, 100), "p2": (20 + seed, 1000)}),
        config=planted_config(label.rstrip("'"), seed=seed, split=split, **more),
    )


def crafted(network: Network, targets: str = "random", subset: str = "train") -> CraftedSet:
    labels = network.module(IMAGES).argmax(1)
    labels[:4] = (labels[:4] + 1) % CLASSES  # four images that the network gets wrong
    logits, generator = network.module(IMAGES).detach(), torch.Generator().manual_seed(1)
    aims = choose_targets("random", labels, logits, generator=generator)
    if targets == "closest":
        found, aims = closest(lbfgs, network.module, IMAGES, labels, max_evaluations=100), torch.full_like(labels, -1)
    else:
        found = lbfgs(network.module, IMAGES, aims, max_evaluations=100)
    described = {"name": network.name, "label": network.label, "split": network.split, "seed": network.seed}
    metadata = {
        "source": described | {"checkpoint_sha256": ""},
        "data": {"name": "mnist", "subset": subset},
        "attack": {"name": "lbfgs", "targets": targets},
    }
    made = AdversarialSet.from_result(found, IMAGES, labels, metadata=metadata, indices=torch.arange(NUM), targets=aims)
    return CraftedSet.in_memory(f"lbfgs_{targets}_{network.name}", made)


NETWORKS = [planted(name, seed=seed) for seed in (0, 1) for name in PLANTED_NAMES]
NETWORKS += [planted(name, split=split, seed=seed) for seed in (0, 1) for name, split in HALVES]


@pytest.fixture(scope="module")
def sets() -> list[CraftedSet]:
    full, halves = NETWORKS[:8], NETWORKS[8:]
    linears = [network for network in full if network.label in LINEAR and network.seed == 0]
    return [
        *(crafted(network) for network in full),
        *(crafted(network, subset="test") for network in halves),
        *(crafted(network, targets="closest") for network in linears),
    ]


@pytest.fixture(scope="module")
def result(sets: list[CraftedSet]) -> AnalysisResult:
    settings = {"errata": ErrataSettings(limit=10, c=(0.1, 0.01), kernels=2)}
    return analyze(NETWORKS, sets, title="Errata", sections=["errata"], settings=settings)


def value(result: AnalysisResult, row: str) -> float:
    return result.tables[0].cells[row, MEASURED].value


def by_name(sets: list[CraftedSet], name: str) -> AdversarialSet:
    return next(one for one in sets if one.name == name).load()


def test_every_erratum_but_alexnets_has_a_row_its_words_and_its_sample(result: AnalysisResult) -> None:
    table = result.tables[0]
    names = list(dict.fromkeys(row.split(" · ")[0] for row in table.rows))
    assert names == [
        *("1 c", "2 |r|", "3 targets", "4 N", "5 noise", "6 amplification", "6 gain", "7 transfer", "8 penalty"),
        *("9 distortion", "10 factor", "11 seeds"),
        *("Table 5 aliasing", "Table 5 exponent", "Table 5 pooling", "Table 5 padding"),
    ]
    assert len(table.notes) == len(names)
    firsts = [next(row for row in table.rows if row.startswith(f"{name} · ")) for name in names]
    assert all(table.words[row, PRINTED] and table.words[row, CORRECT] for row in firsts)
    assert all(table.words[row, SAMPLE] for row in table.rows)
    assert "16 of 17 errata" in result.summary[-2]
    assert "left out" in result.summary[-1] and "Table 5 AlexNet (a trained AlexNet" in result.summary[-1]


def test_distances_fall_with_c_and_none_is_below_the_exact_minimum(result: AnalysisResult) -> None:
    small, large = (value(result, f"1 c · FC10(1e-4), distortion at c = {c}") for c in (".01", ".1"))
    assert small > large
    assert value(result, "1 c · FC10(1e-4), images whose distortion falls with each c, %") == 100
    ratio = result.tables[0].cells["8 penalty · FC10(1), distance of lbfgs / exact minimum", MEASURED]
    assert 1 <= ratio.value < 1.5
    assert ratio.n == 20  # two seeds, 10 images each


def test_distortions_are_the_means_of_the_sets(result: AnalysisResult, sets: list[CraftedSet]) -> None:
    for row, name, seeds in (
        ("2 |r| · FC10(1e-2), distortion by the squared L2 norm", "lbfgs_random_FC10(1e-2)_full", (0, 1)),
        ("3 targets · FC10(1e-2), distortion to the closest class", "lbfgs_closest_FC10(1e-2)_full", (0,)),
        ("9 distortion · FC200-200-10, distortion", "lbfgs_random_FC200-200-10_full", (0, 1)),
    ):
        found = [by_name(sets, f"{name}_{seed}") for seed in seeds]
        values = torch.cat([one.distortion[one.success] for one in found])
        assert value(result, row) == pytest.approx(float(values.double().mean()))
    sizes = []
    for network in (one for one in NETWORKS if one.label == "FC10(1)"):
        found = by_name(sets, f"lbfgs_random_{network.name}")
        rows = (found.success & (found.distortion > 0)).nonzero().flatten()[:10]
        origin = found.inputs[rows].flatten(1).double()
        moved = l1_minimisers(*affine_part(network.module, (1, SIDE, SIDE)), origin, found.targets[rows])
        sizes.append((moved - origin).square().mean(1).sqrt())
    by_l1 = value(result, "2 |r| · FC10(1), distortion by the L1 norm")
    assert by_l1 == pytest.approx(float(torch.cat(sizes).mean()))
    ratio = result.tables[0].cells["2 |r| · FC10(1) / FC10(1e-4), distortions by the L1 norm", MEASURED]
    assert ratio.value == pytest.approx(by_l1 / value(result, "2 |r| · FC10(1e-4), distortion by the L1 norm"))
    assert ratio.paper == 2.26
    assert ratio.paper_interval == pytest.approx((0.135 / 0.0625, 0.145 / 0.0615))
    cell = result.tables[0].cells["9 distortion · FC200-200-10, distortion", MEASURED]
    assert cell.paper == 0.065


def test_transfer_minus_clean_error_is_the_excess(result: AnalysisResult, sets: list[CraftedSet]) -> None:
    errors = []
    for seed in (0, 1):
        victim = next(one for one in NETWORKS if one.label == "FC10(1)" and one.seed == seed)
        found = by_name(sets, f"lbfgs_random_FC10(1e-4)_full_{seed}")
        rows = found.success
        errors.append([wrong(victim.module(x[rows]), found.labels[rows]) for x in (found.adv_inputs, found.inputs)])
    transfer, clean = (100 * float(torch.cat(one).double().mean()) for one in zip(*errors, strict=True))
    pair = "7 transfer · FC10(1e-4) to FC10(1)"
    assert value(result, f"{pair}, error on the examples, %") == pytest.approx(transfer)
    assert value(result, f"{pair}, error on the same images unperturbed, %") == pytest.approx(clean)
    assert value(result, f"{pair}, excess, points") == pytest.approx(transfer - clean)


def test_amplified_sets_are_shown_by_three_rules(result: AnalysisResult, sets: list[CraftedSet]) -> None:
    matrix = result.tables[1]
    assert matrix.rows == tuple(f"{rule} · {source}" for rule in (MEAN, IMAGE, ROOT) for source in HALF)
    sizes = {
        MEAN: lambda d: torch.full_like(d, 0.1 / float(d.mean())),
        IMAGE: lambda d: 0.1 / d,
        ROOT: lambda d: torch.full_like(d, 0.1 / float(d.square().mean().sqrt())),
    }
    for rule, factors in sizes.items():
        found = by_name(sets, "lbfgs_random_FC123-456-10_p1_0")
        rows = (found.success & (found.distortion > 0)).nonzero().flatten()
        other = next(one for one in NETWORKS if one.name == "FC100-100-10'_p2_0")
        change = found.adv_inputs[rows] - found.inputs[rows]
        every = found.distortion[found.success]
        factor = factors(found.distortion[rows]) if rule == IMAGE else factors(every)[:1].expand(len(rows))
        shown = found.inputs[rows] + factor.view(-1, 1, 1, 1) * change
        brute = int(wrong(other.module(shown), found.labels[rows]).sum())
        still = found.success & (found.distortion == 0)
        brute += int(wrong(other.module(found.inputs[still]), found.labels[still]).sum())
        cell = matrix.cells[f"{rule} · FC123-456-10", "FC100-100-10'"]
        entry = result.tables[0].cells[f"10 factor · {rule}, own examples that still fool, %", MEASURED]
        assert cell.n == entry.n / 3 == 2 * NUM
        seed_0 = dict(cell.by_seed)[0]
        assert seed_0.k == brute
        assert cell.paper == 22


def test_the_spread_over_seeds_is_students_t(result: AnalysisResult) -> None:
    """2.0 and 2.1 %: the half-width is 12.706 times .05."""
    cell = result.tables[0].cells["11 seeds · FC100-100-10 trained on P1, error on P2, mean over seeds, %", MEASURED]
    assert cell.value == pytest.approx(2.05)
    assert cell.interval == pytest.approx((2.05 - 12.706 * 0.05, 2.05 + 12.706 * 0.05), abs=1e-4)


def test_another_run_of_one_seed_is_one_more_measurement_and_no_more_seeds() -> None:
    first, second = (planted("FC100-100-10", split="p1", seed=seed) for seed in (0, 1))
    again = planted("FC100-100-10", split="p1", seed=0, name="again", errors={"p2": (35, 1000)})
    again.record.info["artifacts"] = {"model.ckpt": "another"}
    result = analyze([first, second, again], [], **ALONE)
    rows = [row for row in result.tables[0].rows if row.startswith("11 seeds")]
    assert value(result, rows[-1]) == pytest.approx(1.5)  # 3.5 and 2.0 %
    assert result.tables[0].cells[rows[0], MEASURED].n == 2


def test_without_networks_arithmetic_and_matrices_are_left_and_the_rest_is_named() -> None:
    result = analyze([], [], **ALONE)
    names = {row.split(" · ")[0] for row in result.tables[0].rows}
    assert names == {"4 N", "6 amplification", "6 gain", *(f"Table 5 {one}" for one in ("aliasing", "exponent"))} | {
        *("Table 5 pooling", "Table 5 padding")
    }
    assert "study=errata" in result.summary[-1]
    assert "1 c, 2 |r|, 8 penalty (networks FC10(1e-4)" in result.summary[-1]


def test_networks_of_other_settings_are_not_pooled_with_the_papers() -> None:
    seeds = [planted("FC100-100-10", split="p1", seed=seed) for seed in (0, 1)]
    short = planted("FC100-100-10", split="p1", seed=2, trainer__max_epochs=1, errors={"p2": (900, 1000)})
    result = analyze([short, *seeds], [], **ALONE)
    assert value(result, "11 seeds · FC100-100-10 trained on P1, error on P2, mean over seeds, %") == pytest.approx(
        2.05
    )

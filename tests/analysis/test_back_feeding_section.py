"""The arms of back-feeding: who belongs to which, and the numbers against SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from intriguing.analysis import EXTRA, Material, Network
from intriguing.analysis.back_feeding import arm_name, paired_p, t_interval
from intriguing.analysis.measure import Examples, MeasuredSet, Outcome
from intriguing.metrics import PairedCounts
from intriguing.results import RunRecord

POOLS = {"back_feeding": {"layers": None, "attack": "gradient", "num_steps": 1}}
EMPTY = torch.zeros(0)


def network(name: str, seed: int, wrong: int, callbacks=None, dropout=(0.0, 0.0), curve=()) -> Network:
    config = {"seed": seed, "callbacks": callbacks, "model": {"settings": {"dropout": list(dropout)}}}
    return Network(
        label="FC100-100-10",
        name=f"{name}{seed}",
        module=torch.nn.Identity(),
        errors={"train": [0, 60_000], "test": [wrong, 10_000]},
        config=config,
        curves={"curve/test_error": list(curve)} if curve else {},
    )


def measured(source: Network, attack: str, distortion: list[float], outcomes: dict[str, PairedCounts]) -> MeasuredSet:
    return MeasuredSet(
        name=f"{source.name}_{attack}",
        source=source.name,
        label=source.label,
        split="full",
        seed=source.seed,
        subset="test",
        attack={"name": attack},
        amplify=None,
        num=len(distortion),
        num_success=len(distortion),
        distortion=torch.tensor(distortion),
        outcomes={name: Outcome(counts, None) for name, counts in outcomes.items()},
        examples=Examples(EMPTY, EMPTY, EMPTY, EMPTY, EMPTY),
        run=RunRecord(name="", stage="attack", label=""),
    )


def made(networks, sets=()):
    return EXTRA["back_feeding"](
        Material(networks=networks, measured=sets, images=lambda network, subset: (EMPTY, EMPTY))
    )


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"callbacks": {}, "model": {"settings": {}}}, "weight decay"),
        ({"callbacks": {}, "model": {"settings": {"dropout": [0.1, 0.2]}}}, "dropout"),
        ({"callbacks": POOLS}, "all pools"),
        ({"callbacks": {"back_feeding": {"layers": ["input"], "attack": "noise"}}}, "input pool, noise"),
        ({"callbacks": {"back_feeding": {"layers": ["input"], "num_steps": 5}}}, "input pool, PGD-5"),
        ({"callbacks": {"back_feeding": {"layers": ["input", "hidden2"]}}}, "input pool and hidden2 pool"),
    ],
)
def test_an_arm_is_named_after_how_it_was_trained(config, name):
    assert arm_name(config) == name


def test_means_gains_and_p_values():
    plain = [network("plain", seed, wrong, curve=(0.05, wrong / 1e4)) for seed, wrong in enumerate((160, 170, 165))]
    fed = [network("fed", seed, wrong, POOLS, curve=(0.04, wrong / 1e4)) for seed, wrong in enumerate((110, 118, 111))]
    result = made([*fed, *plain])
    table = result.tables[0]
    assert table.rows == ("weight decay", "all pools")
    cell = table.cells["all pools", "test error, %"]
    assert cell.value == pytest.approx(1.13)
    low, high = stats.t.interval(0.95, 2, np.mean([1.1, 1.18, 1.11]), stats.sem([1.1, 1.18, 1.11]))
    assert cell.interval == pytest.approx((low, high))
    assert table.cells["all pools", "less than weight decay, points"].value == pytest.approx(0.52)
    p = stats.ttest_rel([1.6, 1.7, 1.65], [1.1, 1.18, 1.11]).pvalue
    assert table.cells["all pools", "p (paired t)"].value == pytest.approx(p)
    assert ("weight decay", "p (paired t)") not in table.cells
    assert "from 1.65 % with weight decay alone to 1.13 %" in result.summary[0]
    assert [figure.key for figure in result.figures] == ["back_feeding_curves"]


def test_distortion_and_transfer_both_ways():
    plain, fed = network("plain", 0, 160), network("fed", 0, 110, POOLS)
    sets = [
        measured(plain, "lbfgs", [0.05, 0.07], {"plain0": PairedCounts(0, 2, 0, 0), "fed0": PairedCounts(1, 1, 0, 8)}),
        measured(fed, "lbfgs", [0.10], {"fed0": PairedCounts(0, 1, 0, 0), "plain0": PairedCounts(0, 1, 0, 3)}),
        measured(fed, "nearest", [0.08], {}),
    ]
    result = made([plain, fed], sets)
    cells = result.tables[0].cells
    assert cells["weight decay", "distortion, lbfgs"].value == pytest.approx(0.06)
    assert cells["all pools", "distortion, nearest"].value == pytest.approx(0.08)
    assert cells["all pools", "fooled by weight decay's, %"].value == pytest.approx(10.0)
    assert cells["all pools", "fools weight decay's, %"].value == pytest.approx(25.0)
    assert [figure.key for figure in result.figures] == ["back_feeding_robustness"]


def test_without_two_ways_of_training_there_is_nothing_to_say():
    assert made([network("plain", 0, 160), network("plain", 1, 150)]).tables == ()


def test_statistics_of_too_few_seeds_are_left_out():
    assert t_interval([1.0]) is None
    assert paired_p([1.0], [2.0]) is None
    assert paired_p([1.0, 2.0], [0.5, 1.5]) is None

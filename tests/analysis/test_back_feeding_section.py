"""The arms of back-feeding: who belongs to which, and the numbers against SciPy and by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from planted import rerecorded
from scipy import stats

from intriguing.analysis import SECTIONS, Network, SectionInputs
from intriguing.analysis.back_feeding.arms import Arm, families
from intriguing.analysis.back_feeding.pools import arm_name, loss_scale
from intriguing.analysis.identity import NetworkId
from intriguing.analysis.measure import Examples, MeasuredSet, Outcome
from intriguing.errors import UserError
from intriguing.results import RunSummary
from intriguing.statistics.counts import PairedCounts
from intriguing.statistics.intervals import t_interval
from intriguing.statistics.tests import holm, paired_p

POOLS = {"back_feeding": {"layers": None, "attack": "gradient", "num_steps": 1}}
EMPTY = torch.zeros(0)


def network(
    name: str, seed: int, wrong: int, callbacks=None, dropout=(), curve=(), label="FC100-100-10", **settings
) -> Network:
    optimizer = {"_target_": settings.pop("optimizer", "torch.optim.SGD"), "lr": settings.pop("lr", 0.25)}
    model = {"label": label, "settings": settings}
    if dropout:
        model["settings"]["dropout"] = list(dropout)
    config = {"seed": seed, "callbacks": callbacks, "model": model, "optimizer": optimizer}
    return Network.in_memory(
        label=label,
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
        run=RunSummary(name="", stage="attack", label=""),
    )


def made(networks, sets=()):
    return SECTIONS["back_feeding"].make(SectionInputs(networks=networks, sets=sets))


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
    assert arm_name(NetworkId.of("FC", config)) == name


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


def arms(kind: str, errors, *, label="FC100-100-10", callbacks=None, **settings):
    return [network(f"{label}_{kind}", s, e, callbacks, label=label, **settings) for s, e in enumerate(errors)]


def test_the_baseline_is_the_same_network_without_pools():
    """Not what was trained first without pools: an autoencoder, or the network at another rate."""
    others = [*arms("plain", (1000, 1001, 1002), label="AE400-10"), *arms("fast", (800, 801, 802), lr=2.0)]
    plain, fed = arms("plain", (200, 210, 220)), arms("fed", (200, 220, 240), callbacks=POOLS)
    (table,) = made([*others, *fed, *plain]).tables
    assert table.rows == ("weight decay, learning rate 2", "weight decay, learning rate 0.25", "all pools")
    gain = table.cells["all pools", "less than weight decay, points"]
    assert gain.value == pytest.approx(-0.1)
    assert set(gain.runs) == {n.name for n in (*plain, *fed)}
    assert "all pools: compared with weight decay, learning rate 0.25." in table.notes

    (table,) = made([*others, *fed]).tables
    assert ("all pools", "less than weight decay, points") not in table.cells
    assert "all pools: not compared, for no network without pools has its settings." in table.notes


def test_dropout_has_the_only_plain_arm_beside_it_and_what_else_differs_is_said():
    dropped = arms("drop", (150, 151, 152), dropout=(0.2, 0.1), lr=0.5)
    fed = arms("fed", (140, 141, 142), callbacks=POOLS)
    (table,) = made([*arms("plain", (160, 170, 165)), *dropped, *fed]).tables
    assert table.cells["dropout", "less than weight decay, points"].value == pytest.approx(0.14)
    assert table.notes[1:] == ("dropout also differs from weight decay in other settings: learning rate 0.5.",)


def test_every_network_has_a_table_of_its_own():
    networks = [
        one
        for label, better in (("FC100-100-10", 100), ("FC200-200-10", 120))
        for one in (
            *arms("plain", (160, 161), label=label),
            *arms("fed", (better, better), label=label, callbacks=POOLS),
        )
    ]
    result = made(networks)
    assert [table.key for table in result.tables] == ["back_feeding_fc100_100_10", "back_feeding_fc200_200_10"]
    gains = [table.cells["all pools", "less than weight decay, points"].value for table in result.tables]
    assert gains == pytest.approx([0.605, 0.405])
    assert "of FC200-200-10" in result.summary[1]


def test_a_second_run_of_an_arm_and_seed_is_refused():
    with pytest.raises(
        UserError, match=r"two networks are FC100-100-10 with weight decay, seed 0: a0 and b0; give one"
    ):
        made([network("a", 0, 160), network("b", 0, 160), network("fed", 0, 100, POOLS)])


def test_distances_of_two_attacks_are_not_compared():
    plain, fed = network("plain", 0, 160), network("fed", 0, 110, POOLS)
    slow = replace(measured(fed, "nearest", [0.01], {}), attack={"name": "nearest", "settings": {"max_iter": 1000}})
    sets = [measured(plain, "nearest", [0.05], {}), measured(fed, "nearest", [0.08], {}), slow]
    cells = made([plain, fed], sets).tables[0].cells
    assert cells["all pools", "distortion, nearest"].value == pytest.approx(0.08)


def fed(kind: str, errors, layers=None, *, data="mnist", rate=0.25, decay=(1e-4, 1e-4, 1e-5), pools=True, **feed):
    """Arms of FC100-100-10 as the study has them: the loss of each pool is added to that of the originals."""
    callbacks = {"back_feeding": {"layers": layers, "attack": "gradient", "num_steps": 1, "keep_scale": False} | feed}
    settings = {"lr": rate, "widths": [100, 100]}
    found = arms(kind, errors, callbacks=callbacks if pools else {}, **settings)
    more = {"data": {"name": data, "batch_size": 100}, "weight_decay": {"value": [*decay]}}
    return [rerecorded(one, config={**one.config, **more}) for one in found]


def study(*, whole=(111, 109, 113), inputs=(121, 122, 120), steps=(114, 111, 112), data="mnist"):
    return [
        *fed("plain", (171, 172, 169), pools=False, data=data),
        *fed("fast", (160, 161, 158), pools=False, rate=1.0, decay=(2.5e-5, 2.5e-5, 2.5e-6), data=data),
        *fed("faster", (165, 163, 166), pools=False, rate=0.5, decay=(5e-5, 5e-5, 5e-6), data=data),
        *fed("all", whole, data=data),
        *fed("input", inputs, ["input"], data=data),
        *fed("pgd", steps, ["input"], num_steps=3, data=data),
    ]


def test_pools_are_compared_at_equal_loss_scale_and_with_the_pools_of_the_input():
    table, tests = made(study()).tables
    fast, faster = "weight decay, rate x 4, decay / 4", "weight decay, rate x 2, decay / 2"
    assert table.rows == ("weight decay", fast, faster, "all pools", "input pool", "input pool, PGD-3")
    assert set(tests.rows) == {
        f"all pools against {fast}",
        f"input pool against {faster}",
        f"input pool, PGD-3 against {faster}",
        "all pools against input pool",
        "all pools against input pool, PGD-3",
    }
    row = f"all pools against {fast}"
    assert tests.cells[row, "less test error, points"].value == pytest.approx(0.1 * (49 + 52 + 45) / 30)
    p = stats.ttest_rel([160, 161, 158], [111, 109, 113]).pvalue
    assert tests.cells[row, "p (paired t)"].value == pytest.approx(p)
    # Holm's correction over the comparisons of both tables.
    cells = [c for t in (table, tests) for (_, column), c in t.cells.items() if column == "p (paired t)"]
    corrected = [c for t in (table, tests) for (_, column), c in t.cells.items() if column == "p, corrected"]
    assert len(cells) == len(corrected) == 8
    q = holm([c.value for c in cells])
    assert sorted(c.value for c in corrected) == pytest.approx(sorted(q))


def test_what_stays_of_the_claim_is_said_and_a_difference_that_was_not_shown_is_not_claimed():
    (words,) = made(study(inputs=(112, 108, 114), steps=(110, 112, 112))).summary
    assert "from 1.60 % with weight decay, rate x 4, decay / 4 to 1.11 % (a difference was shown" in words
    assert "with input pool, PGD-3 to 1.11 % (no difference was shown" in words
    assert "pools of the hidden layers add to those of the input was not shown" in words
    (words,) = made([one for one in study() if "fast" not in one.name]).summary
    assert "so the part of the pools in this is not known" in words and "at another scale of the loss" in words
    (words,) = made(study(data="digits")).summary
    assert "the paper says" not in words
    assert "on MNIST (these networks were trained on digits)" in made(study(data="digits")).tables[0].notes[0]


def test_the_scale_of_the_loss_counts_the_pools_in_a_step():
    def scale(**feed):
        return loss_scale(fed("a", (1,), **feed)[0])

    assert scale() == 4 and scale(layers=["input"]) == 2 and scale(turns="alternate") == 2
    assert scale(weight=0.5) == 2.5 and scale(keep_scale=True) == 1
    plain, kept = fed("plain", (171, 172, 169), pools=False), fed("all", (111, 109, 113), keep_scale=True)
    (table, *_) = made([*plain, *kept]).tables
    assert not any("times as large" in note for note in table.notes)


def test_a_pool_of_one_batch_that_is_renewed_every_step_is_said_to_be_the_batch_before():
    plain = fed("plain", (171, 172, 169), pools=False)
    cases: list[tuple[dict[str, Any], bool]]
    cases = [({"size": 100}, True), ({"size": 1000}, False), ({"size": 100, "refresh": 0.5}, False)]
    for feed, said in cases:
        notes = made([*plain, *fed("all", (111, 109, 113), **feed)]).tables[0].notes
        assert any("adversarial examples of the previous batch only" in note for note in notes) is said


def test_the_p_value_is_uniform_where_arms_do_not_differ_and_the_interval_covers():
    errors = np.random.default_rng(0).normal(160, 5, size=(2000, 2, 5))
    found = np.array([paired_p(*pair) for pair in errors])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(found <= level) == pytest.approx(level, abs=0.04)
    intervals = [t_interval(torch.from_numpy(first - second)) for first, second in errors]
    assert np.mean([one is not None and one.low <= 0 <= one.high for one in intervals]) == pytest.approx(0.95, abs=0.02)


def test_the_cell_of_an_error_has_the_count_of_each_seed():
    cells = made(study()).tables[0].cells
    counts = [(seed, count.k, count.n) for seed, count in cells["all pools", "test error, %"].by_seed]
    assert counts == [(0, 111, 10_000), (1, 109, 10_000), (2, 113, 10_000)]


def test_statistics_of_too_few_seeds_are_left_out():
    assert t_interval(torch.ones(1)) is None
    assert paired_p([1.0], [2.0]) is None
    assert paired_p([1.0, 2.0], [0.5, 1.5]) is None


def _arms_of_study(composed: Any, name: str) -> dict[str, Arm]:
    """Make the arms of a study, by the configs as they are resolved for a run."""
    study = composed("analyze", f"study={name}")["study"]["train"]
    made_of = {}
    for name, own in study["networks"].items():
        overrides = [*study["all"], *own]
        last = {one.split("=")[0]: one for one in overrides}  # a later override wins, as it does for a run
        config = {**composed("train", *last.values()), "seed": 0}
        made_of[name] = Network.in_memory(
            label="F",
            name=name,
            module=torch.nn.Identity(),
            errors={"test": [150, 10_000], "train": [0, 1]},
            config=config,
        )
    ((_, arms),) = families(list(made_of.values())).values()
    return {arm.runs[0]: arm for arm in arms}


def test_the_studys_baselines_make_up_for_the_larger_loss_of_its_pools(composed):
    arms = _arms_of_study(composed, "back_feeding")
    matched = {name: arm.matched.runs[0] for name, arm in arms.items() if arm.matched is not None}
    assert matched == {
        "all": "rate4",
        **dict.fromkeys(("noise", "pgd", "input", "hidden1", "hidden2"), "rate2"),
    }
    assert all(arms[name].baseline is arms["weight_decay"] for name in ("all", "input", "pgd", "dropout"))
    assert arms["rate4"].name == "weight decay, rate x 4, decay / 4" and arms["weight_decay"].name == "weight decay"


def test_pools_beside_dropout_are_compared_with_dropout_at_equal_steps(composed):
    arms = _arms_of_study(composed, "back_feeding_relu")
    pools = arms["all_dropout"]
    assert pools.baseline is arms["dropout"] and pools.matched is arms["dropout_rate4"]
    assert arms["dropout_rate4"].name == "dropout, rate x 4, decay / 4"
    assert arms["dropout"].baseline is arms["weight_decay"] and arms["dropout"].name == "dropout"

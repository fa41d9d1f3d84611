"""Runs are pooled where they differ in the seed alone, whatever their labels say."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import crafted_set, planted_config, planted_network

from intriguing.analysis import Network, analyze, paper
from intriguing.analysis.back_feeding.arms import families
from intriguing.analysis.identity import NetworkId, differences, distinct_labels, labels_apart
from intriguing.analysis.stability.measure import groups_of
from intriguing.analysis.units.section import _relabelled
from intriguing.errors import UserError
from intriguing.runs.records import RunRecord

POOLS = {"_target_": "intriguing.callbacks.BackFeeding", "layers": None, "num_steps": 1}
CHOICES: dict[str, tuple[Any, ...]] = {
    "trainer__max_epochs": (60, 1, 12),
    "trainer__gradient_clip_val": (None, 0.5),
    "model__settings__widths": ([100, 100], [30, 20]),
    "optimizer__lr": (0.4, 0.1),
    "optimizer___target_": ("torch.optim.SGD", "torch.optim.Adam", "mine.SGD"),
    "ckpt_path": (None, "c" * 64, "d" * 64),
    "scheduler": ({"_target_": None}, {"_target_": "mine.steps"}),
    "model__settings__anything": (None, "1", 1, True),
    "data__batch_size": (20, 100),
    "data__name": ("mnist", "digits"),
    "data__folder": (None, "cats", "dogs"),
    "data__classes": (None, ["ant", "bee"], ["ant", "cow"]),
    "data__files": (None, {"train": "a" * 64}, {"train": "b" * 64}),
    "data__validation": (0, 50),
    "split": ("full", "p1", "p2"),
    "split__seed": (0, 1),
    "weight_decay__value": ([1e-5, 1e-5, 1e-6], [1e-5, 1e-3, 1e-6]),
    "weight_decay__normaliser": (1.25, "units"),
    "spectral_penalty": (None, {"kind": "margin", "value": 0.1}, {"kind": "log_product", "value": 0.1}),
    "callbacks": ({}, {"back_feeding": POOLS}, {"back_feeding": POOLS | {"num_steps": 3}}),
    "callbacks__own": (None, {"_target_": "mine.Stop", "seed": 3}),
    "keep": ("last", "best"),
}


def one(**given: Any) -> NetworkId:
    return NetworkId.of("FC10(1)", planted_config("FC10(1)", **given))


def test_only_the_seed_may_differ() -> None:
    assert one(seed=0) == one(seed=5)
    assert (one(seed=0).seed, one(seed=5).seed) == (0, 5)
    assert len({one(seed=seed) for seed in range(3)}) == 1
    for key, values in CHOICES.items():
        ids = [one(**{key: value}) for value in values]
        assert len(set(ids)) == len(values), key


def test_equal_numbers_and_what_is_not_set_are_no_difference() -> None:
    assert one(weight_decay__value=[1]) == one(weight_decay__value=[1.0])
    assert one(trainer__max_time=None) == one()
    assert one(spectral_penalty={"kind": "margin", "value": 0}) == one()


def test_a_callback_that_is_seeded_as_its_run_is_no_other_callback() -> None:
    def fed(seed: int, own: int) -> NetworkId:
        return one(seed=seed, callbacks={"back_feeding": POOLS | {"seed": own}})

    assert fed(1, 1) == fed(2, 2)
    assert fed(1, 1) != fed(2, 7)


def test_shape_of_images_and_number_of_classes_are_the_networks_own() -> None:
    modules = [SimpleNamespace(input_shape=(1, n, n), num_classes=k) for n, k in ((8, 10), (28, 10), (8, 3))]
    assert len({NetworkId.of("FC10", planted_config("FC10"), module) for module in modules}) == 3


@pytest.mark.parametrize(
    ("first", "second", "labels"),
    [
        ({}, {"seed": 1}, ["FC10", "FC10"]),
        ({}, {"trainer__max_epochs": 1}, ["FC10, 60 epochs", "FC10, 1 epoch"]),
        ({"model__settings__widths": [5]}, {}, ["FC10, widths=[5]", "FC10, widths=[]"]),
        ({}, {"split": "p1"}, ["FC10", "FC10 on P1"]),
        ({}, {"data__name": "digits", "trainer__max_epochs": 3}, ["FC10 on mnist", "FC10 on digits"]),
        (
            {"data__folder": "pets/a"},
            {"data__folder": "pets/b"},
            ["FC10 on pets/a", "FC10 on pets/b"],
        ),
        ({"callbacks": {"back_feeding": POOLS}}, {}, ["FC10, with back_feeding", "FC10, without back_feeding"]),
        (
            {"callbacks": {"back_feeding": POOLS}},
            {"callbacks": {"back_feeding": POOLS | {"num_steps": 3}}},
            ["FC10, back_feeding.num_steps=1", "FC10, back_feeding.num_steps=3"],
        ),
        (
            {"trainer__max_epochs": 1, "keep": "best"},
            {},
            ["FC10, keep=best, 1 epoch", "FC10, keep=last, 60 epochs"],
        ),
        (
            {"optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1e-3, "amsgrad": False}},
            {},
            ["FC10, AdamW, learning rate 0.001", "FC10, SGD, learning rate 0.4"],
        ),
        ({"optimizer___target_": "mine.SGD"}, {}, ["FC10, mine.SGD", "FC10, SGD"]),
        ({"scheduler": {"_target_": None}}, {}, ["FC10, constant learning rate", "FC10, cosine schedule"]),
        (
            {"callbacks__stop": {"_target_": "mine.Stop"}},
            {"callbacks__stop": {"_target_": "mine.Halt", "patience": 3}},
            ["FC10, stop=mine.Stop", "FC10, stop=mine.Halt"],
        ),
        ({}, {}, ["FC10 [a]", "FC10 [b]"]),
    ],
)
def test_the_settings_that_differ_follow_the_label(first: dict, second: dict, labels: list[str]) -> None:
    ids = [NetworkId.of("FC10", planted_config("FC10", **given)) for given in (first, second)]
    assert list(labels_apart(dict(zip("ab", ids, strict=True))).values()) == labels


def trained(name: str, epochs: int, *, checkpoint: str = "", before: int | None = None, **given: Any) -> Network:
    """A network whose run went on from a checkpoint of so many epochs, as its record says."""
    config = planted_config("FC10", trainer__max_epochs=epochs, ckpt_path=checkpoint * 64 or None, **given)
    record = {"errors": {}} | ({} if before is None else {"further": {"epochs": before}})
    module = SimpleNamespace(input_shape=(1, 8, 8), num_classes=10)
    made = RunRecord.in_memory("train", name, config=config, result=record)
    return Network(label="FC10", module=module, record=made)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("networks", "labels"),
    [
        (
            [trained("a", 10), trained("b", 20, checkpoint="c", before=10)],
            ["FC10, 10 epochs", "FC10, 20 epochs, continued from epoch 10"],
        ),
        (
            [trained("a", 20), trained("b", 20, checkpoint="c", before=10)],
            ["FC10", "FC10, continued from epoch 10"],
        ),
        (
            [trained("a", 20, checkpoint="c", before=5), trained("b", 20, checkpoint="d", before=10)],
            ["FC10, continued from epoch 5", "FC10, continued from epoch 10"],
        ),
        (
            [trained("a", 20, checkpoint="c", before=10), trained("b", 20, checkpoint="d", before=10)],
            ["FC10, from checkpoint cccccccc", "FC10, from checkpoint dddddddd"],
        ),
        (
            [trained("a", 10), trained("b", 20, checkpoint="c", before=10, optimizer___target_="torch.optim.AdamW")],
            ["FC10, SGD, 10 epochs", "FC10, AdamW, 20 epochs, continued from epoch 10"],
        ),
    ],
)
def test_a_network_that_was_trained_further_says_from_where(networks: list[Network], labels: list[str]) -> None:
    assert list(labels_apart({one.name: one.id for one in networks}).values()) == labels
    first, second = (one.id for one in networks)
    assert differences(first, second) and differences(first, second) != differences(second, first)


def test_differences_name_the_first_ones_values() -> None:
    assert differences(one(trainer__max_epochs=1), one()) == "1 epoch"
    assert differences(one(trainer__max_epochs=1), one(), "trainer.") == ""
    assert differences(one(ckpt_path="c" * 64), one()) == "from checkpoint cccccccc"
    assert differences(one(), one(ckpt_path="c" * 64)) == "trained from the start"
    assert differences(one(), one(split="p1")) == "on the full training set"


def test_of_many_settings_that_differ_those_are_shown_that_tell() -> None:
    many = [{f"trainer.{key}": str(i) for key in "abcdefgh"} for i in range(3)]
    assert distinct_labels(["N"] * 3, many) == ["N, a=0", "N, a=1", "N, a=2"]


PAPERS = [
    *((name, "full", name) for name in paper.TABLE_1),
    ("FC100-100-10", "p1", "FC100-100-10"),
    ("FC123-456-10", "p1", "FC123-456-10"),
    ("FC100-100-10", "p2", "FC100-100-10'"),
]


@pytest.mark.parametrize(("label", "split", "name"), PAPERS)
def test_the_papers_networks_are_known_by_their_settings(label: str, split: str, name: str, composed: Callable) -> None:
    from intriguing.cli.config import training_job

    assert paper.network_name(planted_config(label, split=split)) == name
    network = label.lower().replace("-", "_") if "(" not in label else f"fc10_{label[5:-1]}"
    suffix = "" if split == "full" else f"_{split}"
    job = training_job(composed("train", f"network={network}{suffix}", "data=mnist"))
    assert (job.label, paper.network_name(job.identity), paper.is_paper_data(job.identity)) == (name, name, True)


@pytest.mark.parametrize(
    "given",
    [
        {"model__settings__widths": [30, 20]},
        {"model__settings__activation": "relu"},
        {"model__settings__dropout": [0.2, 0.1]},
        {"model__name": "convnet"},
        {"weight_decay__value": [1e-5, 1e-5, 1e-5]},
        {"spectral_penalty": {"kind": "margin", "value": 0.1}},
        {"callbacks": {"back_feeding": POOLS}},
    ],
)
def test_no_other_network_is_judged_by_the_papers_numbers(given: dict[str, Any]) -> None:
    assert paper.network_name(planted_config("FC100-100-10", **given)) == ""
    network = planted_network("FC100-100-10", 0, **given)
    table = analyze([network], [crafted_set(network, {0: 40})], title="t", sections=["table1"]).table("table1")
    assert all(cell.paper is None and cell.meets is None for cell in table.cells.values())


@pytest.mark.parametrize("given", [{"data__name": "digits"}, {"data__only": 100}, {"data__validation": 100}])
def test_the_papers_numbers_of_other_images_are_shown_and_not_judged(given: dict[str, Any]) -> None:
    network = planted_network("FC100-100-10", 0, **given)
    crafted = crafted_set(network, {0: 40}, data=given.get("data__name", "mnist"))
    result = analyze([network], [crafted], title="t", sections=["table1", "table2"])
    cell = result.table("table1").cells["FC100-100-10", paper.TEST_ERROR]
    assert (cell.paper, cell.meets) == (1.64, None)
    assert all(cell.meets is None for table in result.tables for cell in table.cells.values())


def test_other_widths_have_another_name(composed: Callable) -> None:
    from intriguing.cli.config import training_job

    def named(*overrides: str) -> tuple[str, str]:
        job = training_job(composed("train", *overrides))
        return job.label, job.name

    assert named("data=digits", "network=fc100_100_10", "model.settings.widths=[30,20]") == (
        *("FC30-20-10", "digits_fc30_20_10_full_seed0"),
    )
    assert named("data=mnist", "network=ae400_10", "model.settings.units=50")[0] == "AE50-10"
    assert named("data=mnist", "model=fc10", "model.label=mine")[0] == "mine(1e-4)"


@st.composite
def runs(draw: st.DrawFn) -> list[Network]:
    """Some runs of one label; each differs from the first in no or in one setting, and perhaps in its seed."""
    found = []
    for i in range(draw(st.integers(2, 5))):
        given = {}
        if draw(st.booleans()):
            key = draw(st.sampled_from(sorted(CHOICES)))
            given[key] = draw(st.sampled_from(CHOICES[key]))
        seed = draw(st.integers(0, 2))
        found.append(planted_network("FC100-100-10", 0, seed=seed, name=f"run{i}", **given))
    return found


def bare(value: Any) -> Any:
    """The same without what is None or empty: a part that is not there."""
    if not isinstance(value, dict):
        return value
    inner = {key: bare(item) for key, item in value.items()}
    return {key: item for key, item in inner.items() if item is not None and item != {}}


def alike(networks: list[Network]) -> bool:
    """Whether networks are seeds of one network, compared as their configs stand there."""
    configs = [json.dumps(bare({**n.config, "seed": None}), sort_keys=True) for n in networks]
    return len(set(configs)) <= 1 and len({n.seed for n in networks}) == len(networks)


@given(networks=runs())
@settings(max_examples=40, deadline=None)
def test_runs_that_differ_in_a_setting_never_end_in_one_cell(networks: list[Network]) -> None:
    by_name = {n.name: n for n in networks}
    sets = [crafted_set(n, {0: 10}, subset=s, name=f"{n.name}_{s}") for n in networks for s in ("train", "test")]
    makers = {s.name: s.name.split("_")[0] for s in sets}
    result = analyze(networks, sets, title="t", sections=["table1", "table2", "table3", "table4", "transfer", "lambda"])
    for table in result.tables:
        assert len(set(table.rows)) == len(table.rows)
        for (_, column), cell in table.cells.items():
            victims = [by_name[run] for run in cell.runs if run in by_name]
            sources = [by_name[makers[run]] for run in cell.runs if run in makers]
            assert alike(sources)
            if column != paper.DISTORTION:
                assert alike(list({v.name: v for v in victims}.values()))
    measured = [SimpleNamespace(network=n, family=(), kind="", strength=0.0) for n in networks]
    for members in groups_of(measured).values():  # type: ignore[arg-type]
        assert alike([m.network for m in members])
    units: dict[str, list[Network]] = {}
    for network in _relabelled(networks):
        units.setdefault(network.label, []).append(network)
    assert all(alike(members) for members in units.values())
    with contextlib.suppress(UserError):  # two runs of one arm and seed
        for _, arms in families(networks).values():
            assert all(alike(list(arm.networks.values())) for arm in arms)

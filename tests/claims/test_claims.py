"""Every number of README's table of results is found again in results/."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial

import pytest
from sources import ROOT, cell, frame, number, short, with_interval

README = (ROOT / "README.md").read_text(encoding="utf-8")
NETWORKS = "benchmarks/attacks_networks"
back_feeding = partial(cell, "back_feeding/tables/back_feeding", column="test error, %")
stability = partial(cell, "stability/tables/stability")
cars = partial(cell, "quocnet/tables/two_classes", column="balanced error")


def paper() -> list[str]:
    cells = frame("paper/tables/all")
    judged = cells[cells["table"].isin(["table1", "table2", "table3", "table4"]) & (cells["quantity"] == "error")]
    judged = judged[judged["meets"].notna() & ~judged["own"]]
    own = cells[cells["own"] & cells["table"].isin(["table2", "table4"])]
    means = cells[(cells["quantity"] == "distortion") & cells["paper"].notna()]
    means = means[means["table"].isin(["table1", "table3"])]
    close = (means["distortion"] / means["paper"] - 1).abs() <= 0.25
    assert close.all() and len(own) == len(means) == 9 and (own["k"] == own["n"]).all() and (own["n"] == 256).all()
    return [f"{judged['meets'].sum()}", f"{len(judged)}", f"{int(own['k'].sum()):,}"]


def transfer() -> list[str]:
    cells = frame("paper/tables/all")
    pairs = cells[cells["table"].str.fullmatch("table[24]_excess_noise")]
    pairs = pairs[pairs["row"].str.partition(",")[0] != pairs["column"]]  # amplified examples too
    return [f"{len(pairs)}", f"{(pairs['low'] > 0).sum()}"]


def pools() -> list[str]:
    rows = ("all pools", "weight decay", "weight decay, rate x 4, decay / 4")
    first, second, third = (back_feeding(row) for row in rows)
    return [with_interval(first, between=" % "), with_interval(second), with_interval(third)]


def units() -> list[str]:
    tests = frame("units/tables/units_tests").pivot(index="row", columns="column", values="value")
    connected = tests[tests.index.str.startswith("FC100")]
    assert len(connected) == 12 and connected["q"].nunique() == 1
    higher = tests[(tests["q"] < 0.05) & (tests["effect size"] > 0)]
    (convolutions,) = {sum(f"pool{layer}" in row for row in higher.index) for layer in (1, 2)}
    return [short(float(connected["q"].iloc[0]), 1), {1: "one", 2: "two"}[convolutions]]


def certified() -> list[str]:
    plain, penalty = "FC100-100-10", "FC100-100-10 penalty 7e-2"
    constants = [number(stability(one, "certified constant")) for one in (plain, penalty)]
    errors = [number(stability(one, "test error")) for one in (plain, penalty)]
    distances = [number(stability(one, "distance found")) for one in (plain, penalty)]
    ratio, points = constants[0] / constants[1], errors[1] - errors[0]
    return [
        f"{ratio:.1f}", short(constants[0]), short(constants[1], 2), short(points, 2), *(short(d) for d in distances)
    ]  # fmt: skip


def quocnet() -> list[str]:
    return [with_interval(cars("QuocNet"), 1, between=" % "), with_interval(cars("Linear"), 1)]


def attacks() -> list[str]:
    rows = json.loads((ROOT / f"results/{NETWORKS}.json").read_text())
    every = [row for row in rows if row["method"].startswith("nearest") and row["mode"] == "untargeted"]
    assert {row["images"] for row in every} == {64} and {row["success"] for row in every} == {1.0}
    table = frame(NETWORKS)
    single = table[(table["network"] != "mean of all") & (table["mode"] == "untargeted")]
    means = single.groupby(["method", "budget"], dropna=False)["optimality"].mean().reset_index()
    peers = means[~means["method"].str.startswith(("nearest", "lbfgs"))]
    ours = means[means["budget"].isna()].set_index("method")["optimality"]
    best = peers.groupby("budget")["optimality"].max()
    assert peers[peers["budget"].notna()]["method"].nunique() == 8
    return [
        f"{len({row['network'] for row in every})}",
        *(short(ours[f"nearest, {effort}"]) for effort in ("fast", "default", "thorough")),
        *(short(best[budget]) for budget in (60, 300, 2000)),
    ]


CLAIMS: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "Tables 1 to 4": (
        "{} of {} error rates meet the paper's intervals; all {} attacks succeed; all nine mean distortions within "
        "25 %",
        paper,
    ),
    "transfer": (
        "{} pairs | in {}, examples fool another network more than noise of equal norm (interval of the excess above "
        "zero)",
        transfer,
    ),
    "back-feeding": (
        "{} test error; weight decay {}, at the pools' step size {}; the paper below 1.2 and 1.6",
        pools,
    ),
    "units": (
        "in FC100-100-10 units score higher than random bases by all six scores (q = {}); in the ConvNet's "
        "convolutions by {}",
        units,
    ),
    "stability": (
        "a penalty divides the certified constant by {} ({} to {}) for {} points of error; examples move from L2 {} to "
        "{}",
        certified,
    ),
    "QuocNet": (
        '"car" against the rest without fine-tuning: balanced error {}, a linear classifier on pixels {}; 64 of 64 '
        "attacks succeed",
        quocnet,
    ),
    "attacks": (
        "{} networks of other authors, 64 images each | `nearest` fools every image; AttackBench's optimality {}, {} "
        "and {} within 60, 300 and 2,000 passes an image; the best of eight published attacks {}, {} and {}",
        attacks,
    ),
}  # fmt: skip


def _rows() -> dict[str, str]:
    """README's rows of results by their first cell."""
    part = README.partition("## Results")[2].partition("\n## ")[0]
    rows = [line.strip().strip("|").split("|", 1) for line in part.splitlines() if line.startswith("|")]
    return {first.strip(): rest for first, rest in rows if first.strip(" -")}


@pytest.mark.parametrize("row", list(CLAIMS))
def test_the_numbers_of_a_row_are_those_of_the_results(row: str) -> None:
    text, numbers = CLAIMS[row]
    assert text.format(*numbers()) in _rows()[row]


def test_every_row_is_checked_and_its_last_cell_whole() -> None:
    rows = _rows()
    assert set(rows) == set(CLAIMS)
    for row, cells in rows.items():
        claim = CLAIMS[row][0].rpartition(" | ")[2]
        pattern = re.escape(claim).replace(r"\{\}", ".+?")
        assert re.fullmatch(pattern, cells.rpartition("|")[2].strip()), row


@pytest.mark.parametrize("row", list(CLAIMS))
def test_another_digit_is_found(row: str) -> None:
    text, numbers = CLAIMS[row]
    expected = text.format(*numbers())
    for place, letter in enumerate(expected):
        if letter.isdigit():
            changed = f"{expected[:place]}{(int(letter) + 1) % 10}{expected[place + 1 :]}"
            assert changed not in _rows()[row]

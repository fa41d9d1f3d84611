"""Tables of docs/results about back-feeding, units, stability, controls and QuocNet hold the numbers of results/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import pandas as pd
import pytest
from sources import cell, decimal, frame, lines, number, percent, short, with_interval

LAYERS = {
    "ConvNet, first pool": ("units_convnet", "ConvNet", "pool1"),
    "ConvNet, second pool": ("units_convnet", "ConvNet", "pool2"),
    "ConvNet, fully connected": ("units_convnet", "ConvNet", "relu3"),
    "FC100-100-10, first": ("units_fc100_100_10", "FC100-100-10", "layer 2"),
    "FC100-100-10, second": ("units_fc100_100_10", "FC100-100-10", "layer 4"),
}
PENALTIES = {
    "no penalty": "FC100-100-10",
    **{f"`log_product`, .{size}": f"FC100-100-10 penalty {size[1:]}e-2" for size in ("02", "05", "07")},
    "`log_product`, .1": "FC100-100-10 penalty 1e-1",
    "`margin`, .1": "FC100-100-10 margin 1e-1",
    "`margin`, .15": "FC100-100-10 margin 1.5e-1",
}
ARMS = {  # rows of docs/results/back-feeding.md, what the paper says of them, and rows of the study's table
    "weight decay": ("; the paper 1.6", "weight decay"),
    "weight decay, rate x 4, decay / 4": ("", "weight decay, rate x 4, decay / 4"),
    "weight decay, rate x 2, decay / 2": ("", "weight decay, rate x 2, decay / 2"),
    "dropout": ("; the paper about 1.3", "dropout"),
    "input pool, Gaussian noise of equal norm": ("", "input pool, noise"),
    "pool of the input alone": ("", "input pool"),
    "the same by three steps of PGD": ("", "input pool, PGD-3"),
    "of the first hidden layer alone": ("", "hidden1 pool"),
    "of the second hidden layer alone": ("", "hidden2 pool"),
    "pools of all layers": ("; the paper below 1.2", "all pools"),
}
RECTIFIED = {
    "weight decay": "weight decay",
    "dropout": "dropout",
    "dropout, rate x 4, decay / 4": "dropout, rate x 4, decay / 4",
    "pools of all layers by three steps of PGD, dropout": "all pools, PGD-3, dropout",
}
AT_EQUAL_SCALE = {
    "all pools against weight decay at four times the rate, a quarter of the decay": (
        "all pools against weight decay, rate x 4, decay / 4"
    ),
    "input pool against weight decay at twice the rate, half the decay": (
        "input pool against weight decay, rate x 2, decay / 2"
    ),
    "the same by three steps of PGD": "input pool, PGD-3 against weight decay, rate x 2, decay / 2",
    "first hidden layer's pool against the same": "hidden1 pool against weight decay, rate x 2, decay / 2",
    "second hidden layer's pool against the same": "hidden2 pool against weight decay, rate x 2, decay / 2",
    "all pools against the input's pool": "all pools against input pool",
    "all pools against the input's pool by three steps of PGD": "all pools against input pool, PGD-3",
}


def plain(document: str) -> list[str]:
    """Return the lines of a page of docs/results without emphasis."""
    return [line.replace("**", "") for line in lines(f"results/{document}")]


def p_value(entry: pd.Series) -> str:
    """Write a p-value: ".011", "1"."""
    return "1" if number(entry) > 0.995 else short(number(entry), 2)


def back_feeding() -> Iterator[str]:
    table = partial(cell, "back_feeding/tables/back_feeding")
    for name, (paper, row) in ARMS.items():
        gain = ""
        if not row.startswith("weight decay"):
            less, p = (table(row, one) for one in ("less than weight decay, points", "p, corrected"))
            gain = f"{decimal(number(less), 2)} (p = {p_value(p)})"
        baseline = {
            "weight decay, rate x 4, decay / 4": "all pools",
            "weight decay, rate x 2, decay / 2": "single pools",
        }
        gain = f"the baseline of {baseline[row]}" if row in baseline else gain
        far = [decimal(number(table(row, f"distortion, {attack}")), 3) for attack in ("lbfgs", "nearest")]
        yield f"| {name} | {with_interval(table(row, 'test error, %'))}{paper} | {gain} | {', '.join(far)} |".replace(
            "|  |", "| |"
        )


def comparisons() -> Iterator[str]:
    table = partial(cell, "back_feeding/tables/back_feeding_tests")
    for name, row in AT_EQUAL_SCALE.items():
        less, p = table(row, "less test error, points"), table(row, "p, corrected")
        gain, low, high = (decimal(one, 2) for one in (number(less), less["low"], less["high"]))
        yield f"| {name} | {gain} ({low} to {high}) | {p_value(p)} |"


def rectified() -> Iterator[str]:
    table = partial(cell, "back_feeding_relu/tables/back_feeding")
    for name, row in RECTIFIED.items():
        error, train = table(row, "test error, %"), table(row, "train error, %")
        far = decimal(number(table(row, "distortion, nearest")), 3)
        yield f"| {name} | {with_interval(error)} | {decimal(number(train), 3)} | {far} |"


def choices() -> Iterator[str]:
    for _, row in frame("benchmarks/back_feeding_choices").query("seed == 100").iterrows():
        yield f"| {row['choice']} | {row['error']:.2f} | {decimal(row['loss'], 4)} | {decimal(row['train_error'], 2)} |"


def units() -> Iterator[str]:
    places = {"purity": 3, "similarity in pixels": 3, "selectivity": 2, "kurtosis": 1}
    for name, (file, network, layer) in LAYERS.items():
        cells = []
        for column, digits in places.items():
            pair = (cell(f"units/tables/{file}", f"{layer} · {one}", column) for one in ("units", "random directions"))
            cells.append(" / ".join(decimal(number(one), digits) for one in pair))
        lost = partial(cell, "units/tables/units_ablation", f"{network} · {layer}")
        cells.append(" / ".join(decimal(number(lost(one)), 2) for one in ("unit", "random direction")))
        yield f"| {name} | {' | '.join(cells)} |".replace("-", "−").replace("FC100−100−10", "FC100-100-10")


def stability() -> Iterator[str]:
    for name, row in PENALTIES.items():
        table = partial(cell, "stability/tables/stability", row)
        bounds = ("product of bounds", "certified constant", "largest Jacobian")
        cells = [percent(table("test error")), *(f"{number(table(one)):.1f}" for one in bounds)]
        cells += [short(number(table("distance found"))), percent(table("share certified"), 1)]
        yield f"| {name} | {' | '.join(cells)} |"


def quocnet() -> Iterator[str]:
    for name, row in {"QuocNet": "QuocNet", "the same classifier on pixels": "Linear"}.items():
        table = partial(cell, "quocnet/tables/two_classes", row)
        cells = [
            with_interval(table(one), 1, between=" % ")
            for one in ("error", "class missed", "false alarms", "balanced error")
        ]
        area = table("area under ROC")
        ends = [decimal(one, 3) for one in (number(area), area["low"], area["high"])]
        yield f"| {name} | {' | '.join(cells)} | {ends[0]} ({ends[1]} to {ends[2]}) |"


TABLES = {
    "back_feeding": ("back-feeding.md", back_feeding),
    "back_feeding comparisons": ("back-feeding.md", comparisons),
    "back_feeding_relu": ("back-feeding.md", rectified),
    "back_feeding_choices": ("back-feeding.md", choices),
    "units": ("units.md", units),
    "stability": ("stability.md", stability),
    "quocnet": ("quocnet.md", quocnet),
}


@pytest.mark.parametrize("table", list(TABLES))
def test_the_rows_of_a_table(table: str) -> None:
    document, rows = TABLES[table]
    expected = list(rows())
    assert len(expected) > 1
    assert [row for row in expected if row not in plain(document)] == []


def test_the_words_about_rectified_units() -> None:
    text = " ".join(plain("back-feeding.md"))
    best = cell("back_feeding_relu/tables/back_feeding", "all pools, PGD-3, dropout", "test error, %")
    assert f"The mean is {with_interval(best)}" in text and best["low"] < 1 < best["high"]
    counts = [one.partition(":")[2].split("/") for one in best["by_seed"].split()]
    errors = sorted(100 * int(wrong) / int(of) for wrong, of in counts)
    assert f"Single networks err {decimal(errors[0], 2)} to {errors[-1]:.2f} %" in text and len(errors) == 10
    below = {4: "four"}[sum(one < 1 for one in errors)]
    assert f"{below} of ten less than 1.0" in text
    row = "all pools, PGD-3, dropout against dropout, rate x 4, decay / 4"
    tests = partial(cell, "back_feeding_relu/tables/back_feeding_tests", row)
    less, p = tests("less test error, points"), tests("p, corrected")
    gain, low, high = (decimal(one, 2) for one in (number(less), less["low"], less["high"]))
    assert f"{gain} points ({low} to {high}; p = {decimal(number(p), 6)}" in text
    rows = frame("benchmarks/back_feeding_choices").set_index(["choice", "seed"])
    assert f"seed 101 errs {rows.loc[('rate .025', 101), 'error']:.2f} %" in text
    losses = [rows.loc[(f"rate {rate}, three steps", 100), "loss"] for rate in (".025", ".05")]
    assert f"lower by {decimal(losses[0] - losses[1], 3)}" in text


def test_the_seeds_of_the_units() -> None:
    (text,) = re.findall(r"Three seeds that err alike.+?rotation\.", " ".join(plain("units.md")))
    seeds = frame("units/tables/units_seeds").pivot(index="row", columns="column", values="value")
    for network in ("ConvNet", "FC100"):
        errors = frame("units/tables/units_seeds").query("column == 'test error %'")
        own = errors[errors["row"].str.startswith(network)].iloc[0]
        assert f"{decimal(own['low'], 2)} to {decimal(own['high'], 2)} %" in text
    connected = seeds[seeds.index.str.contains("relu3|FC100", regex=True)]
    for column, words in (("linear CKA", "linear CKA {} to {}"), ("matched units", "correlate at {} to {}")):
        ends = (decimal(end, 2) for end in (connected[column].min(), connected[column].max()))
        assert words.format(*ends) in text
    ends = (decimal(end, 2) for end in (connected["after a rotation"].min(), connected["after a rotation"].max()))
    assert "{} to {} after a random rotation".format(*ends) in text


def test_the_index_of_the_results() -> None:
    text = "\n".join(plain("index.md"))
    arms = partial(cell, "back_feeding/tables/back_feeding", column="test error, %")
    assert (
        f"{percent(arms('all pools'))} % test error against {percent(arms('weight decay'))} % by weight decay" in text
    )
    best = cell("back_feeding_relu/tables/back_feeding", "all pools, PGD-3, dropout", "test error, %")
    assert f"{percent(best)} % with rectified units and dropout" in text
    errors = [number(cell("stability/tables/stability", PENALTIES[one], "test error")) for one in list(PENALTIES)[:4]]
    assert f"a penalty lowers the bound five times for {decimal(errors[3] - errors[0], 2)} points of error" in text
    cars = [cell("quocnet/tables/two_classes", one, "balanced error") for one in ("QuocNet", "Linear")]
    assert f"{percent(cars[0], 1)} % balanced error against {percent(cars[1], 1)} % on pixels" in text

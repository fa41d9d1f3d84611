"""Tables of the documentation hold the numbers of results/."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sources import ROOT, cell, decimal, frame, lines, number, percent, short, with_interval

from intriguing.analysis.card.numbers import quantile_number

NUMBER = r"\d*\.?\d+"
HALVES = {"FC100-100-10": " on P1", "FC123-456-10": " on P1", "FC100-100-10'": " on P2"}


def printed(entry: pd.Series) -> str:
    """Write a number of the paper as it prints it."""
    value = float(entry["paper"])
    text = f"{value:g}" if value >= 1 or value == 0 else f"{value:g}"[1:]
    return f"({text})"


def errors(entry: pd.Series) -> str:
    """Write an error beside the paper's; a count of less than ten in full."""
    if entry["k"] >= 10:
        return f"{number(entry):.2f} {printed(entry)}"
    return f"{number(entry):.1g}, {int(entry['k'])} of {int(entry['n']):,} {printed(entry)}"


def networks() -> Iterator[tuple[str, str]]:
    """Yield the names of the paper's networks, and their rows in docs/results/paper.md."""
    cells = frame("paper/tables/all")
    for table, columns in (
        ("table1", ["train error", "test error", "av. distortion"]),
        ("table3", ["error on P1", "test error", "av. distortion"]),
    ):
        found = cells[cells["table"] == table]
        for row in dict.fromkeys(found["row"]):
            entries = found[found["row"] == row].set_index("column")
            own = "error on P2" if row.endswith("'") else columns[0]
            train, test, mean = (entries.loc[column] for column in (own, *columns[1:]))
            name = row + (HALVES[row] if table == "table3" else "")
            size = f"{number(mean):.3f}"[1:]
            yield name, f"| {name} | {errors(train)} | {errors(test)} | {size} {printed(mean)} |"


def test_the_papers_networks() -> None:
    rows = dict(networks())
    assert len(rows) == 9
    assert [row for row in rows.values() if row not in lines("results/paper.md")] == []


def test_cells_that_differ_from_the_papers() -> None:
    text = " ".join(lines("results/paper.md"))
    cells = frame("paper/tables/all")
    found = re.findall(r"((?:FC|AE)\S+): ((?:FC|AE)\S+)\s+(\d+\.\d+) \(([\d.]+)\)", text)
    assert len(found) == 6
    for source, victim, error, printed in found:
        (one,) = [
            row
            for _, row in cells[cells["table"] == "table2"].iterrows()
            if (row["row"], row["column"]) == (source, victim)
        ]
        assert (f"{number(one):.1f}", float(printed)) == (error, one["paper"])
    halves = partial(cell, "paper/tables/table4")
    first, second, third = "FC100-100-10", "FC123-456-10", "FC100-100-10'"
    values = [
        *(halves(first, second), halves(second, first), halves(f"{first}, amplified to .1", second)),
        *(
            halves(f"{second}, amplified to .1", first),
            halves(second, third),
            halves(f"{second}, amplified to .1", third),
        ),
        halves(f"{third}, amplified to .1", first),
    ]
    shown = re.findall(
        r"(\d+\.\d+) \(([\d.]+)\)", text[text.index("fool each other evenly") : text.index("## What the cells")]
    )
    assert [(f"{number(one):.1f}", float(one["paper"])) for one in values] == [(a, float(b)) for a, b in shown]


def test_what_the_cells_that_miss_depend_on() -> None:
    rows = frame("benchmarks/paper_causes").query("table == 'all'")
    for cause, own in rows.groupby("cause"):
        found = [
            f"{own.query(f'quantity == {kind!r}')[['met', 'cells']].to_numpy().tolist()}"
            for kind in ("error", "distortion")
        ]
        shown = [re.sub(r"\[\[(\d+), (\d+)\]\]", r"\1 of \2", one).replace("[]", "") for one in found]
        assert f"| {cause} | {shown[0]} | {shown[1]} |" in lines("results/paper.md")
    large = frame("paper_large/tables/all")
    large = large[large["table"].isin(["table1", "table2", "table3", "table4"]) & (large["quantity"] == "error")]
    large = large[large["meets"].notna() & ~large["own"]]
    assert f"meet in {large['meets'].sum()} of {len(large)} cells" in " ".join(lines("results/paper.md"))


def test_the_autoencoder_with_the_papers_training_error() -> None:
    found = partial(cell, "benchmarks/paper_causes_cells")
    text = " ".join(lines("results/paper.md"))
    train, test, far = (found("AE400-10", one) for one in ("train error", "test error", "av. distortion"))
    shown = [f"{decimal(number(one), 2)} % {printed(one)}" for one in (train, test)]
    assert f"errs on {shown[0]} of the training images and {shown[1]} of the test images" in text
    assert f"at a distortion of {decimal(number(far), 3)} {printed(far)}" in text
    for words, row, column, met in (
        ("FC10(1e-2): AE400-10 with {}", "FC10(1e-2)", "AE400-10", True),
        ("AE400-10: FC10(1e-4) with {}", "AE400-10", "FC10(1e-4)", True),
        ("FC10(1): AE400-10 comes nearer with {}", "FC10(1)", "AE400-10", False),
        ("AE400-10: FC100-100-10 with {}", "AE400-10", "FC100-100-10", False),
    ):
        one = found(row, column)
        assert words.format(f"{percent(one, 1)} {printed(one)}") in text and one["met"] == met
    rows = frame("benchmarks/paper_causes").query("table in ['table1', 'table2'] and quantity == 'error'")
    met, cells = rows.query("cause == 'as configured'")[["met", "cells"]].sum()
    assert f"{met} of {cells} cells meet as configured" in text


def test_the_line_of_the_autoencoder() -> None:
    rows = frame("benchmarks/autoencoder_search")
    text = " ".join(lines("results/paper.md"))
    own = rows.query("draw == 0 and epochs == 60").sort_values("decay", ascending=False).reset_index(drop=True)
    ends = [f"{row.train_error:.2f} % and {row.distortion:.4f}".replace("0.", ".") for row in own.itertuples()]
    assert f"from {ends[0]} to {ends[-1]} and passes" in text
    assert f"passes {ends[3].replace(' and', ' at')}" in text
    assert f"set apart are best at {ends[int(own['error'].idxmin())]}" in text
    longer = rows.query("draw == 0 and epochs == 300").sort_values("decay", ascending=False).reset_index(drop=True)
    ends = [f"{row.train_error:.2f} % {{}} {row.distortion:.4f}".replace("0.", ".") for row in longer.itertuples()]
    assert f"line passes {ends[3].format('at')}, and the images set apart" in text
    assert f"set apart are best at {ends[int(longer['error'].idxmin())].format('and')}" in text
    lines_at = [np.interp(0.57, one["train_error"][::-1], one["distortion"][::-1]) for one in (own, longer)]
    assert f"move the line by {decimal(lines_at[1] - lines_at[0], 3)}" in text
    assert round((0.086 - lines_at[0]) / (lines_at[1] - lines_at[0])) == 6
    linear = [
        cell("paper/tables/all", f"FC10({one})", "av. distortion", table="table1") for one in ("1e-4", "1e-2", "1")
    ]
    factors = sorted(one["paper"] / one["distortion"] for one in linear)
    assert f"are {factors[0]:.2f} to {factors[-1]:.2f} times as large" in text
    ends = [decimal(lines_at[1] * factor, 3) for factor in (factors[0], factors[-1])]
    assert f"passes .57 % at distortions of {ends[0]} to {ends[1]}" in text
    others = rows.query("epochs == 12")
    assert rows["draw"].nunique() == 10 and others["draw"].nunique() == 10
    for _, line in others.query("draw > 0").groupby("draw"):  # at equal distortion they have more errors
        line = line.sort_values("distortion")
        best = own.sort_values("distortion")
        at = [value for value in line["distortion"] if best["distortion"].min() <= value <= best["distortion"].max()]
        errors, least = (np.interp(at, one["distortion"], one["train_error"]) for one in (line, best))
        assert (errors > least).all()


def distances(method: str) -> dict[str, list[float]]:
    """Return the L2 distances (N,) of an attack without a budget, by network."""
    rows = json.loads((ROOT / "results/benchmarks/attacks_networks.json").read_text())
    chosen = [row for row in rows if row["method"] == method and row["mode"] == "untargeted"]
    return {row["network"]: row["l2"] for row in chosen}


@pytest.mark.parametrize("effort", ["fast", "default", "thorough"])
def test_mean_distances_of_the_attack(effort: str) -> None:
    place = ["fast", "default", "thorough"].index(effort) + 1
    cells = [line.split(" | ") for line in lines("results/attacks.md") if line.startswith("| ")]
    shown = {row[0].removeprefix("| "): row[place] for row in cells if len(row) == 5}
    for network, l2 in distances(f"nearest, {effort}").items():
        decimals = len(shown[network].partition(".")[2])
        assert shown[network] == f"{sum(l2) / len(l2):.{decimals}f}".removeprefix("0"), network
        assert decimals == (4 if network == "resnet20" else 3)


def test_the_ranking_of_twelve_networks() -> None:
    text = " ".join(lines("card.md"))
    found = distances("nearest, thorough")
    assert len(found) == 12
    for network, l2 in found.items():
        median = quantile_number(torch.tensor(l2, dtype=torch.float64), 0.5)
        digits = 3 if network == "resnet20" else 2
        value, low, high = (f"{one:.{digits}f}".removeprefix("0") for one in (median.value, median.low, median.high))
        assert f"{network} {value} ({low} to {high})" in text or f"{network} {value}," in text, (network, value)


def test_back_feeding_on_cifar10() -> None:
    table = partial(cell, "back_feeding_cifar10/tables/back_feeding")
    shown = {
        "weight decay": "weight decay",
        "weight decay, rate x 2, decay / 2": "weight decay, rate x 2, decay / 2",
        "input pool, noise": "input pool, Gaussian noise of equal norm",
        "input pool": "input pool",
        "hidden1 pool": "pool of the first hidden layer",
    }
    for row, name in shown.items():
        error, train, far = (table(row, one) for one in ("test error, %", "train error, %", "distortion, nearest"))
        line = f"| {name} | {with_interval(error, 1)} | {percent(train, 1)} | {f'{number(far):.4f}'[1:]} |"
        assert line in lines("results/back-feeding.md")
    text = " ".join(lines("results/back-feeding.md"))
    far = {row: number(table(row, "distortion, nearest")) for row in shown}
    times = [f"{far[row] / far['weight decay']:.1f}" for row in ("input pool", "hidden1 pool")]
    assert f"{times[0]} and {times[1]} times as far" in text
    less = [number(table(row, "less than weight decay, points")) for row in list(shown)[2:]]
    assert (
        f"err {-less[1]:.1f} and {-less[2]:.1f} points more" in text and f"equal norm {less[0]:.1f} points less" in text
    )
    assert {f"{number(table(row, 'p, corrected')):.2f}" for row in list(shown)[2:]} == {"0.28"}


def test_the_search_of_back_feedings_settings() -> None:
    rows = frame("benchmarks/back_feeding_search")
    text = lines("results/back-feeding.md")
    way = ["activation", "layers", "attack", "past", "dropout", "anneal", "floor"]
    plain = dict(zip(way, ("sigmoid", "all", "gradient", 1, False, 1.0, 0.0), strict=True))
    relu, dropout, pgd = {"activation": "relu"}, {"dropout": True}, {"attack": "pgd"}
    first = {
        "sigmoid, all pools (the study's way)": {},
        "three steps of PGD": pgd,
        "three steps of PGD, input pool alone": pgd | {"layers": "input"},
        "three steps to the linearised decision boundary (at most the distortion)": {"attack": "boundary"},
        "pools of ten batches": {"past": 10},
        "distortion grows from 30 %": {"anneal": 0.3},
        "learning rate ends at a tenth": {"floor": 0.1},
        "dropout beside the pools": dropout,
        "rectified units": relu,
        "rectified units, dropout beside the pools": relu | dropout,
    }
    second = {
        "rectified units, dropout beside the pools": relu | dropout,
        "rectified units": relu,
        "sigmoid, three steps of PGD": pgd,
    }
    for stage, shown, most, decimals in (("first", first, 6, 2), ("second", second, 1, 3)):
        means = rows[rows["stage"] == stage].groupby([*way, "number"])["error"].mean().reset_index()
        for name, own in shown.items():
            found = means[(means[way] == pd.Series(plain | own)).all(axis=1)]["error"].nsmallest(most)
            assert len(found) == most
            assert f"| {name} | {found.mean():.{decimals}f} |" in text
    reference = rows[rows["stage"] == "reference"].groupby("layers")["error"].mean()
    assert f"{reference['none']:.3f} % on the test images and all pools {reference['all']:.3f} %" in " ".join(text)
    assert f"({len(rows):,} in twelve minutes" in " ".join(text)
    second = rows[rows["stage"] == "second"]
    assert f"{(second['error_averaged'] - second['error']).mean():.3f} points more"[1:] in " ".join(text)


SHOWN = {
    "squeezenet1_0": "SqueezeNet 1.0",
    "squeezenet1_1": "SqueezeNet 1.1",
    "EfficientNet-lite0": "EfficientNet-lite0",
}


def test_natural_images_towards_the_ostrich() -> None:
    table = partial(cell, "natural/tables/one_target")
    for key, name in SHOWN.items():
        for attack in ("lbfgs", "nearest"):
            row = f"{key} · {attack}, {'without starts, ' * (attack == 'nearest')}target ostrich"
            success, far = table(row, "success"), table(row, "av. distortion")
            passes, seconds = number(table(row, "passes an image")), number(table(row, "seconds an image"))
            mean, low, high = (f"{far[end]:.5f}"[1:] for end in ("distortion", "low", "high"))
            line = f"| {name} | `{attack}` | {success['k']:.0f} of {success['n']:.0f} | {mean} ({low} to {high}) | "
            assert line + f"{passes:.0f} | {seconds:.1f} |" in lines("results/natural.md")


def test_transfer_of_natural_images() -> None:
    table = partial(cell, "natural/tables/transfer_full_test_excess_noise")
    for key, name in SHOWN.items():
        for shown, row in ((name, key), (f"{name}, at .0065", f"{key}, amplified to .0065 image by image")):
            cells = [table(row, column) for column in ("EfficientNet-lite0", "squeezenet1_0", "squeezenet1_1")]
            assert f"| {shown} | {' | '.join(map(points, cells))} |" in lines("results/natural.md")


def test_cifar10_towards_the_automobile() -> None:
    errors = partial(cell, "natural_small/tables/table1", column="test error")
    table = partial(cell, "natural_small/tables/one_target")
    shown = {"ConvNet-CIFAR": "small convolutional network", "ResNet-18": "ResNet-18"}
    for key, name in (shown | {"QuocNet": "QuocNet, softmax on ten classes"}).items():
        cells = [name, with_interval(errors(key), 1)]
        for attack in ("lbfgs", "nearest"):
            row = f"{key} · {attack}, target automobile"
            success, far = table(row, "success"), table(row, "av. distortion")
            assert success["k"] == success["n"] == 64
            mean, low, high = (f"{far[end]:.4f}"[1:] for end in ("distortion", "low", "high"))
            cells.append(f"{mean} ({low} to {high})")
        assert f"| {' | '.join(cells)} |" in lines("results/natural.md")


@pytest.mark.parametrize("study", ["natural", "natural_small"])
def test_no_transfer_of_natural_images(study: str) -> None:
    cells = frame(f"{study}/tables/transfer_full_test_excess_noise")
    pairs = cells[cells["row"].str.partition(",")[0] != cells["column"]]
    assert len(pairs) == 12 and not (pairs["low"] > 0).any()


def points(entry: pd.Series) -> str:
    """Write a difference of percentages with its interval: "+81.2 (+68.7 to +88.9)"; zero has no sign."""
    mean, low, high = (f"{value:+.1f}" for value in (number(entry), entry["low"], entry["high"]))
    return f"{mean.lstrip('+-') if float(mean) == 0 else mean} ({low} to {high})"


def test_units_of_natural_images() -> None:
    tests = frame("natural/tables/units_tests").pivot(index="row", columns="column", values="value")
    scores = {"LPIPS": "similarity by LPIPS", "purity of class": "purity", "selectivity": "selectivity"}
    for key, name in (("alexnet", "AlexNet"), ("squeezenet1_1", "SqueezeNet 1.1")):
        for shown, score in scores.items():
            found = [tests.loc[f"{key} · features.{layer} · {score}"] for layer in (1, 4, 7, 9, 11)]
            effects = [f"{one['effect size']:.2f}".replace("0.", ".") for one in found]
            qs = [f"{one['q']:.{3 if one['q'] < 0.0995 else 2}f}"[1:] for one in found]
            (row,) = [line for line in lines("results/natural.md") if line.startswith(f"| {name} | {shown} |")]
            cells = row.strip("| ").split(" | ")[2:]
            assert [one.replace("q = ", "") for one in cells] == [
                f"{e} ({q})" for e, q in zip(effects, qs, strict=True)
            ]


def test_other_bases_of_natural_images() -> None:
    found = {"NMF": 0, "PCA": 0}
    for network in ("alexnet", "squeezenet1_1"):
        table = frame(f"natural/tables/units_{network}")
        values = table[table["column"] == "similarity by LPIPS"].set_index("row")["value"]
        for layer in (1, 4, 7, 9, 11):
            found["NMF"] += values[f"features.{layer} · NMF"] > values[f"features.{layer} · units"]
            found["PCA"] += values[f"features.{layer} · PCA"] < values[f"features.{layer} · random directions"]
    assert found == {"NMF": 9, "PCA": 10}
    text = " ".join(lines("results/natural.md"))
    assert "above units by LPIPS in nine of ten layers" in text and "PCA's score below random ones in all ten" in text


def errata() -> dict[str, str]:
    """Return what docs/results/errata.md says of each erratum's measurement."""
    shown = lines("results/errata.md")
    first = shown.index("| erratum | measured |") + 2
    rows = [line.strip("| ").split(" | ", 1) for line in shown[first : shown.index("", first)]]
    return {name.replace("\\", ""): text for name, text in rows}


@pytest.mark.parametrize("erratum", list(errata()))
def test_every_number_of_an_erratum_is_in_its_rows(erratum: str) -> None:
    cells = frame("errata/tables/errata")
    own = cells[cells["row"].str.startswith(f"{erratum} ")]
    values = [value for column in ("value", "percent", "distortion", "low", "high", "paper") for value in own[column]]
    # settings that the rows name, and the sizes that the paper prints as examples
    named = [float(one) for row in own["row"] for one in re.findall(NUMBER, row)] + [1.0]
    text = re.sub(r"FC\d+(-\d+)*(\(1e-\d\)|\(1\))?|\bP2\b|\bL[12]\b", "", errata()[erratum])
    found = re.findall(NUMBER, text)
    assert found
    for one in found:
        decimals = len(one.partition(".")[2])
        near = [value for value in values if not pd.isna(value) and abs(round(value, decimals) - float(one)) < 1e-9]
        assert near or float(one) in named, f"{one} in {errata()[erratum]}"


def studies() -> list[str]:
    """Write the rows of docs/results/measured.md: each study's runs, hours, version of torch and cores."""
    rows = []
    for path in sorted((ROOT / "results").glob("*/provenance.json")):
        made = json.loads(path.read_text())
        hours = (made["seconds"] + sum(run["seconds"] or 0 for run in made["runs"].values())) / 3600
        version = made["versions"]["torch"].partition("+")[0]
        rows.append(f"| `{path.parent.name}` | {len(made['runs'])} | {hours:.1f} | {version} | {made['cpus']} |")
    return rows


def test_the_studies() -> None:
    shown = [line for line in lines("results/measured.md") if line.startswith("| `") and line.count("|") == 6]
    assert shown == studies()
    hours = sum(float(row.split(" | ")[2]) for row in shown)
    assert f"These are {hours:.1f} hours of one core" in " ".join(lines("results/measured.md"))


def test_numbers_are_written_as_in_the_documents() -> None:
    assert [short(0.973), short(1.0834), short(43.62), short(0.17, 2), short(0.002, 1)] == [
        *(".973", "1.08", "43.6", ".17", ".002")
    ]

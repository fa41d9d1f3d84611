"""Tables of the documentation hold the numbers of results/."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pandas as pd
import pytest
import torch
from sources import ROOT, frame, number, short

from intriguing.analysis.card.numbers import quantile_number

HALVES = {"FC100-100-10": " on P1", "FC123-456-10": " on P1", "FC100-100-10'": " on P2"}


def lines(document: str) -> list[str]:
    return (ROOT / "docs" / document).read_text(encoding="utf-8").splitlines()


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


def test_numbers_are_written_as_in_the_documents() -> None:
    assert [short(0.973), short(1.0834), short(43.62), short(0.17, 2), short(0.002, 1)] == [
        *(".973", "1.08", "43.6", ".17", ".002")
    ]

"""Errata of the amplified rows of Table 4: what the formula gives as printed, and which factor it means."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from intriguing.analysis import paper
from intriguing.analysis.cells import HALVES, WILSON, ByImage, error_cell, method, sample_text
from intriguing.analysis.errata.erratum import PERCENT, POINTS, SHARE, Erratum, lines
from intriguing.analysis.errata.material import HALF, LBFGS, RULES, Material, known
from intriguing.analysis.measure import short
from intriguing.metrics import distortion
from intriguing.results import DISTORTION, Cell, Table
from intriguing.statistics.counts import Count

SIDE = 28
"""Of the paper's images."""
NEEDS = (
    "networks FC100-100-10 and FC123-456-10 trained on P1 and FC100-100-10 trained on P2, each with a set of "
    "attack=lbfgs attack.targets=random subset=test"
)

Entry = tuple[int, ByImage, tuple[str, str]]
"""A seed, a victim's errors on an amplified set, and the runs behind them."""
Shown = Mapping[tuple[str, str, str], list[Entry]]
"""Entries by rule, source and victim."""


def printed_formula(seed: int) -> Erratum:
    """Erratum 6: x + 0.1 (x' - x) / ||x' - x||_2 has a per-pixel standard deviation of 0.1 / sqrt(n)."""
    generator = torch.Generator().manual_seed(seed)
    images, others = torch.rand(2, 64, 1, SIDE, SIDE, dtype=torch.float64, generator=generator)
    change = others - images
    printed = distortion(images, images + 0.1 * change / change.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    cell = Cell(quantity=DISTORTION, value=float(printed.mean()), interval=None, n=len(printed))
    return Erratum(
        name="6 amplification",
        printed="x + 0.1 (x' - x) / ||x' - x||, of stddev .1",
        correct="the perturbation scaled to a per-pixel RMS of .1",
        note="Erratum 6: the per-pixel RMS of the printed formula's perturbation, on random perturbations of 28 x 28 "
        "pixels; it is .1/28 for each of them.",
        lines=lines(("per-pixel RMS as printed", cell), of="perturbations"),
    )


def printed_gain() -> Erratum:
    """Erratum 6: from .06 to .1 a perturbation grows by two thirds."""
    cell = Cell(quantity=PERCENT, value=100 * (0.1 / 0.06 - 1), interval=None, n=1)
    return Erratum(
        name="6 gain",
        printed="40 % larger",
        correct="67 % larger",
        note="Erratum 6: .1 / .06 - 1, the stddevs of Table 4.",
        lines=lines(("growth from stddev .06 to .1, %", cell), of="pair of printed numbers"),
    )


def factor(material: Material) -> Erratum:
    """Erratum 10: Table 4's sets were multiplied by one factor for the whole set."""
    shown, places = errors(material), [(source, victim) for source in HALF for victim in HALF]
    found: list[tuple[str, Cell | None]] = []
    for rule in RULES:
        own = [entry for name in HALF for entry in shown.get((rule, name, name), [])]
        found.append((f"{rule}, own examples that still fool, %", _cell(own)))
        cells = [_cell(shown.get((rule, *place), [])) for place in places]
        printed = [paper.value("table4", _row(source), victim) for source, victim in places]
        misses = [abs(cell.value - n) for cell, n in zip(cells, printed, strict=True) if cell and n is not None]
        if _comparable(material) and len(misses) == len(places):
            least = min(cell.n for cell in cells if cell)
            cell = Cell(quantity=POINTS, value=sum(misses) / len(misses), interval=None, n=least, runs=_runs(own))
            found.append((f"{rule}, mean deviation from the paper's nine numbers, points", cell))
    return Erratum(
        name="10 factor",
        printed="examples of stddev .1, without a rule",
        correct="one factor for the whole set",
        note="Erratum 10: the sets of the paper's attack, scaled by each rule and not clipped. The paper's own columns "
        "are 100 %: every example still fools the network that it was made for.",
        lines=lines(*found),
        needs=NEEDS,
    )


def amplified_table(material: Material) -> Table | None:
    """Make the three-by-three matrix of Table 4's amplified rows for each rule; None without its material."""
    shown, size = errors(material), short(material.settings.amplify)
    cells: dict[tuple[str, str], Cell] = {}
    for (rule, source, victim), entries in shown.items():
        if cell := _cell(entries, ("table4", _row(source), victim) if _comparable(material) else None):
            cells[f"{rule} · {source}", victim] = cell
    if not cells:
        return None
    rows = [f"{rule} · {source}" for rule in RULES for source in HALF]
    return Table(
        key="errata_amplified",
        title="Table 4's amplified rows by three rules",
        caption=f"Error in percent of the column's network on the examples made for the row's, amplified to {size} by "
        "one factor for the set that brings the mean of the distortions to it, by one for each image, or by one for "
        "the set that brings their root mean square to it.",
        row_header="rule, made for",
        rows=tuple(row for row in rows if any(place[0] == row for place in cells)),
        columns=HALF,
        cells=cells,
        sample=sample_text(cells.values(), {seed for entries in shown.values() for seed, *_ in entries}),
        method=method(WILSON, cells.values()),
        source=f"{paper.SOURCE}, Table 4",
        runs=tuple(dict.fromkeys(run for cell in cells.values() for run in cell.runs)),
    )


def errors(material: Material) -> Shown:
    """Collect the errors on the amplified sets by rule, source and victim."""
    found: dict[tuple[str, str, str], list[Entry]] = {}
    for source, pairs in material.sets(HALF, *LBFGS, pool=HALVES).items():
        for one, network in pairs:
            victims = {
                member.name: name
                for name in HALF
                for member in material.networks.get((HALVES, name), ())
                if member.seed == network.seed
            }
            for rule, by_victim in material.observed(one).amplified.items():
                for victim, by_image in by_victim.items():
                    entry = network.seed, by_image, (one.name, victim)
                    found.setdefault((rule, source, victims[victim]), []).append(entry)
    return found


def _comparable(material: Material) -> bool:
    """Check whether the paper's numbers may stand beside the measured ones."""
    return material.judged and math.isclose(material.settings.amplify, 0.1)


def _cell(entries: list[Entry], place: tuple[str, str, str] | None = None) -> Cell | None:
    return error_cell(
        [(seed, Count.of(wrong)) for seed, (wrong, _), _ in entries],
        place,
        by_image=known([by_image for _, by_image, _ in entries]),
        quantity=SHARE,
        runs=_runs(entries),
    )


def _runs(entries: list[Entry]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run for *_, runs in entries for run in runs))


def _row(source: str) -> str:
    return f"{source}, amplified to .1"

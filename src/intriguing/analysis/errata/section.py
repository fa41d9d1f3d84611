"""Section "errata": a table of the paper's errata, what they must be, and measurements."""

from __future__ import annotations

from collections.abc import Callable

from intriguing.analysis import paper
from intriguing.analysis.cells import MEAN, NEWCOMBE, PAPERS, WILSON, method
from intriguing.analysis.errata import amplified, attacked, linear_networks, operators
from intriguing.analysis.errata.erratum import Erratum
from intriguing.analysis.errata.material import Material
from intriguing.analysis.errata.sample_size import sample_size
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.results import Table

PRINTED, CORRECT, MEASURED, SAMPLE = "the paper prints", "it must be", "measured", "N"


def section(inputs: SectionInputs) -> SectionOutput:
    """Make the table of errata, and the matrix of Table 4's amplified rows.

    Errata whose networks and sets are missing are left out, and a sentence names them.
    """
    material = Material.of(inputs)
    kernels = operators.random_kernels(material.settings.kernels, inputs.seed)
    makers: list[Callable[[], Erratum]] = [
        lambda: linear_networks.largest_c(material),
        lambda: linear_networks.norm_of_r(material),
        lambda: linear_networks.targets(material),
        sample_size,
        lambda: attacked.clipped_noise(material),
        lambda: amplified.printed_formula(inputs.seed),
        amplified.printed_gain,
        lambda: attacked.clean_error(material),
        lambda: linear_networks.penalty_method(material),
        lambda: attacked.table_1_and_figure_7(material),
        lambda: amplified.factor(material),
        lambda: attacked.processor(material),
        lambda: operators.aliasing(kernels),
        lambda: operators.exponent(kernels),
        operators.pooling,
        lambda: operators.padding(kernels),
        lambda: operators.alexnet([*inputs.imageless, *inputs.networks]),
    ]
    found = []
    for done, make in enumerate(makers):
        if inputs.progress:
            inputs.progress("errata", done, len(makers))
        found.append(make())
    matrix = amplified.amplified_table(material)
    tables = (_table(material, found), *([matrix] if matrix else []))
    return SectionOutput(tables=tables, summary=tuple(_sentences(found)))


def _table(material: Material, errata: list[Erratum]) -> Table:
    measured = [one for one in errata if one.lines]
    rows, cells, words = [], {}, {}
    for one in measured:
        for line in one.lines:
            row = f"{one.name} · {line.what}"
            rows.append(row)
            cells[row, MEASURED] = line.cell
            words |= {(row, PRINTED): "", (row, CORRECT): "", (row, SAMPLE): line.sample}
        first = f"{one.name} · {one.lines[0].what}"
        words |= {(first, PRINTED): one.printed, (first, CORRECT): one.correct}
    names = dict.fromkeys(name for members in material.networks.values() for name in (one.data_name for one in members))
    seeds = sorted({one.seed for members in material.networks.values() for one in members})
    sample = f"networks trained on {', '.join(names)}, seeds {', '.join(map(str, seeds))}" if seeds else "no networks"
    compared = any(cell.paper is not None for cell in cells.values())
    return Table(
        key="errata",
        title="Errata of the paper",
        caption="What the paper prints, what it must be, and a measurement that says so; beside a measured number the "
        "paper's, where it prints one.",
        row_header="erratum",
        rows=tuple(rows),
        columns=(PRINTED, CORRECT, MEASURED, SAMPLE),
        cells=cells,
        words=words,
        sample=sample,
        method=method(
            f"rates: {WILSON}; excess: {NEWCOMBE}; distances and ratios: {MEAN}, seeds or kernels", cells.values()
        )
        + f"; the paper's intervals are {PAPERS}, of a distortion with the spread measured here" * compared,
        source=f"{paper.SOURCE}, Tables 1, 2 and 5",
        notes=tuple(one.note for one in measured),
        runs=tuple(dict.fromkeys(run for cell in cells.values() for run in cell.runs)),
    )


def _sentences(errata: list[Erratum]) -> list[str]:
    measured, missing = [one for one in errata if one.lines], [one for one in errata if not one.lines]
    found = [f"{len(measured)} of {len(errata)} errata of the paper have a measurement here."]
    if missing:
        needs: dict[str, list[str]] = {}
        for one in missing:
            needs.setdefault(one.needs, []).append(one.name)
        listed = "; ".join(f"{', '.join(names)} ({need})" for need, names in needs.items())
        found.append(f"Errata left out, with what they need: {listed}. study=errata makes all of it on MNIST.")
    return found

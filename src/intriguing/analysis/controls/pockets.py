"""Section "pockets": how large are the regions that adversarial examples lie in?"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from intriguing.analysis.cells import MEAN, method
from intriguing.analysis.controls.kept import Group, Kept, grouped, mean_cell, runs_of
from intriguing.analysis.controls.lines import draw_lines
from intriguing.analysis.drawing import COLOURS, chart, error_bars, lay_out, style
from intriguing.analysis.measure import mixed_seed
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.controls.noise import margins
from intriguing.controls.pockets import adversarial_dimension, random_dimension, survival
from intriguing.results import Cell, Figure, Quantity, Table

SHARE, DIMENSION = Quantity(name="share", unit="%"), Quantity(name="dimension")
ALIGNED, RANDOM = "dimension", "random directions"


@dataclass(frozen=True)
class PocketSettings:
    """Settings of the section.

    Attributes:
        limit: images of each set that are used.
        beyond: how far behind the boundary the examples are taken, as a multiple of the perturbation that was found.
        multiples: norms of the random perturbations, as multiples of the perturbation that was found.
        draws: random perturbations of each example and norm.
        radius: norm of the orthogonal perturbations, as a multiple of the perturbation that was found.
        most: largest dimension that is tried.
    """

    limit: int = field(default=32, metadata={"low": 2})
    beyond: float = field(default=1.5, metadata={"low": 1})
    multiples: tuple[float, ...] = field(default=(0.5, 1.0, 2.0, 4.0), metadata={"above": 0})
    draws: int = field(default=50, metadata={"low": 2})
    radius: float = field(default=3.0, metadata={"above": 0})
    most: int = field(default=48, metadata={"low": 1})


@dataclass(frozen=True)
class Pocket:
    """Hold the measurements of one network's examples: survival (multiples, M), dimension and random (M,)."""

    kept: Kept
    survival: Tensor
    dimension: Tensor
    random: Tensor


def section(inputs: SectionInputs) -> SectionOutput:
    """Make the table and the figure of survival under random perturbations and of the adversarial dimension."""
    settings: PocketSettings = inputs.settings
    tables: list[Table] = []
    figures: list[Figure] = []
    summary: list[str] = []
    for group in grouped(inputs):
        found: dict[str, list[Pocket]] = {}
        for done, one in enumerate(group.kept):
            if inputs.progress:
                inputs.progress("pockets", done, len(group.kept))
            found.setdefault(one.label, []).append(_measure(inputs, one))
        table = _table(group, found, settings)
        tables.append(table)
        figures.append(_figure(group, table, settings))
        summary += _sentences(group, table, settings)
    return SectionOutput(tables=tuple(tables), figures=tuple(figures), summary=tuple(summary))


def _measure(inputs: SectionInputs, one: Kept) -> Pocket:
    settings: PocketSettings = inputs.settings
    module, generator = one.network.module, torch.Generator().manual_seed(mixed_seed(inputs.seed, f"pockets {one.run}"))
    behind = one.inputs + settings.beyond * (one.adv_inputs - one.inputs)
    fooled = margins(module, behind, one.labels) < 0
    kept = torch.stack(
        [
            survival(module, behind, one.labels, multiple * one.norms, num_draws=settings.draws, generator=generator)
            for multiple in settings.multiples
        ]
    )
    right = margins(module, one.inputs, one.labels) > 0
    dimensions = []
    for count in (
        adversarial_dimension(module, one.inputs, one.labels, settings.radius * one.norms, most=settings.most),
        random_dimension(
            module, one.inputs, one.labels, settings.radius * one.norms, most=settings.most, generator=generator
        ),
    ):
        dimensions.append(torch.where(right, count.double(), torch.nan))
    return Pocket(one, torch.where(fooled, 100 * kept, torch.nan), *dimensions)


def _columns(settings: PocketSettings) -> list[str]:
    return [f"kept at {multiple:g} x" for multiple in settings.multiples]


def _table(group: Group, found: dict[str, list[Pocket]], settings: PocketSettings) -> Table:
    cells: dict[tuple[str, str], Cell | None] = {}
    for label, members in found.items():
        kept = [one.kept for one in members]
        for line, column in enumerate(_columns(settings)):
            cells[label, column] = mean_cell([one.survival[line] for one in members], kept, SHARE, most=100)
        most = float(settings.most)
        cells[label, ALIGNED] = mean_cell([one.dimension for one in members], kept, DIMENSION, most=most)
        cells[label, RANDOM] = mean_cell([one.random for one in members], kept, DIMENSION, most=most)
    present = {place: cell for place, cell in cells.items() if cell is not None}
    return Table(
        key=f"pockets{group.suffix}",
        title="How large are the pockets?",
        detail=group.detail,
        caption="Mean share in percent of random perturbations, by their norm as a multiple of the perturbation found, "
        f"that keep an example {settings.beyond:g} times as far as the one found adversarial; and, at "
        f"{settings.radius:g} times its norm, the number of orthogonal perturbations along the gradient that all fool "
        f"the network (Tramer et al. 2017, at most {settings.most}) beside that of as many random orthogonal ones. "
        "Nothing is clipped.",
        row_header="network",
        rows=tuple(found),
        columns=(*_columns(settings), ALIGNED, RANDOM),
        cells=present,
        sample=group.sample,
        method=method(MEAN, present.values()),
        runs=runs_of(group.kept),
    )


def _figure(group: Group, table: Table, settings: PocketSettings) -> Figure:
    with style():
        figure, (left, right) = lay_out(2, most=2, width=4.2, height=3.4)
        draw_lines(left, table, _columns(settings), settings.multiples)
        left.set(xlabel="norm / norm of the perturbation", ylabel="kept adversarial, %", ylim=(0, 103))
        for column, marker in ((ALIGNED, "o"), (RANDOM, "D")):
            cells = [table.cells.get((label, column)) for label in table.rows]
            places = [(place, cell) for place, cell in enumerate(cells) if cell is not None]
            values = [cell.value for _, cell in places]
            reach = error_bars(values, [cell.interval for _, cell in places])
            right.errorbar(
                [p for p, _ in places], values, yerr=reach, fmt=marker, label=column, color=COLOURS[marker == "D"]
            )
        right.set_xticks(range(len(table.rows)), table.rows, rotation=45, ha="right")
        right.set(ylabel="directions that fool", ylim=(0, None))
        right.legend()
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return chart(
        figure,
        key=f"pockets{group.suffix}",
        title="How large are the pockets?",
        detail=group.detail,
        caption="Left: share of random perturbations that keep an example adversarial, against their norm. Right: "
        "orthogonal perturbations that fool, aligned with the gradient and at random.",
        alt="Line chart of survival under noise, and a dot plot of the adversarial dimension, by network.",
        runs=table.runs,
    )


def _sentences(group: Group, table: Table, settings: PocketSettings) -> list[str]:
    where = f" ({group.detail})" if group.detail else ""
    found = []
    column = _columns(settings)[-1]
    values = [table.cells[row, column].value for row in table.rows if (row, column) in table.cells]
    if values:
        found.append(
            f"How large are the pockets{where}? Of random perturbations of {settings.multiples[-1]:g} times the norm "
            f"{min(values):.0f} to {max(values):.0f} % keep an example adversarial."
        )
    both = [
        (table.cells[row, ALIGNED].value, table.cells[row, RANDOM].value)
        for row in table.rows
        if (row, ALIGNED) in table.cells
    ]
    if both:
        aligned, random = zip(*both, strict=True)
        found.append(
            f"At {settings.radius:g} times the norm {min(aligned):.1f} to {max(aligned):.1f} orthogonal directions "
            f"fool a network at once; of as many random ones {min(random):.1f} to {max(random):.1f} do."
        )
    return found

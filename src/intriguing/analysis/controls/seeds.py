"""Section "seeds": one network from other seeds: other units, one space? And the same adversarial directions?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

from intriguing.analysis.cells import MEAN, error_cell, excess_cell, method
from intriguing.analysis.controls.kept import Group, Kept, grouped, mean_cell
from intriguing.analysis.drawing import BLUE, ORANGE, chart, error_bars, lay_out, style
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import mixed_seed
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.analysis.units.evidence import across_seeds
from intriguing.attacks import nearest
from intriguing.controls.directions import cosines, input_gradients
from intriguing.controls.transfer import classes, transfer_curve
from intriguing.results import Cell, Figure, Quantity, Table
from intriguing.statistics.counts import Count, paired_counts
from intriguing.statistics.intervals import Interval
from intriguing.units import collect, hidden_layers

COSINE, AGREEMENT = Quantity(name="cosine"), Quantity(name="agreement")
COLUMNS = ("CKA", "matched units", "after a rotation", "gradients", "perturbations", "transfer", "over noise")


@dataclass(frozen=True)
class SeedSettings:
    """Settings of the section.

    Attributes:
        limit: test images on which the networks are compared, and of each set that is kept.
        effort: of the attack on these images.
        size: per-pixel RMS of the transfer; null: the median of the perturbations.
    """

    limit: int = field(default=64, metadata={"low": 4})
    effort: str = field(default="fast", metadata={"choices": ("fast", "default", "thorough")})
    size: float | None = field(default=None, metadata={"above": 0})


def section(inputs: SectionInputs) -> SectionOutput:
    """Make the table and the figure of networks that differ in their seed alone; nothing without two seeds."""
    tables: list[Table] = []
    figures: list[Figure] = []
    summary: list[str] = []
    for group in grouped(inputs):
        families = {label: members for label, members in group.networks.items() if len(members) > 1}
        if not families:
            continue
        cells: dict[tuple[str, str], Cell] = {}
        for done, (label, members) in enumerate(families.items()):
            if inputs.progress:
                inputs.progress("seeds", done, len(families))
            cells |= {(label, column): cell for column, cell in _compare(inputs, label, members).items()}
        table = _table(inputs, group, families, cells)
        tables.append(table)
        figures.append(_figure(table))
        summary += _sentences(table)
    return SectionOutput(tables=tuple(tables), figures=tuple(figures), summary=tuple(summary))


def _compare(inputs: SectionInputs, label: str, members: Sequence[Network]) -> dict[str, Cell]:
    """Compare all pairs of one network's seeds on common test images."""
    settings: SeedSettings = inputs.settings
    subset = inputs.subset(members[0], "test")
    order = torch.randperm(len(subset), generator=torch.Generator().manual_seed(inputs.seed))
    chosen = order[: settings.limit].sort().values
    images, labels = subset.read(chosen)
    others = subset.read(order[settings.limit : settings.limit + 2000].sort().values)
    runs = tuple(network.name for network in members)
    found: dict[str, Cell] = {}
    layers = hidden_layers(members[0].module)
    if layers and len(others[1]) > 20:
        half = len(others[1]) // 2
        parts = [(others[0][:half], others[1][:half]), (others[0][half:], others[1][half:])]
        features = [[collect(n.module, layers, [part])[0] for n in members] for part in parts]
        agreements = across_seeds(label, features[0], features[1], seed=inputs.seed)
        for column, name in zip(COLUMNS[:3], ("cka", "matched", "turned"), strict=True):
            values = [getattr(one, name) for one in agreements]
            if values:
                mean = sum(mean for mean, _, _ in values) / len(values)
                span = Interval(min(low for _, low, _ in values), max(high for _, _, high in values))
                found[column] = Cell(quantity=AGREEMENT, value=mean, interval=span, n=agreements[0].pairs, runs=runs)
    kept = [_attacked(settings, network, label, images, labels, subset.indices[chosen]) for network in members]
    kept = [one for one in kept if bool((one.norms > 0).any())]
    return found | _directions(inputs, kept)


def _attacked(
    settings: SeedSettings, network: Network, label: str, images: Tensor, labels: Tensor, indices: Tensor
) -> Kept:
    result = nearest(network.module, images, labels, effort=settings.effort)
    adv_inputs = result.adv_inputs
    return Kept(network, label, network.name, images, adv_inputs, labels, classes(network.module, adv_inputs), indices)


def _directions(inputs: SectionInputs, kept: Sequence[Kept]) -> dict[str, Cell]:
    """Compare gradients and perturbations of all pairs, and show each network the other's perturbations at one norm."""
    if len(kept) < 2:
        return {}
    norms = torch.cat([one.norms[one.norms > 0] for one in kept])
    size = inputs.settings.size or float(norms.median()) / kept[0].inputs[0].numel() ** 0.5
    gradients = [input_gradients(one.network.module, one.inputs, one.labels) for one in kept]
    angle = [cosines(gradients[i], gradients[j]) for i, j in combinations(range(len(kept)), 2)]
    moves = [one.adv_inputs - one.inputs for one in kept]
    turned = [cosines(moves[i], moves[j]) for i, j in combinations(range(len(kept)), 2)]
    firsts = [kept[i] for i, _ in combinations(range(len(kept)), 2)]
    found = {
        COLUMNS[3]: mean_cell(angle, firsts, COSINE, least=-1, most=1),
        COLUMNS[4]: mean_cell(turned, firsts, COSINE, least=-1, most=1),
    }
    counts, errors, pairs, excesses = [], [], [], []
    for one in kept:
        rows = one.norms > 0
        for other in kept:
            if other is one:
                continue
            generator = torch.Generator().manual_seed(mixed_seed(inputs.seed, f"{one.run} {other.run}"))
            curve = transfer_curve(
                other.network.module,
                one.inputs[rows],
                one.adv_inputs[rows],
                one.labels[rows],
                one.targets[rows],
                (size,),
                generator=generator,
            )
            wrong, noise, indices = curve.wrong[0], curve.noise[0], one.indices[rows]
            counts.append((one.seed, Count.of(wrong)))
            errors.append((wrong, indices))
            pairs.append(paired_counts(wrong, noise))
            excesses.append((wrong.int() - noise.int(), indices))
    runs = [one.run for one in kept]
    found[COLUMNS[5]] = error_cell(counts, by_image=errors, runs=runs)
    found[COLUMNS[6]] = excess_cell(pairs, by_image=excesses, runs=runs)
    return {column: cell for column, cell in found.items() if cell is not None}


def _table(
    inputs: SectionInputs, group: Group, families: dict[str, list[Network]], cells: dict[tuple[str, str], Cell]
) -> Table:
    seeds = sorted({network.seed for members in families.values() for network in members})
    return Table(
        key=f"seeds{group.suffix}",
        title="One network from other seeds",
        detail=group.detail,
        caption="Hidden layers over all pairs of seeds: linear CKA, and the mean correlation of matched units, also "
        "after a random rotation of one of the two networks. Mean cosines of their input gradients and nearest "
        "perturbations. Transfer: error in percent of one on the other's examples, all at the median norm, and in "
        "points above that in Gaussian noise of this norm.",
        row_header="network",
        rows=tuple(families),
        columns=tuple(column for column in COLUMNS if any(c == column for _, c in cells)),
        cells=cells,
        sample=f"N = {inputs.settings.limit} test images for the directions, up to 1,000 others for the layers; seeds "
        + ", ".join(map(str, seeds)),
        method=method(
            f"CKA and units: mean over layers and pairs, smallest to largest; cosines: {MEAN}; Wilson's and Newcombe's "
            "for the errors",
            cells.values(),
        ),
        runs=tuple(network.name for members in families.values() for network in members),
    )


def _figure(table: Table) -> Figure:
    columns = [column for column in COLUMNS[:5] if column in table.columns]
    with style():
        figure, places = lay_out(len(columns), most=5, width=2.1, height=1.2 + 0.35 * len(table.rows))
        for number, (axes, column) in enumerate(zip(places, columns, strict=True)):
            points = [
                (-i, table.cells[row, column]) for i, row in enumerate(table.rows) if (row, column) in table.cells
            ]
            values = [cell.value for _, cell in points]
            reach = error_bars(values, [cell.interval for _, cell in points])
            colour = BLUE if column in COLUMNS[:3] else ORANGE
            axes.errorbar(values, [y for y, _ in points], xerr=reach, fmt="o", color=colour)
            axes.set(title=column, xlim=(min(0.0, *values, 0.0) - 0.05, 1.05))
            axes.set_yticks([-i for i in range(len(table.rows))], table.rows if number == 0 else [""] * len(table.rows))
            axes.grid(axis="x")
    return chart(
        figure,
        key=table.key,
        title=table.title,
        detail=table.detail,
        caption="Agreement of networks that differ in their seed alone: of their hidden layers in blue, of their "
        "adversarial directions in orange.",
        alt="Dot plots of the agreement between seeds, by measure and network.",
        runs=table.runs,
    )


def _sentences(table: Table) -> list[str]:
    def spread(column: str) -> tuple[float, float] | None:
        values = [table.cells[row, column].value for row in table.rows if (row, column) in table.cells]
        return (min(values), max(values)) if values else None

    where, found = f" ({table.detail})" if table.detail else "", []
    if (space := spread(COLUMNS[0])) and (units := spread(COLUMNS[1])) and (turned := spread(COLUMNS[2])):
        found.append(
            f"Other seed, other units{where}? Linear CKA between seeds is {space[0]:.2f} to {space[1]:.2f}; matched "
            f"units correlate at {units[0]:.2f} to {units[1]:.2f}, after a random rotation at {turned[0]:.2f} to "
            f"{turned[1]:.2f}."
        )
    if (moves := spread(COLUMNS[4])) and (over := spread(COLUMNS[6])):
        found.append(
            f"Nearest perturbations of two seeds have a mean cosine of {moves[0]:.2f} to {moves[1]:.2f}, and raise the "
            f"other's error by {over[0]:+.1f} to {over[1]:+.1f} points above noise of equal norm."
        )
    return found

"""Section "noise_distance": does a network's error in noise predict the distance of its adversarial examples?"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from intriguing.analysis.cells import MEAN, method
from intriguing.analysis.controls.kept import Group, Kept, grouped, mean_cell, runs_of
from intriguing.analysis.drawing import BLUE, INK, chart, lay_out, style
from intriguing.analysis.measure import mixed_seed
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.controls.noise import margins, noise_distance
from intriguing.results import Cell, Figure, Quantity, Table

L2, RATIO = Quantity(name="L2 norm"), Quantity(name="ratio")
FOUND, PREDICTED, QUOTIENT = "found", "predicted from noise", "found / predicted"


@dataclass(frozen=True)
class NoiseDistanceSettings:
    """Settings of the section.

    Attributes:
        limit: images of each set that are used.
        stddevs: standard deviations of the noise in every pixel.
        draws: of the noise, for each image and standard deviation.
    """

    limit: int = field(default=64, metadata={"low": 2})
    stddevs: tuple[float, ...] = field(default=(0.05, 0.1, 0.2, 0.4), metadata={"above": 0})
    draws: int = field(default=200, metadata={"low": 50})


Distances = dict[str, list[tuple[Kept, Tensor]]]
"""By label: each seed's examples and their predicted distances (M,), nan where there is none."""


def section(inputs: SectionInputs) -> SectionOutput:
    """Make the table and the figure of found and predicted distances (Ford et al. 2019)."""
    settings: NoiseDistanceSettings = inputs.settings
    tables: list[Table] = []
    figures: list[Figure] = []
    summary: list[str] = []
    for group in grouped(inputs):
        found: Distances = {}
        for done, one in enumerate(group.kept):
            if inputs.progress:
                inputs.progress("distances from noise", done, len(group.kept))
            predicted = noise_distance(
                one.network.module,
                one.inputs,
                one.labels,
                stddevs=settings.stddevs,
                num_draws=settings.draws,
                generator=torch.Generator().manual_seed(mixed_seed(inputs.seed, f"noise {one.run}")),
            )
            right = margins(one.network.module, one.inputs, one.labels) > 0
            usable = right & (predicted > 0)
            found.setdefault(one.label, []).append((one, torch.where(usable, predicted, torch.nan)))
        table = _table(group, found)
        tables.append(table)
        figures.append(_figure(group, found))
        summary += _sentences(group, table, found)
    return SectionOutput(tables=tuple(tables), figures=tuple(figures), summary=tuple(summary))


def _table(group: Group, found: Distances) -> Table:
    cells: dict[tuple[str, str], Cell | None] = {}
    for label, members in found.items():
        kept = [one for one, _ in members]
        measured = [torch.where(part.isnan(), torch.nan, one.norms) for one, part in members]
        predicted = [part for _, part in members]
        ratio = [a / b for a, b in zip(measured, predicted, strict=True)]
        for column, values, quantity in ((FOUND, measured, L2), (PREDICTED, predicted, L2), (QUOTIENT, ratio, RATIO)):
            cells[label, column] = mean_cell(values, kept, quantity)
    present = {place: cell for place, cell in cells.items() if cell is not None}
    return Table(
        key=f"noise_distance{group.suffix}",
        title="Does noise predict distance?",
        detail=group.detail,
        caption="Mean L2 distance of the adversarial examples, and of the half-space that would err as often in "
        "Gaussian noise (Ford et al. 2019): d = -s Phi^-1(error). Over the images that the network gets right and at "
        "least 2 % and fewer than half of the draws get wrong; nothing is clipped.",
        row_header="network",
        rows=tuple(found),
        columns=(FOUND, PREDICTED, QUOTIENT),
        cells=present,
        sample=group.sample,
        method=method(MEAN, present.values()),
        runs=runs_of(group.kept),
    )


def _figure(group: Group, found: Distances) -> Figure:
    with style():
        figure, places = lay_out(len(found), most=3, width=2.9, height=2.9)
        for axes, (label, members) in zip(places, found.items(), strict=True):
            measured = torch.cat([one.norms for one, _ in members])
            predicted = torch.cat([part for _, part in members])
            rows = predicted.isfinite()
            end = float(torch.cat([measured[rows], predicted[rows], torch.tensor([1e-6])]).max()) * 1.05
            axes.plot([0, end], [0, end], color=INK, linewidth=1)
            axes.plot(predicted[rows], measured[rows], ".", color=BLUE, alpha=0.5, markersize=4)
            axes.set(title=label, xlabel="predicted from noise, L2", ylabel="found, L2", xlim=(0, end), ylim=(0, end))
    return chart(
        figure,
        key=f"noise_distance{group.suffix}",
        title="Distance found against distance predicted from noise",
        detail=group.detail,
        caption="Each point is an image. On the diagonal the nearest error is as far as a half-space that errs as "
        "often in noise; below it, it is nearer.",
        alt="Scatter plots of found against predicted distances, one for each network.",
        runs=runs_of(group.kept),
    )


def _sentences(group: Group, table: Table, found: Distances) -> list[str]:
    where = f" ({group.detail})" if group.detail else ""
    ratios = {row: table.cells[row, QUOTIENT].value for row in table.rows if (row, QUOTIENT) in table.cells}
    if not ratios:
        return [f"Does noise predict distance{where}? No image errs in noise often enough to predict its distance."]
    low, high = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    parts = [part for members in found.values() for _, part in members]
    used, total = sum(int(part.isfinite().sum()) for part in parts), sum(map(len, parts))
    return [
        f"Does noise predict distance{where}? Examples lie at {ratios[low]:.2f} ({low}) to {ratios[high]:.2f} ({high}) "
        "times the distance that the error in noise predicts.",
        f"The prediction is made for {used} of {total} images; on the others noise errs too rarely or too often.",
    ]

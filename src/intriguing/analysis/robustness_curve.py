"""Section "robustness_curve": security curves, robust accuracy against distortion, per network and attack.

An image that the network gets wrong without a perturbation counts as fooled at distortion 0, one whose attack failed as
fooled at no distortion. An attack finds an upper bound of an image's smallest distortion, so the robust accuracy is an
upper bound of that under the strongest attack. A network's curve is of the sets that were made for it, so it holds no
set that is transferred from another network; each attack, with its settings and its images, has a figure of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis.cells import (
    MEAN,
    WILSON,
    display_labels,
    distortion_cell,
    error_cell,
    made_by,
    method,
    pool_of,
    sample_text,
    set_label,
    variants,
)
from intriguing.analysis.drawing import COLOURS, canvas, chart, style
from intriguing.analysis.measure import MeasuredSet, short
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.nn.evaluation import wrong_answers
from intriguing.results import Cell, Figure, Table
from intriguing.statistics.counts import Count

POINTS = 120  # radii at which a curve and its band are computed
WITHOUT = "no perturbation"
ON_GRID, UNROUNDED = "on the grid", "unrounded"
_DASHES = ("-", "--", ":", "-.")
_WRONG = (
    "An image that is wrong without a perturbation counts as fooled at distortion 0, one whose attack failed as fooled "
    "at none"
)


@dataclass(frozen=True)
class RobustnessCurveSettings:
    """Settings of the section.

    Attributes:
        rms: radii of the table, per-pixel RMS.
        l2: radii of the table, L2 norm of the whole perturbation.
    """

    rms: tuple[float, ...] = field(default=(0.01, 0.03, 0.1), metadata={"above": 0})
    l2: tuple[float, ...] = field(default=(0.5, 1.0, 2.0), metadata={"above": 0})


@dataclass(frozen=True)
class Distances:
    """Hold the distortion that fools each image of a set.

    Attributes:
        rms: (N,) per-pixel RMS; 0 where the image is wrong anyway, inf where the attack failed.
        num_values: C * H * W of an image; its square root is the L2 norm of RMS 1.
        indices: (N,) of the images in the data set; empty where they are not known.
        on_grid: (M,) per-pixel RMS of the examples of an attack on the grid of a file's values; None for others.
        unrounded: (M,) per-pixel RMS of the examples before they were moved to the grid; None for others.
        grid_indices: (M,) of their images in the data set; empty where they are not known.
    """

    rms: Tensor
    num_values: int
    indices: Tensor
    on_grid: Tensor | None = None
    unrounded: Tensor | None = None
    grid_indices: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def fooled(self, radius: float) -> Tensor:
        """Mark the images that are fooled within an RMS of ``radius``: (N,) bool."""
        return self.rms <= radius * (1 + 1e-12)


@dataclass(frozen=True)
class Curve:
    """Hold the sets of one network and attack, one a seed, with their distances."""

    label: str
    attack: str
    sets: tuple[MeasuredSet, ...]
    distances: tuple[Distances, ...]

    @property
    def row(self) -> str:
        """The curve's row in the table."""
        return f"{self.label}, {self.attack}"

    @property
    def num_values(self) -> int:
        """Values of an image."""
        return self.distances[0].num_values

    def cell(self, radius: float) -> Cell | None:
        """Make the share of images that are fooled within an RMS, pooled over the seeds."""
        fooled = [one.fooled(radius) for one in self.distances]
        counts = [(s.seed, Count(int(f.sum()), f.numel())) for s, f in zip(self.sets, fooled, strict=True)]
        known = all(len(one.indices) == len(one.rms) for one in self.distances)
        by_image = [(f, one.indices) for f, one in zip(fooled, self.distances, strict=True)] if known else []
        return error_cell(counts, by_image=by_image, runs=made_by(self.sets))


def observe(examples: AdversarialSet, measured: MeasuredSet, inputs: SectionInputs) -> Distances | None:
    """Find the distortion that fools each image of a set, while the set is in memory.

    Returns:
        None for noise, for amplified sets, and for sets of a network that is not in the analysis.
    """
    source = next((one for one in inputs.networks if one.name == measured.source), None)
    if source is None or measured.amplify is not None:
        return None
    size = inputs.batch_size
    batches = zip(examples.inputs.split(size), examples.labels.split(size), strict=True)
    wrong = wrong_answers(source.module, batches)
    found = torch.where(examples.success.bool(), examples.distortion.double(), math.inf).cpu()
    rms = torch.where(wrong.cpu(), 0.0, found)
    known = getattr(examples, "indices", None)
    indices = torch.empty(0, dtype=torch.int64) if known is None else known
    distances = Distances(rms, examples.inputs[0].numel(), indices)
    if (unrounded := getattr(examples, "unrounded_distortion", None)) is None:
        return distances
    rows = examples.success.bool().cpu() & unrounded.isfinite()
    chosen = indices if known is None else indices[rows]
    return replace(distances, on_grid=found[rows], unrounded=unrounded.double()[rows], grid_indices=chosen)


def section(inputs: SectionInputs) -> SectionOutput:
    """Make the table at named radii, a figure of the curves for each attack, and distortions on grids beside others."""
    settings: RobustnessCurveSettings = inputs.settings
    curves = curves_of(inputs)
    if not curves:
        return SectionOutput()
    attacks = list(dict.fromkeys(curve.attack for curve in curves))
    figures = [_figure([c for c in curves if c.attack == attack], attack, n) for n, attack in enumerate(attacks)]
    on_grids = [curve for curve in curves if all(one.unrounded is not None for one in curve.distances)]
    return SectionOutput.of(_table(curves, settings), *([_grid_table(on_grids)] if on_grids else []), *figures)


def curves_of(inputs: SectionInputs) -> list[Curve]:
    """Group the observed sets into curves: the seeds of one network, by attack and image set."""
    labels = display_labels(inputs.networks)
    split = {network.name: network.split for network in inputs.networks}
    usable = [one for one in inputs.sets if inputs.observed.get(one.name) is not None and one.num]
    groups: dict[tuple[str, str], dict[str, list[MeasuredSet]]] = {}
    for subset in dict.fromkeys(one.subset for one in usable):
        for attack, members in variants(one for one in usable if one.subset == subset):
            for one in members:
                pool = pool_of(split[one.source or ""])
                label = set_label(labels, one) + (" on halves" if pool != "full" else "")
                groups.setdefault((f"{attack}, {subset} images", label), {}).setdefault(subset, []).append(one)
    return [
        Curve(label, attack, tuple(sets), tuple(inputs.observed[one.name] for one in sets))
        for (attack, label), by_subset in groups.items()
        for sets in by_subset.values()
    ]


def _table(curves: Sequence[Curve], settings: RobustnessCurveSettings) -> Table:
    columns = {WITHOUT: lambda curve: 0.0}
    columns |= {f"RMS {short(r)}": (lambda curve, r=r: r) for r in settings.rms}
    columns |= {f"L2 {short(r)}": (lambda curve, r=r: r / math.sqrt(curve.num_values)) for r in settings.l2}
    cells = {(curve.row, name): curve.cell(radius(curve)) for curve in curves for name, radius in columns.items()}
    present = {place: cell for place, cell in cells.items() if cell is not None}
    return Table(
        key="robustness_curve",
        title="Images fooled within a distortion",
        caption="Share of images in percent that the attack fools within a distortion, as per-pixel RMS and as the L2 "
        f"norm of the perturbation; 100 % minus it is the robust accuracy. {_WRONG}. An attack bounds the smallest "
        "distortion from above, so each share is at least this.",
        row_header="network and attack",
        rows=tuple(curve.row for curve in curves),
        columns=tuple(columns),
        cells=present,
        sample=sample_text(present.values(), (one.seed for curve in curves for one in curve.sets)),
        method=method(WILSON, present.values()),
        runs=tuple(dict.fromkeys(run for curve in curves for run in made_by(curve.sets))),
    )


def _grid_table(curves: Sequence[Curve]) -> Table:
    """Make the table of the distortions of examples on the grid of a file's values, beside the unrounded ones."""
    cells: dict[tuple[str, str], Cell] = {}
    for curve in curves:
        columns = {ON_GRID: [one.on_grid for one in curve.distances]}
        columns[UNROUNDED] = [one.unrounded for one in curve.distances]
        for name, values in columns.items():
            sizes = [value for value in values if value is not None]
            indices = [one.grid_indices for one in curve.distances]
            if cell := distortion_cell(sizes, indices=indices, runs=made_by(curve.sets)):
                cells[curve.row, name] = cell
    return Table(
        key="robustness_curve_grid",
        title="Distortion on the grid of an image file's values",
        caption="Mean distortion (per-pixel RMS) of the examples whose pixels have the values of an image file, and of "
        "the examples of any values in [0, 1] from which their search began, over the images that have both.",
        row_header="network and attack",
        rows=tuple(curve.row for curve in curves),
        columns=(ON_GRID, UNROUNDED),
        cells=cells,
        sample=sample_text(cells.values(), (one.seed for curve in curves for one in curve.sets)) if cells else "",
        method=method(MEAN, cells.values()),
        runs=tuple(dict.fromkeys(run for curve in curves for run in made_by(curve.sets))),
    )


def _figure(curves: Sequence[Curve], attack: str, number: int) -> Figure:
    """Plot the curves of one attack; L2 is the second axis where all images have equally many values."""
    with style():
        figure = canvas(6.4, 4.2)
        axes = figure.subplots()
        finite = torch.cat([one.rms[one.rms.isfinite()] for curve in curves for one in curve.distances])
        end = float(finite.max()) * 1.03 if finite.numel() and float(finite.max()) > 0 else 1.0
        for index, curve in enumerate(curves):
            look = COLOURS[index % len(COLOURS)], _DASHES[index // len(COLOURS) % len(_DASHES)]
            _draw(axes, curve, np.linspace(0, end, POINTS), *look)
        axes.set(xlim=(0, end), ylim=(0, 100), xlabel="distortion, per-pixel RMS", ylabel="robust accuracy, %")
        axes.grid(axis="y")
        sizes = {curve.num_values for curve in curves}
        if len(sizes) == 1:
            root = math.sqrt(sizes.pop())
            top = axes.secondary_xaxis("top", functions=(lambda x: np.multiply(x, root), lambda x: np.divide(x, root)))
            top.set_xlabel("eps, L2 norm")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    names = ", ".join(curve.label for curve in curves)
    return chart(
        figure,
        key="robustness_curve" if number == 0 else f"robustness_curve_{number + 1}",
        title="Security curve: robust accuracy against distortion",
        caption=f"{attack}: robust accuracy, the share of images that the attack does not fool within a distortion, "
        f"with its 95 % interval at each point. {_WRONG}. An attack bounds the smallest distortion from above, so the "
        "accuracy under the strongest attack is at most this.",
        alt=f"Curves of the robust accuracy against distortion, {attack}, for {names}.",
        runs=(run for curve in curves for run in made_by(curve.sets)),
    )


def _draw(axes: Axes, curve: Curve, radii: np.ndarray, colour: str, dash: str) -> None:
    cells = [(radius, cell) for radius in radii if (cell := curve.cell(float(radius))) is not None]
    x, y = [radius for radius, _ in cells], [100 - cell.value for _, cell in cells]
    axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.5, label=curve.label)
    bands = [cell.interval or (cell.value, cell.value) for _, cell in cells]
    ends = [100 - high for _, high in bands], [100 - low for low, _ in bands]
    axes.fill_between(x, *ends, color=colour, alpha=0.15, linewidth=0)

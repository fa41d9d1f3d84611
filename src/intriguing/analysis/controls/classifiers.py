"""Section "controls": is it a property of neural networks? Table 2 with other classifiers on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from intriguing.analysis.cells import NEWCOMBE, WILSON, error_cell, excess_cell, method
from intriguing.analysis.controls.kept import Group, Kept, grouped, runs_of
from intriguing.analysis.drawing import canvas, chart, style
from intriguing.analysis.excess import OVER_CLEAN, OVER_NOISE, Excess
from intriguing.analysis.measure import Answers, mixed_seed
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.attacks import amplify, nearest
from intriguing.controls.classifiers import CONTROLS, DIFFERENTIABLE, fit_control
from intriguing.controls.transfer import classes
from intriguing.metrics import distortion, equal_norm_gaussian
from intriguing.results import Cell, Figure, Table

OWN, EQUAL = "own", "equal"


@dataclass(frozen=True)
class ControlSettings:
    """Settings of the section.

    Attributes:
        limit: images of each set that are used.
        kinds: controls, names in ``intriguing.controls.CONTROLS``.
        train_limit: training images that each control is fitted to, drawn by the seed.
        effort: of the attack on the controls that have a gradient.
        size: per-pixel RMS of the tables at one norm; null: the median of all perturbations.
    """

    limit: int = field(default=256, metadata={"low": 1})
    kinds: tuple[str, ...] = field(default=tuple(CONTROLS), metadata={"choices": tuple(CONTROLS)})
    train_limit: int = field(default=5000, metadata={"low": 10})
    effort: str = field(default="fast", metadata={"choices": ("fast", "default", "thorough")})
    size: float | None = field(default=None, metadata={"above": 0})


Shown = dict[tuple[str, str], list[tuple[int, Answers]]]
"""By row and column: seed and answers of each."""


def section(inputs: SectionInputs) -> SectionOutput:
    """Make Table 2 with the controls' rows and columns, at own and at equal norm, and its excesses."""
    tables: list[Table] = []
    figures: list[Figure] = []
    summary: list[str] = []
    for group in grouped(inputs):
        rows = _with_controls(inputs, group)
        size = inputs.settings.size or float(torch.cat([one.norms for one, _ in rows]).median()) / _root(rows)
        for norm, words in ((OWN, "at their own norm"), (EQUAL, f"all at RMS {size:.3f}")):
            shown = _answers(inputs, rows, None if norm == OWN else size)
            made = [_table(group, rows, shown, norm, words, excess) for excess in (None, OVER_CLEAN, OVER_NOISE)]
            tables += made
            if norm == EQUAL:
                figures.append(_figure(group, made[2], words))
                summary += _sentences(group, made[2], rows, size)
    return SectionOutput(tables=tuple(tables), figures=tuple(figures), summary=tuple(summary))


Row = tuple[Kept, dict[str, nn.Module]]
"""Examples, and the networks and controls of their seed by label."""


def _root(rows: Sequence[Row]) -> float:
    return rows[0][0].inputs[0].numel() ** 0.5


def _with_controls(inputs: SectionInputs, group: Group) -> list[Row]:
    """Fit the controls of every seed, and add the examples made for those that have a gradient."""
    settings: ControlSettings = inputs.settings
    rows: list[Row] = []
    for done, seed in enumerate(group.seeds):
        if inputs.progress:
            inputs.progress(f"controls of seed {seed}", done, len(group.seeds))
        kept = [one for one in group.kept if one.seed == seed]
        subset = inputs.subset(kept[0].network, "train")
        order = torch.randperm(len(subset), generator=torch.Generator().manual_seed(mixed_seed(seed, "controls")))
        # k-NN that holds an image itself would be right about all that is near to it.
        order = order[~torch.isin(subset.indices[order], torch.cat([one.indices for one in kept]))]
        images, labels = subset.read(order[: settings.train_limit].sort().values)
        some = classes_of(kept[0].network.module, kept[0].inputs[:1])
        controls = {kind: fit_control(kind, images, labels, num_classes=some, seed=seed) for kind in settings.kinds}
        victims = {label: network.module for label, network in group.victims(seed)}
        victims |= {CONTROLS[kind]: control for kind, control in controls.items()}
        rows += [(one, victims) for one in kept]
        for kind in (kind for kind in settings.kinds if kind in DIFFERENTIABLE):
            found = nearest(controls[kind], kept[0].inputs, kept[0].labels, effort=settings.effort)
            good = (found.success & (found.distortion > 0)).nonzero().flatten()
            indices = kept[0].indices[good] if len(kept[0].indices) else kept[0].indices
            rows.append(
                (
                    Kept(
                        network=kept[0].network,
                        label=CONTROLS[kind],
                        run=kept[0].run,
                        inputs=kept[0].inputs[good],
                        adv_inputs=found.adv_inputs[good],
                        labels=kept[0].labels[good],
                        targets=classes(controls[kind], found.adv_inputs[good]),
                        indices=indices,
                    ),
                    victims,
                )
            )
    return [row for row in rows if len(row[0].labels)]


def classes_of(module: nn.Module, image: Tensor) -> int:
    """Return the number of classes that a network tells apart."""
    with torch.no_grad():
        return module(image).shape[1]


def _answers(inputs: SectionInputs, rows: Sequence[Row], size: float | None) -> Shown:
    shown: Shown = {}
    for one, victims in rows:
        adv_inputs = one.adv_inputs if size is None else amplify(one.inputs, one.adv_inputs, size, by="image")
        generator = torch.Generator().manual_seed(mixed_seed(inputs.seed, f"{one.label} {one.seed}"))
        noise = equal_norm_gaussian(one.inputs, distortion(one.inputs, adv_inputs), generator=generator)
        for label, module in victims.items():
            wrong = [classes(module, images) != one.labels for images in (adv_inputs, one.inputs, noise)]
            shown.setdefault((one.label, label), []).append((one.seed, Answers(one.indices, *wrong)))
    return shown


def _table(group: Group, rows: Sequence[Row], shown: Shown, norm: str, words: str, excess: Excess | None) -> Table:
    cells: dict[tuple[str, str], Cell] = {}
    for (row, column), found in shown.items():
        runs = runs_of(one for one, _ in rows if one.label == row)
        known = all(len(a.indices) == len(a.adversarial) for _, a in found)
        if excess is None:
            counts = [(seed, a.outcome().against_clean.first) for seed, a in found]
            by_image = [(a.adversarial, a.indices) for _, a in found] if known else []
            cell = error_cell(counts, by_image=by_image, own=row == column, runs=runs)
        else:
            pairs = [pair for _, a in found if (pair := excess.counts(a.outcome())) is not None]
            by_image = [(excess.difference(a), a.indices) for _, a in found] if known else []
            cell = excess_cell(pairs, by_image=by_image, own=row == column, runs=runs)
        if cell is not None:
            cells[row, column] = cell
    suffix = "" if excess is None else excess.suffix
    minus = "" if excess is None else f" minus {excess.baseline}, in percentage points"
    return Table(
        key=f"controls_{norm}{suffix}{group.suffix}",
        title="Is it the network?",
        detail=", ".join(part for part in (words, "" if excess is None else excess.name, group.detail) if part),
        caption=f"Error in percent of the column's classifier on examples made for the row's, {words}{minus}. "
        "Controls are fitted to training images, none of which are among these; their own examples are the nearest "
        "that the attack finds. Nothing is clipped.",
        row_header="made for",
        rows=tuple(dict.fromkeys(row for row, _ in shown)),
        columns=tuple(dict.fromkeys(column for _, column in shown)),
        cells=cells,
        sample=group.sample,
        method=method(WILSON if excess is None else NEWCOMBE, cells.values()),
        runs=runs_of(one for one, _ in rows),
    )


def _figure(group: Group, table: Table, words: str) -> Figure:
    values = np.array([[table.cells[row, column].value for column in table.columns] for row in table.rows])
    with style():
        figure = canvas(2.6 + 0.62 * len(table.columns), 1.9 + 0.42 * len(table.rows))
        axes = figure.subplots()
        image = axes.imshow(values, cmap="RdBu_r", vmin=-100, vmax=100, aspect="auto")
        figure.colorbar(image, ax=axes, label="error above noise, points")  # a number in a cell is lost on a dark page
        axes.set_xticks(range(len(table.columns)), table.columns, rotation=45, ha="right")
        axes.set_yticks(range(len(table.rows)), table.rows)
        axes.set_ylabel("examples made for")
    return chart(
        figure,
        key=f"controls{group.suffix}",
        title="Is it the network? Transfer at one norm",
        detail=group.detail,
        caption=f"Errors of the column's classifier on examples made for the row's, {words}, minus its errors under "
        "Gaussian noise of that norm, in percentage points.",
        alt="A matrix of the excess of errors over noise, networks and other classifiers as rows and columns.",
        runs=table.runs,
    )


def _sentences(group: Group, table: Table, rows: Sequence[Row], size: float) -> list[str]:
    """Say whether networks' examples fool the controls at one norm, and the other way round."""
    names = set(CONTROLS.values())
    to_controls = [c for (r, k), c in table.cells.items() if r not in names and k in names]
    to_networks = [c for (r, k), c in table.cells.items() if r in names and k not in names]
    found = []
    for cells, words in (
        (to_controls, "examples made for a network raise a control's error above noise"),
        (to_networks, "examples made for a control raise a network's error above noise"),
    ):
        sure = sum(c.interval is not None and c.interval.low > 0 for c in cells)
        if cells:
            values = sorted(c.value for c in cells)
            middle = values[len(values) // 2]
            found.append(
                f"Is it the network{f' ({group.detail})' if group.detail else ''}? At RMS {size:.3f} {words} in {sure} "
                f"of {len(cells)} pairs (median {middle:+.1f} points)."
            )
    return found

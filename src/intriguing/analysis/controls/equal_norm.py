"""Section "transfer_norms": transfer or norm? The whole transfer matrix over a range of equal norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from intriguing.analysis.cells import MEAN, NEWCOMBE, error_cell, excess_cell, method
from intriguing.analysis.controls.kept import Group, Kept, grouped, mean_cell, runs_of
from intriguing.analysis.drawing import COLOURS, GREY, chart, lay_out, style
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import mixed_seed
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.controls.classifiers import fit_control
from intriguing.controls.directions import cosines, input_gradients
from intriguing.controls.perturbations import without_directions
from intriguing.controls.transfer import TransferCurve, transfer_curve
from intriguing.results import Cell, Figure, Quantity, Table
from intriguing.statistics.counts import Count, paired_counts

COSINE = Quantity(name="cosine")


@dataclass(frozen=True)
class TransferNormSettings:
    """Settings of the section.

    Attributes:
        limit: images of each set that are used.
        sizes: per-pixel RMS to which all perturbations are scaled; the table is of the middle one.
        train_limit: training images of the linear SVM whose weights are the shared linear part.
    """

    limit: int = field(default=256, metadata={"low": 1})
    sizes: tuple[float, ...] = field(default=(0.05, 0.1, 0.15, 0.2, 0.3), metadata={"above": 0})
    train_limit: int = field(default=5000, metadata={"low": 10})


@dataclass(frozen=True)
class Pair:
    """Hold what a network's examples do to another of its seed.

    Attributes:
        kept: the examples.
        curve: the other network's answers at every norm.
        rest: its answers without the shared linear part, scaled to the middle norm.
        gradients: (M,) cosines of the two networks' input gradients.
        perturbations: (M,) cosines of the perturbations for the images that both have; empty without such images.
    """

    kept: Kept
    curve: TransferCurve
    rest: TransferCurve
    gradients: Tensor
    perturbations: Tensor


def section(inputs: SectionInputs) -> SectionOutput:
    """Make the curves of transfer against norm, and the table of what is left of it at one norm."""
    settings: TransferNormSettings = inputs.settings
    sizes = tuple(sorted(settings.sizes))
    tables: list[Table] = []
    figures: list[Figure] = []
    summary: list[str] = []
    for group in grouped(inputs):
        pairs = _measure(inputs, group, sizes)
        if not pairs:
            continue
        table = _table(group, pairs, sizes)
        tables.append(table)
        figures.append(_figure(group, pairs, sizes))
        summary += _sentences(table, sizes[len(sizes) // 2])
    return SectionOutput(tables=tuple(tables), figures=tuple(figures), summary=tuple(summary))


def _measure(inputs: SectionInputs, group: Group, sizes: tuple[float, ...]) -> dict[tuple[str, str], list[Pair]]:
    found: dict[tuple[str, str], list[Pair]] = {}
    linear: dict[int, Tensor] = {}
    for done, one in enumerate(group.kept):
        if inputs.progress:
            inputs.progress("transfer at equal norms", done, len(group.kept))
        if one.seed not in linear:
            linear[one.seed] = linear_part(inputs, one.network, inputs.settings.train_limit)
        rest = without_directions(one.inputs, one.adv_inputs, linear[one.seed])
        own = input_gradients(one.network.module, one.inputs, one.labels)
        for label, victim in group.victims(one.seed):
            if victim.name == one.network.name:
                continue
            generator = torch.Generator().manual_seed(mixed_seed(inputs.seed, f"{one.run} {label}"))
            shown = [
                transfer_curve(victim.module, one.inputs, moved, one.labels, one.targets, norms, generator=generator)
                for moved, norms in ((one.adv_inputs, sizes), (rest, (sizes[len(sizes) // 2],)))
            ]
            gradients = cosines(own, input_gradients(victim.module, one.inputs, one.labels))
            theirs = next((k for k in group.kept if k.network.name == victim.name), None)
            pair = Pair(one, shown[0], shown[1], gradients, _common_cosines(one, theirs))
            found.setdefault((one.label, label), []).append(pair)
    return found


def linear_part(inputs: SectionInputs, network: Network, limit: int) -> Tensor:
    """Return the weights (K, D) of a linear SVM on a network's training images: the linear part that networks share."""
    images = inputs.subset(network, "train")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(mixed_seed(network.seed, "linear")))
    control = fit_control("linear_svm", *images.read(order[:limit].sort().values), seed=network.seed)
    weight = control.get_submodule("1").weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def _common_cosines(first: Kept, second: Kept | None) -> Tensor:
    """Compute the cosines of two networks' perturbations of the images that both have: (M,), nan for the others."""
    found = torch.full((len(first.labels),), torch.nan, dtype=torch.float64)
    if second is None or not len(first.indices) or not len(second.indices):
        return found
    places = {int(index): row for row, index in enumerate(second.indices)}
    rows = [(i, places[int(index)]) for i, index in enumerate(first.indices) if int(index) in places]
    if rows:
        own, other = (torch.tensor(column) for column in zip(*rows, strict=True))
        found[own] = cosines(first.adv_inputs[own] - first.inputs[own], second.adv_inputs[other] - second.inputs[other])
    return found


COLUMNS = (
    "error over noise",
    "over noise, without the linear part",
    "in the target class",
    "cosine of gradients",
    "cosine of perturbations",
)


def _table(group: Group, pairs: dict[tuple[str, str], list[Pair]], sizes: tuple[float, ...]) -> Table:
    middle = len(sizes) // 2
    cells: dict[tuple[str, str], Cell | None] = {}
    for (source, victim), members in pairs.items():
        row, kept = f"{source} → {victim}", [one.kept for one in members]
        runs = runs_of(kept)
        for column, curves in (
            (COLUMNS[0], [(one.curve, middle) for one in members]),
            (COLUMNS[1], [(one.rest, 0) for one in members]),
        ):
            cells[row, column] = excess_cell(
                [paired_counts(curve.wrong[at], curve.noise[at]) for curve, at in curves],
                by_image=_by_image([c.wrong[at].int() - c.noise[at].int() for c, at in curves], kept),
                runs=runs,
            )
        hit = [one.curve.targeted[middle] for one in members]
        counts = [(one.kept.seed, Count.of(part)) for one, part in zip(members, hit, strict=True)]
        cells[row, COLUMNS[2]] = error_cell(counts, by_image=_by_image(hit, kept), runs=runs)
        cells[row, COLUMNS[3]] = mean_cell([one.gradients for one in members], kept, COSINE, least=-1, most=1)
        cells[row, COLUMNS[4]] = mean_cell([one.perturbations for one in members], kept, COSINE, least=-1, most=1)
    present = {place: cell for place, cell in cells.items() if cell is not None}
    return Table(
        key=f"transfer_norms{group.suffix}",
        title="Transfer or norm?",
        detail=group.detail,
        caption=f"Examples made for one network shown to another, all perturbations at RMS {sizes[middle]:g} and not "
        "clipped: error in percentage points above that in Gaussian noise of this norm, also after the part of the "
        "perturbation along the weights of a linear SVM was removed; share in percent that the other network takes for "
        "the class it was made for; mean cosines of the two networks' input gradients and perturbations.",
        row_header="made for → shown to",
        rows=tuple(f"{source} → {victim}" for source, victim in pairs),
        columns=COLUMNS,
        cells=present,
        sample=group.sample,
        method=method(f"excess: {NEWCOMBE}; share: Wilson's; cosines: {MEAN}", present.values()),
        runs=runs_of(one.kept for members in pairs.values() for one in members),
    )


def _by_image(values: Sequence[Tensor], kept: Sequence[Kept]) -> list[tuple[Tensor, Tensor]]:
    if any(len(one.indices) != len(one.labels) for one in kept):
        return []
    return [(value, one.indices) for value, one in zip(values, kept, strict=True)]


def _figure(group: Group, pairs: dict[tuple[str, str], list[Pair]], sizes: tuple[float, ...]) -> Figure:
    victims = list(dict.fromkeys(victim for _, victim in pairs))
    sources = list(dict.fromkeys(source for source, _ in pairs))
    with style():
        figure, places = lay_out(len(victims), most=3, width=3.1, height=2.7)
        for axes, victim in zip(places, victims, strict=True):
            noise: list[Tensor] = []
            for number, source in enumerate(sources):
                members = pairs.get((source, victim), [])
                if members:
                    wrong = torch.cat([one.curve.wrong for one in members], 1).double().mean(1)
                    noise += [one.curve.noise for one in members]
                    dash = ("-", "--", ":")[number // len(COLOURS) % 3]
                    look: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "linestyle": dash}
                    axes.plot(sizes, 100 * wrong, label=source, **look)
            axes.plot(sizes, 100 * torch.cat(noise, 1).double().mean(1), color=GREY, linewidth=2.5, label="noise")
            axes.set(title=f"shown to {victim}", xlabel="per-pixel RMS", ylim=(0, 100))
        places[0].set_ylabel("error, %")
        shown = {
            label: handle for axes in places for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=3)
    return chart(
        figure,
        key=f"transfer_norms{group.suffix}",
        title="Transfer against norm",
        detail=group.detail,
        caption="Error of each network on the examples made for the others, with all perturbations scaled to one norm; "
        "grey: Gaussian noise of that norm. Seeds pooled.",
        alt="Line charts of the error against the norm of the perturbations, one for each network.",
        runs=runs_of(one.kept for members in pairs.values() for one in members),
    )


def _sentences(table: Table, size: float) -> list[str]:
    found = []
    for column, words in zip(COLUMNS[:2], ("", " after the shared linear part is removed"), strict=True):
        cells = [table.cells[row, column] for row in table.rows if (row, column) in table.cells]
        sure = sum(cell.interval is not None and cell.interval.low > 0 for cell in cells)
        middle = sorted(cell.value for cell in cells)[len(cells) // 2]
        where = f" ({table.detail})" if table.detail else ""
        found.append(
            f"Transfer or norm{where}? At RMS {size:g} the error exceeds that in noise in {sure} of {len(cells)} pairs "
            f"of networks{words} (median {middle:+.1f} points)."
        )
    return found

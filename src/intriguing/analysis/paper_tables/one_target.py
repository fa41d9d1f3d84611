"""Figures 5 and 6: photographs beside adversarial examples towards one class, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from textwrap import shorten, wrap

import torch
from torch import Tensor

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis import paper
from intriguing.analysis.cells import (
    MEAN,
    WILSON,
    display_labels,
    distortion_cell,
    error_cell,
    made_by,
    method,
    network_order,
    sample_text,
    set_label,
    variants,
)
from intriguing.analysis.drawing import chart, style
from intriguing.analysis.gallery import Panel, gallery
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import Examples, MeasuredSet
from intriguing.analysis.paper_tables.pictures import difference_gain
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.analysis.units.tables import stem
from intriguing.results import DISTORTION, Cell, Figure, Quantity, Table
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import Interval, t_interval

SUCCESS, MEAN_SIZE, MEDIAN = "success", paper.DISTORTION, "median distortion"
PASSES, SECONDS = "passes an image", "seconds an image"
PRINTED = "the paper's AlexNet, as printed"
_LINE = 15  # letters of a line above a column


@dataclass(frozen=True)
class OneTargetSettings:
    """Settings of the section.

    Attributes:
        images: columns of a figure.
        gain: factor by which the difference is multiplied; 10 in the paper.
    """

    images: int = field(default=8, metadata={"low": 1})
    gain: float = field(default=10.0, metadata={"above": 0})


@dataclass(frozen=True)
class Observed:
    """Hold what the section needs of a set whose images were all to get into one class.

    Attributes:
        target: that class.
        shown: a few of the examples, evenly spread over the set.
        passes: (N,) forward and backward passes of each image; empty where they were not counted.
    """

    target: int
    shown: Examples
    passes: Tensor


def observe(examples: AdversarialSet, one: MeasuredSet, inputs: SectionInputs) -> Observed | None:
    """Keep a few examples of a set with one target for all images; None for other sets."""
    targets = examples.targets.unique()
    if one.source is None or one.amplify is not None or len(targets) != 1 or int(targets) < 0:
        return None
    settings: OneTargetSettings = inputs.settings
    keep = examples.success.bool().nonzero().flatten()
    rows = keep[torch.linspace(0, max(len(keep) - 1, 0), min(settings.images, len(keep))).round().long()]
    columns = (examples.inputs, examples.adv_inputs, examples.labels, examples.targets, examples.distortion)
    counted = bool((examples.num_forwards >= 0).all())
    passes = (examples.num_forwards + examples.num_backwards).double() if counted else torch.zeros(0)
    return Observed(int(targets), Examples(*(column[rows].clone() for column in columns)), passes)


def section(inputs: SectionInputs) -> SectionOutput:
    """Make the table of all attacks towards one class, and a figure for each network.

    Settings: see `OneTargetSettings`.
    """
    found = {one.name: inputs.observed[one.name] for one in inputs.sets if inputs.observed.get(one.name) is not None}
    networks = {network.name: network for network in inputs.networks}
    order = network_order(inputs.networks)
    sets = sorted((one for one in inputs.sets if one.name in found), key=lambda one: order[one.source or ""])
    if not sets:
        return SectionOutput()
    labels = display_labels(inputs.networks)
    firsts: dict[str, MeasuredSet] = {}
    for _, members in variants(sets):  # the paper's attack first
        for one in sorted(members, key=lambda member: member.seed):
            if one.num_success:
                firsts.setdefault(labels[one.source or ""], one)
    settings: OneTargetSettings = inputs.settings
    figures = [
        _figure(firsts[label], label, networks[firsts[label].source or ""], found[firsts[label].name], settings.gain)
        for label in dict.fromkeys(labels[one.source or ""] for one in sets)
        if label in firsts
    ]
    table = _table(sets, found, labels, networks)
    return replace(SectionOutput.of(table, *figures), summary=_summary(table))


def _summary(table: Table) -> tuple[str, ...]:
    """Say between which sizes the mean distortions lie, beside the paper's."""
    means = [cell.value for (row, column), cell in table.cells.items() if column == MEAN_SIZE and row != PRINTED]
    if not means:
        return ()
    low, high = (DISTORTION.text(value, 4) for value in (min(means), max(means)))
    lie = f"is {low}" if low == high else f"lies between {low} and {high}"
    return (
        f"Towards one class: the mean distortion {lie} ({len(means)} pairs of network and attack); the paper's AlexNet "
        f"needed {DISTORTION.text(paper.OSTRICH_DISTORTION, 4)} (Figure 5).",
    )


def class_name(network: Network, label: int) -> str:
    """Return the name of a class of a network's images; its number where no name is known."""
    data = getattr(network.module, "trained_on", None) or network.config.get("data", {})
    for key in ("names", "classes"):
        if (names := data.get(key)) and label < len(names):
            return str(names[label]).split(",")[0]
    return str(label)


def _table(
    sets: Sequence[MeasuredSet],
    found: Mapping[str, Observed],
    labels: Mapping[str, str],
    networks: Mapping[str, Network],
) -> Table:
    """Make the table: success, distortion, passes and seconds of every network and attack, seeds pooled."""
    groups: dict[str, list[MeasuredSet]] = {}
    for attack, members in variants(sets):
        for one in members:
            groups.setdefault(f"{set_label(labels, one)} · {attack}", []).append(one)
    order = {one.name: i for i, one in enumerate(sets)}
    rows = sorted(groups, key=lambda row: min(order[one.name] for one in groups[row]))
    cells = {(row, column): cell for row in rows for column, cell in _cells(groups[row], found).items()}
    cells[PRINTED, MEAN_SIZE] = Cell(quantity=DISTORTION, value=paper.OSTRICH_DISTORTION, interval=None, n=64)
    targets = {class_name(networks[one.source or ""], found[one.name].target) for one in sets}
    measured = [cell for (row, _), cell in cells.items() if row != PRINTED]
    return Table(
        key="one_target",
        title="One target class for all images",
        caption=f"Adversarial examples all of which are taken for one class ({', '.join(sorted(targets))}): the share "
        "of images for which one was found, the per-pixel RMS of its perturbation, and the work. The paper's mean is "
        f"over {paper.OSTRICH_IMAGES} images, towards the ostrich.",
        row_header="network and attack",
        rows=(*rows, PRINTED),
        columns=(SUCCESS, MEAN_SIZE, MEDIAN, PASSES, SECONDS),
        cells=cells,
        sample=sample_text(measured, (one.seed for one in sets)),
        method=f"Success: {method(WILSON, [])}. Distortion: {method(MEAN, [])}. Passes: forward and backward passes of "
        "the network, their mean and Student's t. Seconds: of the whole attack on the machine of the run",
        source=f"{paper.SOURCE}, Figure 5",
        runs=tuple(dict.fromkeys((*(one.name for one in sets), *(one.source for one in sets if one.source)))),
    )


def _cells(members: Sequence[MeasuredSet], found: Mapping[str, Observed]) -> dict[str, Cell]:
    """Make the cells of one row by column."""
    runs = tuple(made_by(members))
    distortions = torch.cat([one.distortion for one in members])
    passes = torch.cat([found[one.name].passes for one in members])
    seconds = [float(one.run.facts["seconds"]) for one in members if one.run.facts.get("seconds")]
    tried = sum(one.num for one in members)
    shares = [(one.seed, Count(one.num_success, one.num)) for one in members]
    cells = {
        SUCCESS: error_cell(shares, quantity=SHARE, runs=runs),
        MEAN_SIZE: distortion_cell(
            [one.distortion for one in members], indices=[one.indices for one in members], runs=runs
        ),
    }
    if len(distortions):
        cells[MEDIAN] = _plain(DISTORTION, float(distortions.median()), None, len(distortions), runs)
    if len(passes):
        interval = t_interval(passes) if len(passes) > 1 else None
        cells[PASSES] = _plain(Quantity(name="passes"), float(passes.mean()), interval, len(passes), runs)
    if len(seconds) == len(members) and tried:
        cells[SECONDS] = _plain(Quantity(name="seconds", unit="s"), sum(seconds) / tried, None, tried, runs)
    return {column: cell for column, cell in cells.items() if cell is not None}


SHARE = Quantity(name="success", unit="%", digits=1, counted=True, column="percent")


def _plain(quantity: Quantity, value: float, interval: Interval | None, n: int, runs: tuple[str, ...]) -> Cell:
    return Cell(quantity=quantity, value=value, interval=interval, n=n, runs=runs)


def _figure(one: MeasuredSet, label: str, network: Network, seen: Observed, gain: float) -> Figure:
    """Show originals, differences and adversarial examples, as the paper does."""
    shown = seen.shown
    difference = shown.adv_inputs.float() - shown.inputs.float()
    larger = difference_gain(difference)
    gains = [gain, *([larger] if larger >= 2 * gain else [])]
    rows = [shown.inputs, *((0.5 + factor * difference).clamp(0, 1) for factor in gains), shown.adv_inputs]
    target = class_name(network, seen.target)
    with style():
        panel = Panel(
            tiles=[list(row) for row in rows],
            rows=("original", *(f"difference ×{factor:g}" for factor in gains), "adversarial"),
            columns=[_words(network, shown, i) for i in range(len(shown.labels))],
        )
        figure = gallery([panel])
    mean = f"{float(one.distortion.mean()):.4f}".removeprefix("0")
    also = f" and ×{larger:g}, the largest round factor at which 99 % of the pixels stay between black and white"
    return chart(
        figure,
        key=f"figure5_{stem(label)}",
        number="Figures 5 and 6",
        title="Adversarial examples towards one class",
        detail=label,
        caption="Above each column: the true class and the distortion of its adversarial example. The difference is "
        "shifted to mid-grey and multiplied by the factor beside it.",
        note=f"All of the last row are taken for {target}. {one.attack_name} on {one.subset} images; mean distortion "
        f"{mean} over {one.num_success} of {one.num} images (paper, AlexNet: "
        f"{str(paper.OSTRICH_DISTORTION).removeprefix('0')} over {paper.OSTRICH_IMAGES}). Difference ×{gain:g}"
        f"{also if len(gains) > 1 else ''}.",
        alt=f"Rows of photographs for {label}: originals, differences, and adversarial versions taken for {target}.",
        runs=(one.name, network.name),
    )


def _words(network: Network, shown: Examples, i: int) -> str:
    """Write the words above a column: the class in at most two lines, and the distortion."""
    name = shorten(class_name(network, int(shown.labels[i])), 2 * _LINE - 2, placeholder=" …")
    size = f"{float(shown.distortion[i]):.4f}".removeprefix("0")
    return "\n".join((*wrap(name, _LINE), size))

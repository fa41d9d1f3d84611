"""Section "autoencoders": do networks on an autoencoder resist because they model the data?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor

from intriguing.analysis.cells import MEAN, error_cell, method
from intriguing.analysis.controls.kept import Group, Kept, grouped, mean_cell, runs_of
from intriguing.analysis.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, chart, lay_out, style
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.results import Cell, Figure, Quantity, Table
from intriguing.statistics.intervals import Interval

L2, RATIO = Quantity(name="L2 norm"), Quantity(name="ratio")
TEST_ERROR, DISTANCE = "test error", "distance"
SAME_SHAPE, SAME_ERROR = "ratio, same shape", "ratio, nearest test error"
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY)
AUTOENCODERS = ("sparse_autoencoder", "contractive_autoencoder", "variational_autoencoder")
"""``model.name`` of the networks whose first layer is trained to reconstruct images, without labels."""


@dataclass(frozen=True)
class AutoencoderSettings:
    """Settings of the section.

    Attributes:
        limit: images of each set that are used.
    """

    limit: int = field(default=256, metadata={"low": 2})


class Compared(NamedTuple):
    """Hold the distances of a network beside those of another one."""

    other: str
    cell: Cell


def section(inputs: SectionInputs) -> SectionOutput:
    """Make the table, the figure and the sentences; nothing where no network has an autoencoder."""
    tables: list[Table] = []
    figures: list[Figure] = []
    summary: list[str] = []
    for group in grouped(inputs):
        with_one = [label for label in group.labels if _model(group, label).get("name") in AUTOENCODERS]
        without = [label for label in group.labels if label not in with_one]
        if not with_one or not without:
            continue
        shaped = {label: _compared(group, label, _of_shape(group, label, without)) for label in with_one}
        equal = {label: _compared(group, label, _of_error(group, label, without)) for label in with_one}
        tables.append(_table(group, shaped, equal))
        figures.append(_figure(group, with_one))
        summary += _sentences(group, shaped, equal)
    return SectionOutput(tables=tuple(tables), figures=tuple(figures), summary=tuple(summary))


def _model(group: Group, label: str) -> dict[str, Any]:
    return dict(group.of(label)[0].network.config.get("model", {}))


def _test_error(group: Group, label: str) -> float:
    """Return the test error of a label's networks in percent; nan where it was not counted."""
    counts = [one.network.error("test") for one in group.of(label)]
    return 100 * sum(one.k for one in counts) / total if (total := sum(one.n for one in counts)) else math.nan


def _of_shape(group: Group, label: str, without: Sequence[str]) -> str | None:
    """Find the network of the same shape whose layers are all trained by labels."""
    units = _model(group, label).get("settings", {}).get("units")
    for other in without:
        model = _model(group, other)
        if model.get("name") == "fully_connected" and list(model.get("settings", {}).get("widths", ())) == [units]:
            return other
    return None


def _of_error(group: Group, label: str, without: Sequence[str]) -> str | None:
    own = _test_error(group, label)
    errors = {other: _test_error(group, other) for other in without}
    known = [other for other, error in errors.items() if not math.isnan(error)]
    if math.isnan(own) or not known:
        return None
    return min(known, key=lambda other: abs(math.log((errors[other] + 0.01) / (own + 0.01))))


def _compared(group: Group, label: str, other: str | None) -> Compared | None:
    """Compare the distances of images that both networks of a seed were fooled on; None without such images."""
    if other is None:
        return None
    ratios: list[Tensor] = []
    kept: list[Kept] = []
    for one in group.of(label):
        for two in group.of(other):
            if one.seed == two.seed and len(one.indices) and len(two.indices):
                places = (one.indices[:, None] == two.indices[None]).nonzero()
                mine, theirs = places[:, 0], places[:, 1]
                if len(places):
                    ratios.append((one.norms[mine] / two.norms[theirs]).log())
                    kept.append(_rows(one, mine))
    cell = mean_cell(ratios, kept, RATIO) if kept else None
    if cell is None:
        return None
    interval = None if cell.interval is None else Interval(*(math.exp(end) for end in cell.interval))
    return Compared(other, replace(cell, value=math.exp(cell.value), interval=interval))


def _rows(one: Kept, rows: Tensor) -> Kept:
    names = ("inputs", "adv_inputs", "labels", "targets", "indices")
    return replace(one, **{name: getattr(one, name)[rows] for name in names})


def _table(group: Group, shaped: dict[str, Compared | None], equal: dict[str, Compared | None]) -> Table:
    cells: dict[tuple[str, str], Cell | None] = {}
    for label in group.labels:
        members = group.of(label)
        counts = [(one.seed, one.network.error("test")) for one in members]
        cells[label, TEST_ERROR] = error_cell(counts, judge=False, runs=[one.network.name for one in members])
        cells[label, DISTANCE] = mean_cell([one.norms for one in members], members, L2)
        for column, found in ((SAME_SHAPE, shaped.get(label)), (SAME_ERROR, equal.get(label))):
            cells[label, column] = None if found is None else found.cell
    present = {place: cell for place, cell in cells.items() if cell is not None}
    means = [cell for (_, column), cell in present.items() if column != TEST_ERROR]
    return Table(
        key=f"autoencoders{group.suffix}",
        title="Do autoencoders resist?",
        detail=group.detail,
        caption="Test error in percent, mean L2 distance of the adversarial examples, and that distance as a multiple "
        "of the one of a network without an autoencoder: of the same shape, with all layers trained by labels, and "
        "of the nearest test error. Multiples are geometric means over pairs of the same image and seed.",
        row_header="network",
        rows=group.labels,
        columns=(TEST_ERROR, DISTANCE, SAME_SHAPE, SAME_ERROR),
        cells=present,
        sample=group.sample,
        method=method(MEAN, means),
        runs=runs_of(group.kept),
    )


def _figure(group: Group, with_one: Sequence[str]) -> Figure:
    with style():
        figure, (axes,) = lay_out(1, most=1, width=5.4, height=3.2)
        colours, markers = dict(zip(with_one, _COLOURS, strict=False)), itertools.cycle("sD^v<>PX")
        for label in group.labels:
            points = [(one.network.error("test"), float(one.norms.mean())) for one in group.of(label)]
            places = [(counted.percent, distance) for counted, distance in points if counted.n]
            if places:
                marker = "o" if label in with_one else next(markers)
                axes.plot(*zip(*places, strict=True), marker, color=colours.get(label, GREY), markersize=5, label=label)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        axes.set(xlabel="test error, %", ylabel="distance, L2")
        axes.margins(x=0.15, y=0.15)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    return chart(
        figure,
        key=f"autoencoders{group.suffix}",
        title="Distance of adversarial examples against test error",
        detail=group.detail,
        caption="Circles: networks on an autoencoder; grey: networks that are trained by labels alone. A point for "
        "each seed.",
        alt="Scatter plot of mean distances against test errors, a point for each network and seed.",
        runs=runs_of(group.kept),
    )


def _sentences(group: Group, shaped: dict[str, Compared | None], equal: dict[str, Compared | None]) -> list[str]:
    where = f" ({group.detail})" if group.detail else ""
    lines = []
    for title, found in (("of the same shape", shaped), ("of the nearest test error", equal)):
        parts = []
        for label, one in found.items():
            if one is None:
                continue
            low_high = "" if one.cell.interval is None else " ({:.2f} to {:.2f})".format(*one.cell.interval)
            errors = f"test errors {_test_error(group, label):.1f} and {_test_error(group, one.other):.1f} %"
            parts.append(f"{one.cell.value:.2f}{low_high} times as far for {label} as for {one.other} ({errors})")
        if parts:
            lines.append(
                f"Do autoencoders resist because they model the data{where}? Examples lie {', '.join(parts)}; the "
                f"second network of each pair is {title}, and trained by labels alone."
            )
    return lines

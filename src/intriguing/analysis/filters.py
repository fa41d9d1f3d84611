"""Section "filters": what the first layer's filters look like, and whether they are like edges or like noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from intriguing.analysis.cells import display_labels, network_order
from intriguing.analysis.drawing import chart, style
from intriguing.analysis.gallery import Panel, gallery
from intriguing.analysis.inputs import Network
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.analysis.units.tables import stem
from intriguing.analysis.units.untrained import untrained_copy
from intriguing.models import Classifier
from intriguing.nn.local import LocallyConnected2d
from intriguing.results import Cell, Figure, Quantity, Table
from intriguing.statistics.intervals import t_interval
from intriguing.units.frequencies import Frequencies, concentration

TRAINED, UNTRAINED, ABOVE = "trained", "before training", "P(trained > before)"
WAVES, COUNT = "a cycle or more", "filters"
_SHARE = Quantity(name="share", digits=3)
_NUMBER = Quantity(name="filters", digits=0)


@dataclass(frozen=True)
class FilterSettings:
    """Settings of the section.

    Attributes:
        shown: filters of a picture at most, evenly spaced among all of them.
    """

    shown: int = field(default=96, metadata={"low": 1})


def first_filters(module: nn.Module, input_shape: Sequence[int]) -> Tensor | None:
    """Return the filters (F, C, h, w) of the first layer that has weights; None where they are not of pixels.

    Args:
        module: a network.
        input_shape: (C, H, W) of its images.

    Returns:
        Kernels of a convolution, of local filters those of every position, of a Linear layer a weight for every pixel.
    """
    channels = input_shape[0]
    for layer in module.modules():
        if isinstance(layer, LocallyConnected2d) and layer.in_channels == channels:
            return layer.weight.detach().reshape(-1, channels, layer.kernel_size, layer.kernel_size)
        if isinstance(layer, nn.Conv2d) and layer.weight.shape[1] == channels:
            return layer.weight.detach()
        if isinstance(layer, nn.Linear) and layer.in_features == math.prod(input_shape):
            return layer.weight.detach().reshape(-1, *input_shape)
        if any(True for _ in layer.parameters(recurse=False)):
            return None
    return None


def section(inputs: SectionInputs) -> SectionOutput:
    """Draw the first layer's filters of each network, and compare them with those before training in frequency."""
    labels, order = display_labels(inputs.networks), network_order(inputs.networks)
    groups: dict[str, list[tuple[Network, Tensor]]] = {}
    for network in sorted(inputs.networks, key=lambda one: order[one.name]):
        shape = getattr(network.module, "input_shape", None)  # of networks in memory it may be unknown
        filters = None if shape is None else first_filters(network.module, shape)
        if filters is not None and min(filters.shape[-2:]) > 1:
            groups.setdefault(labels[network.name], []).append((network, filters))
    if not groups:
        return SectionOutput()
    cells: dict[tuple[str, str], Cell] = {}
    for label, members in groups.items():
        cells |= {(label, column): cell for column, cell in _cells(members, inputs.seed).items()}
    table = _table(tuple(groups), cells, [network.name for members in groups.values() for network, _ in members])
    settings: FilterSettings = inputs.settings
    pictures = [_picture(label, *members[0], settings.shown) for label, members in groups.items()]
    return SectionOutput(tables=(table,), figures=tuple(pictures), summary=tuple(_sentences(table)))


def _cells(members: Sequence[tuple[Network, Tensor]], seed: int) -> dict[str, Cell]:
    """Measure the networks of one label, one a seed."""
    rows: list[dict[str, float]] = []
    for network, filters in members:
        found = concentration(filters)
        waves = (found.cycles * max(filters.shape[-2:]) > 0.75).double().mean()
        row = {TRAINED: _mean(found), COUNT: float(len(filters)), WAVES: float(waves)}
        before = untrained_copy(network.module, seed=seed + network.seed)
        shape = cast(Classifier, network.module).input_shape
        drawn = None if before is None else first_filters(before, shape)
        if drawn is not None:
            random = concentration(drawn)
            row |= {UNTRAINED: _mean(random), ABOVE: above(found.concentration, random.concentration)}
        rows.append(row)
    cells = {}
    for column in (TRAINED, UNTRAINED, ABOVE, WAVES, COUNT):
        values = torch.tensor([row[column] for row in rows if column in row], dtype=torch.float64)
        if len(values) and bool(values.isfinite().all()):
            quantity = _NUMBER if column == COUNT else _SHARE
            interval = t_interval(values) if len(values) > 1 and column != COUNT else None
            cells[column] = Cell(quantity=quantity, value=float(values.mean()), interval=interval, n=len(values))
    return cells


def _mean(found: Frequencies) -> float:
    return float(found.concentration.nanmean())


def above(first: Tensor, second: Tensor) -> float:
    """Compute the probability that a value of one sample is above one of another, ties counted half."""
    one, two = (values[~values.isnan()].sort().values for values in (first, second))
    if not len(one) or not len(two):
        return math.nan
    low, high = (torch.searchsorted(two, one, right=right).double().mean() for right in (False, True))
    return float((low + high) / (2 * len(two)))


def _table(rows: tuple[str, ...], cells: dict[tuple[str, str], Cell], runs: list[str]) -> Table:
    return Table(
        key="filters",
        title="Filters of the first layer: like edges, or like noise",
        caption="Share of a filter's energy that lies around one frequency, the mean over all filters: high for edges, "
        "bars and blobs of colour, low for noise.",
        row_header="network",
        rows=rows,
        columns=(TRAINED, UNTRAINED, ABOVE, WAVES, COUNT),
        cells=cells,
        sample="every filter of the first layer; the mean over seeds",
        method="Student's t over seeds, where there are two or more",
        notes=(
            f"“{ABOVE}”: the probability that a filter is more concentrated than one of the same network before "
            "training; .5 is no difference.",
            f"“{WAVES}”: the share of filters whose energy lies around a frequency of at least one cycle in the "
            "filter's width, an edge's or a bar's; that of a blob is lower.",
        ),
        runs=tuple(runs),
    )


def _picture(label: str, network: Network, filters: Tensor, most: int) -> Figure:
    """Draw filters, evenly spaced among all, each scaled to its largest weight, zero as mid-grey."""
    chosen = filters[torch.linspace(0, len(filters) - 1, min(most, len(filters))).round().long()].float()
    chosen = chosen[:, :3] if chosen.shape[1] >= 3 else chosen[:, :1]
    scale = chosen.flatten(1).abs().amax(1).clamp(min=torch.finfo(chosen.dtype).tiny)
    tiles: list[Any] = list(chosen / (2 * scale[:, None, None, None]) + 0.5)
    columns = min(16, len(tiles))
    with style():
        figure = gallery([Panel(tiles=[tiles[i : i + columns] for i in range(0, len(tiles), columns)])])
    return chart(
        figure,
        key=f"filters_{stem(label)}",
        title="Filters of the first layer",
        detail=label,
        caption="Each tile is one filter, scaled to its largest weight; mid-grey is zero. Of more filters than are "
        "shown, these are evenly spaced among all.",
        note=f"{len(tiles)} of {len(filters):,} filters.",
        alt=f"A grid of {len(tiles)} filters of the first layer of {label}.",
        runs=(network.name,),
    )


def _sentences(table: Table) -> list[str]:
    said = []
    for row in table.rows:
        if (row, ABOVE) in table.cells and (row, TRAINED) in table.cells:
            trained, before, share = (table.cells[row, key].value for key in (TRAINED, UNTRAINED, ABOVE))
            said.append(
                f"Filters: in {row}, {100 * trained:.0f} % of a first-layer filter's energy lies around one frequency, "
                f"{100 * before:.0f} % before training; a trained filter is the more concentrated one in "
                f"{100 * share:.0f} % of pairs."
            )
    return said

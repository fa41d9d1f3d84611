"""Charts of the paper's sections: agreement with the paper, the lambda curve, the distortions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from intriguing.analysis import paper
from intriguing.analysis.cells import FULL, display_labels, network_order, pool_of, set_label, variants
from intriguing.analysis.drawing import (
    BLUE,
    COLOURS,
    FAINT,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    canvas,
    chart,
    error_bars,
    style,
)
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet, short, size_text
from intriguing.analysis.paper_tables.weight_decay import Curve
from intriguing.results import ERROR, Cell, Figure, Table
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import Interval

_ASIDE = 6.0
"""Points between the series of one lambda."""
_TICKS = (0, 1, 5, 10, 25, 50, 75, 100)
_GROUPS = (
    ("Tables 1 and 3: error", ("table1", "table3")),
    ("Table 2: transfer", ("table2",)),
    ("Table 4: transfer, disjoint halves", ("table4",)),
)


def agreement_figure(tables: Sequence[Table], *, reference: str = "") -> Figure | None:
    """Plot every error rate the paper prints against the measured one; None where there is none to compare.

    Args:
        tables: of the analysis.
        reference: the name of what the tables compare with in place of the paper; empty: the paper.
    """
    other = reference or "the paper"
    by_key = {table.key: table for table in tables}
    panels = []
    for title, keys in _GROUPS:
        present = [by_key[key] for key in keys if key in by_key]
        cells = [c for t in present for c in t.cells.values() if c.meets is not None and c.quantity == ERROR]
        if cells := [c for c in cells if not c.own]:
            panels.append((title, cells, tuple(run for t in present for run in t.runs)))
    if not panels:
        return None
    with style():
        figure = canvas(3.4 * len(panels), 3.9)
        for axes, (title, cells, _) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _agreement_panel(axes, title, cells, reference or "paper")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    met = sum((t.agreement() for t in tables if t.key in paper.TABLES), Count(0, 0))
    return chart(
        figure,
        key="agreement",
        title=f"{reference or 'Paper'} against measurement",
        caption=f"Every error rate {'of' if reference else 'that'} {other}{'' if reference else ' prints'} (across) against the one measured here (up), both with their 95 % "
        "intervals, on square-root axes. On the diagonal they are equal. The intervals meet in "
        f"{met.k} of {met.n} cells; a network on its own examples, 100 % by construction, is left out.",
        alt=f"Scatter plot of measured against printed error rates; the intervals meet in {met.k} of {met.n} cells.",
        runs=(run for _, _, runs in panels for run in runs),
    )


def _agreement_panel(axes: Axes, title: str, cells: Sequence[Cell], reference: str) -> None:
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, zorder=0)
    for meets, colour, marker, fill in ((True, BLUE, "o", BLUE), (False, ORANGE, "D", "none")):
        chosen = [c for c in cells if c.meets is meets]
        x, y = [float(c.paper or 0) for c in chosen], [c.value for c in chosen]
        across = error_bars(x, [c.paper_interval or c.interval for c in chosen])
        up = error_bars(y, [c.interval for c in chosen])
        label = "✓ the intervals meet" if meets else "≠ they do not"
        axes.errorbar(x, y, xerr=across, yerr=up, fmt="none", ecolor=colour, elinewidth=0.7, alpha=0.45)
        axes.plot(x, y, marker, color=colour, markerfacecolor=fill, markersize=5, label=label)
    root = (lambda v: np.sqrt(np.maximum(v, 0)), np.square)
    highest = max(
        max(float(c.paper or 0), *(i.high for i in (c.interval, c.paper_interval) if i is not None)) for c in cells
    )
    axes.set_xscale("function", functions=root)
    axes.set_yscale("function", functions=root)
    ticks = [tick for tick in _TICKS if tick <= highest * 1.15]
    axes.set(xlim=(0, highest * 1.1), ylim=(0, highest * 1.1), xticks=ticks, yticks=ticks, aspect="equal")
    axes.set(title=title, xlabel=f"{reference}, %", ylabel="measured, %")
    axes.minorticks_off()


def lambda_figure(curves: Sequence[Curve], *, comparable: bool, runs: tuple[str, ...]) -> Figure | None:
    """Plot error and distortion along lambda, or None without a sweep; the paper's points where they are comparable."""
    if not curves:
        return None
    attacked = any(paper.DISTORTION in point.cells for curve in curves for point in curve.points)
    with style():
        figure = canvas(8.6 if attacked else 5.2, 3.6)
        left, *right = figure.subplots(1, 1 + attacked, squeeze=False)[0]
        for index, curve in enumerate(curves):
            alone = len(curves) == 1
            # Of one curve, train and test have a colour each; of several, each curve has one.
            colours = (ORANGE, BLUE) if alone else (COLOURS[index % len(COLOURS)],) * 2
            markers = ("s", "o") if alone else (MARKERS[index % len(MARKERS)],) * 2
            prefix = "" if alone else f"{curve.name}: "
            aside = _ASIDE * (2 * index + 1.5 - len(curves))
            dashed = {"linestyle": "--", "markerfacecolor": "white"}
            _line(left, curve, paper.TRAIN_ERROR, colours[0], markers[0], f"{prefix}train", aside - _ASIDE, dashed)
            _line(left, curve, paper.TEST_ERROR, colours[1], markers[1], f"{prefix}test", aside, {})
            for axes in right:
                _line(axes, curve, paper.DISTORTION, colours[1], markers[1], curve.name, aside - _ASIDE / 2, {})
        for axes, label in zip((left, *right), ("error, %", "mean distortion"), strict=False):
            if comparable:
                _papers(axes, curves, (paper.TRAIN_ERROR, paper.TEST_ERROR) if axes is left else (paper.DISTORTION,))
            if any(p.weight_decay == 0 for curve in curves for p in curve.points):
                smallest = min(p.weight_decay for curve in curves for p in curve.points if p.weight_decay > 0)
                axes.set_xscale("symlog", linthresh=smallest)
            else:
                axes.set_xscale("log")
            axes.set(xlabel="weight decay λ", ylabel=label)
            axes.set_ylim(bottom=0)
            axes.grid(axis="y")
            axes.minorticks_off()
        if len(curves) > 3:
            figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        else:
            left.legend()
    names = ", ".join(curve.name for curve in curves)
    what = "error (left) and mean distortion of adversarial examples (right)" if attacked else "error"
    shown = " Hollow grey circles are the paper's." if comparable else ""
    return chart(
        figure,
        key="lambda",
        title="Error and distortion along λ",
        caption=f"{names}: {what} against weight decay, with 95 % intervals. Points of one λ are drawn side by "
        f"side.{shown}",
        alt=f"Line charts over weight decay for {names}: {what}.",
        runs=runs,
    )


def _line(
    axes: Axes, curve: Curve, column: str, colour: str, marker: str, label: str, aside: float, look: Mapping[str, str]
) -> None:
    """Plot a column of a curve, moved aside by so many points, so that no two series cover each other."""
    points = [(p.weight_decay, p.cells[column]) for p in curve.points if column in p.cells]
    x, y = [decay for decay, _ in points], [cell.value for _, cell in points]
    moved = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    intervals = [cell.interval or Interval(cell.value, cell.value) for _, cell in points]
    axes.update_datalim([(at, end) for at, interval in zip(x, intervals, strict=True) for end in interval])
    axes.errorbar(
        *(x, y),
        yerr=error_bars(y, [cell.interval for _, cell in points]),
        transform=moved,
        **{"color": colour, "marker": marker, "markersize": 5, "elinewidth": 1, "capsize": 2, "label": label, **look},
    )


def _papers(axes: Axes, curves: Sequence[Curve], columns: Sequence[str]) -> None:
    """Circle the paper's points."""
    cells = [(p.weight_decay, p.cells.get(column)) for curve in curves for p in curve.points for column in columns]
    printed = [(decay, cell.paper) for decay, cell in cells if cell is not None and cell.paper is not None]
    if printed:
        axes.plot(*zip(*printed, strict=True), "o", color=GREY, markerfacecolor="none", markersize=11, zorder=1)
        axes.plot([], [], "o", color=GREY, markerfacecolor="none", markersize=9, label="paper")


def distortion_figure(sets: Sequence[MeasuredSet], networks: Sequence[Network], *, comparable: bool) -> Figure | None:
    """Plot a histogram of the distortion of each network's adversarial examples; None without any."""
    labels, configs = display_labels(networks), {n.name: n.config for n in networks}
    groups: dict[tuple[str, str, str], list[MeasuredSet]] = {}
    for _, chosen in variants(s for s in sets if s.amplify is None and s.num_success)[:1]:
        for one in chosen:
            key = pool_of(one.split), set_label(labels, one), one.subset
            groups.setdefault(key, []).append(one)
    if not groups:
        return None
    order = network_order(networks)
    keys = sorted(groups, key=lambda k: (order.get(groups[k][0].source or "", len(order)), k))
    values = {key: np.concatenate([s.distortion.numpy() for s in groups[key]]) for key in keys}
    edges = np.linspace(0, max(float(v.max()) for v in values.values()) * 1.01 or 1.0, 61)
    with style():
        figure = canvas(8.6, 0.72 * len(keys) + 0.9)
        rows = figure.subplots(len(keys), 1, sharex=True, squeeze=False)[:, 0]
        for axes, key in zip(rows, keys, strict=True):
            config = configs.get(groups[key][0].source or "", {})
            place = "table1" if key[0] == FULL else "table3", paper.network_name(config), paper.DISTORTION
            printed = paper.value(*place) if comparable and paper.is_paper_data(config) else None
            _histogram(axes, f"{key[1]}\n{key[2]} images", values[key], edges, printed)
        rows[-1].set_xlabel("distortion of an image (per-pixel RMS)")
    marks = "A line marks the mean" + (", a triangle the paper's mean." if comparable else ".")
    return chart(
        figure,
        key="distortions",
        title="Distortion of the adversarial examples",
        caption=f"Histogram of the distortion of each network's adversarial examples, as shares of its images. {marks}",
        alt="Histograms of the per-pixel RMS distortion, one for each network.",
        runs=(s.name for key in keys for s in groups[key]),
    )


def _histogram(axes: Axes, label: str, values: np.ndarray, edges: np.ndarray, printed: float | None) -> None:
    mean = float(values.mean())
    counts, _ = np.histogram(values, edges)
    axes.stairs(counts / counts.sum(), edges, fill=True, color=BLUE, alpha=0.75)
    axes.axvline(mean, color=INK, linewidth=1.2)
    if printed is not None:
        axes.plot([printed], [0], marker="^", color=ORANGE, markersize=8, clip_on=False, zorder=5)
    axes.set(yticks=[], xlim=(0, edges[-1]))
    axes.spines["left"].set_visible(False)
    axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    beside = f"mean {size_text(mean)}" + (f", paper {short(printed)}" if printed is not None else "")
    axes.text(1, 0.9, beside, transform=axes.transAxes, ha="right", va="top", fontsize=9)

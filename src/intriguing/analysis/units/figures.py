"""Figures of the units section: sheets of top images, scores, the rotation, ablation, seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

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
    lay_out,
    style,
)
from intriguing.analysis.gallery import Panel, gallery
from intriguing.analysis.units.evidence import Agreement, layers_of, mean_with_interval, of_layer
from intriguing.analysis.units.measure import RANDOM, UNIT, UNTRAINED, LayerScores
from intriguing.analysis.units.tables import TITLES, ScoresByLabel, short_layer, stem
from intriguing.results import Figure
from intriguing.statistics.intervals import Interval, t_interval
from intriguing.units import SCORES

LARGE = 64
"""Pixels of the longer side from which images are photographs."""
_FAR = 30
"""Times the usual number, from which one makes its axis logarithmic."""
_SWEPT = ("purity", "pixel_similarity", "feature_similarity", "lpips_similarity", "selectivity")


def sheet(label: str, run: str, one: LayerScores, images: dict[str, Tensor], words: str) -> Figure:
    """Show top images along units and along random directions (Figures 1 and 2 on MNIST, 3 and 4 on photographs).

    Args:
        label: of the network.
        run: name of its run.
        one: the layer.
        images: basis to (rows, k, C, H, W).
        words: description of the images, for the caption.
    """
    rows, columns = (max(part.shape[i] for part in images.values()) for i in (0, 1))
    panels = [
        Panel(
            tiles=[list(row) for row in part],
            title="units" if basis == UNIT else "random directions",
            rows=[str(int(one.shown[i])) if basis == UNIT else f"v{i + 1}" for i in range(len(part))],
        )
        for basis, part in images.items()
    ]
    # Photographs want the width of the page: units above, directions below.
    large = max(max(part.shape[-2:]) for part in images.values()) >= LARGE
    with style():
        figure = gallery(panels, stacked=large)
    places = ("above", "below") if large else ("on the left", "on the right")
    unit, random = (float(one.scores[basis]["purity"].nanmean()) for basis in (UNIT, RANDOM))
    return chart(
        figure,
        key=f"units_{stem(label)}_{stem(short_layer(one.layer))}",
        title="Top images",
        detail=f"{label}, {short_layer(one.layer)}",
        caption=f"Each row shows the {columns} images that excite one direction of the layer most, strongest "
        f"first: single units {places[0]}, random directions (isotropic, normalised) {places[1]}. {words}",
        note="Mean purity over all measured directions of this network: "
        f"units {unit:.3f}, random directions {random:.3f}.",
        alt=f"Two panels of images: the top images of {rows} units and of {rows} random directions of {label}.",
        runs=(run,),
    )


def score_figure(measured: ScoresByLabel, controls: ScoresByLabel, runs: Sequence[str]) -> Figure | None:
    """Plot every score of every basis, layer by layer."""
    lines = [(label, layer) for label, results in measured.items() for layer in layers_of(results)]
    scores = [s for s in SCORES if any(s in one.scores[UNIT] for r in measured.values() for n in r for one in n)]
    if not lines or not scores:
        return None
    bases = list(dict.fromkeys(b for r in measured.values() for n in r for one in n for b in one.scores))
    bases += [UNTRAINED + b for b in (UNIT, RANDOM) if any(controls.values())]
    with style():
        figure = canvas(1.75 * len(scores) + 1.6, 0.23 * len(lines) * (len(bases) + 1) + 1.3)
        panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
        for axes, score in zip(panels, scores, strict=True):
            drawn: list[float] = []
            for i, (label, layer) in enumerate(lines):
                for j, basis in enumerate(bases):
                    control = basis.startswith(UNTRAINED)
                    results = of_layer((controls if control else measured).get(label, ()), layer)
                    found = mean_with_interval(results, basis.removeprefix(UNTRAINED), score)
                    if found:
                        y = -(i * (len(bases) + 1) + j)
                        _dot(axes, found[0], y, found[1], basis)
                        drawn += [found[0], *(found[1] or ())]
            _scale(axes, drawn)
            axes.set_title(TITLES[score])
            axes.set_ylim(1 - len(lines) * (len(bases) + 1), 1)
            axes.grid(axis="x")
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0)
        ticks = [-(i * (len(bases) + 1) + j) for i in range(len(lines)) for j in range(len(bases))]
        names = [
            b if j else f"{label} {short_layer(layer)}: {b}" for label, layer in lines for j, b in enumerate(bases)
        ]
        panels[0].set_yticks(ticks, names, fontsize=7)
    return chart(
        figure,
        key="units_scores",
        title="Scores of every basis",
        caption="Mean over directions and seeds with its 95 % interval, as in the tables: units in blue, random "
        "directions in orange, other bases in grey; hollow markers before training. A higher score is more meaningful, "
        "except for the entropy.",
        alt=f"Dot plots of {len(scores)} scores for each basis of each layer.",
        runs=runs,
    )


def _scale(axes: Axes, drawn: Sequence[float]) -> None:
    """Take a logarithmic axis where a few numbers are so large that the others would be one point."""
    sizes = np.abs(np.asarray(drawn))
    usual = float(np.median(sizes)) if len(sizes) else 0.0
    if usual > 0 and sizes.max() > _FAR * usual:
        axes.set_xscale("symlog", linthresh=10.0 ** math.ceil(math.log10(usual)))
    else:
        axes.locator_params(axis="x", nbins=4)


def _dot(axes: Axes, value: float, y: float, interval: Sequence[float] | None, basis: str) -> None:
    plain = basis.removeprefix(UNTRAINED)
    colour = BLUE if plain == UNIT else ORANGE if plain == RANDOM else GREY
    if interval is not None:
        axes.plot([interval[0], interval[1]], [y, y], color=colour, linewidth=1.2)
    fill = "white" if basis.startswith(UNTRAINED) else colour
    axes.plot([value], [y], "o" if plain != RANDOM else "D", color=colour, markerfacecolor=fill, markersize=4.5)


def sweep_figure(measured: ScoresByLabel, fractions: Sequence[float], runs: Sequence[str]) -> Figure | None:
    """Plot scores along the way from the units to a random rotation of them."""
    lines = [
        (label, layer, of_layer(results, layer))
        for label, results in measured.items()
        for layer in layers_of(results)
        if any(one.sweep for one in of_layer(results, layer))
    ]
    scores = [s for s in _SWEPT if any(s in one.sweep for _, _, found in lines for one in found)]
    if not lines:
        return None
    with style():
        figure = canvas(2.7 * len(scores) + 0.4, 3.9)
        panels = figure.subplots(1, len(scores), squeeze=False)[0]
        for axes, score in zip(panels, scores, strict=True):
            for i, (label, layer, found) in enumerate(lines):
                means, bars = _points([one for one in found if score in one.sweep], score)
                axes.errorbar(
                    [0, *fractions],
                    means,
                    yerr=bars,
                    color=COLOURS[i % len(COLOURS)],
                    marker=MARKERS[i % len(MARKERS)],
                    markersize=4,
                    elinewidth=1,
                    label=f"{label} {short_layer(layer)}",
                )
            axes.set(title=TITLES[score], xlabel="share of the rotation")
            axes.grid(axis="y")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return chart(
        figure,
        key="units_sweep",
        title="From the units to a random basis",
        caption="Scores while the units are turned along a random rotation, 0 being the units themselves and 1 a "
        "random basis of the space they span. Mean over rotations and seeds. Bars are 95 % intervals of Student's t: "
        "over the rotations of one network, or over the means of several seeds; a single value has none. A falling "
        "score shows that the units' axes are special; a flat one, that only the space matters.",
        alt="Line charts of scores against the share of a random rotation.",
        runs=runs,
    )


def _points(found: Sequence[LayerScores], score: str) -> tuple[list[float], list[float]]:
    """Compute the mean and half its interval at the units and at each fraction; NaN for a single value.

    Over several seeds, the sample are the seeds' means, for rotations of one network are not further networks.
    """
    starts = torch.stack([one.scores[UNIT][score].nanmean() for one in found]).double()
    if len(found) > 1:
        samples = torch.stack([one.sweep[score].double().mean(0) for one in found])
    else:
        samples = found[0].sweep[score].double()
    means, bars = [], []
    for values in (starts, *samples.T):
        interval = t_interval(values) if bool(values.isfinite().all()) else None
        means.append(float(values.mean()))
        bars.append(math.nan if interval is None else (interval.high - interval.low) / 2)
    return means, bars


def ablation_figure(measured: ScoresByLabel, runs: Sequence[str]) -> Figure | None:
    """Plot the fall of accuracy without each unit against that without a random direction of equal variance."""
    panels_of = [
        (label, layer, [one.loss for one in of_layer(results, layer) if one.loss is not None])
        for label, results in measured.items()
        for layer in layers_of(results)
    ]
    panels_of = [one for one in panels_of if one[2]]
    if not panels_of:
        return None
    with style():
        figure, places = lay_out(len(panels_of), most=5, width=2.3, height=2.5, margin=(0.3, 0.2))
        for axes, (label, layer, losses) in zip(places, panels_of, strict=True):
            unit = 100 * torch.cat([loss.unit for loss in losses])
            random = 100 * torch.cat([loss.random for loss in losses])
            low, high = (float(end) for end in torch.cat([unit, random]).aminmax())
            margin = 0.06 * (high - low) or 0.1
            ends = [low - margin, high + margin]
            axes.plot(ends, ends, color=FAINT, linewidth=1, zorder=0)
            axes.plot(random, unit, "o", color=BLUE, markersize=3, alpha=0.6)
            axes.plot([random.mean()], [unit.mean()], "D", color=INK, markersize=6)
            axes.set(xlim=ends, ylim=ends, aspect="equal", title=f"{label}\n{short_layer(layer)}")
            axes.set(xlabel="random direction, points", ylabel="unit, points")
    return chart(
        figure,
        key="units_ablation",
        title="Ablation",
        caption="Fall of accuracy, in percentage points, when a unit is held at its mean (up), and when a random "
        "direction of equal variance is (across). Each dot is a unit, the diamond their mean; on the diagonal both "
        "falls are equal.",
        alt="Scatter plots of the fall of accuracy without a unit against that without a random direction.",
        runs=runs,
    )


def agreement_figure(agreements: Sequence[Agreement], runs: Sequence[str]) -> Figure | None:
    """Plot CKA, Procrustes and the matching of units across seeds, layer by layer."""
    if not agreements:
        return None
    series = (
        ("linear CKA", "cka"),
        ("Procrustes", "procrustes"),
        ("matched units", "matched"),
        ("after a rotation", "turned"),
    )
    with style():
        figure = canvas(1.15 * len(agreements) + 3.2, 3.4)
        axes = figure.subplots()
        for j, (name, key) in enumerate(series):
            found = [getattr(one, key) for one in agreements]
            means = [mean for mean, _, _ in found]
            bars = error_bars(means, [Interval(low, high) for _, low, high in found])
            x = [i + 0.12 * (j - 1.5) for i in range(len(found))]
            hollow = "white" if key == "turned" else COLOURS[j]
            axes.errorbar(
                x,
                means,
                yerr=bars,
                linestyle="none",
                color=COLOURS[j],
                marker=MARKERS[j],
                markerfacecolor=hollow,
                label=name,
            )
        axes.set_xticks(
            range(len(agreements)), [f"{one.label}\n{short_layer(one.layer)}" for one in agreements], fontsize=8
        )
        axes.set(ylim=(0, 1.03), ylabel="agreement of two seeds")
        axes.grid(axis="y")
        figure.legend(loc="outside right upper")
    return chart(
        figure,
        key="units_seeds",
        title="One architecture from different seeds",
        caption="Linear CKA and Procrustes compare spaces and do not depend on a rotation; matched units are "
        "correlations of one-to-one partners, hollow markers after a random rotation of one of the two. Mean, smallest "
        "and largest over pairs of seeds.",
        alt="Agreement of layers across seeds by four measures.",
        runs=runs,
    )

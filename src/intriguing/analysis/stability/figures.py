"""Figures of the stability section: amplification by layer, certificates against attacks, the penalty's curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from intriguing.analysis.drawing import BLUE, FAINT, GREY, INK, ORANGE, canvas, chart, error_bars, lay_out, style
from intriguing.analysis.stability.measure import Groups, NetworkStability
from intriguing.results import Figure
from intriguing.statistics.intervals import Interval

MOST_PANELS = 6


def amplification_figure(measured: Mapping[str, NetworkStability]) -> Figure | None:
    """Plot the amplification of a perturbation after each layer, adversarial and random, beside the bound; by label."""
    shown = _spread([(label, m) for label, m in measured.items() if m.adversarial and len(m.layers) > 1])
    if not shown:
        return None
    with style():
        figure, places = lay_out(len(shown), most=3, width=3.1, height=3.3)
        for axes, (label, one) in zip(places, shown, strict=True):
            at = np.arange(1, len(one.layers) + 1)
            axes.plot(at, one.bounds, "--", color=GREY, label="product of the bounds")
            axes.plot(at, one.adversarial, "o-", color=ORANGE, label="adversarial")
            axes.plot(at, one.random, "s-", color=BLUE, markerfacecolor="white", label="random, equal norm")
            axes.set(yscale="log", title=f"{label}, seed {one.network.seed}", xlabel="after layer")
            axes.set_xticks(at, one.layers, rotation=60, ha="right", fontsize=8)
            axes.grid(axis="y")
        first = figure.axes[0]
        first.set_ylabel("|φₖ(x + r) − φₖ(x)| / |r|")
        figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return chart(
        figure,
        key="amplification",
        title="Amplification, layer by layer",
        caption="Mean growth of a perturbation of the image after each layer, over images: adversarial perturbations, "
        "random ones of equal norm, and the product of the bounds up to the layer, which no perturbation exceeds. "
        f"{_seeds(shown)}",
        alt="Line charts of the amplification of adversarial and random perturbations by layer, one for each network.",
        runs=(run for _, m in shown for run in m.runs),
    )


def certificate_figure(measured: Mapping[str, NetworkStability]) -> Figure | None:
    """Plot the certified radius against the distance that an attack found, image by image; by label."""
    shown = _spread([(label, m) for label, m in measured.items() if len(m.distances)])
    if not shown:
        return None
    with style():
        figure, places = lay_out(len(shown), most=3, width=3.1, height=3.3)
        for axes, (label, one) in zip(places, shown, strict=True):
            distances, radii = one.distances.numpy(), one.radii.numpy()
            highest = float(max(distances.max(), 1e-6)) * 1.05
            axes.plot([0, highest], [0, highest], color=INK, linewidth=1)
            axes.plot(distances, radii, ".", color=BLUE, alpha=0.5, markersize=4)
            certain = float(radii.sum() / max(distances.sum(), 1e-12))
            axes.set(xlim=(0, highest), ylim=(0, highest), aspect="equal", title=f"{label}, seed {one.network.seed}")
            axes.set(xlabel="distance found (L2)", ylabel="certified radius (L2)")
            axes.text(0.04, 0.95, f"{100 * certain:.0f} % of the\ndistance", transform=axes.transAxes, va="top")
    return chart(
        figure,
        key="certificates",
        title="Certified radius against found distance",
        caption="Each point is an image: the distance at which an adversarial example was found (across), and the "
        "radius within which none exists (up). No point may lie above the diagonal. The text compares the sums. "
        f"{_seeds(shown)}",
        alt="Scatter plots of certified radius against found adversarial distance, one for each network.",
        runs=(run for _, m in shown for run in m.runs),
    )


def _seeds(shown: Sequence[tuple[str, NetworkStability]]) -> str:
    """Name the seeds of the networks that are drawn: one of each."""
    seeds = sorted({one.network.seed for _, one in shown})
    return f"One network a label, of {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}."


PENALTIES = {
    "log_product": "strength of log(1 + product)",
    "margin": "radius of the margin (L2)",
}


def penalty_figure(groups: Groups, radius: float) -> Figure | None:
    """Plot bound, test error, distance and certified share along a penalty's strength, one row for each penalty.

    Returns:
        The figure; None where no penalty has two strengths, 0 among them.
    """
    sweeps = _sweeps(groups)
    if not sweeps:
        return None
    panels: list[tuple[str, Callable[[NetworkStability], float]]] = [
        ("certified Lipschitz constant", lambda m: m.constant),
        ("test error, %", lambda m: m.network.error("test").percent),
        ("mean distance found (L2)", lambda m: float(m.distances.mean()) if len(m.distances) else np.nan),
        (f"certified at {radius:g}, %", lambda m: 100 * float((m.radii >= radius).double().mean())),
    ]
    kinds = sorted({kind for kind, _ in sweeps})
    with style():
        figure = canvas(10.4, 3.2 * len(kinds))
        for row, kind in zip(figure.subplots(len(kinds), 4, squeeze=False, sharey="col"), kinds, strict=True):
            families = [(name, sweep) for (one, name), sweep in sweeps.items() if one == kind]
            for axes, (label, value) in zip(row, panels, strict=True):
                for colour, (name, sweep) in zip((BLUE, ORANGE, GREY), families, strict=False):
                    _sweep(axes, sweep, value, colour, name)
                axes.set(xlabel=PENALTIES.get(kind, kind), ylabel=label)
                axes.set_ylim(bottom=0)
                axes.grid(axis="y", color=FAINT)
            if len(families) > 1:
                row[0].legend()
    return chart(
        figure,
        key="penalty",
        title="The penalty on the bounds",
        caption="Effect of a penalty on the layers' norms, by strength: mean and range over seeds. One penalty adds "
        "the logarithm of the product to the loss; a margin trains on the worst case that the product allows within a "
        "radius.",
        alt="Line charts of the certified constant, the test error, the adversarial distance and the certified share.",
        runs=(run for g in sweeps.values() for ms in g for m in ms for run in m.runs),
    )


def _sweeps(groups: Groups) -> dict[tuple[str, str], list[Sequence[NetworkStability]]]:
    """Group the networks by kind of penalty and label of the family, in the order of the strength."""
    names = {members[0].family: label for label, members in groups.items() if members[0].kind}
    names |= {members[0].family: label for label, members in groups.items() if not members[0].kind}
    sweeps: dict[tuple[str, str], list[Sequence[NetworkStability]]] = {}
    for members in groups.values():
        family, kind = members[0].family, members[0].kind
        kinds = [kind] if kind else {m[0].kind for m in groups.values() if m[0].kind and m[0].family == family}
        for kind in kinds:  # a network without a penalty is the start of every sweep
            sweeps.setdefault((kind, names[family]), []).append(members)
    return {key: sorted(one, key=lambda ms: ms[0].strength) for key, one in sorted(sweeps.items()) if len(one) > 1}


def _sweep(
    axes: Axes,
    sweep: Sequence[Sequence[NetworkStability]],
    value: Callable[[NetworkStability], float],
    colour: str,
    name: str,
) -> None:
    strengths = [members[0].strength for members in sweep]
    values = [np.array([value(m) for m in members]) for members in sweep]
    means = [float(v.mean()) for v in values]
    reach = error_bars(means, [Interval(v.min(), v.max()) for v in values])
    axes.errorbar(strengths, means, yerr=reach, color=colour, marker="o", capsize=2, label=name)
    positive = [s for s in strengths if s > 0]
    if max(positive) > 20 * min(positive):
        axes.set_xscale("symlog", linthresh=min(positive))
    axes.set_xticks(strengths, [f"{s:g}" for s in strengths])
    axes.minorticks_off()


def _spread(measured: Sequence[tuple[str, NetworkStability]]) -> list[tuple[str, NetworkStability]]:
    """Choose at most `MOST_PANELS` of them, evenly."""
    if len(measured) <= MOST_PANELS:
        return list(measured)
    return [measured[round(i * (len(measured) - 1) / (MOST_PANELS - 1))] for i in range(MOST_PANELS)]

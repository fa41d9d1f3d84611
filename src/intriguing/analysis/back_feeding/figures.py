"""Figures of the back-feeding section: test error over training, and robustness against test error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from intriguing.analysis.back_feeding.arms import Arm
from intriguing.analysis.drawing import COLOURS, GREY, MARKERS, canvas, chart, style
from intriguing.results import Figure

CURVE = "curve/test_error"


def curves_figure(key: str, name: str, arms: Sequence[Arm]) -> Figure | None:
    """Plot the test error over training, one line for each arm with a band from the lowest to the highest seed.

    Args:
        key: of the network's table.
        name: of the network; empty where it is the only one.
        arms: its arms; those without a logged curve are left out.

    Returns:
        The figure; None unless two arms have curves.
    """
    drawn = [arm for arm in arms if all(CURVE in one.curves for one in arm.networks.values())]
    if len(drawn) < 2:
        return None
    with style():
        figure = canvas(8.6, 4.6)
        axes = figure.subplots()
        for index, arm in enumerate(drawn):
            curves = [list(one.curves[CURVE]) for one in arm.networks.values()]
            length = min(map(len, curves))
            values = 100 * np.array([curve[:length] for curve in curves])
            epochs = np.arange(1, length + 1)
            look = _look(index)
            axes.fill_between(epochs, values.min(0), values.max(0), color=look["color"], alpha=0.15, linewidth=0)
            axes.plot(epochs, values.mean(0), label=arm.name, markevery=max(1, length // 8), markersize=4, **look)
        last = [100 * one.curves[CURVE][-1] for arm in drawn for one in arm.networks.values()]
        axes.set(xlabel="epoch", ylabel="test error, %", ylim=(0.9 * min(last), 2.2 * float(np.median(last))))
        axes.grid(axis="y")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return chart(
        figure,
        key=f"{key}_curves",
        title="Test error over training",
        detail=name,
        caption="Test error after each epoch, the mean over seeds, with a band from the lowest to the highest seed.",
        alt=f"Line chart of the test error over epochs for {', '.join(arm.name for arm in drawn)}.",
        runs=(run for arm in drawn for run in arm.runs),
    )


def scatter_figure(key: str, name: str, arms: Sequence[Arm]) -> Figure | None:
    """Plot the distortion that fools each network against its test error, one point for each run.

    Args:
        key: of the network's table.
        name: of the network; empty where it is the only one.
        arms: its arms.

    Returns:
        The figure; None where no arm was attacked.
    """
    attack = next((one for one in ("nearest", "lbfgs") if any(arm.distortions(one) for arm in arms)), None)
    if attack is None:
        return None
    with style():
        figure = canvas(8.6, 4.6)
        axes = figure.subplots()
        for index, arm in enumerate(arms):
            error, distortion = arm.errors(), arm.distortions(attack)
            seeds = [seed for seed in arm.seeds if seed in distortion]
            axes.plot(
                *([error[s] for s in seeds], [distortion[s] for s in seeds]),
                **{"linestyle": "", "label": arm.name, **_look(index)},
            )
        if arms[0].mnist:
            axes.axvline(1.2, color=GREY, linewidth=1, linestyle="--")
        axes.set(xlabel="test error, %", ylabel=f"mean distortion that {attack} needs")
        axes.grid()
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return chart(
        figure,
        key=f"{key}_robustness",
        title="Robustness against test error",
        detail=name,
        caption=f"One point for each run: test error, and the mean per-pixel RMS distortion with which {attack} fools "
        "it." + (" The dashed line is at 1.2 %, the upper limit of the paper's network." if arms[0].mnist else ""),
        alt="Scatter plot of the distortion needed to fool a network against its test error, one colour for each way "
        "of training.",
        runs=(run for arm in arms for run in (*arm.runs, *(s.name for s in arm.of_attack(attack).values()))),
    )


def _look(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}

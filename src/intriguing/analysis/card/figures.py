"""One small picture for each part of a card, as SVG whose colours are those of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from intriguing.analysis.card.numbers import Number
from intriguing.analysis.card.values import CardValues, CurvePoint
from intriguing.analysis.drawing import (
    AMBER,
    BLUE,
    BROWN,
    COLOURS,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    canvas,
    style,
    svg,
)

_SIZE = (4.6, 2.7)
_TALL = 0.27  # inches of a row of bars


def drawn(draw: Callable[[Axes], None], *, height: float = _SIZE[1]) -> str:
    """Draw one picture of the page's usual width."""
    with style():
        figure = canvas(_SIZE[0], height)
        draw(figure.subplots())
        return svg(figure)


def security(cards: Sequence[CardValues]) -> str:
    """Draw the accuracy against L2 of each card, and the certified share of a single one."""

    def draw(axes: Axes) -> None:
        end = max((card.security_curve[-1].at for card in cards if card.security_curve), default=0.0) or 1.0
        for place, card in enumerate(cards):
            colour = COLOURS[place % len(COLOURS)]
            if len(cards) > 1:
                label = card.name if len(card.name) <= 28 else card.name[:27] + "…"
            else:
                label = "not fooled by the attack"
            _curve(axes, card.security_curve, colour, label)
            if card.certified_curve and len(cards) == 1:
                _curve(axes, card.certified_curve, GREEN, "certified", dash="--")
        axes.set(xlabel="L2 norm of the perturbation", ylabel="share of images, %", xlim=(0, end), ylim=(0, 102))
        axes.legend(loc="upper right")

    return drawn(draw, height=3.0 if len(cards) == 1 else 3.6)


def distances(card: CardValues) -> str:
    """Draw a histogram of the distances with their quantiles."""
    found = card.l2
    assert found is not None
    finite = np.array([one for one in found.distances if math.isfinite(one)])

    def draw(axes: Axes) -> None:
        if len(finite):
            axes.hist(finite, bins=min(30, max(6, int(math.sqrt(len(finite))) + 2)), color=SKY, alpha=0.8)
        for number, colour, label in (
            (found.p5, ORANGE, "5 %"),
            (found.median, BLUE, "median"),
            (found.p95, GREY, "95 %"),
        ):
            if math.isfinite(number.value):
                axes.axvline(number.value, color=colour, linewidth=1.6, label=label)
                if math.isfinite(number.high):
                    axes.axvspan(number.low, number.high, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel="L2 distance to the nearest adversarial image", ylabel="images", xlim=(0, None))
        axes.legend(loc="upper right")

    return drawn(draw)


def calibration(card: CardValues) -> str:
    """Draw accuracy against confidence."""
    found = card.calibration
    assert found is not None

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, label="calibrated")
        x, y = [100 * one.confidence for one in found.bins], [100 * one.accuracy for one in found.bins]
        sizes = [12 + 120 * one.n / card.images for one in found.bins]
        axes.scatter(x, y, s=sizes, color=BLUE, alpha=0.85, label="images, by number", zorder=3)
        axes.set(xlabel="confidence, %", ylabel="right, %", xlim=(0, 103), ylim=(-3, 103))
        axes.legend(loc="upper left")

    return drawn(draw)


def noise(card: CardValues) -> str:
    """Draw the accuracy in noise."""

    def draw(axes: Axes) -> None:
        clean = CurvePoint(0.0, card.accuracy)
        _curve(axes, (clean, *card.noise_curve), PURPLE, "in noise")
        axes.set(xlabel="standard deviation of the noise, of a pixel in [0, 1]", ylabel="right, %", ylim=(0, 102))
        axes.set_xlim(0, card.noise_curve[-1].at)

    return drawn(draw)


def corruptions(card: CardValues) -> str:
    """Draw the accuracy of each corruption against its strength."""
    names = list(dict.fromkeys(one.name for one in card.corruptions))

    def draw(axes: Axes) -> None:
        for name, colour in zip(names, (BLUE, ORANGE, GREEN, PURPLE, AMBER, BROWN, INK, SKY), strict=False):
            points = [CurvePoint(one.strength, one.accuracy) for one in card.corruptions if one.name == name]
            _curve(axes, (CurvePoint(0, card.accuracy), *points), colour, name, marker="o")
        axes.set(xlabel="strength", ylabel="right, %", ylim=(0, 102), xticks=[0, 1, 2, 3])
        axes.set_xticklabels(["none", "1", "2", "3"])
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    return drawn(draw, height=2.9)


def shares(rows: Sequence[tuple[str, Number, str]], xlabel: str) -> str:
    """Draw shares as bars with their intervals: label, number, colour."""

    def draw(axes: Axes) -> None:
        places = range(len(rows))
        axes.barh(places, [100 * one.value for _, one, _ in rows], color=[c for *_, c in rows], height=0.62, alpha=0.85)
        _whiskers(axes, [one.times(100) for _, one, _ in rows])
        axes.set_yticks(list(places), [name for name, *_ in rows])
        axes.invert_yaxis()
        axes.set(xlabel=xlabel, xlim=(0, max(5.0, min(100.0, 115 * max(one.high for _, one, _ in rows)))))

    return drawn(draw, height=0.75 + _TALL * len(rows))


def prediction(card: CardValues) -> str:
    """Draw the predicted beside the measured distance."""
    found = card.noise_prediction
    assert found is not None
    rows = [("predicted from noise", found.predicted, PURPLE), ("measured", found.measured, BLUE)]

    def draw(axes: Axes) -> None:
        values = [one.value if math.isfinite(one.value) else 0.0 for _, one, _ in rows]
        axes.barh(range(2), values, color=[c for *_, c in rows], height=0.62, alpha=0.85)
        _whiskers(axes, [one for _, one, _ in rows])
        axes.set_yticks([0, 1], [name for name, *_ in rows])
        axes.invert_yaxis()
        axes.set(xlabel="typical L2 distance", xlim=(0, None))

    return drawn(draw, height=1.4)


def layers(card: CardValues) -> str:
    """Draw the amplification after each layer, and the running product of the bounds."""
    found = card.layers
    assert found is not None

    def draw(axes: Axes) -> None:
        places = np.arange(1, len(found) + 1)
        product = np.cumprod([one.bound for one in found])
        axes.plot(places, product, color=GREY, linestyle="--", label="product of bounds")
        for values, colour, label in (
            ([one.adversarial for one in found], ORANGE, "adversarial"),
            ([one.noise for one in found], PURPLE, "random"),
        ):
            if all(map(math.isfinite, values)):
                axes.plot(places, values, color=colour, marker="o", markersize=3, label=label)
        axes.set(xlabel="after layer", ylabel="amplification", yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper left")

    return drawn(draw)


def cost(card: CardValues) -> str:
    """Draw the seconds of each part."""
    found = sorted(card.cost.seconds.items(), key=lambda one: -one[1])

    def draw(axes: Axes) -> None:
        axes.barh(range(len(found)), [seconds for _, seconds in found], color=GREY, height=0.62, alpha=0.85)
        axes.set_yticks(range(len(found)), [name for name, _ in found])
        axes.invert_yaxis()
        axes.set(xlabel="seconds")

    return drawn(draw, height=0.75 + _TALL * max(1, len(found)))


def _curve(
    axes: Axes, points: Sequence[CurvePoint], colour: str, label: str, *, dash: str = "-", marker: str | None = None
) -> None:
    if not points:
        return
    x = [point.at for point in points]
    axes.plot(
        x,
        [100 * point.accuracy.value for point in points],
        color=colour,
        linestyle=dash,
        marker=marker,
        markersize=3,
        linewidth=1.6,
        label=label,
    )
    if marker is None:
        low, high = ([100 * getattr(point.accuracy, end) for point in points] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.grid(axis="y")


def _whiskers(axes: Axes, numbers: Sequence[Number]) -> None:
    for place, one in enumerate(numbers):
        if math.isfinite(one.low) and math.isfinite(one.high):
            axes.plot([one.low, one.high], [place, place], color=INK, linewidth=1.1, solid_capstyle="butt")

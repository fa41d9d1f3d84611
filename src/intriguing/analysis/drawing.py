"""Style of every figure: one canvas, one palette, reproducible bytes. Nothing here depends on the plotted data."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from intriguing.results import Figure
from intriguing.statistics.intervals import Interval

# Okabe and Ito's palette: distinct under any kind of colour vision.
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#aa5c92", "#56b4e9"
INK, FAINT, GREY = "#1b1f24", "#c9ced6", "#7a828c"
COLOURS: Sequence[str] = (BLUE, ORANGE, GREEN, PURPLE, SKY, "#e69f00", "#8a5a2b", INK)
MARKERS: Sequence[str] = ("o", "s", "^", "D", "v")
DPI = 110

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "intriguing",
}


def style():
    """Return a context in which a canvas is made, drawn and saved; matplotlib's global settings stay unchanged."""
    return matplotlib.rc_context(_STYLE)


def canvas(width: float, height: float) -> Canvas:
    """Make an empty figure in inches, without pyplot's global state."""
    return Canvas(figsize=(width, height), dpi=DPI, layout="constrained")


def png(figure: Canvas) -> bytes:
    """Render a figure as PNG on white, without a date or a version."""
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def svg(figure: Canvas) -> str:
    """Render a figure as SVG markup for a page: transparent, colours as CSS variables, text as text."""
    FigureCanvasSVG(figure)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    for colour, name in (
        (INK, "ink"),
        (FAINT, "line"),
        (GREY, "soft"),
        (BLUE, "blue"),
        (ORANGE, "orange"),
        ("#ffffff", "ground"),
    ):
        text = text.replace(colour.lower(), f"var(--{name}, {colour})")
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # A page scales the drawing to its own width.
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )


def chart(figure: Canvas, *, runs: Iterable[str], **words: str) -> Figure:
    """Make a figure of a report from a canvas of lines, as PNG and SVG.

    Args:
        figure: drawn canvas.
        runs: names of the runs behind it.
        words: key, title, caption, alt and, where there are any, number and detail of the `Figure`.
    """
    with style():
        return Figure(png=png(figure), svg=svg(figure), runs=tuple(dict.fromkeys(runs)), **words)


def photograph(figure: Canvas, *, runs: Iterable[str], **words: str) -> Figure:
    """Make a figure of a report from a canvas of images, as PNG alone; arguments as for `chart`."""
    with style():
        return Figure(png=png(figure), runs=tuple(dict.fromkeys(runs)), **words)


def error_bars(centres: Sequence[float], intervals: Iterable[Interval | None]) -> np.ndarray:
    """Return (2, M) lengths of error bars below and above; 0 where there is no interval."""
    ends = [(c, i or Interval(c, c)) for c, i in zip(centres, intervals, strict=True)]
    return np.array([[max(0, c - i.low), max(0, i.high - c)] for c, i in ends]).reshape(-1, 2).T


def lay_out(
    count: int, *, most: int, width: float, height: float, margin: tuple[float, float] = (0, 0)
) -> tuple[Canvas, list[Axes]]:
    """Make a canvas with ``count`` axes of a size in inches each, at most ``most`` in a row."""
    columns = min(most, count)
    lines = -(-count // columns)
    figure = canvas(width * columns + margin[0], height * lines + margin[1])
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def bare(axes: Axes) -> None:
    """Remove frame and ticks of axes for pictures."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def picture(image: np.ndarray) -> np.ndarray:
    """Reorder a (C, H, W) image for imshow: (H, W) if grey, (H, W, C) in colour; clipped to [0, 1]."""
    image = np.clip(image, 0, 1)
    return image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)


def show(axes: Axes, image: np.ndarray) -> None:
    """Draw a (C, H, W) image in [0, 1] on bare axes."""
    axes.imshow(picture(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    bare(axes)

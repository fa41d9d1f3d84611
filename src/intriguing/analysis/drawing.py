"""Style of every figure: one canvas, one palette, reproducible bytes. Nothing here depends on the plotted data."""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from PIL import Image

from intriguing.results import Figure
from intriguing.statistics.intervals import Interval

# Okabe and Ito's palette: distinct under any kind of colour vision.
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#aa5c92", "#56b4e9"
AMBER, BROWN = "#e69f00", "#8a5a2b"
INK, FAINT, GREY = "#1b1f24", "#c9ced6", "#7a828c"
COLOURS: Sequence[str] = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, BROWN, INK)
VARIABLES: Mapping[str, str] = {
    INK: "ink",
    FAINT: "line",
    GREY: "soft",
    "#ffffff": "ground",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PURPLE: "purple",
    SKY: "sky",
    AMBER: "amber",
    BROWN: "brown",
}
"""The CSS variable of each colour: a page sets them for its light and its dark ground."""
MARKERS: Sequence[str] = ("o", "s", "^", "D", "v")
DPI = 110
_LARGE = 300_000  # bytes of a picture within a drawing that is compressed
_PICTURE = re.compile(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)")
FONT = "DejaVu Sans"

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": [FONT],
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
    "pdf.fonttype": 42,
    "image.composite_image": False,
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
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name}, {colour})")
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = _PICTURE.sub(_smaller, text)
    # A page scales the drawing to its own width.
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )


def _smaller(found: re.Match[str]) -> str:
    """Compress a large picture of a drawing as WebP, which keeps transparent gaps."""
    data = base64.b64decode(found[1])
    if len(data) <= _LARGE:
        return found[0]
    stream = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.save(stream, format="webp", quality=90, method=4)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def pdf(figure: Canvas) -> bytes:
    """Render a figure as PDF with its fonts, without a date or a version."""
    FigureCanvasPdf(figure)
    stream = io.BytesIO()
    nothing = dict.fromkeys(("CreationDate", "ModDate", "Creator", "Producer"))
    with _quiet("fontTools"):
        figure.savefig(stream, format="pdf", transparent=True, metadata=nothing)
    return stream.getvalue()


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library from logging each of its steps."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def chart(figure: Canvas, *, runs: Iterable[str], **words: str) -> Figure:
    """Make a figure of a report from a canvas, as PNG, SVG and PDF.

    Args:
        figure: drawn canvas.
        runs: names of the runs behind it.
        words: key, title, caption, alt and, where there are any, number, detail and note of the `Figure`.
    """
    with style():
        image = png(figure)
        figure.set_layout_engine("none")  # laid out once: the other two are alike
        return Figure(png=image, svg=svg(figure), pdf=pdf(figure), runs=tuple(dict.fromkeys(runs)), **words)


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

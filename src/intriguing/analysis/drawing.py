"""How every figure looks: one canvas, one palette, reproducible bytes. Nothing here knows what is drawn."""

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

# Okabe and Ito's palette: told apart with any kind of colour vision.
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
    """Context in which a canvas is made, drawn and saved; matplotlib's global settings stay as they were."""
    return matplotlib.rc_context(_STYLE)


def canvas(width: float, height: float) -> Canvas:
    """An empty figure in inches, without pyplot's global state."""
    return Canvas(figsize=(width, height), dpi=DPI, layout="constrained")


def png(figure: Canvas) -> bytes:
    """The figure as PNG on white, without a date or a version."""
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def svg(figure: Canvas) -> str:
    """The figure as SVG markup for a page: transparent, colours by the page's own names, text as text."""
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


def chart(figure: Canvas, *, key: str, title: str, caption: str, alt: str, runs: Iterable[str]) -> Figure:
    """A drawn canvas as a figure of a report, as picture and as drawing."""
    with style():
        images = {"png": png(figure), "svg": svg(figure)}
    return Figure(key=key, title=title, caption=caption, alt=alt, runs=tuple(runs), **images)


def photograph(figure: Canvas, *, key: str, title: str, caption: str, alt: str, runs: Iterable[str]) -> Figure:
    """A canvas of images as a figure of a report, as picture alone."""
    with style():
        image = png(figure)
    return Figure(key=key, title=title, caption=caption, alt=alt, runs=tuple(runs), png=image)


def lay_out(
    count: int, *, most: int, width: float, height: float, margin: tuple[float, float] = (0, 0)
) -> tuple[Canvas, list[Axes]]:
    """A canvas and ``count`` axes on it, at most ``most`` in a line, of a size in inches each."""
    columns = min(most, count)
    lines = -(-count // columns)
    figure = canvas(width * columns + margin[0], height * lines + margin[1])
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def bare(axes: Axes) -> None:
    """No frame and no ticks: for pictures."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def picture(image: np.ndarray) -> np.ndarray:
    """(C, H, W) to what imshow wants: (H, W) if grey, (H, W, C) in colour; clipped to [0, 1] for the screen."""
    image = np.clip(image, 0, 1)
    return image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)


def show(axes: Axes, image: np.ndarray) -> None:
    """Draws a (C, H, W) image in [0, 1] on bare axes."""
    axes.imshow(picture(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    bare(axes)

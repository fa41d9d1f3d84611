"""Figures of images: panels of tiles with their names beside them and words above, without empty space around.

Panels are side by side, or one below the other where their images are photographs that want the width of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from textwrap import shorten, wrap

import numpy as np
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from torch import Tensor

from intriguing.analysis.drawing import DPI, FONT, GREY, INK

WIDTH = 9.4
"""Inches of a figure at most."""
TILE, PIXEL = 0.75, 0.01
"""Inches of the longer side of a small tile at most, and of a pixel of larger ones."""
FINEST = 128
"""Pixels of the longer side of a tile at most; larger images are averaged, for no page shows more of them."""
MOST_NAME, MOST_TITLE = 30, 34
"""Letters of a name, and of a line of a title, at most."""
SIZE, _LINE = 9, 0.16
"""Points of the words, and inches of a line of them."""
_PAD, _BETWEEN = 0.06, 0.3


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Describe a panel of images.

    Attributes:
        tiles: rows of images (C, H, W) in [0, 1], all of one shape.
        title: above the panel; may have several lines.
        rows: name of each row, left of it; empty for none.
        columns: words above each column; empty for none.
    """

    tiles: Sequence[Sequence[Tensor]]
    title: str = ""
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()

    @property
    def wrapped(self) -> Panel:
        """The panel with its long names cut and the lines of its title broken, so that the images keep their room."""
        rows = [shorten(name, MOST_NAME, placeholder=" …") for name in self.rows]
        title = "\n".join(part for line in self.title.split("\n") for part in wrap(line, MOST_TITLE))
        return replace(self, rows=rows, title=title)

    @property
    def title_width(self) -> float:
        """Inches from the left that the title needs."""
        return self.names_width + _inches(self.title)

    @property
    def words_width(self) -> float:
        """Inches that the words above a column need."""
        return max((_inches(text) + _PAD for text in self.columns), default=0.0)

    @property
    def names_width(self) -> float:
        """Inches that the names of the rows take."""
        return max((_inches(name) + 2 * _PAD for name in self.rows), default=0.0)

    @property
    def head(self) -> float:
        """Inches that the title and the words above the columns take."""
        lines = [_lines([self.title]), _lines(self.columns)]
        return sum(_LINE * count + _PAD for count in lines if count)


def gallery(panels: Sequence[Panel], *, stacked: bool = False) -> Canvas:
    """Draw panels, as large as `WIDTH`, `TILE` and `PIXEL` allow; the images keep their pixels.

    Args:
        panels: at least one, each with at least one image.
        stacked: one below the other instead of side by side.

    Returns:
        The canvas: one axes in inches, one image for each panel.
    """
    panels = [panel.wrapped for panel in panels]
    mosaics = [mosaic(panel.tiles) for panel in panels]
    drawn = list(zip(panels, mosaics, strict=True))
    longest = max(max(panel.tiles[0][0].shape[-2:]) for panel in panels)
    tile = max(TILE / min(longest, FINEST), PIXEL, max(panel.words_width / pitch[1] for panel, (_, pitch) in drawn))
    names = max(panel.names_width for panel in panels)  # where stacked, the images begin one below the other
    if stacked:
        free = (WIDTH - names) / max(image.shape[1] for image, _ in mosaics)
    else:
        free = WIDTH - sum(panel.names_width for panel in panels) - _BETWEEN * (len(panels) - 1)
        free /= sum(image.shape[1] for image, _ in mosaics)
    pixel = min(free, tile)
    sizes = [
        (max(panel.names_width + image.shape[1] * pixel, panel.title_width), panel.head + image.shape[0] * pixel)
        for panel, (image, _) in drawn
    ]
    between = _BETWEEN * (len(panels) - 1)
    if stacked:
        total = (
            max(names - panel.names_width + width for panel, (width, _) in zip(panels, sizes, strict=True)),
            sum(height for _, height in sizes) + between,
        )
    else:
        head = max(panel.head for panel in panels)
        total = (
            sum(width for width, _ in sizes) + between,
            head + max(image.shape[0] for image, _ in mosaics) * pixel,
        )
    figure = Canvas(figsize=total, dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, total[0]), ylim=(total[1], 0))
    axes.set_axis_off()
    left = top = 0.0
    for (panel, (image, pitch)), (width, height) in zip(drawn, sizes, strict=True):
        pitches = pitch[0] * pixel, pitch[1] * pixel
        if stacked:
            _draw(axes, panel, image, pitches, pixel, names - panel.names_width, top + panel.head)
            top += height + _BETWEEN
        else:
            _draw(axes, panel, image, pitches, pixel, left, max(panel.head for panel in panels))
            left += width + _BETWEEN
    return figure


def _draw(
    axes: Axes, panel: Panel, image: np.ndarray, pitch: tuple[float, float], pixel: float, left: float, top: float
) -> None:
    start = left + panel.names_width
    height, width = image.shape[0] * pixel, image.shape[1] * pixel
    axes.imshow(image, extent=(start, start + width, top + height, top), aspect="auto", interpolation="none")
    gap = pitch[0] * len(panel.tiles) - height
    words = {"fontsize": SIZE, "color": INK}
    for i, name in enumerate(panel.rows):
        middle = top + i * pitch[0] + (pitch[0] - gap) / 2
        axes.text(start - _PAD, middle, name, ha="right", va="center", **{**words, "color": GREY})
    for i, text in enumerate(panel.columns):
        axes.text(start + i * pitch[1] + (pitch[1] - gap) / 2, top - _PAD, text, ha="center", va="bottom", **words)
    above = top - (_LINE * _lines(panel.columns) + _PAD if panel.columns else 0) - _PAD
    if panel.title:
        axes.text(start, above, panel.title, ha="left", va="bottom", **words)


def mosaic(rows: Sequence[Sequence[Tensor]]) -> tuple[np.ndarray, tuple[int, int]]:
    """Join images (C, H, W) in [0, 1], grey or in colour, with transparent gaps.

    Returns:
        The image (height, width, 4) as bytes, and the pitch (rows, columns) of the tiles in pixels.
    """
    tiles = [[_reduced(tile) for tile in row] for row in rows]
    height, width = tiles[0][0].shape[-2:]
    gap = max(1, width // 14)
    pitch = height + gap, width + gap
    columns = max(len(row) for row in tiles)
    image = np.zeros((len(tiles) * pitch[0] - gap, columns * pitch[1] - gap, 4), dtype=np.uint8)
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            pixels = np.moveaxis(tile.detach().cpu().float().clamp(0, 1).numpy(), 0, -1)
            place = image[i * pitch[0] : i * pitch[0] + height, j * pitch[1] : j * pitch[1] + width]
            place[..., :3] = np.round(255 * np.nan_to_num(pixels))
            place[..., 3] = 255
    return image, pitch


def _reduced(tile: Tensor) -> Tensor:
    """Average an image to at most `FINEST` pixels a side, and take its first three channels, or the first of two."""
    channels, height, width = tile.shape
    tile = tile[: 3 if channels >= 3 else 1]
    factor = FINEST / max(height, width)
    if factor >= 1:
        return tile
    size = max(1, round(height * factor)), max(1, round(width * factor))
    return F.interpolate(tile[None].float(), size=size, mode="area")[0]


def _lines(texts: Sequence[str]) -> int:
    return max((text.count("\n") + 1 for text in texts if text), default=0)


def _inches(text: str) -> float:
    """Measure the width of the longest line, with room for a page's wider font."""
    font = FontProperties(family=FONT)
    widths = [TextPath((0, 0), line, size=SIZE, prop=font).get_extents().width for line in text.split("\n") if line]
    return 1.1 * max(widths, default=0.0) / 72

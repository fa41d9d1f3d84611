"""Figures of images: tiles at their own pixels, names beside them, nothing covered and nothing empty."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from intriguing.analysis import drawing
from intriguing.analysis.gallery import FINEST, WIDTH, Panel, gallery, mosaic


def test_a_mosaic_puts_tiles_at_its_pitch_and_leaves_the_gaps_transparent() -> None:
    tiles = [[torch.full((1, 2, 3), 0.2), torch.full((1, 2, 3), 0.4)], [torch.full((1, 2, 3), 0.8)]]
    image, pitch = mosaic(tiles)
    assert (image.shape, pitch) == ((5, 7, 4), (3, 4))
    assert image[0, :, 0].tolist() == [51] * 3 + [0] + [102] * 3
    assert image[0, :, 3].tolist() == [255] * 3 + [0] + [255] * 3
    assert not image[2].any()
    assert image[4, :, 3].tolist() == [255] * 3 + [0] * 4


def test_colours_stay_and_values_beyond_the_range_are_clipped() -> None:
    red = torch.stack([torch.ones(2, 2), torch.zeros(2, 2), torch.full((2, 2), -3.0)])
    image, _ = mosaic([[red.double()]])
    assert image[0, 0].tolist() == [255, 0, 0, 255]
    image, _ = mosaic([[torch.full((1, 2, 2), torch.nan)]])
    assert image[0, 0].tolist() == [0, 0, 0, 255]


def test_a_large_image_is_averaged() -> None:
    large = torch.zeros(3, 4 * FINEST, 2 * FINEST)
    large[..., ::2] = 1.0
    image, pitch = mosaic([[large]])
    assert image.shape == (FINEST, FINEST // 2, 4) and pitch[0] > FINEST
    assert set(image[..., 0].flatten().tolist()) == {128}


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 224, 224), (3, 20, 60), (1, 60, 20)])
@pytest.mark.parametrize(
    "rows", [("original", "adversarial", "difference ×0.08"), ("a label of many letters " * 3,) * 3]
)
def test_no_name_covers_an_image_and_no_band_is_empty(shape: tuple[int, ...], rows: tuple[str, ...]) -> None:
    tiles = [[torch.ones(shape)] * 5] * 3
    with drawing.style():
        panels = [Panel(tiles=tiles, title="title\nof two lines", rows=rows, columns=["3 → 8\n.062"] * 5)] * 2
        figure = gallery(panels)
        FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    whole = figure.bbox
    images = [image.get_window_extent() for image in axes.images]
    texts = [text.get_window_extent() for text in axes.texts]
    assert len(images) == 2
    for box in texts:
        assert not any(box.overlaps(image) for image in images)
        assert box.x0 >= -1 and box.x1 <= whole.x1 + 1 and box.y0 >= -1 and box.y1 <= whole.y1 + 1
    assert max(image.x1 for image in images) == pytest.approx(whole.x1, abs=12)
    assert min(image.y0 for image in images) == pytest.approx(0, abs=1)
    assert max(box.y1 for box in texts) > whole.y1 - 12
    assert figure.get_size_inches()[0] <= max(WIDTH, 12)
    pitch = images[0].height / images[0].width * (5 * shape[2] + 4 * max(1, shape[2] // 14))
    assert pitch == pytest.approx(3 * shape[1] + 2 * max(1, shape[2] // 14), rel=0.1)  # square pixels


def test_the_page_gets_the_pixels_themselves() -> None:
    tile = torch.arange(16.0).view(1, 4, 4) / 15
    with drawing.style():
        figure = gallery([Panel(tiles=[[tile]])])
    made = drawing.chart(figure, key="k", title="t", caption="c", alt="a", runs=[])
    assert made.svg is not None
    (data,) = re.findall(r'href="data:image/png;base64,\s*([^"]+)"', made.svg)
    embedded = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"))
    assert sorted(embedded.flatten().tolist()) == [17 * i for i in range(16)]

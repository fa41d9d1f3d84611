"""The style of figures: error bars, layout, images, and bytes that do not change."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from intriguing.analysis import drawing
from intriguing.statistics.intervals import Interval


def test_error_bars_reach_the_ends_of_the_intervals_and_never_point_inwards() -> None:
    found = drawing.error_bars([2.0, 5.0, 1.0], [Interval(1, 4), None, Interval(1.5, 2)])
    assert found.tolist() == [[1, 0, 0], [2, 0, 1]]
    assert drawing.error_bars([], []).shape == (2, 0)


def test_axes_are_laid_out_in_lines_and_spare_ones_are_hidden() -> None:
    figure, places = drawing.lay_out(5, most=3, width=2, height=1, margin=(0.5, 0.25))
    assert figure.get_size_inches().tolist() == [6.5, 2.25]
    assert len(places) == 5 and [axes.get_visible() for axes in figure.axes] == [True] * 5 + [False]
    figure, places = drawing.lay_out(2, most=3, width=2, height=1)
    assert figure.get_size_inches().tolist() == [4, 1] and len(places) == 2


def test_images_are_put_as_imshow_wants_them() -> None:
    grey, colour = np.full((1, 2, 3), 1.5), np.arange(12.0).reshape(3, 2, 2) / 12
    assert drawing.picture(grey).tolist() == [[1, 1, 1]] * 2  # clipped
    assert drawing.picture(colour).shape == (2, 2, 3)
    assert drawing.picture(colour)[0, 1].tolist() == pytest.approx([1 / 12, 5 / 12, 9 / 12])
    figure = drawing.canvas(1, 1)
    axes = figure.subplots()
    drawing.show(axes, grey)
    assert axes.images[0].get_clim() == (0, 1) and not any(spine.get_visible() for spine in axes.spines.values())


def test_a_chart_is_a_picture_and_a_drawing_that_are_made_alike_twice() -> None:
    def made():
        with drawing.style():
            figure = drawing.canvas(2, 1.5)
            axes = figure.subplots()
            axes.plot([0, 1], [0, 1], color=drawing.BLUE)
            axes.set_xlabel("words")
        return drawing.chart(figure, key="k", title="t", detail="d", caption="c", alt="a", runs=["b", "a", "b"])

    one = made()
    assert one == made()
    assert (one.heading, one.runs) == ("t · d", ("b", "a"))
    assert Image.open(io.BytesIO(one.png)).size == (220, 165)
    assert one.svg is not None and one.svg.startswith("<svg") and "<metadata" not in one.svg
    assert f"var(--blue, {drawing.BLUE})" in one.svg and f"var(--ink, {drawing.INK})" in one.svg
    assert ">words</text>" in one.svg
    head = re.match(r"<svg[^>]*>", one.svg)
    assert head is not None and "width=" not in head[0] and "viewBox=" in head[0]


def test_a_photograph_has_no_drawing() -> None:
    figure = drawing.canvas(1, 1)
    drawing.show(figure.subplots(), np.zeros((1, 2, 2)))
    assert drawing.photograph(figure, key="k", title="t", caption="c", alt="a", runs=[]).svg is None

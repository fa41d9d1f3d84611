"""The style of figures: error bars, layout, images, and bytes that do not change."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path

import pytest
from PIL import Image

from intriguing import report
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


def test_every_colour_of_a_drawing_is_one_that_the_page_sets() -> None:
    with drawing.style():
        figure = drawing.canvas(2, 1.5)
        axes = figure.subplots()
        for i, colour in enumerate((*drawing.COLOURS, drawing.GREY)):
            axes.plot([0, 1], [i, i], marker="o", color=colour, markerfacecolor="white")
        axes.grid()
        axes.set_title("words")
    made = drawing.chart(figure, key="k", title="t", caption="c", alt="a", runs=[])
    assert made.svg is not None
    variables = dict(re.findall(r"var\(--(\w+), (#\w+)\)", made.svg))
    assert set(drawing.VARIABLES.values()) == set(variables)
    bare = re.sub(r"var\(--\w+, #\w+\)", "", made.svg)
    assert re.findall(r"(?:#[0-9a-fA-F]{6}\b|\bwhite\b|\bblack\b)", bare) == []
    style = (Path(report.__file__).parent / "templates" / "style.css").read_text()
    for name in variables:
        assert style.count(f"--{name}:") == 3, name  # on a light ground, on a dark one, in print


def test_a_pdf_has_its_fonts_and_no_date_and_its_making_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with drawing.style():
        figure = drawing.canvas(2, 1.5)
        figure.subplots().set_title("words λ")
    with caplog.at_level(logging.DEBUG):
        made = drawing.chart(figure, key="k", title="t", caption="c", alt="a", runs=[])
    assert made.pdf is not None and made.pdf.startswith(b"%PDF")
    assert b"/FontFile2" in made.pdf and b"/Type3" not in made.pdf
    assert b"Date" not in made.pdf and b"Matplotlib" not in made.pdf
    assert not [record for record in caplog.records if record.name.startswith("fontTools")]

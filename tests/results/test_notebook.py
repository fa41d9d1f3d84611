"""Tables and figures show themselves in a notebook."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser

from intriguing.results import ERROR, TIDY_COLUMNS, Cell, Figure, Table
from intriguing.statistics.intervals import Interval


def _table() -> Table:
    measured = Cell(
        quantity=ERROR,
        value=25.0,
        interval=Interval(20.1, 30.6),
        n=256,
        k=64,
        paper=22.7,
        paper_interval=Interval(18, 28),
    )
    return Table(
        key="table2",
        number="Table 2",
        title="Transfer <b>",
        caption="Errors & more.",
        row_header="made for",
        rows=("FC10", "AE<400>"),
        columns=("FC10", "AE<400>"),
        cells={("FC10", "AE<400>"): measured},
        sample="N = 256",
        method="Wilson",
        runs=("a", "b"),
    )


class _Texts(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.texts.append(data)


def test_a_table_is_a_data_frame_of_its_cells() -> None:
    frame = _table().to_frame()
    assert list(frame.columns) == list(TIDY_COLUMNS) and len(frame) == 1
    row = frame.iloc[0]
    assert (row["row"], row["column"], row["k"], row["n"], row["percent"]) == ("FC10", "AE<400>", 64, 256, 25.0)
    assert (row["low"], row["high"], row["paper"], row["meets"], row["runs"]) == (20.1, 30.6, 22.7, True, "a b")
    assert row["distortion"] is None or math.isnan(row["distortion"])


def test_a_table_shows_itself_with_every_text_escaped() -> None:
    texts = _Texts(_table()._repr_html_()).texts
    assert texts[0] == "Table 2 · Transfer <b>"
    assert texts[1:4] == ["made for", "FC10", "AE<400>"]
    assert "25.0 (22.7 ✓)" in texts and "20.1 to 30.6" in texts
    assert texts[-2:] == ["Errors & more.", "N = 256. Wilson."]


def test_a_figure_shows_its_picture() -> None:
    assert Figure(key="f", title="t", caption="c", alt="a", png=b"PNG")._repr_png_() == b"PNG"


def test_the_paper_is_named_where_one_of_its_numbers_is_shown() -> None:
    table = replace(_table(), source="arXiv, Table 2", sample="one network", method="t")
    cell = replace(next(iter(table.cells.values())), paper=None, paper_interval=None)
    assert table.printed_in == "arXiv, Table 2"
    assert replace(table, cells={("FC10", "FC10"): cell}).printed_in == ""
    assert table.method_note == "One network. T."

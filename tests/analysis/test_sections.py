"""Sections beyond the paper's tables: called with what they may use, only where they are asked for."""

import pytest
import torch

from intriguing.analysis import EXTRA, Made, analyze
from intriguing.results import Cell, Quantity, Table
from intriguing.statistics.intervals import Interval

TABLE = Table(
    key="norms",
    title="Norms",
    caption="",
    row_header="layer",
    rows=("a",),
    columns=("bound",),
    cells={("a", "bound"): Cell(quantity=Quantity(name="bound"), value=12.345, interval=Interval(10.0, 1e7), n=3)},
    sample="",
    method="",
)


@pytest.fixture
def section(monkeypatch):
    seen = []

    def make(material):
        seen.append(material)
        return Made(tables=(TABLE,), summary=(f"{material.setting('count', 7)} of {material.setting('rows', 5)}",))

    monkeypatch.setitem(EXTRA, "norms", make)
    return seen


def images(network, subset):
    return torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64)


def test_a_section_is_made_where_it_is_named(section):
    settings = {"norms": {"count": 3, "rows": None}, "other": {"count": 4}}
    result = analyze([], [], title="t", sections=("table1", "norms"), settings=settings, images=images, seed=5)
    assert result.table("norms") is TABLE
    assert result.summary[-1] == "3 of 5"
    assert section[0].seed == 5


def test_a_section_is_not_made_unasked(section):
    assert not section
    with pytest.raises(KeyError):
        analyze([], [], title="t", images=images).table("norms")


def test_images_are_needed(section):
    with pytest.raises(ValueError, match="norms needs images"):
        analyze([], [], title="t", sections=("norms",))


def test_a_number_of_any_kind_is_shown_to_three_digits():
    cell = TABLE.cells["a", "bound"]
    assert cell.text == "12.3"
    assert cell.interval_text == "10.0 to 1.00e+07"
    assert TABLE.tidy()[0]["value"] == 12.345
    assert Cell(quantity=Quantity(name="bound"), value=float("inf"), interval=None, n=1).text == "∞"
    assert Cell(quantity=Quantity(name="bound"), value=0.01234, interval=None, n=1).text == "0.0123"

"""How the numbers of a column are written: alike, and no interval reads like its estimate."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intriguing.results import DISTORTION, ERROR, EXCESS, Cell, Quantity, Table
from intriguing.statistics.intervals import Interval, wilson_interval

SCORE = Quantity(name="score")


def column(*cells: Cell) -> list[tuple[str, str]]:
    """Values and intervals of the cells, written in one column."""
    rows = tuple(f"row {i}" for i in range(len(cells)))
    table = Table(
        key="t",
        title="",
        caption="",
        row_header="",
        rows=rows,
        columns=("c",),
        cells={(row, "c"): cell for row, cell in zip(rows, cells, strict=True)},
        sample="",
        method="",
    )
    return [(text.value, text.interval) for _, (text,) in table.text_rows if text]


def cell(value: float, low: float | None = None, high: float | None = None, **more) -> Cell:
    interval = None if low is None or high is None else Interval(low, high)
    return Cell(**{"quantity": SCORE, "n": 100, **more}, value=value, interval=interval)


def test_the_interval_of_a_small_distortion_is_not_its_estimate() -> None:
    assert column(cell(0.0008, 0.0006, 0.0010, quantity=DISTORTION)) == [(".0008", ".0006 to .0010")]
    tiny = cell(0.00082, 0.00081, 0.00083, quantity=DISTORTION)
    assert column(cell(0.0622, 0.061, 0.063, quantity=DISTORTION), tiny) == [
        (".06220", ".06100 to .06300"),
        (".00082", ".00081 to .00083"),
    ]


def test_a_hundred_stands_beside_numbers_with_as_many_decimals() -> None:
    shares = [cell(100, 94.3, 100), cell(81.25, 70, 88.9), cell(99.95, 99.9, 99.98)]
    assert column(*shares) == [
        ("100.00", "94.30 to 100.00"),
        ("81.25", "70.00 to 88.90"),
        ("99.95", "99.90 to 99.98"),
    ]
    assert column(*shares[:2]) == [("100.0", "94.3 to 100.0"), ("81.2", "70.0 to 88.9")]


def test_rates_of_many_answers_have_a_second_decimal_and_more_where_they_need_it() -> None:
    def rate(k: int, n: int) -> Cell:
        return cell(100 * k / n, *wilson_interval(k, n).percent, quantity=ERROR, k=k, n=n)

    assert column(rate(58, 256)) == [("22.7", "18.0 to 28.2")]
    assert column(rate(57, 10_000), rate(58, 256)) == [("0.57", "0.44 to 0.74"), ("22.66", "17.95 to 28.17")]
    assert column(rate(45, 180_000)) == [("0.025", "0.019 to 0.033")]
    assert column(rate(0, 60_000)) == [("0.00", "0.00 to 0.01")]  # no more than zero: its lower end is the estimate


def test_numbers_without_an_interval_keep_two_digits() -> None:
    assert column(cell(0.995), cell(0.00133), cell(0)) == [("0.9950", ""), ("0.0013", ""), ("0.0000", "")]
    assert column(cell(96.4), cell(0.055)) == [("96.400", ""), ("0.055", "")]


def test_numbers_of_many_sizes_have_three_digits_each() -> None:
    found = column(cell(449.2, 10, 900), cell(-0.0579, -0.0598, -0.0563), cell(2.5e8), cell(1.25))
    assert found == [
        ("449", "10 to 900"),
        ("−0.0579", "−0.0598 to −0.0563"),
        ("2.50e+08", ""),
        ("1.25", ""),
    ]


def test_infinite_and_missing_numbers_have_their_signs() -> None:
    assert column(cell(math.inf), cell(-math.inf), cell(math.nan), cell(2.5)) == [
        *(("∞", ""), ("−∞", ""), ("–", ""), ("2.50", "")),
    ]
    assert column(cell(math.nan, math.nan, math.nan)) == [("–", "– to –")]
    assert column(cell(math.nan, quantity=DISTORTION)) == [("–", "")]


def test_an_excess_has_its_sign_and_zero_has_none() -> None:
    found = column(cell(-0.04, -2, 1.2, quantity=EXCESS), cell(5.5, 0.6, 11.1, quantity=EXCESS))
    assert found == [("0.0", "−2.0 to +1.2"), ("+5.5", "+0.6 to +11.1")]


@given(
    st.lists(
        st.tuples(st.floats(-1e3, 1e3), st.floats(1e-2, 1e2), st.floats(1e-2, 1e2)).map(
            lambda v: cell(v[0], v[0] - v[1], v[0] + v[2])
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([SCORE, ERROR, DISTORTION]),
)
def test_no_interval_ever_reads_like_its_estimate(cells: list[Cell], quantity: Quantity) -> None:
    cells = [cell(c.value, *(c.interval or ()), quantity=quantity) for c in cells]
    for value, interval in column(*cells):
        low, high = interval.split(" to ")
        assert value not in (low, high), (value, interval)


@pytest.mark.parametrize("quantity", [ERROR, DISTORTION, SCORE])
def test_one_column_has_one_number_of_decimals(quantity: Quantity) -> None:
    cells = [cell(v, v - 0.3, v + 0.3, quantity=quantity) for v in (0.5, 3.25, 47.1, 100)]
    texts = [text for value, interval in column(*cells) for text in (value, *interval.split(" to "))]
    assert len({len(text.partition(".")[2]) for text in texts}) == 1

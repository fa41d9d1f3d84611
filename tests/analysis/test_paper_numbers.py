import math

import pytest

from intriguing.analysis import paper
from intriguing.analysis.cells import paper_error_interval


def is_share_of(printed: float, n: int) -> bool:
    """Whether some k / n, rounded or cut off at the printed digits, gives the printed percentage."""
    digits = len(str(printed).split(".")[1]) if isinstance(printed, float) else 0
    scale = 10**digits
    shares = [100 * k / n * scale for k in range(n + 1)]
    return any(round(printed * scale) in (math.floor(s + 1e-9), math.floor(s + 0.5)) for s in shares)


def entries(table: str) -> dict[tuple[str, str], float]:
    rows = paper.TABLES[table].items()
    return {(r, c): v for r, columns in rows for c, v in columns.items() if c != paper.DISTORTION and r != c}


@pytest.mark.parametrize(
    ("place", "printed"),
    [
        (("table1", "AE400-10", paper.TEST_ERROR), 1.9),
        (("table1", "FC200-200-10", paper.DISTORTION), 0.065),
        (("table2", "FC10(1)", "FC100-100-10"), 48.1),
        (("table2", "FC100-100-10", "FC10(1e-2)"), 13.7),
        (("table2", "Gaussian .3", "FC10(1e-4)"), 15.6),
        (("table3", "FC100-100-10'", paper.P1_ERROR), 2.3),
        (("table4", "FC123-456-10", "FC100-100-10"), 6.25),
        (("table4", "FC100-100-10', amplified to .1", "FC123-456-10"), 50),
        (("table4", "FC123-456-10", paper.DISTORTION), 0.059),
        (("table4", "Gaussian .1", "FC100-100-10'"), 2.7),
        (("table2", "FC10(3)", "FC10(1)"), None),
    ],
)
def test_numbers_are_the_papers(place, printed):
    assert paper.value(*place) == printed


def test_28_of_30_transfer_entries_of_table_2_are_256ths():
    adversarial = {place: v for place, v in entries("table2").items() if not place[0].startswith("Gaussian")}
    odd = {place for place, printed in adversarial.items() if not is_share_of(printed, 256)}
    assert len(adversarial) == 30
    assert odd == {("FC10(1)", "FC100-100-10"), ("AE400-10", "FC10(1)")}


def test_other_entries_are_256ths_but_for_the_noise_of_table_4():
    noise = {place: v for place, v in entries("table2").items() if place[0].startswith("Gaussian")}
    assert all(is_share_of(v, 256) for v in noise.values())
    odd = {place[0] for place, v in entries("table4").items() if not is_share_of(v, 256)}
    assert odd == {"Gaussian .06", "Gaussian .1"}
    assert {paper.sample_size("table4", *place) for place in entries("table4") if place[0] in odd} == {10_000}


def test_sample_sizes():
    assert paper.sample_size("table1", "AE400-10", paper.TRAIN_ERROR) == 60_000
    assert paper.sample_size("table3", "FC100-100-10", paper.P2_ERROR) == 30_000
    assert paper.sample_size("table3", "FC100-100-10", paper.TEST_ERROR) == 10_000
    assert paper.sample_size("table2", "AE400-10", "FC10(1)") == 256
    with pytest.raises(ValueError, match="Tables 1 to 4"):
        paper.sample_size("table9", "AE400-10", "FC10(1)")


def test_half_widths_are_those_of_256_images_and_of_the_rounding():
    interval = paper_error_interval("table4", "FC100-100-10', amplified to .1", "FC123-456-10")
    assert interval is not None
    # 6.1 points at 50 %, and 127 to 129 of 256 are printed as 50 %
    assert (interval.high - interval.low) / 2 == pytest.approx(6.1 + 100 / 256, abs=0.05)


def test_an_interval_takes_in_every_count_that_is_printed_so():
    for table, entries in paper.TABLES.items():
        for row, columns in entries.items():
            for column, printed in columns.items():
                if column == paper.DISTORTION:
                    continue
                n, digits = paper.sample_size(table, row, column), f"{printed}".partition(".")[2]
                counts = [k for k in range(n + 1) if abs(100 * k / n - printed) <= 0.5 * 10 ** -len(digits) + 1e-9]
                least, most = paper.printed_counts(printed, n)
                assert [least, most] == ([counts[0], counts[-1]] if counts else [round(printed * n / 100)] * 2)
                interval = paper_error_interval(table, row, column)
                assert interval is not None and interval.low <= 100 * least / n <= 100 * most / n <= interval.high


def test_nothing_printed_is_not_nothing_measured():
    assert paper.printed_counts(0, 60_000) == (0, 300)  # up to half a percent
    interval = paper_error_interval("table1", "FC100-100-10", paper.TRAIN_ERROR)
    assert interval is not None and interval.low == 0 and 0.5 < interval.high < 0.6
    assert [paper.rounding(printed) for printed in (10, 0.1, 0.062, 6.25)] == pytest.approx([0.5, 0.05, 5e-4, 5e-3])

"""Comparison numbers of a user's own stand beside the measured ones, and those that fit nothing are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from intriguing.analysis import analyze, paper
from intriguing.analysis.analyze import PAPER
from intriguing.analysis.cells import paper_error_interval, printed_mean_interval
from intriguing.analysis.reference import Reference
from intriguing.errors import UserError

GOOD = """\
table,row,column,value,n,rounding
table1,FC10(1e-4),test error,7.4,10000,
table1,FC10(1e-4),av. distortion,0.062,256,
table1,FC100-100-10,test error,3,,
table2,"FC10(1e-4)",FC100-100-10,25,40,2.5
"""


def _file(folder: Path, text: str = GOOD) -> Path:
    (folder / "mine.csv").write_text(text)
    return folder / "mine.csv"


@pytest.fixture
def analysed(network: Callable, crafted: Callable) -> Callable:
    nets = [
        network("FC10(1e-4)", 0, errors={"train": (300, 60000), "full": (300, 60000), "test": (740, 10000)}),
        network("FC100-100-10", 5, errors={"train": (0, 60000), "full": (0, 60000), "test": (164, 10000)}),
    ]
    sets = [crafted(nets[0], {0: 40, 1: 13}), crafted(nets[1], {0: 3, 5: 40})]

    def run(reference: Reference | None, sections: tuple[str, ...] = PAPER):  # noqa: ANN202
        return analyze(nets, sets, title="t", sections=sections, reference=reference)

    return run


def test_numbers_replace_the_papers_in_every_table_and_have_their_intervals(analysed: Callable, tmp_path: Path) -> None:
    result = analysed(Reference.read(_file(tmp_path), "Miller 2020"))
    tables = {table.key: table for table in result.tables}
    error = tables["table1"].cells["FC10(1e-4)", "test error"]
    assert error.paper == 7.4
    # the file repeats a number of the paper, so its interval is the one that the paper's number has
    assert error.paper_interval == paper_error_interval("table1", "FC10(1e-4)", "test error") and error.meets
    shown = {
        place: cell.paper for table in result.tables for place, cell in table.cells.items() if cell.paper is not None
    }
    assert len(shown) == 4 and tables["table1"].cells["FC100-100-10", "test error"].paper_interval is None
    transfer = tables["table2"].cells["FC10(1e-4)", "FC100-100-10"]
    assert transfer.paper == 25 and isinstance(transfer.paper, int)
    assert transfer.paper_interval is not None and transfer.paper_interval.low < 25 < transfer.paper_interval.high
    assert tables["table1"].source == "Miller 2020 (mine.csv)" and "the paper's" not in tables["table1"].method
    assert result.comparable and any("meets Miller 2020's in" in line for line in result.summary)
    assert next(figure for figure in result.figures if figure.key == "agreement").title.startswith("Miller 2020")
    assert paper.value("table1", "FC10(1e-4)", "test error") == 7.4  # the paper's numbers are there again


def test_the_interval_of_a_mean_takes_the_spread_that_was_measured(tmp_path: Path) -> None:
    from intriguing.analysis.cells import distortion_cell

    values = torch.linspace(0.01, 0.1, 37)
    cell = distortion_cell([values], indices=[torch.arange(37)])
    assert cell is not None
    number = Reference.read(_file(tmp_path)).numbers["table1", "FC10(1e-4)", "av. distortion"]
    found, expected = number.interval(cell), printed_mean_interval(0.062, float(values.double().std()))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_without_a_file_the_papers_numbers_stay(analysed: Callable) -> None:
    table = next(table for table in analysed(None).tables if table.key == "table1")
    assert table.cells["FC10(1e-4)", "test error"].paper == 7.4 and table.source.endswith("Table 1")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("value,n", "value,m", "unknown column m; there are table, row, column, value, n, rounding"),
        ("table,row", "row,row2", "unknown column row2"),
        ("rounding\n", "\n", "unknown column ; there are"),
        (",7.4,", ",about 7,", "line 2: value must be a number, got about 7"),
        (",7.4,", ",nan,", "line 2: value must be a number, got nan"),
        (",7.4,", ",,", "line 2: value must be a number, got nothing"),
        ("40,2.5", "40,-1", "line 5: rounding must be at least 0"),
        (",10000,", ",1e4,", "line 2: n must be a whole number of at least 1 or empty, got 1e4"),
        ("test error,3", "test, error,3", "line 4 has more than 6 columns"),
        ("table1,FC100-100-10", "table1,FC10(1e-4)", r"line 4 repeats table1, FC10\(1e-4\), test error"),
        (GOOD, "table,row,column,value\n", "holds no numbers"),
        (GOOD, "table,row,value\n", "lacks the column column"),
        (GOOD, "\x00\xff", "cannot read|unknown column"),
    ],
)
def test_wrong_files_are_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        Reference.read(_file(tmp_path, GOOD.replace(old, new, 1)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("table2", "tabel2", r"no table is called tabel2 \(did you mean table2\?\)"),
        ("FC10(1e-4),test", "FC10(1e-3),test", r"table1 has no row FC10\(1e-3\) \(did you mean FC10\(1e-4\)\?\)"),
        ("test error,3", "tset error,3", r"table1 has no column tset error \(did you mean test error\?\)"),
    ],
)
def test_numbers_that_no_table_has_are_refused(
    analysed: Callable, tmp_path: Path, old: str, new: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        analysed(Reference.read(_file(tmp_path, GOOD.replace(old, new, 1))))


def test_a_missing_file_and_a_name_without_one_are_named(composed: Callable[..., dict], tmp_path: Path) -> None:
    from intriguing.analysis.job import AnalysisJob

    for typed, words in (
        ("settings.reference=nowhere.csv", r"cannot read nowhere\.csv: No such file"),
        ("settings.reference_name=Miller", "give settings.reference=<file>.csv too"),
        ("settings.reference=[a,b]", "settings.reference must be a text"),
    ):
        with pytest.raises(UserError, match=words):
            AnalysisJob.from_config(composed("analyze", "networks=x", "study=quickstart", typed))
    given = [f"settings.reference={_file(tmp_path)}", "study=quickstart"]
    job = AnalysisJob.from_config(composed("analyze", *given))
    plain = AnalysisJob.from_config(composed("analyze", "study=quickstart"))
    assert job.reference is not None and job.reference.name == "mine"
    assert job.identity["settings"]["reference"]["sha256"] == job.reference.sha256
    assert "reference" not in plain.identity["settings"]

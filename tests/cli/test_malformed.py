"""Every row of results/reliability/malformed.md: a status above 0, one line that names the culprit, nothing left."""

from __future__ import annotations

from pathlib import Path

import pytest
from malformed import TARGET, prepare, table, try_out
from malformed_cases import ARGUMENTS, CASES, CONFIGS, FILES, HOSTILE, Case

# All that are hostile, and every fifth of the others; the rest are as slow and say the same of the doors.
QUICK = {*map(id, HOSTILE), *map(id, [*ARGUMENTS, *CONFIGS, *FILES][::5])}
ROWS = [case if id(case) in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder)
    return folder


@pytest.mark.parametrize("case", ROWS, ids=str)
def test_an_input_that_cannot_be_used(case: Case, prepared: Path, tmp_path: Path) -> None:
    outcome = try_out(case, prepared, tmp_path / "case")
    assert outcome.status == 1, outcome
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1 and "Traceback" not in outcome.err
    assert case.words in outcome.err
    assert outcome.left == case.left, "something was written"
    assert outcome.out == ""
    written = table([(case, outcome)]).splitlines()[-1]
    assert written.split(" | ")[0] in TARGET.read_text(), "run benchmarks/malformed.py: the page lacks this row"


def test_the_page_has_every_row_and_what_it_says_of_all_holds() -> None:
    page = TARGET.read_text()
    assert f"{len(CASES)} inputs: {len(CASES)} end with a status above 0, {len(CASES)} with exactly one line" in page
    assert page.count("\n| ") == len(CASES) + 1
    assert len({case.what + case.door for case in CASES}) == len(CASES) >= 40

"""Every input that cannot be used gets a status above 0, one line that names the culprit, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from malformed_cases import ARGUMENTS, CASES, CONFIGS, FILES, HOSTILE, Case
from malformed_runs import prepare, try_out

# All hostile inputs, and every fifth of the others; the rest take as long and try the same code.
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


def test_no_input_is_there_twice() -> None:
    assert len({case.what + case.script for case in CASES}) == len(CASES) >= 100

"""kill -9 of the real entry points at random moments; benchmarks/reliability.py does it, and says what it checks."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _kill(log: Path, *arguments: str) -> list[dict[str, str]]:
    command = [sys.executable, str(ROOT / "benchmarks" / "reliability.py"), "--out", str(log), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["same result"] == "yes" and not row["state found after"].startswith("BROKEN") for row in rows)
    return rows


def test_a_kill_changes_no_result(tmp_path: Path) -> None:
    assert len(_kill(tmp_path / "kills.csv", "--kills", "1", "--stages", "train", "--seed", "3")) == 1


@pytest.mark.slow
def test_kills_in_all_stages_change_no_result(tmp_path: Path) -> None:
    """Twenty; the log of a hundred is results/reliability/kills.csv."""
    assert len(_kill(tmp_path / "kills.csv", "--kills", "20", "--seed", "4")) == 20


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train", "attack", "analyze"])
def test_a_kill_before_or_after_any_rename_changes_no_result(tmp_path: Path, stage: str) -> None:
    assert len(_kill(tmp_path / "renames.csv", "--renames", "--stages", stage)) > 10

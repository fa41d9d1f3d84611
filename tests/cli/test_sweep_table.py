"""A sweep ends with a table of its runs and leaves them as a tidy CSV, whatever became of each."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from intriguing.cli.sweep_table import Row, as_csv, as_text, mark_best, rows_of


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def _job(number: int, *overrides: str, state: str = "finished", reason: str = "") -> dict:
    return {"number": number, "overrides": list(overrides), "state": state, "reason": reason, "runs": []}


def test_the_columns_are_the_settings_that_differ_and_a_list_has_one_for_each_entry() -> None:
    common = ["data=digits", "+trainer.x=1", "runs=a"]
    jobs = [
        _job(0, *common, "weight_decay.value=[1e-5,1e-6]", "model=fc10", "logger=csv"),
        _job(1, *common, "weight_decay.value=1e-3", "model=fc10", "logger=default", state="failed", reason="no, none"),
        _job(2, *common, "++weight_decay.value=[2e-5]", "seed=3", "runs=b", state="interrupted"),
    ]
    rows = _rows(as_csv(rows_of(jobs)))
    assert [row["weight_decay.value"] for row in rows] == ["[1e-05,1e-06]", "0.001", "[2e-05]"]
    assert [row["weight_decay.value[0]"] for row in rows] == ["1e-05", "", "2e-05"]
    assert [row["weight_decay.value[1]"] for row in rows] == ["1e-06", "", ""]
    assert [row["seed"] for row in rows] == ["null", "null", "3"]
    assert [row["model"] for row in rows] == ["fc10", "fc10", "null"]
    assert not {"data", "trainer.x", "runs", "logger"} & set(rows[0])
    assert [(row["state"], row["error"]) for row in rows] == [
        ("finished", ""), ("failed", "no, none"), ("interrupted", ""),
    ]  # fmt: skip
    assert "interrupted, without an error message" in as_text(rows_of(jobs))


def test_the_only_run_of_a_sweep_shows_all_that_was_typed() -> None:
    (row,) = _rows(as_csv(rows_of([_job(0, "model=fc10", "seed=1")])))
    assert (row["model"], row["seed"], row["best"]) == ("fc10", "1", "")
    assert rows_of([]) == [] and as_text([]) == ""


@pytest.mark.parametrize(
    ("quantities", "by", "best"),
    [
        ([{"val_error": 3, "test_error": 1}, {"val_error": 2, "test_error": 9}], "val_error", [False, True]),
        ([{"test_error": 1}, {"test_error": 1}, {"test_error": 2}], "test_error", [True, True, False]),
        (
            [{"success": 50, "mean_distortion": 0.1}, {"success": 100, "mean_distortion": 0.3}, {"success": 100}],
            "mean_distortion",
            [False, True, False],
        ),
    ],
)
def test_the_best_rows_are_marked(quantities: list[dict[str, float]], by: str, best: list[bool]) -> None:
    rows = [Row(number=i, swept={"seed": i}, quantities=one) for i, one in enumerate(quantities)]
    failed = Row(number=9, swept={"seed": 9}, state="failed", quantities={by: 0.0})
    marked = mark_best([*rows, failed])
    assert [row.best for row in marked] == [*best, False] and {row.by for row in marked} == {by}
    stars = [line.startswith("*") for line in as_text(marked).splitlines()[1:-1]]
    assert stars == [*best, False]


def test_a_sweep_leaves_its_table_and_so_does_the_same_command_again(
    run_script: Callable[..., tuple], tmp_path: Path
) -> None:
    given = ["-m", "data=digits", "model=fc10", "weight_decay.value=1e-3,-1,1", "trainer.max_epochs=1", "logger=csv"]
    found = []
    for number in range(2):  # the second time both finished runs are skipped
        folder = tmp_path / f"sweep{number}"
        status, out, err = run_script("train.py", *given, f"hydra.sweep.dir={folder}")
        assert status == 1 and "1 of 3 jobs failed" in err
        assert f"* lowest test error\nsweep{number}/runs.csv" in out
        found.append(_rows((folder / "runs.csv").read_text()))
    assert found[0] == found[1] and len(found[0]) == 3
    for row, decay in zip(found[0], ("0.001", "-1", "1"), strict=True):
        assert row["weight_decay.value"] == decay
    first, failed, _ = found[0]
    assert failed["state"] == "failed" and "at least 0" in failed["error"] and not failed["test_error"]
    assert float(first["test_error"]) == pytest.approx(100 * int(first["test_wrong"]) / int(first["test_images"]))
    assert first["run"].startswith("digits_fc10_wd1e-3")

    status, out, err = run_script(
        "attack.py",
        "-m",
        f"checkpoints={tmp_path}/runs/train/*",
        "limit=4,8",
        "logger=csv",
        f"hydra.sweep.dir={tmp_path}/a",
    )
    assert status == 0, err
    rows = _rows((tmp_path / "a" / "runs.csv").read_text())
    assert [row["limit"] for row in rows] == ["4", "4", "8", "8"] and len({row["run"] for row in rows}) == 4
    assert all(float(row["success"]) == 100 and float(row["mean_distortion"]) > 0 for row in rows)

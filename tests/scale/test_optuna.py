"""Optuna over lambda: what it is told, and that each trial is a run of its own."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra optuna")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Optuna's own dependencies warn
SWEEP = ("-m", "experiment=optuna_lambda", "data=digits", "data.validation=300", "trainer.max_epochs=1", "logger=csv")


def test_trials_are_runs_judged_by_the_images_set_apart(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    status, _, err = run_script("train.py", *SWEEP, "hydra.sweeper.n_trials=2")
    assert status == 0, err
    before = {file: file.stat().st_mtime_ns for file in runs.glob("train/*/model.ckpt")}
    status, out, err = run_script(
        "train.py", *SWEEP, "hydra.sweeper.n_trials=4", f"hydra.sweep.dir={runs}/sweeps/second"
    )
    assert status == 0, err
    records = [json.loads(file.read_text()) for file in runs.glob("train/*/run.json")]
    assert len(before) == 2 and len(records) == 4 and out.count("#") == 4
    # the sampler's seed made the first two trials again, and they were skipped
    assert before == {file: file.stat().st_mtime_ns for file in before}
    wrong, images = zip(*(record["result"]["errors"]["val"] for record in records), strict=True)
    table = list(csv.DictReader((runs / "sweeps" / "second" / "runs.csv").read_text().splitlines()))
    assert len({float(row["weight_decay.value"]) for row in table}) == 4
    errors = [float(row["val_error"]) for row in table]
    assert [row["best"] == "true" for row in table] == [error == min(errors) for error in errors]
    best = yaml.safe_load((runs / "sweeps" / "second" / "optimization_results.yaml").read_text())
    assert best["best_value"] == min(wrong) / 300 and set(images) == {300}


def test_nothing_is_chosen_by_the_test_images(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    status, _, err = run_script("train.py", *SWEEP, "data.validation=0", "hydra.sweeper.n_trials=1")
    assert status == 1 and "needs images set apart to choose by" in err
    assert not (tmp_path / "runs" / "train").exists()

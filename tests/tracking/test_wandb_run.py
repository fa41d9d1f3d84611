"""W&B offline in a real process, and W&B broken."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from intriguing.errors import UserError
from intriguing.tracking.wandb_run import AXIS, WandbRun, lightning_logger, start_wandb

THREE = """
import os, sys
from pathlib import Path
import numpy as np
from intriguing.tracking.wandb_run import start_wandb
before = set(os.environ)
for i in range(3):
    folder = Path(sys.argv[1]) / f"run{i}"
    folder.mkdir()
    (folder / "model.ckpt").write_bytes(b"w")
    with start_wandb(folder=folder, name=f"fc_seed{i}", group="paper", job_type="train", config={"seed": i}) as run:
        assert run.active
        run.log({"train/loss": 0.5}, 1)
        run.log_histogram("attack/distortion", [0.1, float("inf")], 2)
        run.log_histogram("attack/none", [float("inf")], 2)
        run.log_images("images", np.zeros((2, 1, 8, 8)), ["a", "b"], 2)
        run.log_table("transfer", ["source", "victim"], [["a", 1.0]])
        run.log_artifact(folder / "model.ckpt", kind="checkpoint", metadata={"label": "FC"})
        run.summarise({"errors/test": 0.01})
    run.log({"after/the/end": 1})  # after the end: nothing
    left = {key for key in os.environ if key.startswith("WANDB")} - before
    assert not {key for key in left if key.endswith("_DIR") or "REPORTING" in key}, left
print("done")
"""


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    return {**kept, "HOME": str(home), "TMPDIR": str(home)}


def test_three_runs_in_one_process_are_three_files(tmp_path):
    """Takes the seconds that importing wandb and starting its service take."""
    home, runs = tmp_path / "home", tmp_path / "runs"
    home.mkdir()
    runs.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", THREE, str(runs)], env=environment(home), capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
    files = sorted(runs.glob("run*/wandb/offline-run-*/run-*.wandb"))
    assert [path.parts[len(runs.parts)] for path in files] == ["run0", "run1", "run2"]
    content = files[2].read_bytes()
    for written in (b"train/loss", b"attack/distortion", b"transfer", b"checkpoint-fc_seed2", b"paper", b"errors/test"):
        assert written in content
    for other in (b"fc_seed0", b"attack/none", b"after/the/end"):
        assert other not in content
    assert not [path for path in home.rglob("*") if path.is_file()]  # everything is below the run folders


class Broken:
    """Stands for wandb's run after its service has died."""

    offline, name, id, dir, project = True, "fc", "x", ".", "p"

    def __getattr__(self, name: str) -> None:
        raise BrokenPipeError("the service is gone")


def test_a_broken_service_costs_one_line(tmp_path, caplog):
    run = WandbRun(Broken(), tmp_path)
    logger = lightning_logger(run)
    assert logger is not None
    with run:
        logger.log_metrics({"a": 1.0}, step=1)
        logger.log_hyperparams({"a": 1})
        run.log({"a": 1}, 1)
        run.log_histogram("h", np.ones(2))
        run.log_artifact(tmp_path / "missing", kind="checkpoint")
    assert len(caplog.records) == 1
    assert "W&B could not log (BrokenPipeError: the service is gone)" in caplog.text
    assert not run.active


def test_no_start_is_no_obstacle(tmp_path, monkeypatch, caplog):
    (tmp_path / "wandb").write_text("in the way")
    run = start_wandb(folder=tmp_path, name="fc", mode="offline")
    assert not run.active
    assert len(caplog.records) == 1
    assert "W&B could not start" in caplog.text
    run.log({"a": 1})
    run.finish()


@pytest.mark.parametrize("mode", [None, "disabled"])
def test_disabled(tmp_path, monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", "online" if mode else "disabled")
    with start_wandb(folder=tmp_path, name="fc", mode=mode) as run:
        run.log({"a": 1}, 1)
        run.summarise({"a": 1})
        assert (run.active, run.raw, lightning_logger(run)) == (False, None, None)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_mode(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(UserError, match="'sometimes' is unknown; expected one of offline, online, disabled"):
        start_wandb(folder=tmp_path, name="fc")


class Recorder:
    """Stands for wandb's run and keeps what it is given."""

    offline, name, id, dir, project = True, "fc", "x", ".", "p"

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.config: dict = {}

    def log(self, row: dict) -> None:
        self.rows.append(row)


def test_what_is_logged(tmp_path):
    recorder = Recorder()
    run = WandbRun(recorder, tmp_path)
    run.log({"train/loss": 0.5}, 3)
    run.log({"seconds": 2})
    logger = lightning_logger(run)
    assert logger is not None
    logger.log_metrics({"val/loss": 0.25}, step=4)
    assert recorder.rows == [{"train/loss": 0.5, AXIS: 3}, {"seconds": 2}, {"val/loss": 0.25, AXIS: 4}]
    assert (logger.version, logger.experiment) == ("x", recorder)

"""A failed job of a sweep, a full disk, a place that cannot be written: named in one line, and the rest stays."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from intriguing.checkpoints import AtomicCheckpointIO
from intriguing.cli.config import training_job
from intriguing.errors import UserError
from intriguing.models import Classifier
from intriguing.runs.folder import keep_others_out
from intriguing.runs.records import read_run
from intriguing.training import fit
from intriguing.training import fit as fit_function

TRAIN = ("data=digits", "logger=csv", "model=fc10", "trainer.max_epochs=2")


class Stop(Exception):
    pass


@pytest.mark.parametrize("batches", [[], ["hydra.sweeper.max_batch_size=1"]], ids=["at once", "batches"])
def test_a_failed_job_of_a_sweep_is_named_and_stays_alone(
    run_script: Callable[..., tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: list[str]
) -> None:
    original = Classifier.on_train_epoch_start

    def broken(self: Classifier) -> None:
        if self.weight_decay == [7.0]:
            raise ZeroDivisionError("no such number")
        original(self)

    monkeypatch.setattr(Classifier, "on_train_epoch_start", broken)
    status, _, err = run_script("train.py", "-m", "weight_decay.value=-1,7,1", *batches, *TRAIN)
    assert status == 1
    wrong = "weight_decay.value must be a finite number of at least 0, got -1"
    broke = "ZeroDivisionError: no such number (HYDRA_FULL_ERROR=1 shows where)"
    last = f"error: 2 of 3 jobs failed: weight_decay.value=-1: {wrong}; weight_decay.value=7: {broke}"
    assert err.splitlines()[-1] == last
    assert "Traceback" not in err and err.count("\n") == 3  # and one line for each when it failed
    folders = sorted((tmp_path / "runs" / "train").iterdir())
    assert [read_run(folder).state for folder in folders] == ["finished", "failed"]
    recorded = sorted((tmp_path / "runs" / "sweeps").glob("*/job*.json"))
    assert [json.loads(file.read_text())["state"] for file in recorded] == ["failed", "failed", "finished"]


@contextmanager
def _disk_of(size: int) -> Iterator[None]:
    """A write beyond so many bytes fails (EFBIG), as on a disk that is full (ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    train = ("train.py", *TRAIN, "name=small")
    attack = ("attack.py", f"checkpoints={runs}/train/*", "limit=20", "name=set", "logger=csv")
    analyze = ("analyze.py", f"networks={runs}/train/*", f"sets={runs}/attack/*", "logger=csv", "name=page")
    for size, command, file in ((6000, train, "best.ckpt"), (6000, attack, "safetensors"), (6000, analyze, "page")):
        with _disk_of(size):
            status, _, err = run_script(*command)
        line = err.splitlines()[-1]
        assert status == 1 and line.startswith("error: cannot write ") and "too large" in line, err
        assert file in line and "Traceback" not in err
        assert not [path for path in runs.rglob("*") if path.name.endswith(".tmp")]
        status, _, err = run_script(*command)
        assert status == 0, err


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("train.py", TRAIN), ("train.py", ("-m", *TRAIN)), ("analyze.py", ("study=quocnet", "logger=csv"))],
)
def test_a_place_that_cannot_be_is_one_line(
    run_script: Callable[..., tuple], tmp_path: Path, script: str, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("no folder")
    status, _, err = run_script(script, *arguments, f"runs={tmp_path}/file/runs", runs=False)
    assert status == 1 and err.startswith("error: ") and err.count("\n") == 1
    assert f"{tmp_path}/file" in err


def test_a_study_is_run_by_one_process(tmp_path: Path) -> None:
    with (
        keep_others_out(tmp_path, "analyze", "paper"),
        pytest.raises(UserError, match="paper is in use by another process"),
        keep_others_out(tmp_path, "analyze", "paper"),
    ):
        pass
    with keep_others_out(tmp_path, "analyze", "paper"):
        assert [file.name for file in (tmp_path / "analyze").iterdir()] == [".paper.lock"]


def _results(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("model.ckpt", "metrics.csv")]


def test_metrics_of_an_epoch_are_there_when_its_checkpoint_is(
    composed: Callable[..., dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning logs an epoch's numbers after its checkpoint; stopped between the two, the row would be lost."""
    overrides = ("data=digits", "model=fc10", "trainer.max_epochs=3", "data.validation=100", "test_curve=true")
    whole, job = (training_job(composed("train", *overrides, f"name={name}")) for name in ("whole", "cut"))
    original = AtomicCheckpointIO.save_checkpoint
    saved = []

    def save_and_stop(self: AtomicCheckpointIO, checkpoint: dict, path: Path, storage_options: object = None) -> None:
        original(self, checkpoint, path, storage_options)
        saved.append(path)
        if len(saved) == 4:  # best and last of the second epoch
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(AtomicCheckpointIO, "save_checkpoint", save_and_stop)
        with pytest.raises(Stop):
            fit(job)
    assert Path(saved[-1]).name == "last.ckpt"
    assert _results(fit(job)) == _results(fit(whole))


def test_a_fit_that_had_stopped_early_does_not_go_on(
    composed: Callable[..., dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    early = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=2")
    overrides = ("data=digits", "model=fc10", "trainer.max_epochs=20", "data.validation=100", *early)

    whole, job = (training_job(composed("train", *overrides, f"name={name}"), (), "") for name in ("whole", "cut"))
    module = __import__("sys").modules[fit_function.__module__]
    with monkeypatch.context() as patch:
        patch.setattr(module, "conclude", lambda *args: (_ for _ in ()).throw(Stop()))
        with pytest.raises(Stop):
            fit(job)
    again = training_job(composed("train", *overrides, "name=cut"), (), "")
    first, second = _results(fit(again)), _results(fit(whole))
    assert first == second
    assert first[1].count(b"\n") < 20

"""SIGTERM and Ctrl-C: what is finished is saved and said, the status is 143 or 130, the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from intriguing.analysis import run
from intriguing.attacking import shards
from intriguing.errors import Stopped
from intriguing.models import Classifier
from intriguing.runs.interrupts import listening
from intriguing.runs.records import read_run

ROOT = Path(__file__).parents[2]
SIGNALS = [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
TRAIN = ("data=digits", "logger=csv", "model=fc10", "trainer.max_epochs=4")


@pytest.fixture
def send_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have this process signalled when something is called for the n-th time, once."""

    def arrange(owner: object, name: str, number: signal.Signals, call: int) -> None:
        original, calls = getattr(owner, name), [0]

        def called(*args: object, **kwargs: object) -> object:
            calls[0] += 1
            if calls[0] == call:
                os.kill(os.getpid(), number)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, called)

    return arrange


def _results(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("model.ckpt", "metrics.csv")]


@pytest.mark.parametrize(("number", "status", "word"), SIGNALS)
def test_a_stopped_training_says_what_is_saved_and_goes_on_exactly(
    run_script: Callable[..., tuple], tmp_path: Path, send_at: Callable[..., None], number: int, status: int, word: str
) -> None:
    assert run_script("train.py", *TRAIN, "name=whole")[0] == 0
    send_at(Classifier, "training_step", number, 2 * 72 + 30)  # 72 steps an epoch: in the middle of the third
    ended, _, err = run_script("train.py", *TRAIN, "name=stopped")
    folder = tmp_path / "runs" / "train" / "stopped"
    assert ended == status
    assert err == f"stopped by {word}: {folder}: epoch 2 of 4 is saved; the same command resumes there\n"
    assert read_run(folder).state == "interrupted"
    assert run_script("train.py", *TRAIN, "name=stopped")[0] == 0
    assert _results(folder) == _results(folder.parent / "whole")


def test_a_training_stopped_in_its_first_epoch_says_that_too(
    run_script: Callable[..., tuple], send_at: Callable[..., None]
) -> None:
    send_at(Classifier, "training_step", signal.SIGTERM, 3)
    status, _, err = run_script("train.py", *TRAIN)
    assert status == 143 and "no epoch is finished yet" in err


@pytest.mark.parametrize(("number", "status", "word"), SIGNALS[:1])
def test_a_stopped_sweep_keeps_its_finished_jobs(
    run_script: Callable[..., tuple], tmp_path: Path, send_at: Callable[..., None], number: int, status: int, word: str
) -> None:
    sweep = ("-m", "seed=0,1,2", *TRAIN, "trainer.max_epochs=2")
    send_at(Classifier, "training_step", number, 2 * 72 + 100)
    ended, _, err = run_script("train.py", *sweep)
    assert ended == status
    assert err.splitlines()[-1].startswith(f"stopped by {word}: 1 job of the sweep is finished; ")
    folders = sorted((tmp_path / "runs" / "train").iterdir())
    assert [read_run(folder).state for folder in folders] == ["finished", "interrupted"]
    assert run_script("train.py", *sweep)[0] == 0
    assert len(list(folders[0].parent.iterdir())) == 3


def test_a_stopped_attack_keeps_its_shards_and_analyze_just_stops(
    run_script: Callable[..., tuple], tmp_path: Path, send_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    assert run_script("train.py", *TRAIN)[0] == 0
    attack = ("attack.py", f"checkpoints={runs}/train/*", "limit=12", "shard=4", "logger=csv")
    with monkeypatch.context():
        send_at(shards, "_make", signal.SIGTERM, 2)
        status, _, err = run_script(*attack)
    (folder,) = (runs / "attack").iterdir()
    assert status == 143
    assert err == f"stopped by SIGTERM: {folder}: 1 of 3 shards is saved; the same command resumes there\n"
    assert run_script(*attack)[0] == 0
    assert not (folder / "shards").exists()
    analyze = ("analyze.py", f"networks={runs}/train/*", f"sets={runs}/attack/*", "logger=csv", "sections=[table1]")
    send_at(run, "make_result", signal.SIGINT, 1)
    status, _, err = run_script(*analyze)
    assert status == 130 and err.startswith("stopped by Ctrl-C: ") and err.count("\n") == 1
    assert read_run(runs / "analyze" / "analysis").state == "interrupted"
    assert run_script(*analyze)[0] == 0


def test_a_second_signal_does_not_disturb_the_saving() -> None:
    saved = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a scheduler, uv and a terminal may all send one
            saved.append(True)

    with pytest.raises(Stopped) as stop, listening():
        work()
    assert saved and stop.value.code == 130
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_that_a_library_took_for_an_error_is_still_one() -> None:
    def library() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            raise RuntimeError("something else") from None

    with pytest.raises(Stopped, match="143"), listening():
        library()


def test_handlers_of_others_stay() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a scheduler's launcher may want it
    try:
        with listening():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_the_processes_of_a_distributed_fit_stop_together(tmp_path: Path) -> None:
    """Two real processes, of which the first one gets the signal: left to Lightning, they wait for each other."""
    command = [sys.executable, str(ROOT / "train.py"), *TRAIN[:3], f"runs={tmp_path}", "name=two"]
    command += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=1000"]
    last = tmp_path / "train" / "two" / "checkpoints" / "last.ckpt"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as fit:
        end = time.monotonic() + 200
        while not last.exists() and time.monotonic() < end:
            time.sleep(0.1)
        fit.terminate()
        try:
            _, err = fit.communicate(timeout=120)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(fit.pid, signal.SIGKILL)
    assert fit.returncode == 143, err
    assert err.startswith("stopped by SIGTERM: ") and "of 1000 is saved" in err and err.count("\n") == 1, err

"""Two processes with half of every batch each give the loss curve of one."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only

from intriguing.doors import training_job
from intriguing.errors import UserError
from intriguing.training import TrainingJob, fit

ROOT = Path(__file__).parents[2]
# 400 images in batches of 20: each process has ten of every batch. Where a batch does not divide evenly, the images of
# the smaller share count a little more.
DATA = ("data=digits", "data.only=400", "trainer.max_epochs=3")
TWO = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
POOLS = ("callbacks=back_feeding", "callbacks.back_feeding.start=0")


def _job(composed: Callable[..., dict], name: str, *overrides: str) -> TrainingJob:
    return training_job(composed("train", *DATA, f"name={name}", *overrides), [], "")


def _process(rank: int, port: int, job: TrainingJob) -> None:
    """What torchrun makes of a process."""
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": f"{port}",
    }
    rank_zero_only.rank = rank  # read from the environment when Lightning is imported, which the fork spares itself
    fit(job)


def _fit_in_two(job: TrainingJob) -> Path:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_process, args=(rank, port, job)) for rank in (0, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forks of a process with threads, from Python 3.12 on
        for process in processes:
            process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    return Path(job.runs) / "train" / job.name


def _curve(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv").drop(columns="pool/renewal_seconds", errors="ignore")


def test_two_processes_have_the_curve_of_one(composed: Callable[..., dict], capfd: pytest.CaptureFixture) -> None:
    one = _curve(fit(_job(composed, "one")))
    two = _curve(_fit_in_two(_job(composed, "two", *TWO)))
    assert one["train/loss"].count() == 3
    pd.testing.assert_frame_equal(one, two, rtol=1e-5)
    assert "".join(capfd.readouterr()) == ""


def test_back_feeding_in_two_processes_is_that_of_one(composed: Callable[..., dict]) -> None:
    """Pools that hold the last batch, whole or each process its half of it, make the same steps."""
    one = _curve(fit(_job(composed, "one", *POOLS, "callbacks.back_feeding.size=20")))
    two = _curve(_fit_in_two(_job(composed, "two", *POOLS, "callbacks.back_feeding.size=10", *TWO)))
    counts = [key for key in two if key.startswith("pool/replaced")]
    assert (one[counts].dropna() == 2 * two[counts].dropna()).all(axis=None)
    pd.testing.assert_frame_equal(one.drop(columns=counts), two.drop(columns=counts), rtol=1e-4)


def test_a_network_that_trains_in_parts(composed: Callable[..., dict]) -> None:
    """The autoencoder's parts take turns, so each step leaves some without a gradient.

    Its noise and the mean activation that it holds down are each process's own, so the curves are close, not equal.
    """
    one = _curve(fit(_job(composed, "one", "model=ae400_10")))
    two = _curve(_fit_in_two(_job(composed, "two", "model=ae400_10", *TWO)))
    pd.testing.assert_frame_equal(one, two, rtol=0.05)


def test_processes_that_could_not_write_are_refused(composed: Callable[..., dict]) -> None:
    with pytest.raises(UserError, match="strategy=ddp_spawn trains in processes"):
        _job(composed, "one", *TWO, "trainer.strategy=ddp_spawn")


@pytest.mark.slow
def test_the_command_starts_its_second_process(composed: Callable[..., dict], tmp_path: Path) -> None:
    """20 s of CPU: two processes that import everything."""
    one = _curve(fit(_job(composed, "one")))
    command = [sys.executable, str(ROOT / "train.py"), *DATA, *TWO, "name=two", f"runs={tmp_path}/runs", "logger=csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    pd.testing.assert_frame_equal(one, _curve(tmp_path / "runs" / "train" / "two"), rtol=1e-5)

"""Two processes that share every batch, evenly or not, give the numbers and the weights of one."""

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
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from intriguing.checkpoints import load_model, read_checkpoint
from intriguing.cli.config import training_job
from intriguing.errors import UserError
from intriguing.models import QuocNet
from intriguing.training import TrainingJob, fit

ROOT = Path(__file__).parents[2]
# 201 images in batches of 5: shares of three and two images, and of the last batch, of one image, an empty one.
UNEVEN = ("data=digits", "data.only=201", "data.batch_size=5", "trainer.max_epochs=2")
EVEN = ("data=digits", "data.only=200", "data.batch_size=20", "trainer.max_epochs=2")
TWO = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
POOLS = ("callbacks=back_feeding", "callbacks.back_feeding.start=0")


def _job(composed: Callable[..., dict], name: str, *overrides: str) -> TrainingJob:
    return training_job(composed("train", f"name={name}", *overrides), [], "")


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


def _fit_in_two(job: TrainingJob, *, exitcode: int = 0) -> Path:
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
    assert [process.exitcode for process in processes] == [exitcode] * 2
    return Path(job.runs) / "train" / job.name


def _curve(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv").drop(columns="pool/renewal_seconds", errors="ignore")


def _assert_same_network(one: Path, two: Path) -> None:
    first, second = (dict(load_model(folder / "model.ckpt").state_dict()) for folder in (one, two))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_two_processes_have_the_curve_of_one(composed: Callable[..., dict], capfd: pytest.CaptureFixture) -> None:
    penalty = ("spectral_penalty=log_product", "spectral_penalty.value=0.01", "model.settings.widths=[20,20]")
    one = fit(_job(composed, "one", *UNEVEN, *penalty))
    two = _fit_in_two(_job(composed, "two", *UNEVEN, *penalty, *TWO))
    assert _curve(one)["train/loss"].count() == 2
    pd.testing.assert_frame_equal(_curve(one), _curve(two), rtol=1e-5)
    _assert_same_network(one, two)
    assert "".join(capfd.readouterr()) == ""


def test_back_feeding_in_two_processes_is_that_of_one(composed: Callable[..., dict]) -> None:
    """Pools that hold the last batch, whole or each process its half of it, make the same steps."""
    one = fit(_job(composed, "one", *EVEN, *POOLS, "callbacks.back_feeding.size=20"))
    two = _fit_in_two(_job(composed, "two", *EVEN, *POOLS, "callbacks.back_feeding.size=10", *TWO))
    pd.testing.assert_frame_equal(_curve(one), _curve(two), rtol=1e-4)


def test_back_feeding_makes_no_example_of_a_process_without_images(composed: Callable[..., dict]) -> None:
    """Pools of weight 0 leave the steps as they are without pools, and hold images of the batches alone."""
    pools = (*POOLS, "callbacks.back_feeding.layers=[input]", "callbacks.back_feeding.weight=0")
    one = fit(_job(composed, "one", *UNEVEN, *pools))
    two = _fit_in_two(_job(composed, "two", *UNEVEN, *pools, *TWO))
    pool = [key for key in _curve(one) if key.startswith("pool/") and key != "pool/clean_loss"]
    pd.testing.assert_frame_equal(_curve(one).drop(columns=pool), _curve(two).drop(columns=pool), rtol=1e-5)
    _assert_same_network(one, two)
    saved = read_checkpoint(two / "checkpoints" / "last.ckpt")["callbacks"]
    for rank in next(state for key, state in saved.items() if "BackFeeding" in key)["ranks"]:
        kept = rank["pools"]["input"]["pool"]
        assert kept["filled"] > 50
        assert bool((kept["examples"][: kept["filled"]].flatten(1).max(1).values > 0.5).all())  # no blank one


def test_a_network_that_trains_in_parts(composed: Callable[..., dict]) -> None:
    """The autoencoder's parts take turns, so each step leaves some without a gradient.

    Its noise, and the mean activation that it holds down, are those of the whole batch.
    """
    one = fit(_job(composed, "one", *UNEVEN, "model=ae400_10"))
    two = _fit_in_two(_job(composed, "two", *UNEVEN, "model=ae400_10", *TWO))
    pd.testing.assert_frame_equal(_curve(one), _curve(two), rtol=1e-5)
    _assert_same_network(one, two)


# Adam divides a gradient by its size plus eps. The corners of the digits are always blank, so there the gradient is
# rounding alone, and with Adam's 1e-8 the processor's order of sums would choose the direction of a whole step.
SMALL = (
    "model=quocnet", "model.settings.maps=[3,4]", "model.settings.kernels=[3,2]", "model.settings.strides=[1,1]",
    "model.settings.pools=[2,2]", "trainer.max_epochs=4", "+optimizer.eps=0.1",
)  # fmt: skip
SHARDED = ("trainer=fsdp", "trainer.devices=2", "trainer.accelerator=cpu")


@pytest.mark.parametrize("tied", ["true", "false"])
def test_two_processes_that_share_the_weights_of_one_network_train_as_one_process(
    composed: Callable[..., dict], tied: str
) -> None:
    """Lightning's FSDP on two CPU processes (gloo): the network is built on the meta device, layer by layer."""
    images = ("data=digits", "data.only=201", "data.batch_size=67")
    one = fit(_job(composed, "one", *images, *SMALL, f"model.settings.tied={tied}"))
    two = _fit_in_two(_job(composed, "two", *images, *SMALL, f"model.settings.tied={tied}", *SHARDED))
    pd.testing.assert_frame_equal(_curve(one), _curve(two), rtol=1e-4)
    _assert_same_network(one, two)


@pytest.mark.parametrize("together", [True, False])
def test_a_sharded_fit_goes_on_in_two_processes_or_in_one(
    composed: Callable[..., dict], monkeypatch: pytest.MonkeyPatch, together: bool, capfd: pytest.CaptureFixture
) -> None:
    images = ("data=digits", "data.only=200", "data.batch_size=100")
    one = fit(_job(composed, "one", *images, *SMALL))
    original = QuocNet.on_train_epoch_start

    def stop(self: QuocNet) -> None:
        if self.current_epoch == 2:
            raise RuntimeError("stopped")
        original(self)

    sharded = _job(composed, "two", *images, *SMALL, *SHARDED)
    with monkeypatch.context() as patch:
        patch.setattr(QuocNet, "on_train_epoch_start", stop)
        _fit_in_two(sharded, exitcode=1)
    assert int(read_checkpoint(Path(sharded.runs) / "train" / "two" / "checkpoints" / "last.ckpt")["epoch"]) == 1
    two = _fit_in_two(sharded) if together else fit(_job(composed, "two", *images, *SMALL))
    pd.testing.assert_frame_equal(_curve(one), _curve(two), rtol=1e-4)
    _assert_same_network(one, two)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("model=fc10",), "which fully_connected does not do; it is for model.name=quocnet"),
        ((*SMALL, "spectral_penalty=log_product", "spectral_penalty.value=1"), "give spectral_penalty=none"),
        ((*SMALL, *POOLS), "callbacks=back_feeding could attack"),
        ((*SMALL, "optimizer=adamw"), "which AdamW does not do; give optimizer=adam"),
    ],
)
def test_what_a_sharded_fit_cannot_do_is_refused(
    composed: Callable[..., dict], changed: tuple[str, ...], words: str
) -> None:
    job = _job(composed, "one", *EVEN, *changed, "trainer=fsdp", "trainer.devices=1", "trainer.accelerator=cpu")
    with pytest.raises(UserError, match=words):
        fit(job)
    assert not (Path(job.runs) / "train" / "one").exists()


def test_processes_that_could_not_write_are_refused(composed: Callable[..., dict]) -> None:
    with pytest.raises(UserError, match="strategy=ddp_spawn trains in processes"):
        _job(composed, "one", *EVEN, *TWO, "trainer.strategy=ddp_spawn")


@pytest.mark.slow
def test_the_command_starts_its_second_process(composed: Callable[..., dict], tmp_path: Path) -> None:
    """20 s of CPU: two processes that import everything."""
    one = _curve(fit(_job(composed, "one", *UNEVEN)))
    command = [sys.executable, str(ROOT / "train.py"), *UNEVEN, *TWO, "name=two", f"runs={tmp_path}/runs", "logger=csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    pd.testing.assert_frame_equal(one, _curve(tmp_path / "runs" / "train" / "two"), rtol=1e-5)

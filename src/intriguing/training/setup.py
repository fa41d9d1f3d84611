"""Build the Trainer of a run, with the callbacks that keep the run resumable."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.strategies import DDPStrategy

from intriguing.callbacks import ErrorCurve
from intriguing.callbacks.lifecycle import BestCheckpoint, EndOnce, LastCheckpoint, OwnSignals, StayStopped
from intriguing.callbacks.progress import Progress, ProgressCallback
from intriguing.checkpoints import AtomicCheckpointIO
from intriguing.errors import UserError
from intriguing.models import Classifier
from intriguing.training.csv_metrics import RowBeforeCheckpoint
from intriguing.training.job import TrainingJob
from intriguing.training.profile import profiler_of
from intriguing.training.sharded import Sharded


def run_callbacks(job: TrainingJob, folder: Path, progress: Progress | None) -> list[Callback]:
    """List all callbacks of a run: the user's, and those that log and keep it.

    Args:
        job: the run.
        folder: of the run.
        progress: called now and then, see ``ProgressCallback``.
    """
    callbacks: list[Callback] = list(job.callbacks)
    if job.test_curve:
        callbacks.append(ErrorCurve())
    if progress is not None:
        callbacks.append(ProgressCallback(progress))
    if not job.trainer.shows_only:
        checkpoints = folder / "checkpoints"
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(checkpoints / "own")
        best = BestCheckpoint(checkpoints, monitor="val/loss" if validates(job) else "train/loss")
        callbacks = [RowBeforeCheckpoint(), *callbacks, best, LastCheckpoint(checkpoints), StayStopped()]
    return [*callbacks, OwnSignals(), EndOnce()]


def make_trainer(
    job: TrainingJob, model: Classifier, folder: Path, callbacks: Sequence[Callback], **more: Any
) -> lightning.Trainer:
    """Build the Trainer of a run, without loggers.

    Args:
        job: the run.
        model: its network.
        folder: of the run.
        callbacks: all of them.
        more: options besides those of the job.
    """
    settings: dict[str, Any] = {"enable_model_summary": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    if not job.data.validation:
        settings["limit_val_batches"] = 0
    plugins = more.pop("plugins", [])
    own = [callback.dirpath for callback in callbacks if isinstance(callback, ModelCheckpoint) and callback.dirpath]
    settings |= {**job.trainer.options, **more}
    settings |= {
        "callbacks": list(callbacks),
        "logger": DummyLogger(),
        "plugins": [AtomicCheckpointIO(folder, *map(Path, own)), *plugins],
        "enable_checkpointing": has(callbacks, Checkpoint),
        "enable_progress_bar": has(callbacks, ProgressBar),  # the caller shows another one
        "use_distributed_sampler": False,  # BatchIndices gives each process its share of every batch
        "default_root_dir": folder,
    }
    if settings.get("strategy") == "fsdp":
        settings["strategy"] = Sharded()
    if profiler := profiler_of(settings.get("profiler"), folder):
        settings["profiler"] = profiler
    trainer = lightning.Trainer(**settings)
    if model.trains_in_parts and isinstance(trainer.strategy, DDPStrategy):
        # other networks would pay for the search of parameters without a gradient, and be warned
        settings["strategy"] = "ddp_find_unused_parameters_true"
        trainer = lightning.Trainer(**settings)
    return trainer


def validates(job: TrainingJob) -> bool:
    """Return whether the run has images for validation and uses them."""
    return bool(job.data.validation) and job.trainer.options.get("limit_val_batches") != 0


def has(callbacks: Sequence[Callback], kind: type[Callback]) -> bool:
    """Return whether a callback is of a class."""
    return any(isinstance(callback, kind) for callback in callbacks)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's advice on choices that are made on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",  # a batch is one index operation: workers would only cost
            "Checkpoint directory .* exists and is not empty.*",  # a resumed run
            ".*treespec, LeafSpec.*",
            "Total length of .* across ranks is zero.*",  # no images for validation
            ".*on epoch level in distributed setting.*",  # the sums are already those of all processes
            "SWA is currently only supported every epoch.*",  # it replaces the schedule that goes by the step
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


def refusal(error: Exception) -> UserError:
    """Return Lightning's refusal as one line, with its kind where the message alone says too little."""
    said = " ".join(str(error).split("__init__() ")[-1].split())
    usual = isinstance(error, TypeError | ValueError | RuntimeError | ImportError | MisconfigurationException)
    return UserError(f"trainer or callbacks: {said if usual else f'{type(error).__name__}: {said}'}")

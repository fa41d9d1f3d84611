"""The Trainer of a run with the user's callbacks in it, and what can be refused before anything is written."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    Checkpoint,
    EarlyStopping,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    OnExceptionCheckpoint,
    ProgressBar,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.seed import isolate_rng

from intriguing.callbacks import BackFeeding
from intriguing.checkpoints import AtomicCheckpointIO
from intriguing.data import ImageData
from intriguing.errors import UserError
from intriguing.models import Classifier, planned_steps
from intriguing.runs.interrupts import reclaim
from intriguing.storage import checkpoint_file
from intriguing.training.job import TrainingJob


def check(job: TrainingJob, model: Classifier, data: ImageData, folder: Path) -> None:
    """Refuse callbacks and options of the Trainer that cannot work; nothing is written or trained.

    Raises:
        UserError: one line that says what does not fit.
    """
    _check_callbacks(job, folder)
    for callback in job.callbacks:
        if isinstance(callback, BackFeeding):
            callback.check(model)
    options = dict(job.trainer)
    if options.get("profiler") in ("simple", "advanced", "pytorch"):
        del options["profiler"]  # it would begin to write
    with quiet(), _in_one_line():
        make_trainer(job, options, folder, job.callbacks)
        if job.trainer["max_epochs"]:
            _check_monitors(job, model)
        _rehearse(job, options, model, data, folder)


def make_trainer(
    job: TrainingJob,
    options: dict[str, Any],
    folder: Path,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger] = (),
    plugins: Sequence[Any] = (),
) -> lightning.Trainer:
    """Return the Trainer of a run.

    Args:
        job: the run.
        options: of the Trainer, from the config.
        folder: of the run.
        callbacks: all of them.
        loggers: none for a further process of a distributed fit, and for one that only shows that it runs.
        plugins: beside the one that writes checkpoints.
    """
    settings: dict[str, Any] = {"enable_model_summary": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    if not job.data["validation"]:
        settings["limit_val_batches"] = 0
    own = [callback.dirpath for callback in callbacks if isinstance(callback, ModelCheckpoint) and callback.dirpath]
    settings |= options | {"enable_progress_bar": _has(callbacks, ProgressBar)}  # the caller shows another one
    return lightning.Trainer(
        **settings,
        callbacks=list(callbacks),
        logger=list(loggers) or DummyLogger(),
        plugins=[AtomicCheckpointIO(folder, *map(Path, own)), *plugins],
        enable_checkpointing=_has(callbacks, Checkpoint),
        use_distributed_sampler=False,  # BatchIndices gives each process its share of every batch
        default_root_dir=folder,
    )


def validates(job: TrainingJob) -> bool:
    """Return whether the run has images for validation and uses them."""
    return bool(job.data["validation"]) and job.trainer.get("limit_val_batches") != 0


def is_distributed(trainer: lightning.Trainer) -> bool:
    """Return whether the gradients of several processes are averaged."""
    return isinstance(trainer.strategy, DDPStrategy)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Lightning says about choices that are made on purpose here."""
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


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise refusal(error) from error


def refusal(error: Exception) -> UserError:
    """Return Lightning's refusal as one line, with its kind where the message alone says too little."""
    said = " ".join(str(error).split("__init__() ")[-1].split())
    usual = isinstance(error, TypeError | ValueError | RuntimeError | ImportError | MisconfigurationException)
    return UserError(f"trainer or callbacks: {said if usual else f'{type(error).__name__}: {said}'}")


def _is_known(callback: Callback) -> bool:
    return type(callback).__module__.startswith(("lightning.", "intriguing."))


def _check_callbacks(job: TrainingJob, folder: Path) -> None:
    """Raises UserError for what is no callback, or works against the record of the run."""
    for callback in job.callbacks:
        name = type(callback).__name__
        if not isinstance(callback, Callback):
            raise UserError(f"callbacks: expected Lightning callbacks, {{_target_: ...}} each, got a {name}")
        if isinstance(callback, OnExceptionCheckpoint):
            raise UserError(
                f"callbacks: {name} would have Lightning start from its file; a run that failed goes on from its last "
                "finished epoch anyway"
            )
        if isinstance(callback, BatchSizeFinder | LearningRateFinder):
            key = "data.batch_size" if isinstance(callback, BatchSizeFinder) else "model.settings.learning_rate"
            raise UserError(f"callbacks: {name} would change {key}, which the run's config records; set {key} itself")
        own = (folder / "checkpoints").resolve()
        if isinstance(callback, ModelCheckpoint) and callback.dirpath and Path(callback.dirpath).resolve() == own:
            raise UserError(
                f"callbacks: {name}.dirpath={callback.dirpath} is where the run keeps its own checkpoints; "
                f"give another folder, or none for {own / 'own'}"
            )
        if not _is_known(callback):
            _check_state(callback)


def _check_state(callback: Callback) -> None:
    """Raises UserError where a callback's state could be written into a checkpoint and not be read again."""
    try:
        state = callback.state_dict()
    except Exception:  # it may need what only a fit gives it
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "state.ckpt"
        try:
            with path.open("w+b") as file:
                checkpoint_file.write({"state": state}, file)
            checkpoint_file.read(path)
        except Exception as error:
            raise UserError(
                f"callbacks: the state_dict of {type(callback).__name__} must hold numbers, texts, lists, dicts and "
                "tensors alone, because checkpoints are read without running anything in them"
            ) from error


def _check_monitors(job: TrainingJob, model: Classifier) -> None:
    """Raises UserError for a callback that watches a number which the run does not log."""
    if not all(map(_is_known, job.callbacks)):
        return  # a class of the user's may log any number
    known = model.metric_keys() + (["val/loss", "val/acc"] if validates(job) else [])
    known += ["curve/test_error"] if job.test_curve else []
    prefixes = tuple(
        prefix for kind, prefix in ((BackFeeding, "pool/"), (LearningRateMonitor, "lr-")) if _has(job.callbacks, kind)
    )
    for callback in job.callbacks:
        steps = ["epoch", "step"] if isinstance(callback, ModelCheckpoint) else []
        watches = isinstance(callback, ModelCheckpoint) or (isinstance(callback, EarlyStopping) and callback.strict)
        key = callback.monitor if watches else None  # pyright: ignore[reportAttributeAccessIssue]
        if key is None or key in known + steps or key.startswith(prefixes):
            continue
        remedy = "; data.validation=... sets images apart for val/loss and val/acc" if not validates(job) else ""
        raise UserError(
            f"callbacks: {type(callback).__name__} watches {key}, which this run does not log; it logs "
            f"{', '.join(key for key in known if not key.startswith('weights/'))}{remedy}"
        )


def _has(callbacks: Sequence[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)


class _Rehearsed(Exception):
    pass


class _EndBeforeTheFirstBatch(Callback):
    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        raise _Rehearsed

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        raise _Rehearsed

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        raise _Rehearsed


def _rehearse(job: TrainingJob, options: dict[str, Any], model: Classifier, data: ImageData, folder: Path) -> None:
    """Start all that the run does as far as its first batch, on the CPU, for what Lightning checks only there.

    It happens with copies of the network and of Lightning's callbacks. Those of the user's own classes are left out,
    because they may act at the start; so are those that print.
    """
    kept = [one for one in job.callbacks if _is_known(one) and not isinstance(one, ProgressBar | ModelSummary)]
    here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": SingleDeviceStrategy("cpu")}
    silent = {"num_sanity_val_steps": 0, "enable_model_summary": False}
    fits = bool(job.trainer["max_epochs"])
    with isolate_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit itself says them
        callbacks = [*copy.deepcopy(kept), _EndBeforeTheFirstBatch()]
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint):
                callback.save_on_exception = False  # the end of the rehearsal is one
        alone = [LightningEnvironment()]  # whatever started this process
        trainer = make_trainer(job, options | here | silent, folder, callbacks, plugins=alone)
        network = copy.deepcopy(model)
        for stage in [trainer.fit] * fits + [trainer.validate] * validates(job) + [trainer.test]:
            try:
                stage(network, datamodule=data)
            except _Rehearsed:
                pass
            finally:
                reclaim()
        if fits and job.keep == "best":
            _check_best(job, trainer)


def _check_best(job: TrainingJob, trainer: lightning.Trainer) -> None:
    """Raises UserError where the best network is wanted and the fit ends before any is validated."""
    every, batches = trainer.check_val_every_n_epoch, trainer.num_training_batches
    epochs = planned_steps(trainer) * trainer.accumulate_grad_batches / batches
    if validates(job) and every is not None and trainer.val_check_interval == 1.0 and epochs < every:
        raise UserError(
            f"keep=best: trainer.check_val_every_n_epoch={every} validates no network within {epochs:.3g} epochs; "
            "validate more often, or train with keep=last"
        )

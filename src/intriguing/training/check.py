"""Refuse callbacks and options of the Trainer that cannot work, before anything is written or trained."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    EarlyStopping,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    OnExceptionCheckpoint,
    ProgressBar,
)
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.seed import isolate_rng

from intriguing.callbacks import BackFeeding
from intriguing.data import ImageData
from intriguing.errors import UserError
from intriguing.models import REGISTRY, Classifier, planned_steps
from intriguing.models.optimization import is_coupled
from intriguing.runs.interrupts import reclaim
from intriguing.storage import checkpoint_file
from intriguing.training.job import TrainingJob
from intriguing.training.setup import has, make_trainer, refusal, validates


@contextmanager
def refused_in_one_line() -> Iterator[None]:
    """Raise UserError, a line, for whatever Lightning does not accept."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise refusal(error) from error


def check_callbacks(job: TrainingJob, model: Classifier, folder: Path) -> None:
    """Check the user's callbacks.

    Raises:
        UserError: one that is none, that works against the record of the run, or that watches a number which the run
            does not log.
    """
    if job.trainer.is_sharded:
        _check_sharded(job, model)
    for callback in job.callbacks:
        _check_callback(callback, folder)
        if isinstance(callback, BackFeeding):
            callback.check(model)
    if job.trainer.max_epochs:
        _check_monitors(job, model)


def _check_sharded(job: TrainingJob, model: Classifier) -> None:
    """Raise UserError for what cannot be where no process has the whole network."""
    if not model.draws_by_layer:
        known = ", ".join(name for name, kind in sorted(REGISTRY.items()) if kind.draws_by_layer)
        raise UserError(
            f"trainer=fsdp builds a network without memory and draws its weights layer by layer, which {model.name} "
            f"does not do; it is for model.name={known}; trainer=ddp trains any network"
        )
    if model.hparams["spectral_penalty"]:
        raise UserError("trainer=fsdp has no layer whole that spectral_penalty could bound; give spectral_penalty=none")
    if has(job.callbacks, BackFeeding):
        raise UserError("trainer=fsdp has no layer whole that callbacks=back_feeding could attack; give trainer=ddp")
    if model.hparams["weight_decay"] and not is_coupled(job.optimizer):
        raise UserError(
            f"trainer=fsdp applies weight_decay.value in the optimiser, which {job.optimizer.func.__name__} does not "
            "do; give optimizer=adam, optimizer=sgd or weight_decay=none"
        )


def _is_known(callback: Callback) -> bool:
    return type(callback).__module__.startswith(("lightning.", "intriguing."))


def _check_callback(callback: Callback, folder: Path) -> None:
    name = type(callback).__name__
    if not isinstance(callback, Callback):
        raise UserError(f"callbacks: expected Lightning callbacks, {{_target_: ...}} each, got a {name}")
    if isinstance(callback, OnExceptionCheckpoint):
        raise UserError(
            f"callbacks: {name} would have Lightning start from its file; a run that failed goes on from its last "
            "finished epoch anyway"
        )
    if isinstance(callback, BatchSizeFinder | LearningRateFinder):
        key = "data.batch_size" if isinstance(callback, BatchSizeFinder) else "optimizer.lr"
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
    """Raise UserError where a callback's state could be written into a checkpoint and not be read again."""
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
    """Raise UserError for a callback or a scheduler that watches a number which the run does not log."""
    if not all(map(_is_known, job.callbacks)):
        return  # a class of the user's may log any number
    known = model.metric_keys() + (["val/loss", "val/acc"] if validates(job) else [])
    known += ["curve/test_error"] if job.test_curve else []
    prefixes = tuple(
        prefix for kind, prefix in ((BackFeeding, "pool/"), (LearningRateMonitor, "lr-")) if has(job.callbacks, kind)
    )
    watched = {}
    for callback in job.callbacks:
        counts = isinstance(callback, ModelCheckpoint) and callback.monitor not in ("epoch", "step")
        if counts or (isinstance(callback, EarlyStopping) and callback.strict):
            watched[f"callbacks: {type(callback).__name__}"] = callback.monitor  # pyright: ignore
    if job.scheduler is not None:
        watched["scheduler.monitor"] = job.scheduler.when.get("monitor")
    for name, key in watched.items():
        if key is None or key in known or key.startswith(prefixes):
            continue
        remedy = "; data.validation=... sets images apart for val/loss and val/acc" if not validates(job) else ""
        raise UserError(
            f"{name} watches {key}, which this run does not log; it logs "
            f"{', '.join(key for key in known if not key.startswith('weights/'))}{remedy}"
        )


class _Rehearsed(Exception):
    pass


class _EndBeforeTheFirstBatch(Callback):
    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        raise _Rehearsed

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        raise _Rehearsed

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        raise _Rehearsed


def rehearse(job: TrainingJob, model: Classifier, data: ImageData, folder: Path) -> None:
    """Start every part of the run as far as its first batch, on the CPU, for what Lightning checks only there.

    It happens with copies of the network and of Lightning's callbacks. Those of the user's own classes are left out,
    because they may act at the start; so are those that print.

    Raises:
        UserError: one line that says what does not fit.
    """
    kept = [one for one in job.callbacks if _is_known(one) and not isinstance(one, ProgressBar | ModelSummary)]
    here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": SingleDeviceStrategy("cpu")}
    here |= {"num_sanity_val_steps": 0, "enable_model_summary": False, "profiler": None}  # which would write
    here |= {"plugins": [LightningEnvironment()]}  # whatever started this process
    fits = bool(job.trainer.max_epochs)
    with isolate_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit itself says them
        callbacks = [*copy.deepcopy(kept), _EndBeforeTheFirstBatch()]
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint):
                callback.save_on_exception = False  # the end of the rehearsal is one
        trainer = make_trainer(job, model, folder, callbacks, **here)
        network = copy.deepcopy(model)
        for stage in (
            [trainer.fit] * fits + [trainer.validate] * validates(job) + [trainer.test] * bool(len(data.subset("test")))
        ):
            try:
                stage(network, datamodule=data)
            except _Rehearsed:
                pass
            finally:
                reclaim()
        if fits and job.keep == "best":
            _check_best(job, trainer)


def _check_best(job: TrainingJob, trainer: lightning.Trainer) -> None:
    """Raise UserError where the best network is wanted and the fit ends before any is validated."""
    every, batches = trainer.check_val_every_n_epoch, trainer.num_training_batches
    epochs = planned_steps(trainer) * trainer.accumulate_grad_batches / batches
    if validates(job) and every is not None and trainer.val_check_interval == 1.0 and epochs < every:
        raise UserError(
            f"keep=best: trainer.check_val_every_n_epoch={every} validates no network within {epochs:.3g} epochs; "
            "validate more often, or train with keep=last"
        )

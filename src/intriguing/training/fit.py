"""Fit one network with Lightning, resumable at every epoch."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import Precision

from intriguing.callbacks.progress import Progress
from intriguing.checkpoints import read_checkpoint
from intriguing.data import ImageData
from intriguing.errors import Stopped, UserError
from intriguing.models import Classifier
from intriguing.runs.guard import run_folder
from intriguing.runs.jobs import finished_folder, run_of
from intriguing.storage.ranks import is_first_process
from intriguing.tracking.jobs import start_job
from intriguing.tracking.wandb_run import WandbRun, lightning_logger
from intriguing.training.check import check_callbacks, refused_in_one_line, rehearse
from intriguing.training.csv_metrics import CsvMetrics
from intriguing.training.further import FromFinished, Further
from intriguing.training.job import TrainingJob
from intriguing.training.outcome import Trained, conclude
from intriguing.training.profile import show as show_profile
from intriguing.training.setup import make_trainer, quiet, refusal, run_callbacks, validates
from intriguing.training.sharded import Sharded


def fit(job: TrainingJob, *, progress: Progress | None = None) -> Path:
    """Train the network of a job; resume an unfinished run, skip a finished one.

    Args:
        job: which network to train, and how.
        progress: called now and then with the epochs done, the number of epochs, and the loss as text.

    Returns:
        The run folder, with ``model.ckpt``, ``checkpoints/``, ``metrics.csv`` and ``run.json``.

    Raises:
        UserError: data that is not there, a folder that holds another run, a checkpoint that cannot be used.
    """
    torch.set_num_threads(job.threads)
    start = time.perf_counter()
    data = job.data.open() if job.data.by_content else None
    if data is not None:  # what is there decides which run this is
        job = job.with_images(data)
    if folder := finished_folder(job, "train"):
        return folder
    folder = run_folder(job.runs, "train", job.name)
    last, resumed_step = _resume_from(job, folder)  # a damaged checkpoint is named before anything is written
    further = Further.of(job.start, job.trainer.max_epochs) if job.start else None
    if further and not further.has_state:
        job = replace(job, trainer=job.trainer.without_epochs(further.epochs))
    if data is None:
        data = job.data.open()
        if is_first_process():  # images that are not there are named before anything is written
            data.prepare_data()
            data.setup()
    else:
        data.require(*(["train"] if job.trainer.max_epochs else []), "test")
    lightning.seed_everything(job.seed, workers=True, verbose=False)
    model = job.build_model(data)
    callbacks = run_callbacks(job, folder, progress)
    if further:
        further.check(model, data)
        further.prepare(model)
        if further.has_state and last is None:
            last, resumed_step = further.start.path, further.steps
            callbacks.insert(0, FromFinished())
    with quiet(), refused_in_one_line():
        check_callbacks(job, model, folder)
        trainer = make_trainer(job, model, folder, callbacks)
        if not job.trainer.is_sharded:  # one process may not hold the network
            rehearse(job, model, data, folder)
    with run_of(job, "train", writer=is_first_process()) as run:
        if not is_first_process():  # a further process of a distributed fit: the first one writes
            _train(job, trainer, model, data, folder, last)
        elif not run.finished:
            with _note_what_is_saved(job, folder), start_job(job, "train", record=not job.debug) as wandb_run:
                if not job.trainer.shows_only:
                    trainer.loggers = _loggers(job, folder, resumed_step, wandb_run)
                trained = _train(job, trainer, model, data, folder, last)
                result, artifacts = conclude(job, trained, data, folder, wandb_run)
            result |= {"further": further.record(model)} if further else {}
            result["seconds"] = round(time.perf_counter() - start, 3)
            run.finish(result, artifacts)
            show_profile(trainer.profiler, folder)  # pyright: ignore[reportAttributeAccessIssue]
    return folder


def _train(
    job: TrainingJob, trainer: lightning.Trainer, model: Classifier, data: ImageData, folder: Path, last: Path | None
) -> Trained:
    """Fit the network, and validate and test it with the weights that are kept."""
    with quiet():
        # Lightning restores a checkpoint first, into a network that it converts to the precision of the fit later.
        trainer.precision_plugin.convert_module(model)
        if job.trainer.max_epochs:
            with _stopping_together(trainer), _late_refusals():
                trainer.fit(model, datamodule=data, ckpt_path=last)
            if job.keep == "best" and not job.trainer.shows_only:
                kept = trainer.strategy if isinstance(trainer.strategy, Sharded) else model
                kept.load_state_dict(_best(folder)["state_dict"])
        # An average of weights may take a further pass over the images, for the statistics of normalisation.
        done = trainer.fit_loop.epoch_progress.current.processed  # pyright: ignore[reportAttributeAccessIssue]
        epochs = min(done, job.trainer.max_epochs)
        # The average is in the network now; the callback would exchange the two once more.
        callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        callbacks[:] = [one for one in callbacks if not isinstance(one, WeightAveraging)]
        whole = trainer.strategy.lightning_module_state_dict() if job.trainer.is_sharded else model.state_dict()
        weights = {name: value.detach().cpu().clone() for name, value in whole.items()}
        # The file is read into a network of float32, and its numbers are of that.
        if trainer.precision != "32-true" and not job.trainer.is_sharded:
            model.float()
            trainer.strategy.precision_plugin = Precision()
        if validates(job):
            trainer.validate(model, datamodule=data, verbose=False)
        if len(data.subset("test")):
            trainer.test(model, datamodule=data, verbose=False)
        else:  # no image tests it: attach what the checkpoint describes
            trainer.strategy.connect(model)
            model.trainer, trainer.datamodule = trainer, data  # pyright: ignore[reportAttributeAccessIssue]
        if not job.trainer.max_epochs:
            trainer.save_checkpoint(folder / "checkpoints" / f"{job.keep}.ckpt", weights_only=True)
    return Trained(weights, epochs, trainer.global_step, model.random_layers)


def _loggers(job: TrainingJob, folder: Path, resumed_step: int, wandb_run: WandbRun) -> list[Logger]:
    loggers: list[Logger] = [CsvMetrics(folder / "metrics.csv", resumed_step=resumed_step)]
    if logger := lightning_logger(wandb_run):
        loggers.append(logger)
    for logger in loggers:
        logger.log_hyperparams(job.identity)
    return loggers


def _resume_from(job: TrainingJob, folder: Path) -> tuple[Path | None, int]:
    """Return the checkpoint to resume from and its number of optimiser steps.

    Raises:
        UserError: it is damaged. It is not passed over: that would throw away what was trained without a message.
    """
    last = folder / "checkpoints" / "last.ckpt"
    if not job.resume or not last.exists():
        return None, 0
    try:
        return last, int(read_checkpoint(last)["global_step"])
    except (UserError, KeyError, ValueError, TypeError) as error:
        said = str(error).removesuffix("; train the network again")
        why = said if isinstance(error, UserError) else f"{last} does not say how far its training was"
        raise UserError(f"{why}; resume=false trains this run from the start") from error


def _best(folder: Path) -> dict[str, Any]:
    best = folder / "checkpoints" / "best.ckpt"
    if not best.exists():
        raise UserError(
            f"keep=best: no epoch of {folder} was validated, so none is the best; validate more often "
            "(trainer.check_val_every_n_epoch), or train with keep=last"
        )
    return read_checkpoint(best)


@contextmanager
def _note_what_is_saved(job: TrainingJob, folder: Path) -> Iterator[None]:
    """Add to SIGTERM or Ctrl-C the last finished epoch, because only from there a fit resumes exactly."""
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stop:
        last = folder / "checkpoints" / "last.ckpt"
        with suppress(UserError):
            done = int(read_checkpoint(last)["epoch"]) + 1 if last.exists() else 0
            what = f"epoch {done} of {job.trainer.max_epochs} is saved" if done else "no epoch is finished yet"
            stop.add_note(f"{folder}: {what}")
        raise


@contextmanager
def _late_refusals() -> Iterator[None]:
    """Raise UserError, a line, for what Lightning finds out about callbacks and options only while it trains."""
    try:
        yield
    except MisconfigurationException as error:
        raise refusal(error) from error
    except RuntimeError as error:
        if "conditioned on metric" not in str(error):  # of EarlyStopping
            raise
        raise refusal(error) from error


@contextmanager
def _stopping_together(trainer: lightning.Trainer) -> Iterator[None]:
    """Stop the further processes that a fit has started when the fit is stopped."""
    try:
        yield
    except (Stopped, KeyboardInterrupt):
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGTERM)
        raise

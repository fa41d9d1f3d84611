"""Fit one network with Lightning, resumable at every epoch, and count its errors at the end."""

from __future__ import annotations

import logging
import math
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger

from intriguing import tracking
from intriguing.callbacks import BackFeeding, ErrorCurve
from intriguing.checkpoints import AtomicCheckpointIO, load_model, read_checkpoint
from intriguing.data import ImageArrays, ImageData, Subset
from intriguing.errors import Stopped, UserError
from intriguing.finite import check_logits
from intriguing.image_folder import FolderSubset
from intriguing.models import REGISTRY, Classifier
from intriguing.signals import reclaim
from intriguing.training.csv_metrics import CsvMetrics
from intriguing.training.job import TrainingJob
from intriguing.training.telling import Progress, Telling

log = logging.getLogger(__name__)
_PIXELS = 10_000 * 784  # counted at once: ten thousand of MNIST, fewer photographs


def fit(job: TrainingJob, *, progress: Progress | None = None) -> Path:
    """Train the network of a job, or skip it when its folder is finished, or go on where it stopped.

    Args:
        job: what to train, and how.
        progress: told now and then: epochs done, epochs in all, the loss in words.

    Returns:
        The run folder, with ``model.ckpt``, ``checkpoints/``, ``metrics.csv`` and ``run.json``.

    Raises:
        UserError: data that is not there, a folder that holds another run, a checkpoint that cannot be used.
    """
    torch.set_num_threads(job.threads)
    folders = ImageData(**job.data) if job.data["name"] == "image_folder" else None
    if folders is not None:  # what is in them decides which run this is
        job = job.with_images(folders.description)
    runs, start = Path(job.runs), time.perf_counter()
    folder = runs / "train" / job.name
    if tracking.standing(runs, "train", job.name, job.identity) == "finished":
        tracking.read_run(folder).verify_all()
        log.info("%s is finished: skipped", folder)
        return folder
    last = _resume_from(job, folder)  # a damaged checkpoint is named before anything is written
    _check_trainer(job)
    data = folders or ImageData(**job.data)
    if folders is not None:
        folders.require(*(["train"] if job.trainer["max_epochs"] else []), "test")
    lightning.seed_everything(job.seed, workers=True, verbose=False)
    model = build_model(job, data)
    for callback in job.callbacks:
        if isinstance(callback, BackFeeding):
            callback.check(model)
    with tracking.open_job(job, "train", label=job.label, writer=tracking.is_first_process()) as run:
        if not tracking.is_first_process():  # a further process of a distributed fit: the first one writes
            _train(job, model, data, folder, None, last, progress)
        elif not run.finished:
            with (
                _saying_what_is_saved(job, folder),
                tracking.start_job(job, "train", record=not job.debug) as wandb_run,
            ):
                _train(job, model, data, folder, wandb_run, last, progress)
                result, artifacts = _conclude(job, data, folder, wandb_run)
            result["seconds"] = round(time.perf_counter() - start, 3)
            run.finish(result, artifacts)
    return folder


def _check_trainer(job: TrainingJob) -> None:
    """Raises UserError for options that no Trainer takes, or a device that is not there, before anything is written."""
    options = {key: value for key, value in job.trainer.items() if key not in ("enable_progress_bar", "profiler")}
    try:
        with _quiet():
            lightning.Trainer(**options, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise UserError(f"trainer: {' '.join(str(error).split('__init__() ')[-1].split())}") from error


@contextmanager
def _saying_what_is_saved(job: TrainingJob, folder: Path) -> Iterator[None]:
    """What SIGTERM or Ctrl-C leaves: the last finished epoch, because only from there a fit goes on exactly."""
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stop:
        last = folder / "checkpoints" / "last.ckpt"
        with suppress(UserError):
            done = int(read_checkpoint(last)["epoch"]) + 1 if last.exists() else 0
            what = f"epoch {done} of {job.trainer['max_epochs']} is saved" if done else "no epoch is finished yet"
            stop.add_note(f"{folder}: {what}")
        raise


def build_model(job: TrainingJob, data: ImageData) -> Classifier:
    """The network of a job, with fresh weights from the global seed."""
    try:
        return REGISTRY[job.model](**job.settings, input_shape=list(data.input_shape), num_classes=data.num_classes)
    except (TypeError, ValueError) as error:
        raise UserError(f"model.settings of {job.label}: {str(error).split('__init__() ')[-1]}") from error


def _conclude(
    job: TrainingJob, data: ImageData, folder: Path, wandb_run: tracking.WandbRun
) -> tuple[dict[str, Any], list[str]]:
    """Write ``model.ckpt`` and count its errors: the run's result and its artifacts."""
    if job.trainer.get("fast_dev_run"):
        return {"debug": job.debug}, []
    _export(folder / "checkpoints" / f"{job.keep}.ckpt", folder / "model.ckpt")
    # A network that is taken as it comes has no training images of its own.
    only = () if job.trainer["max_epochs"] else ("val", "test")
    errors = count_errors(load_model(folder / "model.ckpt"), data, only=only)
    wandb_run.log_artifact(folder / "model.ckpt", kind="checkpoint", metadata=job.identity)
    wandb_run.summarise({f"errors/{name}": k / n for name, (k, n) in errors.items()})
    return {"errors": errors, "epochs": job.trainer["max_epochs"]}, ["model.ckpt", "metrics.csv"]


def _train(
    job: TrainingJob,
    model: Classifier,
    data: ImageData,
    folder: Path,
    wandb_run: tracking.WandbRun | None,
    resumed: tuple[Path | None, int],
    progress: Progress | None,
) -> None:
    options: dict[str, Any] = {**job.trainer, "enable_progress_bar": False}  # the caller shows what it is told
    debugging = bool(options.get("fast_dev_run"))
    callbacks: list[Callback] = list(job.callbacks)
    if job.test_curve:
        callbacks.append(ErrorCurve())
    if progress is not None:
        callbacks.append(Telling(progress))
    if not debugging:
        callbacks += _checkpoints(folder, "val/loss" if job.data["validation"] else "train/loss")
        callbacks.append(_StayStopped())
    callbacks.append(_OwnSignals())
    if model.trains_in_parts and options.get("strategy") == "ddp":
        options["strategy"] = "ddp_find_unused_parameters_true"  # other networks would pay for a search and be warned
    last, resumed_step = resumed
    loggers: list[Logger] = []
    if not debugging and wandb_run is not None:
        metrics = CsvMetrics(folder / "metrics.csv", resumed_step=resumed_step)
        callbacks.insert(0, metrics.before_checkpoints())
        loggers = _loggers(job, metrics, wandb_run)
    settings: dict[str, Any] = {"enable_model_summary": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    if not job.data["validation"]:
        settings["limit_val_batches"] = 0
    with _quiet():
        trainer = lightning.Trainer(
            **settings | options,
            callbacks=callbacks,
            logger=loggers or False,
            plugins=[AtomicCheckpointIO(folder)],
            enable_checkpointing=not debugging,
            use_distributed_sampler=False,  # BatchIndices gives each process its share of every batch
            default_root_dir=folder,
        )
        if job.trainer["max_epochs"]:
            with _stopping_together(trainer):
                trainer.fit(model, datamodule=data, ckpt_path=last)
        trainer.test(model, datamodule=data, verbose=False)
        if not job.trainer["max_epochs"]:
            trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt", weights_only=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Lightning says about choices that are made on purpose here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",  # a batch is one index operation: workers would only cost
            "Checkpoint directory .* exists and is not empty.*",  # a resumed run
            ".*treespec, LeafSpec.*",
            ".*on epoch level in distributed setting.*",  # the sums are already those of all processes
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


def _checkpoints(folder: Path, monitor: str) -> list[Callback]:
    """Of every epoch the last, and of all the best: two callbacks, because ``save_last`` follows the best one only."""
    common: dict[str, Any] = {"enable_version_counter": False, "save_on_train_epoch_end": True, "save_top_k": 1}
    best = ModelCheckpoint(folder / "checkpoints", filename="best", monitor=monitor, **common)
    return [best, ModelCheckpoint(folder / "checkpoints", filename="last", **common)]


@contextmanager
def _stopping_together(trainer: lightning.Trainer) -> Iterator[None]:
    """A fit that is stopped tells the further processes that it has started."""
    try:
        yield
    except (Stopped, KeyboardInterrupt):
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGTERM)
        raise


class _OwnSignals(Callback):
    """SIGTERM is ours, not Lightning's, see ``reclaim``."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        reclaim()

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        reclaim()


class _StayStopped(Callback):
    """A fit that had stopped early before it was interrupted does not go on: no checkpoint remembers that it had."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if any(one.stopped_epoch for one in trainer.early_stopping_callbacks):
            trainer.should_stop = True


def _loggers(job: TrainingJob, metrics: CsvMetrics, wandb_run: tracking.WandbRun) -> list[Logger]:
    loggers: list[Logger] = [metrics]
    if logger := tracking.lightning_logger(wandb_run):
        loggers.append(logger)
    for logger in loggers:
        logger.log_hyperparams(job.identity)
    return loggers


def _resume_from(job: TrainingJob, folder: Path) -> tuple[Path | None, int]:
    """The checkpoint to go on from and its number of optimiser steps.

    Raises:
        UserError: it is damaged. It is not passed over: that would throw away what was trained without a word.
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


def _export(source: Path, target: Path) -> None:
    """Write the finished network: the checkpoint without the optimiser's and the loop's state."""
    checkpoint = read_checkpoint(source)
    kept = ("intriguing", "state_dict", "hyper_parameters", "pytorch-lightning_version", "epoch", "global_step")
    AtomicCheckpointIO(target.parent).save_checkpoint({key: checkpoint[key] for key in kept}, target)


@torch.no_grad()
def count_errors(
    model: Classifier, data: ImageData, *, batch_size: int = 10_000, only: Sequence[str] = ()
) -> dict[str, list[int]]:
    """Wrong predictions and images, [k, n], on each subset that has images (``train``: what the network trained on)."""
    names = ["train", *(["val"] if data.validation else []), "test", "full", "p1", "p2"]
    if not isinstance(data.arrays, ImageArrays):  # photographs are not read several times over
        names = names[:-3]
    names = [name for name in names if name in only] if only else names
    pixels = math.prod(data.input_shape)
    size = max(1, min(batch_size, _PIXELS // pixels))
    found = {name: data.subset(name) for name in names}
    return {name: _count(model, subset, size) for name, subset in found.items() if len(subset)}


def _count(model: Classifier, subset: Subset | FolderSubset, batch_size: int) -> list[int]:
    wrong = 0
    for images, labels in subset.batches(batch_size):
        logits = model(images)
        check_logits(model, images, logits)
        wrong += int((logits.argmax(1) != labels).sum())
    return [wrong, len(subset)]

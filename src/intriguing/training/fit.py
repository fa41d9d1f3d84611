"""Fit one network with Lightning, resumable at every epoch, and count its errors at the end."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import Precision
from torch import Tensor

from intriguing.callbacks import ErrorCurve
from intriguing.callbacks.progress import Progress, Telling
from intriguing.checkpoints import AtomicCheckpointIO, load_model, read_checkpoint
from intriguing.data import ImageData, ImageSubset, open_images
from intriguing.errors import Stopped, UserError
from intriguing.models import REGISTRY, Classifier
from intriguing.nn.nonfinite import check_logits
from intriguing.runs.guard import run_status
from intriguing.runs.interrupts import reclaim
from intriguing.runs.jobs import open_job
from intriguing.runs.records import read_run
from intriguing.storage.csv_log import CsvLog
from intriguing.storage.ranks import is_first_process
from intriguing.tracking.jobs import start_job
from intriguing.tracking.wandb_run import WandbRun, lightning_logger
from intriguing.training.csv_metrics import CsvMetrics
from intriguing.training.job import TrainingJob
from intriguing.training.setup import check, is_distributed, make_trainer, quiet, refusal, validates

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
    folders = open_images(**job.data) if job.data["name"] == "image_folder" else None
    if folders is not None:  # what is in them decides which run this is
        job = job.with_images(folders.description)
    runs, start = Path(job.runs), time.perf_counter()
    folder = runs / "train" / job.name
    if run_status(runs, "train", job.name, job.identity) == "finished":
        read_run(folder).verify_all()
        log.info("%s is finished: skipped", folder)
        return folder
    last = _resume_from(job, folder)  # a damaged checkpoint is named before anything is written
    data = folders or open_images(**job.data)
    if is_first_process():  # so that images that are not there are named before anything is written
        data.prepare_data()
        data.setup()
    if folders is not None:
        folders.require(*(["train"] if job.trainer["max_epochs"] else []), "test")
    lightning.seed_everything(job.seed, workers=True, verbose=False)
    model = build_model(job, data)
    check(job, model, data, folder)
    with open_job(job, "train", label=job.label, writer=is_first_process()) as run:
        if not is_first_process():  # a further process of a distributed fit: the first one writes
            _train(job, model, data, folder, None, last, progress)
        elif not run.finished:
            with (
                _saying_what_is_saved(job, folder),
                start_job(job, "train", record=not job.debug) as wandb_run,
            ):
                trained = _train(job, model, data, folder, wandb_run, last, progress)
                result, artifacts = _conclude(job, trained, data, folder, wandb_run)
            result["seconds"] = round(time.perf_counter() - start, 3)
            run.finish(result, artifacts)
    return folder


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


class _Trained(NamedTuple):
    """What a fit ended with.

    Attributes:
        weights: of the network that is kept, in the precision of the fit.
        epochs: how many were trained; the last one may have been cut short.
        steps: of the optimiser.
    """

    weights: dict[str, Tensor]
    epochs: int
    steps: int


def _conclude(
    job: TrainingJob, trained: _Trained, data: ImageData, folder: Path, wandb_run: WandbRun
) -> tuple[dict[str, Any], list[str]]:
    """Write ``model.ckpt`` and count its errors: the run's result and its artifacts."""
    if job.trainer.get("fast_dev_run"):
        return {"debug": job.debug}, []
    _export(folder / "checkpoints" / f"{job.keep}.ckpt", trained.weights, folder / "model.ckpt")
    # A network that is taken as it comes has no training images of its own.
    only = () if job.trainer["max_epochs"] else ("val", "test")
    model = load_model(folder / "model.ckpt")
    errors = count_errors(model, data, only=only)
    wandb_run.log_artifact(folder / "model.ckpt", kind="checkpoint", metadata=job.identity)
    shares = {name: k / n for name, (k, n) in errors.items()}
    of_kept = _numbers_of_kept_epoch(folder) | model.weight_sizes()
    of_kept |= {"curve/test_error": shares["test"]} if job.test_curve else {}
    wandb_run.summarise(of_kept | {f"errors/{name}": share for name, share in shares.items()})
    result = {"errors": errors, "epochs": trained.epochs, "steps": trained.steps}
    return result, ["model.ckpt", "metrics.csv"]


def _numbers_of_kept_epoch(folder: Path) -> dict[str, float]:
    """The numbers of training of the epoch that ``model.ckpt`` is of; a summary would hold those of the last one."""
    epoch = str(read_checkpoint(folder / "model.ckpt")["epoch"])
    rows = CsvLog(folder / "metrics.csv").rows()
    kept = next((row for row in rows if row.get("train/loss") and row["epoch"] == epoch), {})
    return {key: float(value) for key, value in kept.items() if value and "/" in key}


def _train(
    job: TrainingJob,
    model: Classifier,
    data: ImageData,
    folder: Path,
    wandb_run: WandbRun | None,
    resumed: tuple[Path | None, int],
    progress: Progress | None,
) -> _Trained:
    """Fit the network, and validate and test it with the weights that are kept."""
    options = dict(job.trainer)
    debugging = bool(options.get("fast_dev_run"))
    callbacks: list[Callback] = list(job.callbacks)
    if job.test_curve:
        callbacks.append(ErrorCurve())
    if progress is not None:
        callbacks.append(Telling(progress))
    if not debugging:
        _keep_in(folder / "checkpoints" / "own", callbacks)
        callbacks += _checkpoints(job, folder)
        callbacks.append(_StayStopped())
    callbacks += [_OwnSignals(), _EndOnce()]
    last, resumed_step = resumed
    loggers: list[Logger] = []
    if not debugging and wandb_run is not None:
        metrics = CsvMetrics(folder / "metrics.csv", resumed_step=resumed_step)
        callbacks.insert(0, metrics.before_checkpoints())
        loggers = _loggers(job, metrics, wandb_run)
    with quiet():
        trainer = make_trainer(job, options, folder, callbacks, loggers)
        if model.trains_in_parts and is_distributed(trainer):  # other networks would pay for a search and be warned
            options["strategy"] = "ddp_find_unused_parameters_true"
            trainer = make_trainer(job, options, folder, callbacks, loggers)
        # Lightning restores a checkpoint first, into a network that it converts to the precision of the fit later.
        trainer.precision_plugin.convert_module(model)
        if job.trainer["max_epochs"]:
            with _stopping_together(trainer), _in_words():
                trainer.fit(model, datamodule=data, ckpt_path=last)
            if job.keep == "best" and not debugging:
                model.load_state_dict(_best(folder)["state_dict"])
        # An average of weights may take a further pass over the images, for the statistics of normalisation.
        done = trainer.fit_loop.epoch_progress.current.processed  # pyright: ignore[reportAttributeAccessIssue]
        epochs = min(done, job.trainer["max_epochs"])
        # The average is in the network now; the callback would exchange the two once more.
        callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        callbacks[:] = [one for one in callbacks if not isinstance(one, WeightAveraging)]
        weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        if trainer.precision != "32-true":  # the file is read into a network of float32, and its numbers are of that
            model.float()
            trainer.strategy.precision_plugin = Precision()
        if validates(job):
            trainer.validate(model, datamodule=data, verbose=False)
        trainer.test(model, datamodule=data, verbose=False)
        if not job.trainer["max_epochs"]:
            trainer.save_checkpoint(folder / "checkpoints" / f"{job.keep}.ckpt", weights_only=True)
    return _Trained(weights, epochs, trainer.global_step)


def _checkpoints(job: TrainingJob, folder: Path) -> list[Callback]:
    """Of every epoch the last, and of all the best: two callbacks, because ``save_last`` follows the best one only."""
    common: dict[str, Any] = {"enable_version_counter": False, "save_top_k": 1}
    monitor = "val/loss" if validates(job) else "train/loss"
    best = _Best(
        folder / "checkpoints",
        filename="best",
        monitor=monitor,
        save_on_train_epoch_end=monitor == "train/loss",  # else after each validation, when its loss is new
        **common,
    )
    return [best, _Last(folder / "checkpoints", filename="last", save_on_train_epoch_end=True, **common)]


class _Best(ModelCheckpoint):
    """The best checkpoint so far; a class of its own keeps its state apart from that of a user's ModelCheckpoint."""


class _Last(ModelCheckpoint):
    """The checkpoint of the last finished epoch, from which a fit goes on."""


def _keep_in(folder: Path, callbacks: list[Callback]) -> None:
    """Give a folder to the user's ModelCheckpoints that name none."""
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder)


def _best(folder: Path) -> dict[str, Any]:
    best = folder / "checkpoints" / "best.ckpt"
    if not best.exists():
        raise UserError(
            f"keep=best: no epoch of {folder} was validated, so none is the best; validate more often "
            "(trainer.check_val_every_n_epoch), or train with keep=last"
        )
    return read_checkpoint(best)


@contextmanager
def _in_words() -> Iterator[None]:
    """Say in one line what Lightning finds out about callbacks and options only while it trains."""
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

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        reclaim()

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        reclaim()


class _StayStopped(Callback):
    """Remembers in checkpoints that a fit had stopped early, so that it does not go on after an interruption.

    It also sees that a fit with ``max_steps`` goes on at the next epoch: Lightning would take the one that a checkpoint
    is the end of for unfinished, and leave steps out. So the limit is set aside while the checkpoint is restored.
    """

    stopped = False
    max_steps = -1

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["stopped_early"] = trainer.should_stop

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.stopped = bool(checkpoint.get("stopped_early"))

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.stopped
        trainer.fit_loop.epoch_loop.max_steps = self.max_steps


class _EndOnce(Callback):
    """Ends a fit that was interrupted after its last epoch.

    Lightning passes over the training of such a fit, and with it over the hooks in which callbacks put their averages
    of weights into the network.
    """

    ended = False

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.ended = True

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not self.ended:
            trainer.fit_loop.on_run_end()


def _loggers(job: TrainingJob, metrics: CsvMetrics, wandb_run: WandbRun) -> list[Logger]:
    loggers: list[Logger] = [metrics]
    if logger := lightning_logger(wandb_run):
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


def _export(source: Path, weights: dict[str, Tensor], target: Path) -> None:
    """Write the finished network: its weights, and what a checkpoint says about it, without the state of its fit.

    The weights are not the checkpoint's: a callback may have averaged them when the training ended.
    """
    checkpoint = read_checkpoint(source) | {"state_dict": weights}
    kept = ("intriguing", "state_dict", "hyper_parameters", "pytorch-lightning_version", "epoch", "global_step")
    AtomicCheckpointIO(target.parent).save_checkpoint({key: checkpoint[key] for key in kept}, target)


@torch.no_grad()
def count_errors(
    model: Classifier, data: ImageData, *, batch_size: int = 10_000, only: Sequence[str] = ()
) -> dict[str, list[int]]:
    """Wrong predictions and images, [k, n], on each subset that has images (``train``: what the network trained on)."""
    names = ["train", *(["val"] if data.validation else []), "test", "full", "p1", "p2"]
    if not data.images.in_memory:  # photographs are not read several times over
        names = names[:-3]
    names = [name for name in names if name in only] if only else names
    pixels = math.prod(data.input_shape)
    size = max(1, min(batch_size, _PIXELS // pixels))
    found = {name: data.subset(name) for name in names}
    return {name: _count(model, subset, size) for name, subset in found.items() if len(subset)}


def _count(model: Classifier, subset: ImageSubset, batch_size: int) -> list[int]:
    wrong = 0
    for images, labels in subset.batches(batch_size):
        logits = model(images)
        check_logits(model, images, logits)
        wrong += int((logits.argmax(1) != labels).sum())
    return [wrong, len(subset)]

"""Export the trained network and count its errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from intriguing.checkpoints import AtomicCheckpointIO, load_model, read_checkpoint
from intriguing.data import ImageData
from intriguing.models import Classifier
from intriguing.nn.evaluation import count_wrong
from intriguing.storage.csv_log import CsvLog
from intriguing.storage.files import write_atomic
from intriguing.tracking.wandb_run import WandbRun
from intriguing.training.job import TrainingJob
from intriguing.training.label_check import warn_of_labels


class Trained(NamedTuple):
    """Hold the end of a fit.

    Attributes:
        weights: of the network that is kept, in the precision of the fit.
        epochs: how many were trained; the last one may have been cut short.
        steps: of the optimiser.
        random_layers: that a file of weights left as they started.
    """

    weights: dict[str, Tensor]
    epochs: int
    steps: int
    random_layers: tuple[str, ...]


def conclude(
    job: TrainingJob, trained: Trained, data: ImageData, folder: Path, wandb_run: WandbRun
) -> tuple[dict[str, Any], list[str]]:
    """Write ``model.ckpt`` and count its errors.

    Returns:
        The run's result and the names of its artifacts.
    """
    if job.trainer.shows_only:
        return {"debug": job.debug}, []
    _export(folder / "checkpoints" / f"{job.keep}.ckpt", trained.weights, folder / "model.ckpt")
    # With max_epochs=0 nothing was trained, so there is no training error.
    only = () if job.trainer.max_epochs else ("val", "test")
    model = load_model(folder / "model.ckpt", network=job.network.code)
    errors = count_errors(model, data, only=only)
    if not job.trainer.max_epochs:
        warn_of_labels(model, data, trained.random_layers, *errors.get("test", (0, 0)))
    wandb_run.log_artifact(folder / "model.ckpt", kind="checkpoint", metadata=job.identity)
    shares = {name: k / n for name, (k, n) in errors.items()}
    of_kept = _numbers_of_kept_epoch(folder) | model.weight_sizes()
    of_kept |= {"curve/test_error": shares["test"]} if job.test_curve else {}
    wandb_run.summarise(of_kept | {f"errors/{name}": share for name, share in shares.items()})
    result = {"errors": errors, "epochs": trained.epochs, "steps": trained.steps}
    artifacts = ["model.ckpt", *(["metrics.csv"] if errors else [])]
    if job.network.program is not None:  # the checkpoint names it and does not hold it
        artifacts.append(f"program{job.network.program.suffix}")
        write_atomic(folder / artifacts[-1], job.network.program.read_bytes())
    return result, artifacts


def _numbers_of_kept_epoch(folder: Path) -> dict[str, float]:
    """Return the curves' numbers of the epoch of ``model.ckpt``; a summary would hold those of the last epoch."""
    epoch = str(read_checkpoint(folder / "model.ckpt")["epoch"])
    rows = CsvLog(folder / "metrics.csv").rows()
    kept = next((row for row in rows if row.get("train/loss") and row["epoch"] == epoch), {})
    return {key: float(value) for key, value in kept.items() if value and "/" in key}


def _export(source: Path, weights: dict[str, Tensor], target: Path) -> None:
    """Write the finished network: its weights, and the description in a checkpoint, without the state of its fit.

    The weights are not the checkpoint's: a callback may have averaged them when the training ended.
    """
    checkpoint = read_checkpoint(source) | {"state_dict": weights}
    kept = ("intriguing", "state_dict", "hyper_parameters", "pytorch-lightning_version", "epoch", "global_step")
    AtomicCheckpointIO(target.parent).save_checkpoint({key: checkpoint[key] for key in kept}, target)


def count_errors(model: Classifier, data: ImageData, *, only: Sequence[str] = ()) -> dict[str, list[int]]:
    """Count wrong predictions and images, [k, n], on each subset that has images.

    Args:
        model: the network.
        data: its images; ``train`` are those that it was trained on.
        only: names of subsets; empty: all.
    """
    names = ["train", *(["val"] if data.validation else []), "test", "full", "p1", "p2"]
    if not data.images.in_memory:  # photographs are not read several times over
        names = names[:-3]
    names = [name for name in names if name in only] if only else names
    counts = {name: count_wrong(model, data.subset(name).batches(data.evaluation_batch)) for name in names}
    return {name: [count.k, count.n] for name, count in counts.items() if count.n}

"""Train the network of a finished run for more epochs, in a run of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from intriguing.checkpoints import read_checkpoint
from intriguing.data import ImageData
from intriguing.errors import UserError, plural
from intriguing.models import Classifier
from intriguing.runs.records import read_run
from intriguing.storage.files import file_sha256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Name the checkpoint that a run starts from.

    Attributes:
        path: the file.
        run: name of the folder that it lies in.
        sha256: of the file.
    """

    path: Path
    run: str
    sha256: str

    @classmethod
    def of(cls, given: Any) -> Start:
        """Find the checkpoint that ``ckpt_path`` names.

        Args:
            given: the folder of a finished run, of which ``checkpoints/last.ckpt`` is taken, ``model.ckpt`` where that
                is gone; or a checkpoint.

        Raises:
            UserError: there is none, or the run is not finished.
        """
        path = Path(str(given)).expanduser()
        if path.is_dir():
            if read_run(path).info.get("state") != "finished":
                raise UserError(f"ckpt_path={given} is not finished: its own command goes on with it")
            files = [path / "checkpoints" / "last.ckpt", path / "model.ckpt"]
            path = next((file for file in files if file.is_file()), files[-1])
        if not path.is_file():
            raise UserError(f"ckpt_path={given}: there is no such run folder or checkpoint")
        folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
        return cls(path, folder.resolve().name, file_sha256(path))


@dataclass(frozen=True)
class Further:
    """Hold what a run starts from.

    Attributes:
        start: the checkpoint.
        content: what it holds.
    """

    start: Start
    content: Mapping[str, Any]

    @classmethod
    def of(cls, start: Start, max_epochs: int) -> Further:
        """Read the checkpoint.

        Raises:
            UserError: it cannot be read, or has as many epochs as the run is to have.
        """
        found = cls(start, read_checkpoint(start.path))
        if max_epochs <= found.epochs:
            raise UserError(
                f"trainer.max_epochs={max_epochs}: {start.path} was trained for {plural(found.epochs, 'epoch')}, which "
                f"count; give more than {found.epochs}"
            )
        return found

    @property
    def epochs(self) -> int:
        """Epochs that were trained before."""
        return int(self.content["epoch"]) + 1 if self.steps else 0

    @property
    def steps(self) -> int:
        """Steps of the optimiser before."""
        return int(self.content["global_step"])

    @property
    def has_state(self) -> bool:
        """Whether the checkpoint holds the state of its training, and not the weights alone."""
        return bool(self.content.get("optimizer_states"))

    def check(self, model: Classifier, data: ImageData) -> None:
        """Check that the network and the images are those of the checkpoint.

        Raises:
            UserError: they are others.
        """
        header, weights = self.content["intriguing"], model.state_dict()
        if header["model"] != model.name:
            raise UserError(
                f"ckpt_path={self.start.path} holds a network of model.name={header['model']}, not {model.name}"
            )
        theirs = self.content["state_dict"]
        for name in sorted(weights.keys() | theirs.keys()):
            shapes = [tuple(one[name].shape) if name in one else None for one in (theirs, weights)]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"ckpt_path={self.start.path} does not fit {model.label}: {name} is {shapes[0] or 'missing'} there "
                    f"and {shapes[1] or 'missing'} here; give the settings of its run"
                )
        before, now = header["data"] or {}, data.description
        if differing := [key for key in now if key in before and before[key] != now[key]]:
            raise UserError(
                f"ckpt_path={self.start.path} was trained on other images: data.{differing[0]} is not the same"
            )
        if model.trains_in_parts:
            raise UserError(
                f"{model.label} trains in two parts that are shares of all epochs: it cannot be trained further, train "
                "it anew"
            )

    def prepare(self, model: Classifier) -> None:
        """Tell a network what was trained before; where the checkpoint has no state, give it the weights."""
        if self.has_state:
            model.epochs_before, model.steps_before = self.epochs, self.steps
        else:
            model.load_state_dict(dict(self.content["state_dict"]))
            log.warning("%s holds weights alone: the optimiser and the schedule start anew", self.start.path)

    def record(self, model: Classifier) -> dict[str, Any]:
        """Describe the start in plain values, for the record of the run."""
        state = "weights, optimiser and order of images" if self.has_state else "weights alone; the optimiser is new"
        anew = not self.has_state or (model.scheduler is not None and model.scheduler.spans_the_fit)
        return {
            "run": self.start.run,
            "checkpoint": self.start.path.name,
            "sha256": self.start.sha256,
            "epochs": self.epochs,
            "steps": self.steps,
            "taken": state,
            "schedule": "starts anew over the further epochs" if anew else "goes on",
        }


class FromFinished(Callback):
    """Start a fit from the checkpoint of a finished one, whose schedule and early stopping are over.

    A schedule that spans the whole fit (a cosine, one cycle) has ended: it starts anew and spans the further epochs,
    from the learning rate that the config gives. All others (constant, by steps, by a metric) go on. The best
    checkpoint is the best of the further epochs.
    """

    def __init__(self) -> None:
        self._hyper_parameters: list[list[dict[str, Any]]] = []

    def _restarts(self, pl_module: lightning.LightningModule) -> bool:
        return isinstance(pl_module, Classifier) and bool(pl_module.scheduler) and pl_module.scheduler.spans_the_fit

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Leave out of the checkpoint what has ended."""
        checkpoint["stopped_early"] = False
        for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, ModelCheckpoint | EarlyStopping):
                checkpoint["callbacks"].pop(callback.state_key, None)
        if self._restarts(pl_module):
            checkpoint["lr_schedulers"] = []

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the learning rates that the new schedule starts with, which the checkpoint's would replace."""
        self._hyper_parameters = [
            [{key: value for key, value in group.items() if key != "params"} for group in one.param_groups]
            for one in trainer.optimizers
        ]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Give the optimisers the learning rates of the new schedule."""
        if self._restarts(pl_module):
            for optimizer, groups in zip(trainer.optimizers, self._hyper_parameters, strict=True):
                for group, fresh in zip(optimizer.param_groups, groups, strict=True):
                    group.update(fresh)

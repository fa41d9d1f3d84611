"""Keep a fit resumable: its own checkpoints, its signals, and where it stops and ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from intriguing.runs.interrupts import reclaim


class BestCheckpoint(ModelCheckpoint):
    """Keep the best checkpoint so far as ``best.ckpt``.

    A class of the project keeps its state in checkpoints apart from that of a user's ``ModelCheckpoint``.
    """

    def __init__(self, folder: Path, *, monitor: str) -> None:
        super().__init__(
            folder,
            filename="best",
            monitor=monitor,
            save_on_train_epoch_end=monitor == "train/loss",  # else after each validation, when its loss is new
            enable_version_counter=False,
            save_top_k=1,
        )


class LastCheckpoint(ModelCheckpoint):
    """Keep the checkpoint of the last finished epoch as ``last.ckpt``, from which a fit resumes.

    ``ModelCheckpoint.save_last`` would follow the best one only.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False, save_top_k=1
        )


class OwnSignals(Callback):
    """Take SIGTERM back from Lightning, see ``reclaim``."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take SIGTERM back for training."""
        reclaim()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take SIGTERM back for validation."""
        reclaim()

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take SIGTERM back for the test."""
        reclaim()


class StayStopped(Callback):
    """Record in checkpoints that a fit has stopped early, so that it does not go on after an interruption.

    It also makes a fit with ``max_steps`` go on at the next epoch: Lightning would take the epoch that a checkpoint
    ends for unfinished, and leave steps out. So the limit is set aside while the checkpoint is restored.
    """

    stopped = False
    max_steps = -1

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Set the limit of steps aside."""
        self.max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Record whether the fit stops here."""
        checkpoint["stopped_early"] = trainer.should_stop

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Read whether the fit had stopped there."""
        self.stopped = bool(checkpoint.get("stopped_early"))

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop a fit that had stopped, and put the limit of steps back."""
        trainer.should_stop = trainer.should_stop or self.stopped
        trainer.fit_loop.epoch_loop.max_steps = self.max_steps


class EndOnce(Callback):
    """End a fit that was interrupted after its last epoch.

    Lightning passes over the training of such a fit, and with it over the hooks in which callbacks put their averages
    of weights into the network.
    """

    ended = False

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note that the hooks have run."""
        self.ended = True

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Run the hooks that Lightning has passed over."""
        if not self.ended:
            trainer.fit_loop.on_run_end()

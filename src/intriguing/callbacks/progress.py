"""A Lightning callback that tells how far a fit is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

Progress = Callable[[float, int, str], None]
"""Called with the epochs done (a fraction within one), the epochs in all, and the last epoch's loss in words."""

SECONDS = 0.2  # between two tellings within an epoch


class Telling(Callback):
    """Tells a function how far the fit is, from its first process, now and then and after every epoch."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._told = progress, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell(trainer, trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._told > SECONDS:
            self._tell(trainer, trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell(trainer, trainer.current_epoch + 1)

    def _tell(self, trainer: Trainer, epochs: float) -> None:
        self._told = time.monotonic()
        if trainer.is_global_zero:
            loss = trainer.callback_metrics.get("train/loss")
            self._progress(epochs, trainer.max_epochs or 0, "" if loss is None else f"loss {float(loss):.3g}")

"""Report the progress of a fit to a function."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

Progress = Callable[[float, int, str], None]
"""Function of the epochs done (with a fraction), the number of epochs, and the loss of the last epoch as text."""

SECONDS = 0.2  # shortest time between two reports within an epoch


class ProgressCallback(Callback):
    """Call a function with the progress of the fit, in the first process, within and after every epoch."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._reported = progress, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epochs of an earlier attempt."""
        self._report(trainer, trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report now and then within an epoch."""
        if time.monotonic() - self._reported > SECONDS:
            self._report(trainer, trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the end of an epoch."""
        self._report(trainer, trainer.current_epoch + 1)

    def _report(self, trainer: Trainer, epochs: float) -> None:
        """Call the function, in the first process."""
        self._reported = time.monotonic()
        if trainer.is_global_zero:
            loss = trainer.callback_metrics.get("train/loss")
            self._progress(epochs, trainer.max_epochs or 0, "" if loss is None else f"loss {float(loss):.3g}")

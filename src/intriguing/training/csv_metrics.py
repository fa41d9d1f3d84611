"""Log to ``metrics.csv`` and keep it through interruptions (Lightning's ``CSVLogger`` deletes it on resume)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger

from intriguing.storage.csv_log import CsvLog


class CsvMetrics(Logger):
    """Write one row a call: step, epoch and the metrics.

    Lightning saves an epoch's checkpoint before it logs the epoch's numbers: a kill between the two would lose them. So
    ``RowBeforeCheckpoint``, a callback that comes before those that save, writes that row ahead, and the row that
    Lightning logs later is left out.

    Args:
        path: the file; continued when it is there.
        resumed_step: optimiser steps of the checkpoint that the fit goes on from. Later rows, logged between that
            checkpoint and the interruption, are dropped: they come again.
    """

    def __init__(self, path: Path, *, resumed_step: int = 0) -> None:
        super().__init__()
        self._log = CsvLog(path)
        # Lightning counts from 0: the last row of an epoch that ends after n optimiser steps says n - 1.
        self._log.rewind("step", resumed_step)
        self._ahead: dict[str, Any] = {}
        self._elsewhere: set[str] = set()

    @property
    def name(self) -> str:
        """Return the name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Return no version: there is one file."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a row, without what ``log_ahead`` has written."""
        left = {key: value for key, value in metrics.items() if key not in self._ahead}
        if step != self._ahead.get("step"):
            left = dict(metrics)
        if left:
            self._elsewhere |= left.keys()  # numbers of a validation, of single steps
            self._log.append({"step": step, **left})

    @rank_zero_only
    def log_ahead(self, epoch: int, step: int, metrics: Mapping[str, Any]) -> None:
        """Write the numbers of a training epoch: of all that were logged, those that had no row of their own."""
        own = {key: value for key, value in metrics.items() if key not in self._elsewhere}
        self._ahead = {"step": step, "epoch": epoch, **own}
        self._log.append(self._ahead)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write nothing: ``config.yaml`` holds them."""


class RowBeforeCheckpoint(Checkpoint):
    """Write each epoch's row of ``metrics.csv``; to be given before the callbacks that save.

    It is a ``Checkpoint`` because Lightning calls these last, when all of an epoch's numbers are logged.
    """

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the row."""
        for logger in trainer.loggers:
            if isinstance(logger, CsvMetrics):  # one step less, as Lightning itself counts where an epoch ends
                logger.log_ahead(trainer.current_epoch, trainer.global_step - 1, trainer.logged_metrics)

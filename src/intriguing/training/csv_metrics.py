"""A Lightning logger that keeps metrics.csv through interruptions (Lightning's own deletes it on resume)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import Logger

from intriguing.storage.csv_log import CsvLog


class CsvMetrics(Logger):
    """Writes one row a call: step, epoch and the metrics.

    Lightning saves an epoch's checkpoint before it logs the epoch's numbers: a kill between the two would lose them. So
    ``before_checkpoints``, a callback that goes before those that save, writes that row ahead, and when Lightning
    comes with it, it is there.

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
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
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

    def before_checkpoints(self) -> Callback:
        """The callback that has each epoch's row written; give it before those that save."""
        return _Ahead(self)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass  # config.yaml holds them


class _Ahead(Checkpoint):
    """A ``Checkpoint`` because Lightning calls these last, when all of an epoch's numbers are logged."""

    def __init__(self, log: CsvMetrics) -> None:
        self._log = log

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # one step less, as Lightning itself counts where an epoch ends
        self._log.log_ahead(trainer.current_epoch, trainer.global_step - 1, trainer.logged_metrics)

"""A Lightning logger that keeps metrics.csv through interruptions (Lightning's own deletes it on resume)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from intriguing.tracking import CsvLog


class CsvMetrics(Logger):
    """Writes one row a call: step, epoch and the metrics.

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

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._log.append({"step": step, **metrics})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass  # config.yaml holds them

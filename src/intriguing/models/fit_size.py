"""Count the processes, optimiser steps and epochs of a whole fit."""

from __future__ import annotations

import math

import lightning
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import distributed


def world_size() -> int:
    """Return the number of processes that train one network together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def planned_steps(trainer: lightning.Trainer) -> int:
    """Return the optimiser steps of a whole fit, also where the accumulation of gradients changes with the epoch."""
    total = int(trainer.estimated_stepping_batches)
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, GradientAccumulationScheduler):
            batches = trainer.num_training_batches
            epochs = (callback.get_accumulate_grad_batches(epoch) for epoch in range(trainer.max_epochs or 1))
            total = sum(math.ceil(batches / accumulated) for accumulated in epochs)
            total = total if trainer.max_steps == -1 else min(total, trainer.max_steps)
    return total


def planned_epochs(trainer: lightning.Trainer) -> int:
    """Return the epochs of a whole fit: ``max_epochs``, or fewer where ``max_steps`` ends it sooner."""
    epochs = trainer.max_epochs or 1
    if trainer.max_steps == -1:
        return epochs
    steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return min(epochs, math.ceil(planned_steps(trainer) / steps))

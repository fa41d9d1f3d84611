"""Build the optimiser and the learning-rate scheduler of a fit from factories, and apply the paper's weight decay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._pytree import tree_leaves

from intriguing.errors import UserError

# Optimisers whose ``weight_decay`` adds ``weight_decay * w`` to the gradient: the gradient of a squared norm in the
# loss. Of AdamW and its like it shrinks the weights beside the gradient step, which has another minimum.
COUPLED = (
    *(optim.SGD, optim.Adam, optim.Adagrad, optim.Adadelta, optim.Adamax, optim.NAdam, optim.RAdam),
    *(optim.RMSprop, optim.ASGD),
)


PLANNED = ("planned_steps", "planned_epochs", "pretrain_steps", "pretrain_parts")
"""The lengths of a fit, as settings of a scheduler name them (``Classifier.planned``)."""


@dataclass(frozen=True)
class Scheduler:
    """Hold a factory of learning-rate schedulers, and when Lightning steps the scheduler.

    Attributes:
        factory: takes the optimiser. A setting of it may be one of the lengths that ``Classifier.planned`` names, as
            text: ``planned_steps``, ``planned_epochs``.
        when: ``interval`` (``step`` or ``epoch``), ``frequency``, and ``monitor`` and ``strict`` of a scheduler that
            reads a metric, as Lightning's ``configure_optimizers`` takes them.
    """

    factory: partial[Any]
    when: Mapping[str, Any]

    @property
    def spans_the_fit(self) -> bool:
        """Whether a setting names a length of the fit, so that the schedule ends with it."""
        return any(one in PLANNED for one in tree_leaves(self.factory.keywords) if isinstance(one, str)) or any(
            Scheduler(one, {}).spans_the_fit for one in tree_leaves(self.factory.keywords) if isinstance(one, partial)
        )

    def build(
        self, optimizer: optim.Optimizer, planned: Mapping[str, int], trainer: lightning.Trainer
    ) -> dict[str, Any]:
        """Build the scheduler.

        Args:
            optimizer: its optimiser.
            planned: lengths of the fit, by name.
            trainer: of the fit.

        Returns:
            Lightning's ``lr_scheduler`` dictionary.

        Raises:
            UserError: settings that the scheduler does not take.
        """
        every, frequency = trainer.check_val_every_n_epoch or 1, self.when.get("frequency", 1)
        if str(self.when.get("monitor")).startswith("val/") and frequency % every:
            raise UserError(
                f"scheduler.frequency={frequency}: {self.when['monitor']} is there every {every} epochs "
                f"(trainer.check_val_every_n_epoch), so give a multiple of {every}"
            )

        def filled(value: Any) -> Any:
            if isinstance(value, str):
                return planned.get(value, value)
            if isinstance(value, list):  # of SequentialLR and ChainedScheduler: schedulers, milestones
                return [build(item) if isinstance(item, partial) else filled(item) for item in value]
            return value

        def build(factory: partial[Any]) -> Any:
            return factory.func(optimizer, **{key: filled(value) for key, value in factory.keywords.items()})

        try:
            scheduler = build(self.factory)
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"scheduler: {error}") from error
        if not isinstance(scheduler, optim.lr_scheduler.LRScheduler):
            raise UserError(f"scheduler: expected a scheduler of torch, got a {type(scheduler).__name__}")
        return {"scheduler": scheduler, **self.when}


def is_coupled(factory: partial[Any]) -> bool:
    """Return whether ``weight_decay`` of an optimiser is the coefficient of a squared norm in the loss."""
    return factory.func in COUPLED and not factory.keywords.get("decoupled_weight_decay")


def build_optimizer(
    factory: partial[Any],
    decayed: Sequence[tuple[Tensor, float]],
    parameters: Sequence[nn.Parameter],
    trainer: lightning.Trainer | None = None,
) -> optim.Optimizer:
    """Build the optimiser; a coupled one applies the weight decay as ``weight_decay = 2 lambda / k``.

    Args:
        factory: takes parameters, or parameter groups.
        decayed: each decayed weight with its coefficient lambda / k.
        parameters: all parameters of the network.
        trainer: of the fit.

    Raises:
        UserError: settings that the optimiser does not take, or a ``weight_decay`` beside that of the objective.
    """
    coupled = is_coupled(factory)
    if coupled and factory.keywords.get("weight_decay"):
        raise UserError(
            f"optimizer.weight_decay={factory.keywords['weight_decay']} would replace weight_decay.value, which "
            f"{factory.func.__name__} applies; set weight_decay.value"
        )
    # Lightning clips no gradients under mixed precision for an optimiser that unscales them itself.
    if trainer is not None and trainer.gradient_clip_val and "mixed" in str(trainer.precision):
        factory = partial(factory, fused=False) if factory.keywords.get("fused") else factory
    try:
        optimizer = factory(parameter_groups(decayed, parameters) if coupled else list(parameters))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"optimizer: {str(error).removeprefix('Optimizer.')}") from error
    if not isinstance(optimizer, optim.Optimizer):
        raise UserError(f"optimizer: expected an optimiser of torch, got a {type(optimizer).__name__}")
    return optimizer


def parameter_groups(
    decayed: Sequence[tuple[Tensor, float]], parameters: Sequence[nn.Parameter]
) -> list[dict[str, Any]]:
    """Group parameters by their coefficient of decay, the largest first.

    Args:
        decayed: each decayed weight with its coefficient lambda / k.
        parameters: all parameters of the network.
    """
    coefficients = {id(weight): 2 * c for weight, c in decayed}
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(coefficients.get(id(parameter), 0.0), []).append(parameter)
    return [{"params": groups[c], "weight_decay": c} for c in sorted(groups, reverse=True)]


def stepped_by_metric(trainer: lightning.Trainer) -> list[Any]:
    """List the configurations of the schedulers that read a metric at the end of epochs."""
    return [one for one in trainer.lr_scheduler_configs if one.reduce_on_plateau and one.interval == "epoch"]


def step_by_metric(trainer: lightning.Trainer) -> None:
    """Step the schedulers that read a metric, at the end of an epoch."""
    for one in stepped_by_metric(trainer):
        metric = trainer.callback_metrics.get(one.monitor)
        # Without the metric, Lightning raises an error that lists those that there are.
        if metric is not None and (trainer.current_epoch + 1) % one.frequency == 0:
            one.scheduler.step(metric)


def cosine(optimizer: optim.Optimizer, total_steps: int) -> LambdaLR:
    """Return a scheduler that lowers the learning rate to 0 along half a cosine."""
    return LambdaLR(optimizer, lambda step: _half_cosine(step, total_steps))


def two_cosines(
    optimizer: optim.Optimizer, total_steps: int, first_steps: int, second_lr: float, parts: int = 1
) -> LambdaLR:
    """Return a scheduler of two half cosines, the second from another learning rate (``SparseAutoencoder``).

    Args:
        optimizer: its ``lr`` is the first learning rate.
        total_steps: of both.
        first_steps: of the first.
        second_lr: the learning rate at the start of the second.
        parts: into how many equal half cosines the first is divided, one after the other (``QuocNet``).
    """
    first_lr = optimizer.defaults["lr"]

    def factor(step: int) -> float:
        if step < first_steps:
            return _half_cosine(step % (first_steps // parts), first_steps // parts)
        return _half_cosine(step - first_steps, total_steps - first_steps) * second_lr / first_lr

    return LambdaLR(optimizer, factor)


def _half_cosine(step: int, total: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(step, total) / max(total, 1)))

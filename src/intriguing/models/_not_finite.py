"""Raise an error for a loss or a weight that is not finite, with the first layer that gives it."""

from __future__ import annotations

from collections.abc import Callable

from lightning import LightningModule
from torch import Tensor

from intriguing.models.fit_size import world_size
from intriguing.nn.nonfinite import NotFiniteError, first_nonfinite_layer, first_nonfinite_weight


def not_finite(
    model: LightningModule,
    stage: str,
    loss: Tensor,
    images: Tensor,
    batch_idx: int,
    *,
    objective: Callable[[], Tensor],
    bad_norm: str | None,
    rate: object,
) -> NotFiniteError:
    """Return the error for a loss that is not finite. The cause is looked for only here, once a loss is not finite.

    Args:
        model: the network.
        stage: ``train``, ``val`` or ``test``.
        loss: a scalar.
        images: (N, C, H, W), of the batch.
        batch_idx: number of the batch in its epoch.
        objective: computes the loss of a training step on the batch.
        bad_norm: name of the layer whose norm in the spectral penalty is not finite; None if there is none.
        rate: the learning rate, or a word for it.
    """
    where = first_nonfinite_layer(model, images, [lambda: model(images)])
    if where is None and bad_norm:
        where = f"the norm of network.{bad_norm} in the spectral penalty is not finite"
    # More than once, because pools may take turns. A distributed step would wait for other processes.
    if where is None and stage == "train" and world_size() == 1:
        where = first_nonfinite_layer(model, images, [objective] * 16)
    where = where or "every layer gives finite numbers, and the loss made of them is not"
    return NotFiniteError(
        f"{stage}/loss is {loss.item()} at epoch {model.current_epoch}, batch {batch_idx} "
        f"(step {model.global_step}): {where}; {_advice(model, rate)}"
    )


def check_weights(model: LightningModule, rate: object) -> None:
    """Check the weights at the end of an epoch.

    Args:
        model: the network.
        rate: the learning rate, or a word for it.

    Raises:
        NotFiniteError: a weight is not finite.
    """
    if weight := first_nonfinite_weight(model):
        raise NotFiniteError(
            f"{weight} is not finite at the end of epoch {model.current_epoch} (step {model.global_step}): the last "
            f"step went too far; {_advice(model, rate)}"
        )


def _advice(model: LightningModule, rate: object) -> str:
    if model.global_step == 0:
        return "no step was made yet, so look at the weights it started from, and at the data"
    return f"lower optimizer.lr (now {rate})"

"""Raise an error for a loss or a weight that is not finite, with the first layer that gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from intriguing.models.fit_size import world_size
from intriguing.nn.nonfinite import NotFiniteError, first_nonfinite_layer, first_nonfinite_weight

if TYPE_CHECKING:
    from intriguing.models.classifier import Classifier


def not_finite(model: Classifier, stage: str, loss: Tensor, batch: list[Tensor], batch_idx: int) -> NotFiniteError:
    """Return the error for a loss that is not finite. The cause is looked for only here, once a loss is not finite.

    Args:
        model: the network.
        stage: ``train``, ``val`` or ``test``.
        loss: a scalar.
        batch: images (N, C, H, W) and labels (N,).
        batch_idx: number of the batch in its epoch.
    """
    where = first_nonfinite_layer(model, batch[0], [lambda: model(batch[0])])
    if where is None and model.operator_norms is not None and (layer := model.operator_norms.bad_layer()):
        where = f"the norm of network.{layer} in the spectral penalty is not finite"
    # More than once, because pools may take turns. A distributed step would wait for other processes.
    if where is None and stage == "train" and world_size() == 1:
        where = first_nonfinite_layer(model, batch[0], [lambda: model.objective(batch)] * 16)
    where = where or "every layer gives finite numbers, and the loss made of them is not"
    return NotFiniteError(
        f"{stage}/loss is {loss.item()} at epoch {model.current_epoch}, batch {batch_idx} "
        f"(step {model.global_step}): {where}; {_advice(model)}"
    )


def check_weights(model: Classifier) -> None:
    """Check the weights at the end of an epoch.

    Raises:
        NotFiniteError: a weight is not finite.
    """
    if weight := first_nonfinite_weight(model):
        raise NotFiniteError(
            f"{weight} is not finite at the end of epoch {model.current_epoch} (step {model.global_step}): the last "
            f"step went too far; {_advice(model)}"
        )


def _advice(model: Classifier) -> str:
    if model.global_step == 0:
        return "no step was made yet, so look at the weights it started from, and at the data"
    return f"lower optimizer.lr (now {model.optimizer.keywords.get('lr', 'its default')})"

"""Tell whether a network gives an image the same logits in another call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

_UNSTABLE = 1e-3  # of the spread of the logits: a larger difference between two equal calls is no rounding
_BATCH_DEPENDENT = 0.1  # a larger difference between an image alone and in a batch is none, in any precision


class Instability(NamedTuple):
    """Describe a network that gives an image other logits in another call.

    Attributes:
        kind: "random": two equal calls differ; "batch": the logits depend on the other images of the batch.
        size: the largest change, as a share of the usual difference between the largest and the smallest logit.
    """

    kind: Literal["random", "batch"]
    size: float


def find_instability(single: Tensor, batched: Tensor, again: Callable[[], Tensor]) -> Instability | None:
    """Compare the logits of the same images in different calls.

    Args:
        single: (N, K), computed image by image, or in small batches.
        batched: (N, K), computed in a larger batch.
        again: computes ``single`` once more; called only where the two differ by more than rounding in full precision.

    Returns:
        What is wrong with the network, or None.
    """
    largest = batched.amax(dim=1, keepdim=True)
    smallest = batched.where(batched.isfinite(), largest).amin(dim=1, keepdim=True)
    spread = float((largest - smallest).nan_to_num(0.0, 0.0, 0.0).mean())
    change = _largest_change(single, batched)
    if not change > _UNSTABLE * spread > 0:
        return None
    repeated = _largest_change(again(), single)
    if repeated > _UNSTABLE * spread:
        return Instability("random", max(change, repeated) / spread)
    return Instability("batch", change / spread) if change > _BATCH_DEPENDENT * spread else None


def _largest_change(found: Tensor, expected: Tensor) -> float:
    """Return the largest change of a difference of two logits of an image, between two sets of logits (N, K)."""
    change = (found - expected).nan_to_num(0.0, 0.0, 0.0)
    return float((change.amax(dim=1) - change.amin(dim=1)).max())

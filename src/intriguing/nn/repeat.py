"""Tell whether a network gives an image the same logits in another call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

UNSTABLE = 1e-3  # of the spread of the logits: a larger difference between two calls of one shape is no rounding


class Instability(NamedTuple):
    """Describe a network that gives an image other logits in another call.

    Attributes:
        kind: "random": two equal calls differ; "batch": the logits depend on the other images of the batch.
        size: the largest change, as a share of the usual difference between the largest and the smallest logit.
    """

    kind: Literal["random", "batch"]
    size: float


def find_instability(call: Callable[[Tensor], Tensor], images: Tensor, batched: Tensor) -> Instability | None:
    """Compare the logits of the same images in different calls.

    Args:
        call: images (R, ...) to logits (R, K), in one batch.
        images: (N, ...).
        batched: (N, K), their logits as they were computed in a larger batch.

    Returns:
        What is wrong with the network, or None. A difference between batches of two sizes alone is rounding.
    """
    ones, others = images.split(1), images.roll(1, 0).split(1)

    def first(batches: Iterable[Tensor]) -> Tensor:
        return torch.cat([call(batch)[:1] for batch in batches])

    limit = UNSTABLE * logit_spread(batched)
    single = first(ones)
    change = largest_change(single, batched)
    if not change > limit > 0:
        return None
    kind: Literal["random", "batch"] = "random"
    repeated = largest_change(first(ones), single)
    if repeated <= limit:
        kind = "batch"
        twice = first(torch.cat([one, one]) for one in ones)
        repeated = largest_change(
            first(torch.cat([one, other]) for one, other in zip(ones, others, strict=True)), twice
        )
    return Instability(kind, UNSTABLE * max(change, repeated) / limit) if repeated > limit else None


def logit_spread(logits: Tensor) -> float:
    """Return the mean difference of the largest and the smallest finite logit of images, of their logits (N, K)."""
    largest = logits.amax(dim=1, keepdim=True)
    spread = largest - logits.where(logits.isfinite(), largest).amin(dim=1, keepdim=True)
    return float(spread.nan_to_num(0.0, 0.0, 0.0).mean())


def largest_change(found: Tensor, expected: Tensor) -> float:
    """Return the largest change of a difference of two logits of an image, between two sets of logits (N, K)."""
    change = (found - expected).nan_to_num(0.0, 0.0, 0.0)
    return float((change.amax(dim=1) - change.amin(dim=1)).max())

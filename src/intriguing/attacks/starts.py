"""Choose images of other classes as starts of a search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from intriguing.attacks.chunk import Goal
from intriguing.attacks.network import Network

BATCH = "batch"
"""The name of the other inputs as starts."""


@dataclass(frozen=True)
class Pool:
    """Hold images that may be starts.

    Attributes:
        images: (P, n), flat, in [0, 1], in the dtype of the attack.
        logits: (P, K).
    """

    images: Tensor
    logits: Tensor

    def nearest(self, origin: Tensor, goal: Goal, count: int) -> tuple[Tensor, Tensor]:
        """Find the images nearest to each of the images under attack that meet its goal.

        Args:
            origin: (N, n), images under attack.
            goal: goal of each.
            count: number of starts for each.

        Returns:
            Indices into the pool (N, s), nearest first, s <= count; and whether there is such an image, (N, s) bool.
        """
        answers = self.logits.argmax(dim=1)
        distances = torch.cdist(origin, self.images)
        same = answers[None] == goal.classes[:, None]
        distances = torch.where(same if goal.targeted else ~same, distances, torch.inf)
        distances, indices = distances.topk(min(count, len(self.images)), dim=1, largest=False)
        return indices, distances.isfinite()


def as_pool(net: Network, starts: Tensor | str, inputs: Tensor) -> Pool:
    """Check further images and let the network classify them.

    Args:
        net: the network under attack.
        starts: (P, ...) in [0, 1], of the shape of the inputs; or "batch" for the inputs themselves.
        inputs: (N, ...), all images under attack.

    Raises:
        TypeError: the images are no floating-point tensor.
        ValueError: they have another shape than the inputs, or values outside [0, 1]; or another word than "batch".
    """
    images = inputs if isinstance(starts, str) else starts
    flat = images.detach().to(inputs.device).flatten(1).to(net.dtype)
    return Pool(flat, net.logits(flat))

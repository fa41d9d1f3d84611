"""Choose images of other classes as starts of a search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from intriguing.attacks.base import check_inputs
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
        distances = torch.where(distances > 0, distances, torch.inf)  # the image itself is no start
        same = answers[None] == goal.classes[:, None]
        distances = torch.where(same if goal.targeted else ~same, distances, torch.inf)
        distances, indices = distances.topk(min(count, len(self.images)), dim=1, largest=False)
        return indices, distances.isfinite()


def check_starts(starts: object, inputs: Tensor) -> Tensor | None:
    """Check the images that an attack may start from.

    Args:
        starts: (P, ...) in [0, 1], of the shape of the inputs; "batch" for the inputs themselves; None for none.
        inputs: (N, ...), all images under attack, or one image without N.

    Returns:
        The images (P, ...); None for none.

    Raises:
        TypeError: the images are no floating-point tensor.
        ValueError: they have another shape than the inputs, or values outside [0, 1]; or it is another word.
    """
    if starts is None:
        return None
    if isinstance(starts, str):
        if starts != BATCH:
            raise ValueError(f"expected starts as images (P, ...), {BATCH!r} or None, got {starts!r}")
        return inputs
    try:
        images = check_inputs(starts)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("expected inputs", "expected starts", 1)) from None
    if isinstance(inputs, Tensor) and images.shape[1:] not in (inputs.shape[1:], inputs.shape):
        shape = ", ".join(map(str, inputs.shape[1:]))
        raise ValueError(f"expected starts of shape (P, {shape}) as the inputs have it, got {tuple(images.shape)}")
    return images


def classify(net: Network, images: Tensor) -> Pool:
    """Let the network classify images (P, ...) that may be starts."""
    flat = images.detach().to(net.first_logits.device).flatten(1).to(net.dtype)
    return Pool(flat, net.logits(flat))

"""State the goal of an attack on a chunk of images, and hold its result."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class ChunkResult:
    """Hold the result of an attack on a chunk of M images.

    Attributes:
        x: (M, n) flat images in [0, 1].
        success: (M,) bool, as the attack computed it.
        c: (M,) constants of the penalty, or None; see ``AttackResult``.
        unrounded_distortion: (M,) of the examples from which the search on a grid began; None where none was searched.
        num_forwards, num_backwards: passes per image, (M,) int64, or one number for all images.
    """

    x: Tensor
    success: Tensor
    num_forwards: Tensor | int
    num_backwards: Tensor | int
    c: Tensor | None = None
    unrounded_distortion: Tensor | None = None


@dataclass(frozen=True)
class Goal:
    """State the goal of an attack on M images: their target classes, or any class but their labels.

    Attributes:
        classes: (M,) int64, the targets or the labels.
        targeted: True for targets, False for labels.
    """

    classes: Tensor
    targeted: bool

    def reached(self, logits: Tensor) -> Tensor:
        """Return whether logits (M, K) meet the goal: (M,) bool."""
        answer = logits.argmax(dim=1)
        return answer == self.classes if self.targeted else answer != self.classes

    def excess(self, logits: Tensor) -> Tensor:
        """Return the margin (M,) by which logits (M, K) meet the goal; positive where they meet it."""
        ahead = margin(logits, self.classes)
        return ahead if self.targeted else -ahead

    def take(self, rows: Tensor) -> Goal:
        """Select rows of the goal, given as int64 indices or a bool mask."""
        return Goal(self.classes[rows], self.targeted)


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Compute the logit of each row's class minus the largest other logit.

    Args:
        logits: (N, K).
        classes: (N,) int64.

    Returns:
        (N,), positive where the class is predicted.
    """
    column = classes[:, None]
    return logits.gather(1, column).squeeze(1) - logits.scatter(1, column, -torch.inf).amax(dim=1)

"""Sum the loss and the wrong predictions of an epoch."""

from __future__ import annotations

import torch
from torch import Tensor


class Tally:
    """Sum loss, wrong predictions and images over the steps of an epoch.

    Many steps are counted at once: on batches of 20 images, counting each step would cost as much as a layer. The sums
    stay on the device, so that no step waits for a number.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a step.

        Args:
            loss: mean over the images, a scalar.
            logits: (N, K).
            labels: (N,).
        """
        self._steps.append((loss, logits, labels))
        if len(self._steps) == 64:
            self._count()

    def _count(self) -> None:
        losses, logits, labels = zip(*self._steps, strict=True)
        self._steps = []
        stacked = torch.stack(losses)
        stacked = stacked.to(torch.promote_types(stacked.dtype, torch.float32))  # bfloat16 cannot count to 257
        sizes = torch.tensor([len(part) for part in labels], dtype=stacked.dtype, device=stacked.device)
        wrong = (torch.cat(logits).argmax(1) != torch.cat(labels)).sum().to(stacked.dtype)
        row = torch.stack([stacked.dot(sizes), wrong, sizes.sum()])
        self._sums = row if self._sums is None else self._sums + row

    def sums(self) -> Tensor:
        """Return (3,): loss times images, wrong predictions, images."""
        if self._steps:
            self._count()
        return torch.zeros(3) if self._sums is None else self._sums

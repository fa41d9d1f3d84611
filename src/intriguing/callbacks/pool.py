"""Keep the adversarial examples of one layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from intriguing.validation import whole_number


class Pool:
    """Keep examples of one layer; new examples replace a random subset of the old ones (section 4.2).

    Attributes:
        size: largest number of examples.
        examples: (size, ...), the layer's perturbed values; None while the pool is empty.
        labels: (size,), the true classes.
        distortion: (size,), RMS of each perturbation over the layer's values.
        filled: number of examples; they are the first rows.
        replaced: number of examples that were replaced so far.

    Args:
        size: at least 1.
        seed: seed of the random subsets.

    Raises:
        TypeError: ``size`` is not a number.
        ValueError: ``size`` is not a whole number of at least 1.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        size = whole_number("a pool's size", size, 1)
        self.size, self.filled, self.replaced = size, 0, 0
        self.examples: Tensor | None = None
        self.labels = self.distortion = torch.empty(0)
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.filled

    def renew(self, examples: Tensor, labels: Tensor, distortion: Tensor) -> None:
        """Add new examples, first in free places, then in place of a random subset of the old ones.

        Args:
            examples: (M, ...); if there are more than ``size``, the first ``size`` are used.
            labels: (M,).
            distortion: (M,).
        """
        count = min(len(examples), self.size)
        if self.examples is None:
            self.examples = examples.new_empty(self.size, *examples.shape[1:])
            self.labels = labels.new_empty(self.size)
            self.distortion = distortion.new_empty(self.size)
        added = min(count, self.size - self.filled)
        places = torch.arange(self.filled, self.filled + added)
        if added < count:
            old = self._subset(self.filled, count - added)
            places = torch.cat([places, old])
        self.replaced += count - added
        self.filled += added
        places = places.to(self.examples.device)
        self.examples[places] = examples[:count].detach()
        self.labels[places] = labels[:count]
        self.distortion[places] = distortion[:count].detach()

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw ``count`` different random examples and their labels; all of them, in order, if there are no more."""
        assert self.examples is not None, "an empty pool has no examples to draw"
        if count >= self.filled:
            return self.examples[: self.filled], self.labels[: self.filled]
        rows = self._subset(self.filled, count).to(self.examples.device)
        return self.examples[rows], self.labels[rows]

    def _subset(self, of: int, count: int) -> Tensor:
        """Draw ``count`` different row numbers below ``of``; all of them, in order, if there are no more."""
        if count >= of:
            return torch.arange(of)
        return torch.randperm(of, generator=self._generator)[:count]

    def state_dict(self) -> dict[str, Any]:
        """Return the content as tensors and numbers; the tensors are not copied."""
        return {
            "size": self.size,
            "filled": self.filled,
            "replaced": self.replaced,
            "examples": self.examples,
            "labels": self.labels,
            "distortion": self.distortion,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Restore a state.

        Raises:
            ValueError: the state belongs to a pool of another size.
        """
        if state["size"] != self.size:
            raise ValueError(f"the saved pool has size {state['size']}, this one {self.size}")
        self.filled, self.replaced = state["filled"], state["replaced"]
        examples = state["examples"]
        # copied, because a renewal writes to them
        self.examples = None if examples is None else examples.to(device, copy=True)
        self.labels, self.distortion = (state[name].to(device, copy=True) for name in ("labels", "distortion"))
        self._generator.set_state(state["generator"].cpu())

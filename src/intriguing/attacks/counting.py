"""Count the passes through a network while other code calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from intriguing.nn import pick_output


@dataclass
class Passes:
    """Count the images that went through a network, forwards and backwards.

    Attributes:
        forwards: rows of all outputs.
        backwards: rows of all gradients with respect to an output.
    """

    forwards: int = 0
    backwards: int = 0

    def observe(self, output: Any) -> None:
        """Count the rows of an output, and those of its gradient when it comes."""
        try:
            logits = pick_output(output)
        except TypeError:
            return
        rows = len(logits) if logits.dim() else 1
        self.forwards += rows
        if logits.requires_grad:

            def count(_: Tensor) -> None:
                self.backwards += rows

            logits.register_hook(count)

    def per_image(self, num: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the mean passes for each of N images, rounded up: (N,), (N,); -1 where no call was seen."""
        forwards = -(-self.forwards // num) if self.forwards else -1
        backwards = -(-self.backwards // num) if self.forwards else -1
        shape = torch.ones(num, dtype=torch.int64, device=device)
        return shape * forwards, shape * backwards


@contextmanager
def counting(model: Callable[..., Any]) -> Iterator[tuple[Callable[..., Any], Passes]]:
    """Count the calls of a network inside the context.

    Args:
        model: a module, which is watched by a hook, or a function, which is wrapped.

    Yields:
        The network to call, and the counts. Calls of a module's own parts are not seen.
    """
    passes = Passes()
    if isinstance(model, nn.Module):
        try:
            handle = model.register_forward_hook(lambda _, inputs, output: passes.observe(output))
        except RuntimeError:  # some compiled modules have no hooks
            yield model, passes
            return
        try:
            yield model, passes
        finally:
            handle.remove()
        return

    def network(*inputs: Any, **keywords: Any) -> Any:
        output = model(*inputs, **keywords)
        passes.observe(output)
        return output

    yield network, passes

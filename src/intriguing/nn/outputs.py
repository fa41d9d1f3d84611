"""Take the logits out of a network's output: a tensor, or an entry of a dict, a tuple or an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

_MOST_NAMED = 8  # entries that a message names


class PickOutput(nn.Module):
    """Call a network and return one entry of its output as the logits.

    Args:
        network: a module, or a function of images.
        name: key of a dict, position in a tuple or list ("0" or 0), or attribute of an object; None takes a tensor, or
            the entry or attribute ``logits``.

    Example:
        >>> import torch
        >>> def network(images):
        ...     return {"embedding": images, "scores": images.flatten(1)}
        >>> PickOutput(network, "scores")(torch.zeros(2, 1, 4, 4)).shape
        torch.Size([2, 16])
    """

    def __init__(self, network: Callable[..., Any], name: str | int | None = None) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, *inputs: Any, **keywords: Any) -> Tensor:
        """Return the logits (N, K) of images (N, ...).

        Raises:
            TypeError: the output has no such entry, or it is no tensor; the message names the entries.
        """
        return pick_output(self.network(*inputs, **keywords), self.name)


def pick_output(output: Any, name: str | int | None = None) -> Tensor:
    """Take the logits out of a network's output.

    Args:
        output: what the network returned.
        name: see `PickOutput`.

    Returns:
        The tensor; its shape is not checked.

    Raises:
        TypeError: the output has no such entry, or it is no tensor; the message names the entries.
    """
    if name is None:
        found = output if isinstance(output, Tensor) else _entry(output, "logits")
        if isinstance(found, Tensor):
            return found
        raise TypeError(
            f"expected the network to return logits (N, K) as a tensor, got {_described(output)}; "
            f"name the entry: intriguing.nn.PickOutput(network, {_first_name(output)!r})"
        )
    found = _entry(output, name)
    if isinstance(found, Tensor):
        return found
    fault = "has no such entry" if found is None else f"holds {_described(found)} there"
    raise TypeError(f"expected the logits as output={name}, but the network's output, {_described(output)}, {fault}")


def _entry(output: Any, name: str | int) -> Any:
    """Return the entry of an output by its key, position or attribute; None if there is none."""
    if isinstance(output, Tensor):
        return None
    if isinstance(output, Mapping):
        return output.get(name)
    if isinstance(output, list | tuple) and str(name).lstrip("-").isdecimal():
        position = int(name)
        return output[position] if -len(output) <= position < len(output) else None
    return getattr(output, str(name), None)


def _names(output: Any) -> list[str | int]:
    """List the names under which an output holds tensors."""
    if isinstance(output, Mapping):
        return [key for key, value in output.items() if isinstance(value, Tensor)]
    if fields := getattr(output, "_fields", None):  # a named tuple
        return list(fields)
    if isinstance(output, list | tuple):
        return [position for position, value in enumerate(output) if isinstance(value, Tensor)]
    return [key for key, value in getattr(output, "__dict__", {}).items() if isinstance(value, Tensor)]


def _first_name(output: Any) -> str | int:
    return next(iter(_names(output)), "...")


def _described(output: Any) -> str:
    """Describe an output by its type and its entries."""
    if isinstance(output, Tensor):
        return "a tensor"
    if isinstance(output, Mapping):
        shown = ", ".join(map(repr, list(output)[:_MOST_NAMED]))
        return f"a dict with {shown}" if shown else "an empty dict"
    names = ", ".join(map(str, _names(output)[:_MOST_NAMED]))
    kind = type(output).__name__
    if hasattr(output, "_fields"):
        return f"a {kind} with {names}"
    if isinstance(output, list | tuple):
        return f"a {kind} of {len(output)}"
    return f"{kind} with {names}" if names else kind

"""Find the first layer that produces nan or inf; the search runs only after such a value was seen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from intriguing.errors import UserError, plural
from intriguing.nn import modules_of


class NotFiniteError(UserError, ValueError):
    """Report a loss, a logit or a weight that is nan or inf; the message names the first such layer and a remedy."""


def is_finite(value: Any) -> bool:
    """Return whether all floating-point tensors in a value (a tensor, list, tuple or mapping) are finite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    return all(map(is_finite, value)) if isinstance(value, list | tuple) else True


def first_nonfinite_weight(module: nn.Module) -> str | None:
    """Return the name of the first parameter that is not finite; None if all are finite."""
    return next((name for name, value in module.named_parameters() if not is_finite(value)), None)


def first_nonfinite_layer(module: nn.Module, inputs: Tensor, runs: Iterable[Callable[[], Any]]) -> str | None:
    """Describe the first layer whose output is not finite.

    Args:
        module: module whose submodules are watched.
        inputs: (N, ...), its input.
        runs: ways to run the module, tried in turn without gradients until an output is not finite.

    Returns:
        A description for a message; None if every layer's output is finite.
    """
    if not is_finite(inputs):
        return "the images themselves are not finite: check the data"
    found: list[str] = []
    with torch.no_grad(), _watched(module, found):
        for run in runs:
            run()
            if found:
                return found[0]
    return None


@contextlib.contextmanager
def _watched(module: nn.Module, found: list[str]) -> Iterator[None]:
    """Append to ``found``, inside the context, a description of the first layer whose output is not finite.

    Inner modules come first.
    """

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        """Make a forward hook for the layer of a name."""

        def check(layer: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            """Describe the layer if its output is the first one that is not finite."""
            if found or is_finite(output):
                return
            weight = first_nonfinite_weight(layer)
            why = "its weights and its input are finite"
            if weight is not None:
                why = f"its {weight} is not finite"
            elif not is_finite(arguments):
                why = "its input is not finite either"
            kind = type(layer).__name__
            found.append(f"the first layer whose output is not finite is {name or 'the network'} ({kind}): {why}")

        return check

    handles = [layer.register_forward_hook(watch(name)) for name, layer in module.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_logits(model: Callable[[Tensor], Any], inputs: Tensor, logits: Tensor) -> None:
    """Check that all logits are finite.

    Logits may be -inf for classes that the network never predicts, if each image has another class.

    Args:
        model: a module, or a function that calls modules.
        inputs: (N, ...), the images.
        logits: (N, K), the model's output for them.

    Raises:
        NotFiniteError: a logit is nan or +inf, or all logits of an image are -inf; the message names the layer.
    """
    usable = logits.flatten(1).amax(dim=1).isfinite()  # amax of nan is nan
    if bool(usable.all()):
        return
    rows = (~usable).nonzero().squeeze(1)
    image = inputs[rows[:1].to(inputs.device)]
    found = [first_nonfinite_layer(module, image, [lambda: model(image)]) for module in modules_of(model)]
    where = next(filter(None, found), None)
    if where is None:
        with torch.no_grad():
            finite_alone = is_finite(model(image))
        depends = "the image alone has finite logits: they depend on the batch"
        where = depends if finite_alone else "every layer's output is finite, but the logits computed from them are not"
    raise NotFiniteError(
        f"expected finite logits, got nan or inf for {len(rows)} of {plural(len(logits), 'image')}, first for image "
        f"{int(rows[0])}: {where}"
    )

"""Numbers that are not finite: said with the first layer that gives them, which is looked for only when it happens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from intriguing.errors import UserError, plural
from intriguing.nn import modules_of


class NotFiniteError(UserError, ValueError):
    """A loss, a logit or a weight is nan or inf; the message names the layer where it began, and what may help."""


def is_finite(value: Any) -> bool:
    """Whether all floating-point tensors in a value (a tensor, a list, a tuple or a mapping) are finite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    return all(map(is_finite, value)) if isinstance(value, list | tuple) else True


def bad_weight(module: nn.Module) -> str | None:
    """The name of the first parameter that is not finite; None where all are."""
    return next((name for name, value in module.named_parameters() if not is_finite(value)), None)


def blame(module: nn.Module, inputs: Tensor, runs: Iterable[Callable[[], Any]]) -> str | None:
    """Where numbers stop being finite, in words; None where every layer's output is finite.

    Args:
        module: whose submodules are watched.
        inputs: what goes in, (N, ...).
        runs: ways to run it, tried in turn without gradients until a layer's output is not finite.
    """
    if not is_finite(inputs):
        return "the images are not finite themselves: look at the data"
    found: list[str] = []
    with torch.no_grad(), _watched(module, found):
        for run in runs:
            run()
            if found:
                return found[0]
    return None


@contextlib.contextmanager
def _watched(module: nn.Module, found: list[str]) -> Iterator[None]:
    """Inside, the first module to return what is not finite writes into `found`; inner ones return first."""

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def look(layer: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            if found or is_finite(output):
                return
            weight = bad_weight(layer)
            why = "its weights and what goes into it are finite"
            if weight is not None:
                why = f"its {weight} is not finite already"
            elif not is_finite(arguments):
                why = "what goes into it is not finite either"
            kind = type(layer).__name__
            found.append(f"the first layer whose output is not finite is {name or 'the network'} ({kind}): {why}")

        return look

    handles = [layer.register_forward_hook(watch(name)) for name, layer in module.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_logits(model: Callable[[Tensor], Any], inputs: Tensor, logits: Tensor) -> None:
    """Raise NotFiniteError, with the layer, unless all logits (N, K) of inputs (N, ...) are numbers.

    Classes that are never answered may have logits of -inf, as long as each image has another class.

    Args:
        model: a module, or a function that calls modules.
        inputs: (N, ...), the images.
        logits: (N, K), what the model returned for them.
    """
    usable = logits.flatten(1).amax(dim=1).isfinite()  # amax of nan is nan
    if bool(usable.all()):
        return
    rows = (~usable).nonzero().squeeze(1)
    one = inputs[rows[:1].to(inputs.device)]
    found = [blame(module, one, [lambda: model(one)]) for module in modules_of(model)]
    where = next(filter(None, found), None)
    if where is None:
        with torch.no_grad():
            alone = is_finite(model(one))
        depends = "alone, its logits are finite: they depend on the batch"
        where = depends if alone else "every layer's output is finite, and what is computed from them is not"
    raise NotFiniteError(
        f"expected finite logits, got nan or inf for {len(rows)} of {plural(len(logits), 'image')}, first for image "
        f"{int(rows[0])}: {where}"
    )

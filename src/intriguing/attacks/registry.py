"""The attacks by name, all with one call shape.

An attack is one module with a public function and a dataclass that checks its settings, one line in `ATTACKS`, one file
in ``conf/attack``, and its row in the table of tests comes by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from intriguing.attacks.adam_l1 import AdamSettings, adam_l1
from intriguing.attacks.base import AttackResult
from intriguing.attacks.gaussian import GaussianSettings, gaussian
from intriguing.attacks.lbfgs import Settings as LbfgsSettings
from intriguing.attacks.lbfgs import lbfgs
from intriguing.attacks.nearest import NearestSettings, nearest
from intriguing.attacks.network import Model
from intriguing.attacks.targets import closest
from intriguing.metrics import distortion
from intriguing.validation import whole_number

_GIVEN = ("model", "inputs", "labels", "targets", "generator")  # arguments that are no settings


@dataclass(frozen=True)
class Attack:
    """An attack that is called like every other one.

    Attributes:
        function: the attack, by the signature of its module.
        settings: frozen dataclass that checks its settings; ``chunk_size``, which every attack may have, aside.
        adapter: calls the function by the common call shape.
        reads_model: False for noise, which needs no network.
    """

    function: Callable[..., Any]
    settings: type
    adapter: Callable[..., AttackResult]
    reads_model: bool = True

    def __call__(
        self,
        model: Model | None,
        inputs: Tensor,
        labels: Tensor,
        *,
        targets: Tensor | None = None,
        generator: torch.Generator | None = None,
        **settings: Any,
    ) -> AttackResult:
        """Attack images.

        Args:
            model: images in [0, 1] of any shape to logits (N, K); None for noise.
            inputs: (N, ...) in [0, 1].
            labels: (N,) integers in 0..K-1, the classes to get away from.
            targets: (N,) integers in 0..K-1, or None for any class but the label.
            generator: source of random numbers; None is PyTorch's global one.
            settings: see the function.

        Raises:
            TypeError: an argument has a wrong type, or the network does not return logits.
            ValueError: a shape or a value is wrong, or the network cannot be attacked.
        """
        if "generator" in inspect.signature(self.function).parameters:
            settings["generator"] = generator
        return self.adapter(self.function, model, inputs, labels, targets, settings)

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings by name, with their defaults; ``inspect.Parameter.empty`` for one that must be given."""
        parameters = inspect.signature(self.function).parameters
        return {name: one.default for name, one in parameters.items() if name not in _GIVEN}

    def check(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Check settings without an attack.

        Returns:
            The settings, each as a value of its type: a whole number as an int.

        Raises:
            TypeError: an unknown or missing setting, or a value of another type.
            ValueError: a value out of range.
        """
        values = self.defaults
        if unknown := [name for name in settings if name not in values]:
            raise TypeError(f"{unknown[0]} is no setting of {self.function.__name__}; it has {', '.join(values)}")
        values |= settings
        if missing := [name for name, value in values.items() if value is inspect.Parameter.empty]:
            raise TypeError(f"{self.function.__name__} needs {missing[0]}")
        if values.get("chunk_size") is not None:
            values["chunk_size"] = whole_number("chunk_size", values["chunk_size"], 1)
        values |= vars(self.settings(**{field.name: values[field.name] for field in fields(self.settings)}))
        return {name: values[name] for name in settings}


def _targeted(
    function: Callable[..., AttackResult],
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    settings: dict[str, Any],
) -> AttackResult:
    """Call an attack on targets; without targets on every wrong class."""
    if targets is None:
        return closest(function, model, inputs, labels, **settings)
    return function(model, inputs, targets, **settings)


def _untargeted(
    function: Callable[..., AttackResult],
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    settings: dict[str, Any],
) -> AttackResult:
    """Call an attack that takes labels, and targets too."""
    return function(model, inputs, labels, targets=targets, **settings)


def _noise(
    function: Callable[..., Tensor],
    model: Model | None,
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    settings: dict[str, Any],
) -> AttackResult:
    """Draw noise: every image succeeds, whatever a network answers, and no pass is made."""
    if targets is not None:
        raise ValueError("expected no targets for noise, which has none")
    adv_inputs = function(inputs, **settings)
    count = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
    success = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
    return AttackResult(adv_inputs, success, distortion(inputs, adv_inputs), None, count, count.clone())


ATTACKS: dict[str, Attack] = {
    "lbfgs": Attack(lbfgs, LbfgsSettings, _targeted),
    "adam_l1": Attack(adam_l1, AdamSettings, _targeted),
    "nearest": Attack(nearest, NearestSettings, _untargeted),
    "gaussian": Attack(gaussian, GaussianSettings, _noise, reads_model=False),
}

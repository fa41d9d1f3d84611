"""The attacks by name, all with one call shape.

An attack is one module with a public function and a dataclass that checks its settings, one line in `ATTACKS`, one file
in ``conf/attack``, and its row in the table of tests comes by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from intriguing.attacks.adam_l1 import AdamSettings, adam_l1
from intriguing.attacks.base import as_batch
from intriguing.attacks.function import FunctionAttack
from intriguing.attacks.gaussian import GaussianSettings, gaussian
from intriguing.attacks.lbfgs import lbfgs
from intriguing.attacks.levels import check_levels
from intriguing.attacks.nearest import NearestSettings, nearest
from intriguing.attacks.network import Model
from intriguing.attacks.penalty import Settings as LbfgsSettings
from intriguing.attacks.result import AttackResult
from intriguing.attacks.targets import closest
from intriguing.errors import did_you_mean
from intriguing.metrics import distortion
from intriguing.validation import whole_number

_GIVEN = ("model", "inputs", "labels", "targets", "generator", "starts")  # arguments that are no settings


@dataclass(frozen=True)
class Attack:
    """An attack that is called like every other one.

    Attributes:
        function: the attack, by the signature of its module.
        settings: frozen dataclass that checks its settings; ``chunk_size`` and ``levels``, which several attacks have,
            aside.
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
        labels: Tensor | int,
        *,
        targets: Tensor | int | None = None,
        generator: torch.Generator | None = None,
        **settings: Any,
    ) -> AttackResult:
        """Attack images.

        Args:
            model: images in [0, 1] of any shape to logits (N, K); None for noise.
            inputs: (N, ...) in [0, 1]; one image (C, H, W) if the classes are single numbers.
            labels: (N,) integers in 0..K-1, the classes to get away from.
            targets: (N,) integers in 0..K-1, or None for any class but the label.
            generator: source of random numbers; None is PyTorch's global one.
            settings: see the function; also ``starts`` of a function that takes them.

        Raises:
            TypeError: an argument has a wrong type, or the network does not return logits.
            ValueError: a shape or a value is wrong, or the network cannot be attacked.
        """
        if "generator" in inspect.signature(self.function).parameters:
            settings["generator"] = generator
        if targets is not None:
            targets = as_batch(inputs, targets)[1]
        inputs, labels = as_batch(inputs, labels)
        result = self.adapter(self.function, model, inputs, labels, targets, settings)
        return result if result.labels is not None else replace(result, labels=labels.to(inputs.device, torch.int64))

    @property
    def name(self) -> str:
        """The attack's name."""
        return self.function.__name__

    def takes(self, name: str) -> bool:
        """Return whether the function takes a keyword."""
        return name in inspect.signature(self.function).parameters

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
            near = did_you_mean(unknown[0], values)
            raise TypeError(
                f"{unknown[0]} is no setting of {self.function.__name__}{near or ';'} it has {', '.join(values)}"
            )
        values |= settings
        if missing := [name for name, value in values.items() if value is inspect.Parameter.empty]:
            raise TypeError(f"{self.function.__name__} needs {missing[0]}")
        if values.get("chunk_size") is not None:
            values["chunk_size"] = whole_number("chunk_size", values["chunk_size"], 1)
        if "levels" in values:
            values["levels"] = check_levels(values["levels"])
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
    return AttackResult(adv_inputs, success, distortion(inputs, adv_inputs), None, count, count.clone(), inputs)


ATTACKS: dict[str, Attack] = {
    "lbfgs": Attack(lbfgs, LbfgsSettings, _targeted),
    "adam_l1": Attack(adam_l1, AdamSettings, _targeted),
    "nearest": Attack(nearest, NearestSettings, _untargeted),
    "gaussian": Attack(gaussian, GaussianSettings, _noise, reads_model=False),
}


def as_attack(attack: str | Callable[..., Any], *, clip: bool = True) -> Attack | FunctionAttack:
    """Return an attack by its name, or make one of a function.

    Args:
        attack: a name in `ATTACKS`; or a function that is called with
            ``(model, inputs, labels, *, targets=None, generator=None, **settings)`` and returns adversarial images or
            an `AttackResult`, see `FunctionAttack`.
        clip: whether the images of a function must lie in [0, 1].

    Returns:
        The attack, which is called with ``(model, inputs, labels, *, targets=None, generator=None, **settings)``.

    Raises:
        ValueError: there is no attack of this name.
        TypeError: the function cannot be called like an attack.

    Example:
        >>> import torch
        >>> def brighter(model, inputs, labels, *, eps=0.1):
        ...     return (inputs + eps).clamp(0, 1)
        >>> def network(images):  # class 1 where the first pixel is above 0.5
        ...     first = images.flatten(1)[:, 0]
        ...     return torch.stack([0.5 - first, first - 0.5], dim=1)
        >>> result = as_attack(brighter)(network, torch.tensor([[[[0.45]]], [[[0.2]]]]), torch.tensor([0, 0]))
        >>> result.success.tolist()
        [True, False]
    """
    if isinstance(attack, Attack | FunctionAttack):
        return attack
    for one in ATTACKS.values():
        if attack is one.function:
            return one
    if not isinstance(attack, str):
        return FunctionAttack(attack, clip=clip)
    if attack not in ATTACKS:
        raise ValueError(f"expected an attack out of {', '.join(ATTACKS)}, or a function, got {attack!r}")
    return ATTACKS[attack]

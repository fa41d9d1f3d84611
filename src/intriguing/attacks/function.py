"""Call any function as an attack, and judge what it returns."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from intriguing.attacks.base import OVERSHOOT, as_batch, check_classes, check_inputs, per_image
from intriguing.attacks.chunk import ChunkResult, Goal
from intriguing.attacks.counting import counting
from intriguing.attacks.levels import check_levels, round_for, search_grid
from intriguing.attacks.network import Model, under_attack
from intriguing.attacks.result import AttackResult
from intriguing.metrics import distortion
from intriguing.nn import PickOutput, evaluating, frozen, pick_output
from intriguing.nn.nonfinite import check_logits

_BATCH = 512  # images judged at once
_GIVEN = "targets", "generator"  # keywords that are passed to functions that take them
_ARGUMENTS = 3  # model, inputs, labels


@dataclass(frozen=True)
class FunctionAttack:
    """A function of the user's that is called like every other attack.

    The function is called as ``function(model, inputs, labels, **keywords)`` with the images of one chunk, their labels
    and only those of the keywords ``targets``, ``generator`` and the settings that its signature takes. It returns the
    adversarial images, or an `AttackResult`. Success and distortion are measured here, on the images that it returns.

    Attributes:
        function: the function.
        clip: whether its images must lie in [0, 1].
    """

    function: Callable[..., Any]
    clip: bool = True

    def __post_init__(self) -> None:
        if inspect.isclass(self.function) or not callable(self.function):
            raise TypeError(f"expected an attack as a function (model, inputs, labels, ...), got {self.function!r}")
        try:
            given = [name for name in _GIVEN if name in self._keywords]
            self._signature.bind(None, None, None, **dict.fromkeys([*self._own_settings, *given]))
        except TypeError as error:
            raise TypeError(
                f"expected {self.name} to take (model, inputs, labels, *, targets=None, generator=None, ...), "
                f"but it takes {self._signature} ({error})"
            ) from error

    reads_model = True

    @property
    def name(self) -> str:
        """The function's name."""
        function = self.function
        while isinstance(function, functools.partial):
            function = function.func
        return getattr(function, "__name__", type(function).__name__)

    @property
    def path(self) -> str:
        """The function's module and name, "mine.fgsm"."""
        function = self.function
        while isinstance(function, functools.partial):
            function = function.func
        return f"{getattr(function, '__module__', type(function).__module__)}.{self.name}"

    @property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @property
    def _keywords(self) -> dict[str, inspect.Parameter]:
        """The parameters after model, inputs and labels."""
        return dict(list(self._signature.parameters.items())[_ARGUMENTS:])

    def takes(self, name: str) -> bool:
        """Return whether the function takes a keyword."""
        parameters = self._keywords
        return name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())

    @property
    def _own_settings(self) -> dict[str, Any]:
        """The settings of the function by name, with their defaults."""
        single = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return {n: one.default for n, one in self._keywords.items() if n not in _GIVEN and one.kind in single}

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings by name, with their defaults; ``inspect.Parameter.empty`` for one that must be given."""
        return {"levels": None} | self._own_settings

    def check(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Check settings without an attack: their names, and ``levels``.

        Returns:
            The settings.

        Raises:
            TypeError: a setting that the function does not take, or one that it needs.
            ValueError: a number of levels out of range.
        """
        known = self.defaults
        for name in settings:
            if name in _GIVEN:
                raise TypeError(f"{name} is no setting of {self.name}: it is passed by every attack")
            if name not in known and not self.takes(name):
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise TypeError(f"{name} is no setting of {self.name}{hint}; it has {', '.join(known)}")
        if missing := [n for n, v in known.items() if v is inspect.Parameter.empty and n not in settings]:
            raise TypeError(f"{self.name} needs {missing[0]}")
        if "levels" not in self._keywords:
            check_levels(settings.get("levels"))
        return dict(settings)

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
        """Attack images; see `Attack`.

        Args:
            model: images in [0, 1] of any shape to logits (N, K).
            inputs: (N, ...) in [0, 1]; one image (C, H, W) if the classes are single numbers.
            labels: (N,) integers in 0..K-1, the classes to get away from.
            targets: (N,) integers in 0..K-1, or None for any class but the label.
            generator: source of random numbers, for functions that take one.
            settings: keywords of the function; ``levels``, if it is none of them, moves the result to the grid of a
                file's values.

        Returns:
            The result. An image that meets the goal unperturbed is returned unchanged, with distortion 0. The passes
            are means over the images.

        Raises:
            TypeError: an argument, or what the function returned, has a wrong type.
            ValueError: a shape or a value is wrong.
        """
        assert model is not None
        self.check(settings)
        if targets is not None and not self.takes("targets"):
            raise ValueError(f"{self.name} takes no targets")
        levels = None if "levels" in self._keywords else settings.pop("levels", None)
        inputs, labels = as_batch(inputs, labels)
        targets = torch.tensor([targets]) if isinstance(targets, int) else targets
        targets = targets[None] if targets is not None and targets.dim() == 0 else targets
        inputs = check_inputs(inputs)
        levels = check_levels(levels, inputs.dtype)
        with torch.inference_mode(False), frozen(model), evaluating(model):
            inputs = inputs.detach().clone()
            goal = self._goal(model, inputs, labels, targets)
            already = goal.reached(_logits(model, inputs))
            keywords = {"targets": targets, "generator": generator}
            given = {key: value for key, value in keywords.items() if self.takes(key)} | settings
            called = model if isinstance(_output(model, inputs[:1]), Tensor) else PickOutput(model)
            with counting(called) as (network, passes), torch.enable_grad():
                found = self.function(network, inputs.clone(), labels.clone(), **given)
            if isinstance(found, AttackResult):
                forwards, backwards, c = found.num_forwards, found.num_backwards, found.c
                unrounded = found.unrounded_distortion
            else:
                (forwards, backwards), c = passes.per_image(len(inputs), inputs.device), None
                unrounded = None
            adv_inputs = self._checked(found, inputs)
            adv_inputs = torch.where(per_image(already, inputs), inputs, adv_inputs)
            success = goal.reached(_logits(model, adv_inputs))
            result = AttackResult(
                adv_inputs=torch.where(per_image(success, inputs), adv_inputs, inputs),
                success=success,
                distortion=torch.where(success, distortion(inputs, adv_inputs), torch.inf),
                c=c,
                num_forwards=forwards,
                num_backwards=backwards,
                inputs=inputs,
                labels=labels.long(),
                targets=targets,
                unrounded_distortion=unrounded,
            )
        return result if levels is None else _on_grid(model, result, goal, levels)

    def _goal(self, model: Model, inputs: Tensor, labels: Tensor, targets: Tensor | None) -> Goal:
        """Check the classes against the logits, and make the goal of them."""
        logits = _logits(model, inputs)
        check_classes("labels", labels, logits)
        if targets is not None:
            check_classes("targets", targets, logits)
            return Goal(targets.long(), targeted=True)
        return Goal(labels.long(), targeted=False)

    def _checked(self, found: Any, inputs: Tensor) -> Tensor:
        """Check the images that the function returned, and return them like the inputs."""
        images = found.adv_inputs if isinstance(found, AttackResult) else found
        if not isinstance(images, Tensor) or not images.is_floating_point():
            kind = f"a tensor of {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(
                f"{self.name} returned {kind}; expected the adversarial images as floating-point numbers of shape "
                f"{tuple(inputs.shape)}, or an AttackResult"
            )
        if images.shape != inputs.shape:
            raise ValueError(
                f"{self.name} returned images of shape {tuple(images.shape)}; expected that of the inputs, "
                f"{tuple(inputs.shape)}"
            )
        images = images.detach().to(inputs)
        finite = images.flatten(1).isfinite().all(dim=1)
        if not bool(finite.all()):
            rows = (~finite).nonzero().squeeze(1)
            raise ValueError(f"{self.name} returned nan or inf in {len(rows)} images, first in row {int(rows[0])}")
        low, high = (float(end) for end in images.aminmax())
        if not self.clip or (low >= 0 and high <= 1):
            return images
        if low < -OVERSHOOT or high > 1 + OVERSHOOT:
            raise ValueError(
                f"{self.name} returned values from {low:.6g} to {high:.6g}; clamp them to [0, 1], or set clip=false to "
                "allow them"
            )
        return images.clamp(0, 1)


def _output(model: Model, inputs: Tensor) -> Any:
    with torch.no_grad():
        return model(inputs)


def _logits(model: Model, inputs: Tensor) -> Tensor:
    """Compute and check the logits (N, K) of images, without gradients."""
    logits = torch.cat([pick_output(_output(model, part)) for part in inputs.split(_BATCH)])
    if logits.dim() == 2:  # `check_classes` refuses anything else
        check_logits(model, inputs, logits)
    return logits


def _on_grid(model: Model, result: AttackResult, goal: Goal, levels: int) -> AttackResult:
    """Move the examples of a result to the grid of a file's values."""
    inputs, adv_inputs, success = result.inputs, result.adv_inputs.clone(), result.success.clone()
    assert inputs is not None
    forwards, backwards = result.num_forwards.clone(), result.num_backwards.clone()
    with under_attack(model, inputs, floats_per_pixel=30) as net:
        flat = inputs.flatten(1).to(net.dtype)
        net.observe(flat, net.logits(flat))
        for rows in result.success.nonzero().squeeze(1).split(net.max_rows) if bool(result.success.any()) else ():
            origin, x = (images[rows].flatten(1).to(net.dtype) for images in (inputs, adv_inputs))
            done = (result.distortion[rows] == 0) & (round_for(net, origin, levels) == origin).all(dim=1)
            chunk = ChunkResult(x, torch.ones_like(done), forwards[rows], backwards[rows])
            found = search_grid(net, origin, chunk, goal.take(rows), levels)
            assert isinstance(found.num_forwards, Tensor) and isinstance(found.num_backwards, Tensor)
            x = torch.where(done[:, None], origin, found.x)
            adv_inputs[rows], success[rows] = x.view_as(inputs[rows]).to(inputs.dtype), found.success | done
            counted = forwards[rows] >= 0
            forwards[rows] = torch.where(counted, found.num_forwards, -1)
            backwards[rows] = torch.where(counted, found.num_backwards, -1)
    adv_inputs = torch.where(per_image(success, inputs), adv_inputs, inputs)
    return AttackResult(
        adv_inputs=adv_inputs,
        success=success,
        distortion=torch.where(success, distortion(inputs, adv_inputs), torch.inf),
        c=result.c,
        num_forwards=forwards,
        num_backwards=backwards,
        inputs=inputs,
        labels=result.labels,
        targets=result.targets,
        unrounded_distortion=result.distortion,
    )

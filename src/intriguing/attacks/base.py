"""Define the result of an attack, check its arguments, and run it over chunks of images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from intriguing.attacks.network import Model, Network, under_attack
from intriguing.metrics import distortion
from intriguing.nn.nonfinite import check_logits
from intriguing.statistics.intervals import t_interval

_STRETCHES = 1.0003, 1.001, 1.003, 1.01, 1.03, 1.1
"""Factors that lengthen a perturbation if the network's answer has changed in the final check."""
_OVERSHOOT = 1e-5  # image decoders and resizing exceed [0, 1] by up to this; half precision cannot represent it


class AttackWarning(UserWarning):
    """Warn that the inputs of an attack look wrong, or that its result is no evidence of robustness."""


@dataclass(frozen=True, repr=False)
class AttackResult:
    """Hold the adversarial examples for N images, in the order of the images.

    Attributes:
        adv_inputs: (N, ...) in [0, 1], in the images' dtype; the image itself where the attack failed.
        success: (N,) bool, whether the attack reached its goal, recomputed on ``adv_inputs``.
        distortion: (N,) per-pixel RMS of the perturbation (section 4.2), at least float32; 0 where the unperturbed
            image already meets the goal, inf where the attack failed.
        c: (N,) constant of the penalty at which the example was found; inf where the unperturbed image already meets
            the goal, nan where the attack failed. None for attacks without such a constant.
        num_forwards: (N,) int64, number of forward passes spent on each image.
        num_backwards: (N,) int64, number of backward passes spent on each image.
    """

    adv_inputs: Tensor
    success: Tensor
    distortion: Tensor
    c: Tensor | None
    num_forwards: Tensor
    num_backwards: Tensor

    def __len__(self) -> int:
        return len(self.success)

    def summary(self) -> dict[str, Any]:
        """Summarise the result in plain numbers.

        Returns:
            ``images`` (N), ``success`` (number of examples), ``already`` (number of unperturbed images among them that
            meet the goal), ``mean_distortion`` with ``low`` and ``high`` (95 % interval of Student's t) and
            ``median_distortion`` of the perturbed examples, None where there are none or one; ``forwards`` and
            ``backwards`` (mean number of passes per image).
        """
        already = self.success & (self.distortion == 0)
        sizes = self.distortion[self.success & ~already].detach().cpu().double()
        interval = t_interval(sizes) if len(sizes) else None
        return {
            "images": len(self),
            "success": int(self.success.sum()),
            "already": int(already.sum()),
            "mean_distortion": float(sizes.mean()) if len(sizes) else None,
            "low": None if interval is None else interval.low,
            "high": None if interval is None else interval.high,
            "median_distortion": float(sizes.quantile(0.5)) if len(sizes) else None,
            "forwards": float(self.num_forwards.double().mean()) if len(self) else 0.0,
            "backwards": float(self.num_backwards.double().mean()) if len(self) else 0.0,
        }

    def __repr__(self) -> str:
        found = self.summary()
        text = f"{found['success']} of {found['images']} succeeded"
        if found["already"]:
            text += f", {found['already']} of them unperturbed"
        if found["mean_distortion"] is not None:
            text += f"; distortion mean {found['mean_distortion']:.4g}"
            text += "" if found["low"] is None else f" ({found['low']:.4g} to {found['high']:.4g})"
            text += f", median {found['median_distortion']:.4g}"
        return f"AttackResult({text})"


@dataclass
class ChunkResult:
    """Hold the result of an attack on a chunk of M images.

    Attributes:
        x: (M, n) flat images in [0, 1].
        success: (M,) bool, as the attack computed it.
        c: (M,) constants of the penalty, or None; see ``AttackResult``.
        num_forwards, num_backwards: passes per image, (M,) int64, or one number for all images.
    """

    x: Tensor
    success: Tensor
    num_forwards: Tensor | int
    num_backwards: Tensor | int
    c: Tensor | None = None


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


def check_inputs(inputs: Tensor) -> Tensor:
    """Check that images lie in [0, 1], and clamp rounding errors.

    Args:
        inputs: (N, ...), images.

    Returns:
        The images in [0, 1]; a copy if values had to be clamped.

    Raises:
        TypeError: ``inputs`` is not a floating-point tensor.
        ValueError: ``inputs`` has no dimension of pixels, or values outside [0, 1] by more than rounding.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise TypeError(f"expected inputs as a floating-point tensor, got {_kind(inputs)}")
    if inputs.dim() < 2 or 0 in inputs.shape[1:]:
        raise ValueError(f"expected inputs of shape (N, ...), got {tuple(inputs.shape)}")
    if len(inputs) == 0:
        return inputs
    low, high = (float(end) for end in inputs.detach().aminmax())
    if low >= 0 and high <= 1:
        return inputs
    if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
        with torch.inference_mode(False), torch.no_grad():
            return inputs.detach().clone().clamp_(0, 1)
    remedy = ""
    if low < 0:
        remedy = "; leave normalisation to the network's first layer"
    elif 2 < high <= 255:
        remedy = "; divide by 255"
    raise ValueError(f"expected inputs in [0, 1], got values from {low:.9g} to {high:.9g}{remedy}")


def check_classes(name: str, classes: Tensor, logits: Tensor) -> None:
    """Check that targets or labels are class indices that fit the logits.

    Args:
        name: "targets" or "labels", for the message.
        classes: (N,) integers in 0..K-1.
        logits: (N, K).

    Raises:
        TypeError: ``classes`` is not an integer tensor.
        ValueError: a shape is wrong, or a class is out of range.
    """
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(f"expected the model to return logits of shape (N, K) with K >= 2, got {tuple(logits.shape)}")
    if not isinstance(classes, Tensor) or classes.is_floating_point() or classes.is_complex():
        raise TypeError(f"expected {name} as an integer tensor, got {_kind(classes)}")
    if classes.dtype == torch.bool:
        raise TypeError(f"expected {name} as an integer tensor, got {_kind(classes)}")
    if classes.shape != logits.shape[:1]:
        raise ValueError(f"expected {name} of shape {(len(logits),)}, got {tuple(classes.shape)}")
    if len(classes):
        low, high = (int(end) for end in classes.long().aminmax())
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(f"expected {name} in 0..{logits.shape[1] - 1}, got {low} to {high}")


def check_setting(condition: bool, expected: str, got: object) -> None:
    """Check that a setting is in its range.

    Raises:
        ValueError: ``condition`` is False; the message gives the expected range and the value.
    """
    if not condition:
        raise ValueError(f"expected {expected}, got {got}")


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


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """Reshape values (N,) so that they broadcast against images (N, ...)."""
    return values.view(-1, *[1] * (images.dim() - 1))


def clean_logits(net: Network, model: Model, inputs: Tensor) -> Tensor:
    """Compute and check the logits (N, K) of the unperturbed images.

    Logits may be -inf for classes that the network never predicts.

    Raises:
        NotFiniteError: a logit is nan or +inf, or all logits of an image are -inf.
    """
    rest = net.logits(inputs[1:].flatten(1).to(net.dtype))
    logits = torch.cat([net.first_logits, rest])
    net.observe(logits)
    largest = logits.amax(dim=1)
    if not bool(largest.isfinite().all()):  # amax of nan is nan
        check_logits(model, inputs, logits)
    return logits


def attack_in_chunks(
    attack: Callable[[Network, Tensor, Goal, Tensor], ChunkResult],
    model: Model,
    inputs: Tensor,
    classes: Tensor,
    *,
    name: str,
    chunk_size: int | None,
    floats_per_pixel: int,
    has_c: bool = False,
) -> AttackResult:
    """Check the arguments, attack the images that do not meet the goal yet, and recompute the success on the result.

    The attack works on copies: no argument is modified.

    Args:
        attack: maps the network, flat images (M, n) in its dtype, their goal and their indices (M,) among all images to
            a ``ChunkResult``.
        model: images in [0, 1] to logits (N, K).
        inputs: (N, ...) in [0, 1].
        classes: (N,) targets or labels, as ``name`` says.
        name: "targets" or "labels".
        chunk_size: images per chunk; None chooses as many as fit in the memory of the device.
        floats_per_pixel: floating-point numbers that the attack itself holds per input value.
        has_c: whether the attack returns a constant of the penalty.

    Returns:
        The result for all N images.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: a shape or a value is wrong, or the network cannot be attacked.
    """
    inputs = check_inputs(inputs)
    with under_attack(model, inputs, chunk_size=chunk_size, floats_per_pixel=floats_per_pixel) as net:
        inputs = inputs.detach().clone()
        classes = classes.detach().to(inputs.device) if isinstance(classes, Tensor) else classes
        logits = clean_logits(net, model, inputs)
        check_classes(name, classes, logits)
        goal = Goal(classes.long().clone(), targeted=name == "targets")
        warn_of_strange_outputs(logits, None if goal.targeted else goal.classes)
        already = goal.reached(logits)
        flat = inputs.flatten(1).to(net.dtype)
        best = flat.clone()
        success = already.clone()
        c = torch.where(already, torch.inf, torch.nan).to(net.dtype)
        num_forwards, num_backwards = torch.ones_like(goal.classes), torch.zeros_like(goal.classes)
        pending = (~already).nonzero().squeeze(1)
        for rows in pending.split(net.max_rows) if len(pending) else ():
            subgoal = goal.take(rows)
            found = attack(net, flat[rows], subgoal, rows)
            x, reached, checks = _recheck(net, flat[rows], found, subgoal)
            best[rows], success[rows] = x, reached
            num_forwards[rows] += found.num_forwards + checks
            num_backwards[rows] += found.num_backwards
            if found.c is not None:
                c[rows] = torch.where(reached, found.c, torch.nan)
        failed = (~success).nonzero().squeeze(1)
        if len(failed):
            num_forwards[failed] += 1
            num_backwards[failed] += 1
            _warn_of_zero_gradients(net, flat[failed], goal.take(failed), failed)
        adv_inputs = torch.where(per_image(success, inputs), best.view_as(inputs).to(inputs.dtype), inputs)
        size = distortion(inputs.to(net.dtype), adv_inputs.to(net.dtype))
        return AttackResult(
            adv_inputs=adv_inputs,
            success=success,
            distortion=torch.where(success, size, torch.inf),
            c=c if has_c else None,
            num_forwards=num_forwards,
            num_backwards=num_backwards,
        )


def _recheck(net: Network, origin: Tensor, found: ChunkResult, goal: Goal) -> tuple[Tensor, Tensor, Tensor]:
    """Recompute the success of a chunk's images after conversion to the images' dtype.

    Where the network's answer changed with the batch size, the perturbation is lengthened a little.

    Returns:
        The final images (M, n), their success (M,), and the forward passes that the check took (M,).
    """
    x = found.x.to(net.image_dtype).to(net.dtype)
    reached = found.success & goal.reached(net.logits(x))
    checks = torch.ones_like(goal.classes)
    for stretch in _STRETCHES:
        failed = (found.success & ~reached).nonzero().squeeze(1)
        if len(failed) == 0:
            break
        longer = torch.lerp(origin[failed], found.x[failed], stretch).clamp_(0, 1).to(net.image_dtype).to(net.dtype)
        again = goal.take(failed).reached(net.logits(longer))
        checks[failed] += 1
        x[failed[again]], reached[failed[again]] = longer[again], True
    return torch.where(reached[:, None], x, origin), reached, checks


def warn_of_strange_outputs(logits: Tensor, labels: Tensor | None) -> None:
    """Warn of probabilities in the place of logits, and of labels that number the classes differently from the network.

    Args:
        logits: (N, K), of the unperturbed images.
        labels: (N,) int64; None for attacks that only have targets.
    """
    total = logits.sum(dim=1)
    if bool((logits >= 0).all()) and bool(((total - 1).abs() < 1e-3).all()):
        certain = float((logits.amax(dim=1) > 1 - 1e-6).double().mean())
        saturated = f"; for {certain:.0%} of the images they are 0 and 1, where gradients vanish" if certain else ""
        _warn(
            "the network seems to return probabilities, which are between 0 and 1 and sum to 1 for every image"
            f"{saturated}: attack its logits, without the softmax"
        )
    if labels is not None and len(labels) >= 10:
        _warn_of_permuted(logits.argmax(dim=1), labels)


def _warn_of_permuted(answers: Tensor, labels: Tensor) -> None:
    """Warn if the predictions (N,) seem to be a renumbering of the labels (N,)."""
    classes = labels.unique()
    if len(classes) < 2 or len(labels) < 3 * len(classes) or bool((answers == labels).double().mean() > 0.5):
        return
    usual = torch.stack([answers[labels == k].mode().values for k in classes])
    agreement = float(sum((answers[labels == k] == a).sum() for k, a in zip(classes, usual, strict=True)))
    if len(usual.unique()) == len(classes) and agreement >= 0.9 * len(labels):
        pairs = ", ".join(f"{int(k)} -> {int(a)}" for k, a in list(zip(classes, usual, strict=True))[:4])
        _warn(
            "the labels seem to number the classes differently from the network: "
            f"renumbered, they give {agreement / len(labels):.0%} of its answers (label -> answer: {pairs})"
        )


def _warn_of_zero_gradients(net: Network, x: Tensor, goal: Goal, rows: Tensor) -> None:
    """Warn of images on which the attack failed and whose gradient is zero or not finite."""

    def class_margin(logits: Tensor, classes: Tensor) -> Tensor:
        return margin(logits, classes)[:, None]

    _, _, slopes = net.differentiate(x, class_margin, goal.classes)
    flat = rows[(slopes.flatten(1) == 0).all(dim=1)].tolist()
    if flat:
        some = ", ".join(map(str, flat[:5])) + (", ..." if len(flat) > 5 else "")
        _warn(
            f"no adversarial example was found for {len(flat)} images whose gradient is zero or not finite "
            f"(rows {some}): that is no evidence of robustness"
        )


def _warn(message: str) -> None:
    """Issue an ``AttackWarning``."""
    warnings.warn(message, AttackWarning, stacklevel=3)


def _kind(value: object) -> str:
    """Describe the type of a value."""
    return f"dtype {value.dtype}" if isinstance(value, Tensor) else type(value).__name__

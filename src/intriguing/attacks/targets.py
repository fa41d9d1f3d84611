"""Choose target classes; the paper does not give its rule, so the rule is an explicit setting."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from intriguing.attacks.base import (
    AttackWarning,
    as_batch,
    check_classes,
    check_inputs,
    clean_logits,
    warn_of_strange_outputs,
)
from intriguing.attacks.network import Model, under_attack
from intriguing.attacks.progress import portion
from intriguing.attacks.result import AttackResult

RULES = ("random", "runner_up", "least_likely")
_MANY_ATTACKS = 100  # on each image


def choose_targets(rule: str, labels: Tensor, logits: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Choose one target class per image, never its label.

    Args:
        rule: "random" draws one wrong class per image, uniformly; "runner_up" takes the wrong class with the largest
            logit, "least_likely" the one with the smallest.
        labels: (N,) integers in 0..K-1.
        logits: (N, K) of the unperturbed images.
        generator: random generator for "random"; None uses PyTorch's global one.

    Returns:
        (N,) int64.

    Raises:
        TypeError: ``labels`` is not an integer tensor.
        ValueError: the rule is unknown, a shape or a label is wrong, or an image has no wrong class with a finite
            logit.
    """
    if rule not in RULES:
        raise ValueError(f"expected a target rule out of {', '.join(RULES)}, got {rule!r}")
    check_classes("labels", labels, logits)
    labels = labels.long()
    allowed = ~logits.isneginf()  # classes that the network never predicts cannot be reached
    allowed = allowed.scatter(1, labels[:, None], False)
    none = (~allowed.any(dim=1)).nonzero()
    if len(none):
        raise ValueError(
            f"expected a class other than the label with a logit above -inf, got none (row {int(none[0])})"
        )
    if rule == "random":
        device = labels.device if generator is None else generator.device
        if int(allowed.sum()) < len(labels) * (logits.shape[1] - 1):
            weights = allowed.to(device=device, dtype=torch.float32)
            return torch.multinomial(weights, 1, generator=generator).squeeze(1).to(labels.device)
        shift = torch.randint(1, logits.shape[1], labels.shape, generator=generator, device=device)
        return (labels + shift.to(labels.device)) % logits.shape[1]
    if rule == "runner_up":
        return logits.where(allowed, -torch.inf).argmax(dim=1)
    return logits.where(allowed, torch.inf).argmin(dim=1)


def closest(
    attack: Callable[..., AttackResult], model: Model, inputs: Tensor, labels: Tensor | int, **settings: Any
) -> AttackResult:
    """Attack every wrong class of every image and keep the example with the smallest distortion.

    With many classes this takes long: an ``AttackWarning`` says so before the first attack.

    Args:
        attack: a targeted attack: ``(model, inputs, targets, **settings) -> AttackResult``.
        model: images in [0, 1] of any shape to logits (N, K).
        inputs: (N, ...) in [0, 1].
        labels: (N,) integers in 0..K-1, the classes to leave.
        settings: passed on to the attack.

    Returns:
        AttackResult; its counts are summed over the K - 1 attacks, plus one forward pass that checks the labels. An
        image that the model already misclassifies has distortion 0.

    Raises:
        TypeError: an argument has a wrong type, or the network does not return logits.
        ValueError: a shape or a value is wrong, or the network cannot be attacked.
    """
    inputs, labels = as_batch(inputs, labels)
    images = check_inputs(inputs)
    with under_attack(model, images, chunk_size=settings.get("chunk_size")) as net:
        logits = clean_logits(net, model, images)
        check_classes("labels", labels, logits)
        warn_of_strange_outputs(logits, labels.long())
        num_classes = net.num_classes
    if num_classes - 1 > _MANY_ATTACKS:
        name = getattr(attack, "__name__", "the attack")
        warnings.warn(
            f"attacking every wrong class runs {name} {num_classes - 1} times on each image; for one run, choose a "
            "target for each image (targets='runner_up' is the likeliest wrong class), or use the attack nearest, "
            "which needs none",
            AttackWarning,
            stacklevel=2,
        )
    with torch.inference_mode(False):
        wide = labels.detach().long().clone()  # narrow integers overflow below
    results = []
    for shift in range(1, num_classes):
        with portion((shift - 1) / (num_classes - 1), shift / (num_classes - 1)):
            result = attack(model, inputs, (wide + shift) % num_classes, **settings)
        results.append(replace(result, inputs=None))  # of which each result has a copy
    nearest = torch.stack([result.distortion for result in results]).argmin(dim=0)
    rows = torch.arange(len(nearest), device=nearest.device)

    def pick(column: list[Tensor]) -> Tensor:
        """Select the row of the nearest result for each image."""
        with torch.autocast(nearest.device.type, enabled=False):  # autocast does not stack all dtypes
            return torch.stack(column)[nearest, rows]

    unrounded = [result.unrounded_distortion for result in results if result.unrounded_distortion is not None]
    return AttackResult(
        adv_inputs=pick([result.adv_inputs for result in results]),
        success=pick([result.success for result in results]),
        distortion=pick([result.distortion for result in results]),
        c=None if results[0].c is None else pick([r.c for r in results if r.c is not None]),
        num_forwards=torch.stack([result.num_forwards for result in results]).sum(dim=0) + 1,
        num_backwards=torch.stack([result.num_backwards for result in results]).sum(dim=0),
        inputs=images.detach(),
        labels=wide.to(nearest.device),
        unrounded_distortion=torch.stack(unrounded).amin(dim=0) if unrounded else None,  # another class may be nearer
    )

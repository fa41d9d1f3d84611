"""Attack by the published variant of the paper's method: Adam on L1 norm plus cross-entropy, without a constant c."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from intriguing.attacks.base import as_batch, attack_in_chunks
from intriguing.attacks.chunk import ChunkResult, Goal, margin
from intriguing.attacks.network import Model, Network
from intriguing.attacks.progress import report
from intriguing.attacks.result import AttackResult
from intriguing.validation import real_number, whole_number


def adam_l1(
    model: Model,
    inputs: Tensor,
    targets: Tensor | int,
    *,
    num_steps: int = 3000,
    learning_rate: float = 1e-3,
    generator: torch.Generator | None = None,
    levels: int | None = None,
    chunk_size: int | None = None,
) -> AttackResult:
    """Minimise sum|r| + cross_entropy(f(x + r), l) with Adam, clamping x + r to [0, 1]^n after each step.

    The perturbation starts uniformly in [0, 1]. There is no search for a constant, so the distance is not minimised per
    image. The result is the nearest (L2) successful image among all steps.

    Args:
        model: images in [0, 1] of any shape to logits (N, K).
        inputs: (N, ...) in [0, 1]; one image (C, H, W) if the class is a single number.
        targets: (N,) integers in 0..K-1. An image that is already in its target class is returned unchanged, with
            distortion 0.
        num_steps: Adam steps; 3000 in the published variant.
        learning_rate: learning rate of Adam; 1e-3 in the published variant.
        generator: random generator of the initial perturbations; None uses PyTorch's global one.
        levels: number of values k / (levels - 1) that a pixel may have, 256 for files with 8 bits (see
            ``levels.search_grid``); None for any value in [0, 1].
        chunk_size: images per chunk; None chooses as many as fit in the memory of the device.

    Returns:
        AttackResult; its ``c`` is None.

    Raises:
        TypeError: an argument has a wrong type, or the network does not return logits.
        ValueError: a shape or a value is wrong, or the network cannot be attacked.

    Source: a published reproduction of the paper; section 4.1 uses L-BFGS and a constant c instead.
    """
    settings = AdamSettings(num_steps=num_steps, learning_rate=learning_rate)
    inputs, targets = as_batch(inputs, targets)
    starts: list[Tensor] = []

    def attack(net: Network, origin: Tensor, goal: Goal, rows: Tensor) -> ChunkResult:
        if not starts:  # for all images at once, so that the chunk size does not change the result
            drawn_on = inputs.device if generator is None else generator.device
            dtype = torch.promote_types(inputs.dtype, torch.float32)
            starts.append(torch.rand(inputs.shape, generator=generator, device=drawn_on, dtype=dtype).flatten(1))
        return _descend(net, origin, starts[0][rows.to(starts[0].device)].to(origin), goal.classes, settings)

    return attack_in_chunks(
        attack,
        model,
        inputs,
        targets,
        name="targets",
        chunk_size=chunk_size,
        levels=levels,
        floats_per_pixel=16,
    )


@dataclass(frozen=True, kw_only=True)
class AdamSettings:
    """Hold and check the settings of ``adam_l1``.

    Raises:
        TypeError: a setting has a wrong type.
        ValueError: a setting is out of range.
    """

    num_steps: int
    learning_rate: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_steps", whole_number("num_steps", self.num_steps, 1))
        object.__setattr__(self, "learning_rate", real_number("learning_rate", self.learning_rate, 0, open_low=True))


def _descend(net: Network, origin: Tensor, start: Tensor, targets: Tensor, settings: AdamSettings) -> ChunkResult:
    """Run Adam from start (M, n) and keep the nearest successful images; the images themselves where none succeeds."""
    best, best_distance = origin.clone(), torch.full_like(origin[:, 0], torch.inf)
    perturbation = (origin + start).clamp_(0, 1) - origin
    adam = torch.optim.Adam([perturbation], lr=settings.learning_rate)
    num_steps = settings.num_steps
    for step in range(num_steps + 1):
        report(step / (num_steps + 1))
        trial = (origin + perturbation).clamp_(0, 1)
        logits, _, slopes = net.differentiate(trial, _cross_entropy, targets)
        distance = (trial - origin).norm(dim=1)
        better = (margin(logits, targets) > net.least_margin(logits)) & (distance < best_distance)
        best = torch.where(better[:, None], trial, best)
        best_distance = torch.where(better, distance, best_distance)
        if step < num_steps:
            perturbation.grad = slopes[:, 0] + perturbation.sign()  # the gradient of sum|r| is its sign
            adam.step()
            perturbation.copy_((origin + perturbation).clamp_(0, 1) - origin)
    return ChunkResult(best, best_distance.isfinite(), num_forwards=num_steps + 1, num_backwards=num_steps + 1)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross-entropy of logits (r, K) as values (r, 1)."""
    return F.cross_entropy(logits, targets, reduction="none")[:, None]

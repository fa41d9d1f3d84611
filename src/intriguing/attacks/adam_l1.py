"""The published variant of the paper's attack: Adam on the L1 norm and the cross-entropy, without a constant."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from intriguing.attacks.base import AttackResult, check_setting, finish, least_margin, margin, run_in_chunks


def adam_l1(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    num_steps: int = 3000,
    learning_rate: float = 1e-3,
    generator: torch.Generator | None = None,
    chunk_size: int | None = None,
) -> AttackResult:
    """Minimise sum|r| + cross_entropy(f(x + r), l) with Adam, keeping x + r in [0, 1]^n by clamping after each step.

    The perturbation starts uniformly in [0, 1]. There is no search over a constant, so how far the example lies from
    the image is not tuned to it. The result is the nearest (L2) successful image of all steps.

    Args:
        model: images in [0, 1] of any shape to logits (N, K).
        inputs: (N, ...) in [0, 1].
        targets: (N,) integers in 0..K-1; an image already in its target class is returned as it is, distortion 0.
        num_steps: Adam steps; 3000 in the published variant.
        learning_rate: Adam's; 1e-3 in the published variant.
        generator: where the starting perturbations are drawn from; None is PyTorch's global one.
        chunk_size: images at once; None takes what the device's memory holds.

    Returns:
        AttackResult; its `c` is None.

    Raises:
        TypeError, ValueError: in one line, what was expected and what came.

    Source: a published reproduction of the paper; section 4.1 has L-BFGS and a constant c instead.
    """
    check_setting(num_steps >= 1, "num_steps >= 1", num_steps)
    check_setting(learning_rate > 0, "learning_rate > 0", learning_rate)
    drawn_on = inputs.device if generator is None else generator.device

    def attack(images: Tensor, wanted: Tensor, first: int) -> AttackResult:
        adv_inputs, num_steps_run = _descend(
            model, images, starts[first : first + len(images)].to(images.device), wanted, num_steps, learning_rate
        )
        return finish(
            model,
            images,
            adv_inputs,
            lambda logits: logits.argmax(dim=1) == wanted,
            c=None,
            num_forwards=num_steps_run + 1,
            num_backwards=num_steps_run,
        )

    # Drawn before the images are cut into chunks, so that the chunk size does not change the result.
    starts = torch.rand(inputs.shape, generator=generator, device=drawn_on, dtype=inputs.dtype)
    return run_in_chunks(attack, model, inputs, targets, name="targets", chunk_size=chunk_size, floats_per_pixel=16)


def _descend(
    model: nn.Module, inputs: Tensor, start: Tensor, targets: Tensor, num_steps: int, learning_rate: float
) -> tuple[Tensor, Tensor]:
    """The nearest successful images (the inputs where there was none) and the number of steps each image took."""
    with torch.no_grad():
        already = margin(model(inputs), targets) > 0
    rows = (~already).nonzero().squeeze(1)
    adv_inputs = inputs.clone()
    num_steps_run = torch.zeros_like(targets)
    if len(rows) == 0:
        return adv_inputs, num_steps_run
    num_steps_run[rows] = num_steps + 1
    images, wanted = inputs[rows], targets[rows]
    best, best_distance = images.clone(), torch.full_like(wanted, torch.inf, dtype=inputs.dtype)
    perturbation = ((images + start[rows]).clamp(0, 1) - images).requires_grad_()
    adam = torch.optim.Adam([perturbation], lr=learning_rate)
    for step in range(num_steps + 1):
        trial = (images + perturbation.detach()).clamp(0, 1)
        with torch.enable_grad():
            logits = model(images + perturbation)
            loss = F.cross_entropy(logits, wanted, reduction="none") + perturbation.abs().flatten(1).sum(dim=1)
            (perturbation.grad,) = torch.autograd.grad(loss.sum(), perturbation)
        logits = logits.detach()
        distance = (trial - images).flatten(1).norm(dim=1)
        better = (margin(logits, wanted) > least_margin(logits)) & (distance < best_distance)
        best = torch.where(_as_images(better, images), trial, best)
        best_distance = torch.where(better, distance, best_distance)
        if step < num_steps:
            adam.step()
            with torch.no_grad():
                perturbation.copy_((images + perturbation).clamp(0, 1) - images)
    adv_inputs[rows] = best
    return adv_inputs, num_steps_run


def _as_images(mask: Tensor, images: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (images.dim() - 1))

"""Measure how perturbations of one network carry over to another at one norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from intriguing.attacks import amplify
from intriguing.metrics import equal_norm_gaussian
from intriguing.nn import evaluating, pick_output

_BATCH = 1024


@dataclass(frozen=True)
class TransferCurve:
    """Hold a network's answers to perturbed images at several norms.

    Attributes:
        sizes: (S,) per-pixel RMS of the perturbations.
        wrong: (S, N) bool, images that the network gets wrong.
        targeted: (S, N) bool, images that it takes for the class that the perturbation was made for.
        noise: (S, N) bool, images that it gets wrong under Gaussian noise of equal norm.
        clean: (N,) bool, images that it gets wrong without a perturbation.
    """

    sizes: tuple[float, ...]
    wrong: Tensor
    targeted: Tensor
    noise: Tensor
    clean: Tensor


def transfer_curve(
    model: nn.Module,
    inputs: Tensor,
    adv_inputs: Tensor,
    labels: Tensor,
    targets: Tensor,
    sizes: tuple[float, ...],
    *,
    generator: torch.Generator | None = None,
) -> TransferCurve:
    """Show a network the adversarial examples of another, with every perturbation scaled to each of several norms.

    Nothing is clipped to [0, 1], so that all perturbations have exactly the norm.

    Args:
        model: images (N, ...) to logits (N, K).
        inputs: (N, ...) in [0, 1].
        adv_inputs: (N, ...), examples made for another network.
        labels: (N,) integers.
        targets: (N,) integers, the classes that the other network takes the examples for.
        sizes: per-pixel RMS.
        generator: of the noise, on the CPU.

    Returns:
        The answers at every norm.

    Example:
        >>> import torch
        >>> def network(images):  # class 1 where the first pixel is above 0.5
        ...     first = images.flatten(1)[:, 0]
        ...     return torch.stack([0.5 - first, first - 0.5], dim=1)
        >>> image, moved = torch.full((1, 1, 1, 2), 0.4), torch.tensor([[[[0.5, 0.4]]]])
        >>> curve = transfer_curve(network, image, moved, torch.tensor([0]), torch.tensor([1]), (0.05, 0.1))
        >>> curve.wrong.flatten().tolist(), curve.targeted.flatten().tolist()
        ([False, True], [False, True])
    """
    shape = len(sizes), len(inputs)
    wrong, targeted, noisy = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    for row, size in enumerate(sizes):
        found = classes(model, amplify(inputs, adv_inputs, size, by="image"))
        wrong[row], targeted[row] = found != labels.cpu(), found == targets.cpu()
        level = torch.full((len(inputs),), size, dtype=inputs.dtype)
        noise = equal_norm_gaussian(inputs.cpu(), level, generator=generator)
        noisy[row] = classes(model, noise.to(inputs.device)) != labels.cpu()
    return TransferCurve(tuple(sizes), wrong, targeted, noisy, classes(model, inputs) != labels.cpu())


def classes(model: nn.Module, images: Tensor) -> Tensor:
    """Return the classes (N,) that a network gives images (N, ...), on the CPU."""
    with torch.no_grad(), evaluating(model):
        found = [pick_output(model(some)).argmax(1).cpu() for some in images.split(_BATCH)]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)

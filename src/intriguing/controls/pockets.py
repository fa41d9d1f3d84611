"""Measure the size of the pockets that adversarial examples lie in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from intriguing.controls.directions import input_gradients
from intriguing.controls.noise import margins


def survival(
    model: nn.Module,
    adv_inputs: Tensor,
    labels: Tensor,
    norm: Tensor | float,
    *,
    num_draws: int = 50,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Compute the share of random perturbations of a norm after which adversarial examples still fool the network.

    Args:
        model: images (N, ...) to logits (N, K).
        adv_inputs: (N, ...), adversarial examples.
        labels: (N,) integers, the classes of the original images.
        norm: L2 norm of the random perturbations, one number or (N,); their directions are uniform.
        num_draws: perturbations of each example.
        generator: random generator on the CPU.

    Returns:
        (N,) float64 shares.
    """
    kept = torch.zeros(len(adv_inputs), dtype=torch.float64)
    each = (-1, *[1] * (adv_inputs.dim() - 1))
    for _ in range(num_draws):
        noise = torch.randn(adv_inputs.shape, generator=generator).to(adv_inputs)
        size = torch.as_tensor(norm).to(adv_inputs) / noise.flatten(1).norm(dim=1)
        kept += (margins(model, adv_inputs + size.view(each) * noise, labels) < 0).double().cpu()
    return kept / num_draws


def adversarial_dimension(
    model: nn.Module, images: Tensor, labels: Tensor, norm: Tensor | float, *, most: int = 64
) -> Tensor:
    """Find how many orthogonal perturbations of a norm all fool the network (Tramer et al. 2017, section 3.1, GAAS).

    k orthogonal directions can all have the product ``|g| / sqrt(k)`` with the gradient g, and no more. The dimension
    is the largest k up to ``most`` whose k directions all fool the network. For a linear network of two classes at
    distance d it is floor((norm / d)^2).

    Args:
        model: images (N, ...) to logits (N, K).
        images: (N, ...), which the network gets right.
        labels: (N,) integers.
        norm: L2 norm of the perturbations, one number or (N,); nothing is clipped to [0, 1].
        most: largest dimension that is tried; no more than the values of an image.

    Returns:
        (N,) int64.

    Example:
        >>> import torch
        >>> def network(images):  # class 1 where the first pixel is above 0.5
        ...     first = images.flatten(1)[:, 0]
        ...     return torch.stack([0.5 - first, first - 0.5], dim=1)
        >>> image, label = torch.full((1, 1, 3, 3), 0.4), torch.tensor([0])
        >>> adversarial_dimension(network, image, label, 0.24).item()  # (.24 / .1)^2 = 5.76
        5
    """
    gradients = input_gradients(model, images, labels).double()
    gradients = gradients / gradients.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    sizes = torch.as_tensor(norm).double().expand(len(images))
    return torch.tensor(
        [
            _dimension(model, image, int(label), gradient, float(size), most)
            for image, label, gradient, size in zip(images, labels, gradients, sizes, strict=True)
        ],
        dtype=torch.int64,
    )


def random_dimension(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: Tensor | float,
    *,
    most: int = 64,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Count the orthogonal random perturbations of a norm that fool the network: the control of the dimension.

    Args:
        model: images (N, ...) to logits (N, K).
        images: (N, ...).
        labels: (N,) integers.
        norm: L2 norm of the perturbations, one number or (N,).
        most: directions of a random orthonormal system that are tried; no more than the values of an image.
        generator: random generator on the CPU.

    Returns:
        (N,) int64, at most ``most``.
    """
    num_values = images[0].numel()
    sizes = torch.as_tensor(norm).double().expand(len(images))
    counts = []
    for image, label, size in zip(images, labels, sizes, strict=True):
        gauss = torch.randn(num_values, min(most, num_values), generator=generator, dtype=torch.float64)
        counts.append(int(_fooling(model, image, int(label), float(size) * torch.linalg.qr(gauss).Q.T).sum()))
    return torch.tensor(counts, dtype=torch.int64)


def _dimension(model: nn.Module, image: Tensor, label: int, gradient: Tensor, size: float, most: int) -> int:
    """Find the largest k whose directions all fool; each k has directions of its own."""
    if not float(gradient.norm()) > 0:
        return 0
    best = 0
    for k in range(1, min(most, gradient.numel()) + 1):
        if bool(_fooling(model, image, label, size * aligned_directions(gradient, k)).all()):
            best = k
        elif k >= 2 * best + 4:
            break
    return best


def aligned_directions(gradient: Tensor, count: int) -> Tensor:
    """Make orthonormal directions that all have one product with a gradient, ``|gradient| / sqrt(count)``.

    Args:
        gradient: (D,), not zero.
        count: number of directions, at most D.

    Returns:
        (count, D) float64.
    """
    goal = gradient.double() / gradient.double().norm()
    start = torch.zeros_like(goal)
    start[:count] = count**-0.5
    normal = start - goal  # the reflection along it maps start to goal
    directions = torch.eye(count, len(goal), dtype=torch.float64)
    length = float(normal.square().sum())
    if length < 1e-24:
        return directions
    return directions - 2 / length * (directions @ normal)[:, None] * normal


def _fooling(model: nn.Module, image: Tensor, label: int, perturbations: Tensor) -> Tensor:
    moved = image + perturbations.to(image).view(-1, *image.shape)
    return margins(model, moved, torch.full((len(moved),), label, device=image.device)) < 0

"""Scale perturbations to a common size (last rows of Table 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from intriguing.attacks.base import check_inputs
from intriguing.metrics import difference, root_mean_square
from intriguing.validation import real_number

RULES = ("set", "image")


def amplify(inputs: Tensor, adv_inputs: Tensor, stddev: float, *, by: str = "set", clip: bool = False) -> Tensor:
    """Scale perturbations to a per-pixel RMS of ``stddev``, keeping their directions.

    The paper prints x + 0.1 (x' - x) / ||x' - x||_2, which has a per-pixel RMS of 0.1 / sqrt(n), .0036 on MNIST; it
    means a per-pixel RMS of 0.1. Its amplified examples always fool their own network. This would not hold if
    perturbations above 0.1 were reduced to it, so the paper must have multiplied the whole set by one factor.

    Args:
        inputs: (N, ...) in [0, 1].
        adv_inputs: (N, ...).
        stddev: RMS per pixel, in units of intensity.
        by: "set" multiplies all perturbations by one factor, so that the mean of their RMS over the N images is
            ``stddev``; this is the paper's reading. "image" multiplies each perturbation by its own factor, so that
            each has an RMS of ``stddev``.
        clip: clamp the result to [0, 1], which makes the perturbations smaller than ``stddev``.

    Returns:
        (N, ...), outside [0, 1] where not clipped. An image without perturbation stays unchanged.

    Raises:
        TypeError: ``inputs`` is not a floating-point tensor, or ``stddev`` is not a number.
        ValueError: a shape, ``stddev`` or ``by`` is wrong, or ``inputs`` are not in [0, 1].

    Example:
        >>> import torch
        >>> images = torch.full((2, 1, 2, 2), 0.5)
        >>> adv_images = images + torch.tensor([0.01, 0.03]).view(2, 1, 1, 1)
        >>> (amplify(images, adv_images, 0.1) - images).amax(dim=(1, 2, 3)).mul(100).round().tolist()
        [5.0, 15.0]
        >>> (amplify(images, adv_images, 0.1, by="image") - images).amax(dim=(1, 2, 3)).mul(100).round().tolist()
        [10.0, 10.0]
    """
    inputs = check_inputs(inputs)
    stddev = real_number("stddev", stddev, 0)
    if by not in RULES:
        raise ValueError(f"expected by to be one of {', '.join(RULES)}, got {by!r}")
    if adv_inputs.shape != inputs.shape:
        raise ValueError(f"expected adv_inputs of shape {tuple(inputs.shape)}, got {tuple(adv_inputs.shape)}")
    change = difference(inputs, adv_inputs)
    each = (-1, *[1] * (inputs.dim() - 1))
    largest = change.flatten(1).abs().amax(dim=1).view(each)
    if by == "set" and len(largest):
        largest = largest.amax(dim=0, keepdim=True)
    change = torch.where(largest == 0, 0.0, change / largest)  # to a size whose inverse is finite
    size = root_mean_square(change).view(each)
    if by == "set" and len(size):
        size = size.mean(dim=0, keepdim=True)
    amplified = (inputs + torch.where(size == 0, 0.0, stddev / size) * change).to(inputs.dtype)
    return amplified.clamp(0, 1) if clip else amplified

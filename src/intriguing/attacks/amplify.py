"""Scaling perturbations to one size (Table 4's last rows)."""

from __future__ import annotations

import torch
from torch import Tensor

from intriguing.attacks.base import check_inputs
from intriguing.metrics import difference, root_mean_square
from intriguing.validation import real_number

RULES = ("set", "image")


def amplify(inputs: Tensor, adv_inputs: Tensor, stddev: float, *, by: str = "set", clip: bool = False) -> Tensor:
    """Scale perturbations to a per-pixel RMS of `stddev`, keeping their directions.

    The paper prints x + 0.1 (x' - x) / ||x' - x||_2, which has a per-pixel RMS of 0.1 / sqrt(n), .0036 on MNIST; it
    means a per-pixel RMS of 0.1. Its amplified examples fool their own network every time, which they would not if
    those that needed more than 0.1 were shrunk to it: evidently one factor multiplied the whole set.

    Args:
        inputs: (N, ...) in [0, 1].
        adv_inputs: (N, ...).
        stddev: per pixel, in units of intensity.
        by: "set": multiply all perturbations by one factor, so that the mean of their RMS over the N images is
            `stddev`; the paper's reading. "image": each by a factor of its own, so that each has an RMS of `stddev`.
        clip: clamp the result to [0, 1], which makes the perturbations smaller than asked.

    Returns:
        (N, ...), outside [0, 1] where not clipped. An image without perturbation stays as it is.

    Raises:
        TypeError, ValueError: in one line, what was expected and what came.
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
    change = torch.where(largest == 0, 0.0, change / largest)  # of a size whose inverse is finite
    size = root_mean_square(change).view(each)
    if by == "set" and len(size):
        size = size.mean(dim=0, keepdim=True)
    amplified = (inputs + torch.where(size == 0, 0.0, stddev / size) * change).to(inputs.dtype)
    return amplified.clamp(0, 1) if clip else amplified

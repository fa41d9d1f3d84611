"""Compute distortion, wrong predictions and noise of equal norm: pure functions of tensors.

Images are (N, ...) tensors of pixel intensities, logits are (N, K).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def distortion(inputs: Tensor, adv_inputs: Tensor) -> Tensor:
    """Compute the paper's distortion of each image (section 4.2): sqrt(sum_i (x'_i - x_i)^2 / n), the RMS per pixel.

    Args:
        inputs: (N, ...), the original images.
        adv_inputs: (N, ...), the perturbed images.

    Returns:
        (N,) in the unit of a pixel, in the finer dtype of the two and at least float32; squaring neither underflows nor
        overflows. The l2 norm of the perturbation is sqrt(n) times this, 28 times on MNIST.

    Raises:
        ValueError: the shapes differ or there is no pixel.

    Example:
        >>> import torch
        >>> round(distortion(torch.zeros(1, 2, 2), torch.tensor([[[0.2, 0.0], [0.0, 0.0]]])).item(), 2)
        0.1
    """
    if inputs.shape != adv_inputs.shape or inputs.dim() < 2 or 0 in inputs.shape[1:]:
        raise ValueError(
            "inputs and adv_inputs must share one shape (N, ...) with at least one pixel dimension, "
            f"got {tuple(inputs.shape)} and {tuple(adv_inputs.shape)}"
        )
    return root_mean_square(difference(inputs, adv_inputs))


def difference(inputs: Tensor, adv_inputs: Tensor) -> Tensor:
    """Compute the perturbations adv_inputs - inputs.

    Args:
        inputs: (N, ...), the original images.
        adv_inputs: (N, ...), the perturbed images.

    Returns:
        (N, ...), in the finer dtype of the two and at least float32.
    """
    dtype = torch.promote_types(torch.promote_types(inputs.dtype, adv_inputs.dtype), torch.float32)
    return adv_inputs.to(dtype) - inputs.to(dtype)


def root_mean_square(rows: Tensor) -> Tensor:
    """Compute the root mean square of each row, without overflow or underflow.

    Args:
        rows: (N, ...).

    Returns:
        (N,).
    """
    rows = rows.flatten(1)
    powers = _powers_of_two(rows)
    return (rows / powers[:, None]).square().mean(dim=1).sqrt() * powers


def _powers_of_two(rows: Tensor) -> Tensor:
    """Return the power of two (N,) near the largest entry of each row (N, n); dividing by it is exact."""
    largest = rows.detach().abs().amax(dim=1)
    exponent = torch.where(largest.isfinite() & (largest > 0), torch.frexp(largest).exponent, 0)
    limit = -int(math.log2(torch.finfo(rows.dtype).tiny)) - 6  # the inverse of the power is a normal number
    return torch.ldexp(torch.ones_like(largest), exponent.clamp(-limit, limit))


def wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """Find the images that a classifier misclassifies.

    Args:
        logits: (N, K).
        labels: (N,) integers.

    Returns:
        (N,) bool, True where the largest logit is not the label's.

    Raises:
        TypeError: an argument is not a tensor, or the labels are not integers.
        ValueError: the shapes do not match, or a logit is nan.
    """
    for name, value in (("logits", logits), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got a value of type {type(value).__name__}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, got dtype {labels.dtype}")
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits must be (N, K) and labels (N,), got {tuple(logits.shape)} and {tuple(labels.shape)}")
    if bool(logits.isnan().any()):
        raise ValueError("logits must be numbers, got NaN: the network's weights or its inputs are not finite")
    return logits.argmax(dim=1) != labels.long().to(logits.device)


def equal_norm_gaussian(inputs: Tensor, distortion: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Add Gaussian noise of a given distortion to each image, without clipping to [0, 1].

    This is the control for a transfer rate: noise exactly as large as the adversarial perturbation of the image.

    Args:
        inputs: (N, ...) floating point.
        distortion: (N,) per-pixel RMS of the noise, finite and not negative.
        generator: random generator on the device of ``inputs``; None uses PyTorch's global one.

    Returns:
        A new tensor like ``inputs``. In half precision the noise is drawn and scaled in float32 first.

    Raises:
        ValueError: the shapes do not match, or a distortion is negative or not finite (drop failed rows first).
    """
    if inputs.dim() < 2 or distortion.shape != inputs.shape[:1]:
        raise ValueError(
            f"inputs must be (N, ...) and distortion (N,), got {tuple(inputs.shape)} and {tuple(distortion.shape)}"
        )
    if not bool((distortion.isfinite() & (distortion >= 0)).all()):
        raise ValueError("distortion must be finite and at least 0 in every row, got a negative, NaN or infinite value")
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    gauss = torch.randn(inputs.shape, generator=generator, dtype=dtype, device=inputs.device)
    size = gauss.flatten(1).square().mean(dim=1).sqrt()
    scale = (distortion.to(size) / size.clamp_min(torch.finfo(size.dtype).tiny)).view(-1, *[1] * (inputs.dim() - 1))
    return (inputs + scale * gauss).to(inputs.dtype)

"""Distortion, wrong answers and noise of equal norm: pure functions of tensors.

Images are (N, ...) tensors of pixel intensities, logits are (N, K).
"""

import math

import torch
from torch import Tensor


def distortion(inputs: Tensor, adv_inputs: Tensor) -> Tensor:
    """The paper's distortion of each image, sqrt(sum_i (x'_i - x_i)^2 / n): the RMS change per pixel (section 4.2).

    Args:
        inputs: (N, ...), the originals.
        adv_inputs: the same shape, what they became.

    Returns:
        (N,) in the unit of a pixel, in the finer dtype of the two and at least float32; neither small nor large
        perturbations are lost when they are squared. The l2 norm of the perturbation is sqrt(n) times this, 28 times
        on MNIST.

    Raises:
        ValueError: the shapes differ or there is no pixel.
    """
    if inputs.shape != adv_inputs.shape or inputs.dim() < 2 or 0 in inputs.shape[1:]:
        raise ValueError(
            "inputs and adv_inputs must share one shape (N, ...) with at least one pixel dimension, "
            f"got {tuple(inputs.shape)} and {tuple(adv_inputs.shape)}"
        )
    return root_mean_square(difference(inputs, adv_inputs))


def difference(inputs: Tensor, adv_inputs: Tensor) -> Tensor:
    """The perturbations adv_inputs - inputs, (N, ...), in the finer dtype of the two and at least float32."""
    dtype = torch.promote_types(torch.promote_types(inputs.dtype, adv_inputs.dtype), torch.float32)
    return adv_inputs.to(dtype) - inputs.to(dtype)


def root_mean_square(rows: Tensor) -> Tensor:
    """The root of the mean square of each row of (N, ...), without overflow or underflow: (N,)."""
    rows = rows.flatten(1)
    powers = _powers_of_two(rows)
    return (rows / powers[:, None]).square().mean(dim=1).sqrt() * powers


def _powers_of_two(rows: Tensor) -> Tensor:
    """(N,): the power of two near the largest entry of each row (N, n); to divide by it costs no digit."""
    largest = rows.detach().abs().amax(dim=1)
    exponent = torch.where(largest.isfinite() & (largest > 0), torch.frexp(largest).exponent, 0)
    limit = -int(math.log2(torch.finfo(rows.dtype).tiny)) - 6  # a power that has a normal inverse
    return torch.ldexp(torch.ones_like(largest), exponent.clamp(-limit, limit))


def wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """Which images a classifier gets wrong.

    Args:
        logits: (N, K).
        labels: (N,) integers.

    Returns:
        (N,) bool, True where the largest logit is not the label's.

    Raises:
        TypeError: not two tensors, or labels that are not integers.
        ValueError: the shapes do not fit, or a logit is not a number.
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
    """Images under Gaussian noise whose distortion is prescribed image by image, not clipped to [0, 1].

    The control for a transfer rate: noise exactly as large as the adversarial perturbation of the same image.

    Args:
        inputs: (N, ...) floating point.
        distortion: (N,) per-pixel RMS the noise is to have, finite and not negative.
        generator: source of randomness, on the device of `inputs`; torch's global one if None.

    Returns:
        A new tensor like `inputs`. In half precision the noise is drawn and scaled in float32 first.

    Raises:
        ValueError: the shapes do not fit, or a distortion is negative or not finite (drop failed rows first).
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

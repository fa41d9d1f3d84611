"""Relate the error in Gaussian noise to the distance of a decision boundary."""

from __future__ import annotations

import torch
from torch import Tensor


def predicted_distance(error: Tensor, stddev: Tensor | float) -> Tensor:
    """Compute the distance of a half-space from the chance that Gaussian noise reaches it (Ford et al. 2019).

    Noise of standard deviation s reaches a half-space at distance d with probability Phi(-d / s), so
    d = -s Phi^-1(error) (arXiv 1901.10513). For another error set it is the distance of the half-space that errs as
    often.

    Args:
        error: (N,) probabilities.
        stddev: standard deviation of the noise in every pixel, one number or (N,).

    Returns:
        (N,) L2 distances in float64; 0 where the error is at least a half, inf where it is 0.

    Example:
        >>> import torch
        >>> predicted_distance(torch.tensor([0.158655254]), 0.5).round(decimals=4)  # Phi(-1) = 0.1587
        tensor([0.5000], dtype=torch.float64)
    """
    return (-torch.as_tensor(stddev).double() * torch.special.ndtri(error.double())).clamp_min(0.0)

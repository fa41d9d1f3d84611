"""Normalise images by the statistics of their pixels, as the first layer of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Compute (images - mean) / std, channel by channel: the first layer, so that the images stay in [0, 1].

    Args:
        mean: of each channel, or one number for all.
        std: standard deviation of each channel, or one number for all; above 0.
        channels: number of channels of the images; None: not checked.

    Raises:
        ValueError: another number of means than channels, or a standard deviation that is not above 0.

    Example:
        >>> Normalize(0.5, 0.25)(torch.ones(1, 1, 1, 1))
        tensor([[[[2.]]]])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: float | Sequence[float], std: float | Sequence[float], channels: int | None = None
    ) -> None:
        super().__init__()
        for name, given in (("mean", mean), ("std", std)):
            try:
                values = torch.as_tensor(given, dtype=torch.get_default_dtype())
            except (TypeError, ValueError, RuntimeError):
                raise ValueError(f"data.{name} must be a number or a list of numbers, got {given!r}") from None
            if values.dim() > 1 or not len(values.view(-1)):
                raise ValueError(f"data.{name} must be a number or a list of numbers, got {given!r}")
            if values.dim() and channels is not None and len(values) not in (1, channels):
                raise ValueError(f"data.{name} has {len(values)} numbers, and the images {channels} channels")
            if not values.is_meta and not (values.isfinite().all() and (name == "mean" or (values > 0).all())):
                raise ValueError(f"data.{name} must be finite{', and above 0' * (name == 'std')}, got {given!r}")
            self.register_buffer(name, values.view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) in the same shape."""
        return (images - self.mean) / self.std

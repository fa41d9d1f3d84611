"""Say whether filters are like edges or like noise, by the concentration of their energy in frequency."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frequencies:
    """Hold the energy of filters in frequency.

    Attributes:
        concentration: (F,) share of a filter's energy that lies around one frequency, in [0, 1]; NaN for zeros.
        cycles: (F,) that frequency, in cycles a pixel, 0 to about .7.
    """

    concentration: Tensor
    cycles: Tensor


def concentration(filters: Tensor) -> Frequencies:
    """Find the frequency around which most of each filter's energy lies, and the share that lies there.

    Edges, bars, gratings and blobs of colour are narrow in frequency (Gabor functions are the narrowest for their
    width); white noise is spread over all frequencies. The transform is that of the filter surrounded by zeros, twice
    its size, its energy summed over channels; "around" a frequency is within half a cycle a filter's width, with its
    negative, which has the same energy.

    Args:
        filters: (F, C, h, w).

    Returns:
        Concentration and frequency of each filter.

    Raises:
        ValueError: filters of another shape.

    Example:
        >>> x = torch.arange(8.0)
        >>> grating = torch.cos(2 * torch.pi * x / 4).expand(1, 1, 8, 8)
        >>> found = concentration(grating)
        >>> round(found.cycles.item(), 2), bool(found.concentration > 0.5)
        (0.25, True)
    """
    if filters.dim() != 4 or not filters.numel():
        raise ValueError(f"expected filters of shape (F, C, h, w), got {tuple(filters.shape)}")
    height, width = filters.shape[-2:]
    power = torch.fft.fft2(filters.detach().double().cpu(), s=(2 * height, 2 * width)).abs().square().sum(1)
    rows, columns = torch.fft.fftfreq(2 * height).double(), torch.fft.fftfreq(2 * width).double()
    around = torch.zeros_like(power)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            around += power.roll((i, j), (1, 2))
    # A frequency and its negative share bins near 0 and near the highest frequencies; those count once.
    negative = around.flip(1, 2).roll((1, 1), (1, 2))
    both = around + negative
    shared = [[i for i in range(2 * n) if (i + 1) % n <= 2] for n in (height, width)]
    for i, j in itertools.product(*shared):
        mine = {((i + a) % (2 * height), (j + b) % (2 * width)) for a in (-1, 0, 1) for b in (-1, 0, 1)}
        bins = mine | {(-a % (2 * height), -b % (2 * width)) for a, b in mine}
        both[:, i, j] = torch.stack([power[:, a, b] for a, b in sorted(bins)]).sum(0)
    total = power.sum((1, 2))
    best = both.flatten(1).max(1)
    cycles = (rows[:, None].square() + columns[None].square()).sqrt().flatten()
    share = (best.values / total).clamp(max=1).where(total > 0, torch.nan)
    return Frequencies(share, cycles[best.indices])

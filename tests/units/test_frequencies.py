"""Concentration in frequency: gratings and edges are near 1, noise is as brute force says."""

from __future__ import annotations

import math

import pytest
import torch

from intriguing.units.frequencies import concentration


@pytest.mark.parametrize("cycles", [1 / 8, 1 / 4, 3 / 8])
@pytest.mark.parametrize("angle", [0.0, math.pi / 2, math.pi / 4])
def test_a_grating_is_concentrated_at_its_frequency(cycles: float, angle: float) -> None:
    x, y = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    wave = torch.cos(2 * math.pi * cycles * (math.cos(angle) * x + math.sin(angle) * y) + 0.3)
    found = concentration(torch.stack([wave, -wave])[None])
    assert float(found.concentration) > 0.7
    assert float(found.cycles) == pytest.approx(cycles, abs=1 / 16)


def test_the_share_is_that_of_the_bins_around_the_frequency_and_its_negative() -> None:
    """By the discrete transform, bin by bin."""
    torch.manual_seed(0)
    filters = torch.randn(20, 2, 3, 4, dtype=torch.float64)
    found = concentration(filters)
    for one, share in zip(filters, found.concentration, strict=True):
        power = torch.fft.fft2(one, s=(6, 8)).abs().square().sum(0)
        shares = []
        for i in range(6):
            for j in range(8):
                bins = {((i + a) % 6, (j + b) % 8) for a in (-1, 0, 1) for b in (-1, 0, 1)}
                bins |= {(-a % 6, -b % 8) for a, b in bins}
                shares.append(sum(float(power[a, b]) for a, b in bins) / float(power.sum()))
        assert float(share) == pytest.approx(max(shares), rel=1e-9)


def test_an_edge_has_one_cycle_and_noise_is_spread() -> None:
    edge = torch.ones(1, 3, 6, 6)
    edge[..., 3:] = -1
    found = concentration(edge)
    assert float(found.cycles) * 6 == pytest.approx(1)
    noise = concentration(torch.randn(200, 3, 6, 6, generator=torch.Generator().manual_seed(0)))
    assert float(noise.concentration.mean()) < 0.3 < 0.8 < float(found.concentration)


def test_filters_of_zeros_have_no_frequency_and_other_shapes_are_refused() -> None:
    assert bool(concentration(torch.zeros(2, 1, 3, 3)).concentration.isnan().all())
    with pytest.raises(ValueError, match=r"\(F, C, h, w\)"):
        concentration(torch.zeros(3, 3))

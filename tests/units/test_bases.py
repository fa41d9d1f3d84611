"""Directions: isotropic, orthonormal, halfway rotations whose squares are known, planted sources found again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm, logm

from intriguing.units.bases import (
    fitted_basis,
    fractional_rotation,
    random_bases,
    random_directions,
    random_orthonormal,
    random_rotation,
    unit_directions,
    whitening,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("draw", [random_directions, random_orthonormal])
def test_random_directions_are_isotropic_and_of_length_one(draw) -> None:
    """E[v v'] = I / n, and no preferred sign: uniform positive numbers (torch.rand) would fail both."""
    dim, generator = 5, _generator()
    rows = torch.cat([draw(5, dim, generator=generator) for _ in range(4000)])
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    torch.testing.assert_close(rows.T @ rows / len(rows), torch.eye(dim) / dim, atol=0.01, rtol=0)
    assert float(rows.mean(0).abs().max()) < 0.02


def test_many_bases_at_once_are_orthonormal_isotropic_and_independent() -> None:
    bases = random_bases(3000, 3, 6, generator=_generator())
    torch.testing.assert_close(bases @ bases.mT, torch.eye(3).expand(3000, 3, 3), atol=1e-5, rtol=0)
    rows = bases.flatten(0, 1)
    torch.testing.assert_close(rows.T @ rows / len(rows), torch.eye(6) / 6, atol=0.01, rtol=0)
    assert float(rows.mean(0).abs().max()) < 0.02
    assert float((bases[:-1] * bases[1:]).sum((1, 2)).mean().abs()) < 0.05


def test_orthonormal_rows_are_orthonormal_and_repeat_with_the_seed() -> None:
    rows = random_orthonormal(4, 9, generator=_generator(1))
    torch.testing.assert_close(rows @ rows.T, torch.eye(4))
    assert torch.equal(rows, random_orthonormal(4, 9, generator=_generator(1)))
    assert torch.equal(unit_directions(torch.tensor([2, 0]), 3), torch.tensor([[0.0, 0, 1], [1, 0, 0]]))


@pytest.mark.parametrize("dim", [2, 3, 10, 33])
def test_a_fraction_of_a_rotation_is_a_power_of_it(dim: int) -> None:
    rotation = random_rotation(dim, generator=_generator(dim))
    eye = torch.eye(dim, dtype=torch.float64)
    parts = {t: fractional_rotation(rotation, t) for t in (0, 0.25, 0.5, 1)}
    torch.testing.assert_close(parts[0], eye)
    torch.testing.assert_close(parts[1], rotation, atol=1e-12, rtol=0)
    torch.testing.assert_close(parts[0.5] @ parts[0.5], rotation, atol=1e-12, rtol=0)
    torch.testing.assert_close(parts[0.25] @ parts[0.25], parts[0.5], atol=1e-12, rtol=0)
    torch.testing.assert_close(parts[0.25] @ parts[0.25].T, eye, atol=1e-12, rtol=0)
    logarithm = logm(rotation.numpy())
    torch.testing.assert_close(parts[0.25], torch.from_numpy(np.real(expm(0.25 * logarithm))), atol=1e-8, rtol=0)


def test_rotations_by_pi_and_near_it_are_halved_exactly() -> None:
    """Where the matrix logarithm has no real value or loses its branch."""
    axes = random_rotation(6, generator=_generator())
    near = np.pi - 1e-9
    form = torch.eye(6, dtype=torch.float64)
    form[0, 0] = form[1, 1] = form[4, 4] = form[5, 5] = -1
    form[2, 2] = form[3, 3] = np.cos(near)
    form[2, 3], form[3, 2] = -np.sin(near), np.sin(near)
    rotation = axes @ form @ axes.T
    half = fractional_rotation(rotation, 0.5)
    torch.testing.assert_close(half @ half, rotation, atol=1e-7, rtol=0)
    torch.testing.assert_close(half @ half.T, torch.eye(6, dtype=torch.float64), atol=1e-10, rtol=0)


def test_whitened_activations_are_uncorrelated_with_variance_one() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(3000, 4) @ torch.randn(4, 6) + 5  # of rank 4 in 6 dimensions
    white = whitening(vectors)
    assert white.rank == 4
    rows = ((vectors - white.mean) @ white.matrix).double()
    values = torch.linalg.eigvalsh(rows.T.cov())
    torch.testing.assert_close(values, torch.tensor([0.0, 0, 1, 1, 1, 1]).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(white.matrix, white.matrix.T)


def test_ica_finds_planted_sources_and_pca_the_axes_of_variance() -> None:
    torch.manual_seed(0)
    sources = torch.empty(4000, 3).exponential_(1.0)
    mixing = torch.tensor([[1.0, 0.5, 0.2], [0.3, 1.0, 0.4], [0.2, 0.1, 1.0]])
    found = fitted_basis("ica", sources @ mixing, 3)
    correlation = torch.corrcoef(torch.cat([(sources @ mixing @ found.T).T, sources.T]))[:3, 3:]
    # Not its absolute value: the long tail of the sources is positive, and so must be that of the responses.
    torch.testing.assert_close(correlation.amax(0), torch.ones(3), atol=0.03, rtol=0)
    spread = torch.randn(5000, 3) * torch.tensor([1.0, 5.0, 0.2])
    torch.testing.assert_close(fitted_basis("pca", spread, 2).abs(), torch.eye(3)[[1, 0]], atol=0.03, rtol=0)


def test_nmf_and_dictionary_find_planted_parts() -> None:
    generator = _generator()
    parts = torch.eye(6)[:4]
    parts[0, 5] = 1.0
    codes = torch.rand(800, 4, generator=generator) * (torch.rand(800, 4, generator=generator) < 0.3)
    parts = parts / parts.norm(dim=1, keepdim=True)
    for name in ("nmf", "dictionary"):
        found = fitted_basis(name, codes @ parts, 4)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)))
        assert float((found @ parts.T).amax(0).min()) > 0.9, name


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: random_orthonormal(4, 3), "1 to 3"),
        (lambda: fractional_rotation(torch.diag(torch.tensor([1.0, -1.0])), 0.5), "reflection"),
        (lambda: fractional_rotation(torch.ones(2, 2), 0.5), "orthogonal"),
        (lambda: fitted_basis("fourier", torch.zeros(3, 2), 1), "unknown basis"),
        (lambda: fitted_basis("nmf", -torch.ones(3, 2), 1), "at least 0"),
        (lambda: fitted_basis("pca", torch.ones(3, 2), 1), "never vary"),
        (lambda: whitening(torch.ones(3, 2)), "never vary"),
    ],
)
def test_wrong_calls_are_named(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()

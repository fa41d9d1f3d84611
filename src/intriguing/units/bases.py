"""Bases of activation space: what may stand in the place of the units.

A basis is rows v (M, C); the response of an image is <phi(x), v>. An offset shifts all responses of a row alike, so no
ranking and none of the scores sees it, and a basis of centred activations has no need to carry the mean.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import schur
from torch import Tensor

FITTED: tuple[str, ...] = ("pca", "ica", "nmf", "dictionary")
"""Bases that are fitted to activations."""


def unit_directions(units: Tensor, dim: int) -> Tensor:
    """The natural basis: rows e_i (M, C) for the units' indices (M,)."""
    return torch.eye(dim)[units.long()]


def random_directions(num: int, dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Isotropic directions, Gaussian and normalised (section 3): (num, dim), independent of each other."""
    return _normalised(torch.randn(num, dim, generator=generator))


def random_orthonormal(num: int, dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Orthonormal rows (num, dim), uniform over all such: each alone is what `random_directions` draws.

    Together they are as comparable to ``num`` units as can be: just as orthogonal to each other.

    Raises:
        ValueError: more rows than dimensions.
    """
    return _haar(num, dim, generator).float()


def random_bases(count: int, num: int, dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw many bases as `random_orthonormal` draws one, all at once: (count, num, dim).

    Raises:
        ValueError: more rows than dimensions.
    """
    per_draw = max(1, 2**23 // max(1, num * dim))
    counts = [min(per_draw, count - first) for first in range(0, count, per_draw)]
    return torch.cat([_haar(num, dim, generator, some).float() for some in counts])


def random_rotation(dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """A uniform rotation (dim, dim), float64, determinant 1."""
    rotation = _haar(dim, dim, generator)
    if torch.linalg.det(rotation) < 0:
        rotation[0] = -rotation[0]
    return rotation


def _haar(num: int, dim: int, generator: torch.Generator | None, count: int | None = None) -> Tensor:
    """(num, dim), or (count, num, dim)."""
    if not 1 <= num <= dim:
        raise ValueError(f"expected 1 to {dim} orthonormal rows, got {num}")
    shape = (dim, num) if count is None else (count, dim, num)
    q, r = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))
    # QR alone is not uniform: the signs of R's diagonal must be those of Q's columns (Mezzadri 2007, section 5).
    return (q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]).mT.contiguous()


def fractional_rotation(rotation: Tensor, fraction: float) -> Tensor:
    """R^t, the rotation that goes the fraction t of the way from the identity to R (Bau 2017, section 3.2).

    By the real Schur form: a rotation is a set of plane rotations, and each angle (at most pi) is multiplied by t. This
    is exact for any rotation, where the matrix logarithm loses its branch at the angle pi.

    Args:
        rotation: (C, C), orthogonal with determinant 1.
        fraction: t; 0 gives the identity, 1 gives R.

    Returns:
        (C, C) float64.

    Raises:
        ValueError: not a rotation.
    """
    matrix = rotation.detach().double().cpu().numpy()
    dim = len(matrix)
    if matrix.shape != (dim, dim) or not np.allclose(matrix @ matrix.T, np.eye(dim), atol=1e-5):
        raise ValueError(f"expected an orthogonal matrix (C, C), got shape {matrix.shape}")
    if np.linalg.det(matrix) < 0:
        raise ValueError("expected a rotation, got a reflection (determinant -1): change the sign of one row")
    form, vectors = schur(matrix, output="real")[:2]
    power = np.eye(dim)
    flipped: list[int] = []  # eigenvalues -1 that stand alone: two of them are one turn by pi in their plane
    i = 0
    while i < dim:
        if i + 1 < dim and abs(form[i + 1, i]) > 1e-9:
            angle = np.arctan2(form[i + 1, i] - form[i, i + 1], form[i, i] + form[i + 1, i + 1])
            _turn(power, i, i + 1, fraction * angle)
            i += 2
        else:
            if form[i, i] < 0:
                flipped.append(i)
            i += 1
    for one, other in zip(flipped[::2], flipped[1::2], strict=True):
        _turn(power, one, other, fraction * np.pi)
    return torch.from_numpy(vectors @ power @ vectors.T)


def _turn(matrix: np.ndarray, i: int, j: int, angle: float) -> None:
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[j, i], matrix[i, j] = np.sin(angle), -np.sin(angle)


@dataclass(frozen=True)
class Whitening:
    """What turns activations into uncorrelated ones of variance 1: matrix @ (phi - mean).

    Attributes:
        mean: (C,).
        matrix: (C, C), symmetric (ZCA): whitened units stay as near to the units as they can.
        rank: dimensions that vary at all; the others are left out.
    """

    mean: Tensor
    matrix: Tensor
    rank: int


def whitening(vectors: Tensor, *, tolerance: float = 1e-6) -> Whitening:
    """The symmetric whitening of activations.

    Args:
        vectors: (S, C).
        tolerance: principal variances below this share of the largest count as none.

    Raises:
        ValueError: fewer than two vectors, or activations that never vary.
    """
    if vectors.dim() != 2 or len(vectors) < 2:
        raise ValueError(f"expected at least two activation vectors (S, C), got {tuple(vectors.shape)}")
    rows = vectors.detach().double()
    mean = rows.mean(0)
    values, axes = torch.linalg.eigh((rows - mean).T @ (rows - mean) / (len(rows) - 1))
    kept = values > tolerance * values.max()
    if not bool((values > 0).any()) or not bool(kept.any()):
        raise ValueError("the activations never vary: there is nothing to whiten")
    matrix = (axes[:, kept] / values[kept].sqrt()) @ axes[:, kept].T
    return Whitening(mean.float(), matrix.float(), int(kept.sum()))


def fitted_basis(name: str, vectors: Tensor, num: int, *, seed: int = 0, max_iter: int = 200) -> Tensor:
    """Directions fitted to activations, by scikit-learn.

    ``pca``: principal axes. ``ica``: FastICA's unmixing rows. ``nmf``: the parts of a non-negative factorisation
    (activations must not be negative). ``dictionary``: the atoms of a sparse code (Mairal 2009). A sign that the method
    leaves open is chosen so that the long tail of the responses is positive.

    Args:
        name: one of `FITTED`.
        vectors: (S, C).
        num: how many directions; fewer come back where the activations have fewer dimensions.
        seed: of the method's start.
        max_iter: of the method; it is not an error to stop there.

    Returns:
        (M, C) normalised rows, M <= num.

    Raises:
        ValueError: an unknown name, too few vectors, or negative activations for ``nmf``.
    """
    from sklearn.exceptions import ConvergenceWarning

    if name not in FITTED:
        raise ValueError(f"unknown basis '{name}'; known: {', '.join(FITTED)}")
    if vectors.dim() != 2 or len(vectors) < 2 or num < 1:
        raise ValueError(f"expected at least two vectors (S, C) and one direction, got {tuple(vectors.shape)}, {num}")
    vectors = vectors.detach()
    if name == "nmf" and float(vectors.min()) < 0:
        raise ValueError("nmf wants activations of at least 0, such as those of ReLU or sigmoid units")
    rows = vectors.double().cpu().numpy()
    centred = rows - rows.mean(0)
    num = min(num, int(np.linalg.matrix_rank(centred)))
    if num == 0:
        raise ValueError("the activations never vary: there is nothing to fit")
    with warnings.catch_warnings():
        for kind in (ConvergenceWarning, RuntimeWarning):
            warnings.simplefilter("ignore", kind)
        found = _components(name, rows, centred, num, seed, max_iter)
    found = found[np.linalg.norm(found, axis=1) > 1e-12]
    if name != "nmf":
        tail = ((centred @ found.T) ** 3).sum(0)
        found = np.where(tail[:, None] < 0, -found, found)
    return _normalised(torch.from_numpy(found)).float()


def _components(name: str, rows: np.ndarray, centred: np.ndarray, num: int, seed: int, max_iter: int) -> np.ndarray:
    from sklearn.decomposition import NMF, PCA, FastICA, MiniBatchDictionaryLearning

    if name == "pca":
        return np.asarray(PCA(num, random_state=seed).fit(rows).components_)
    if name == "ica":
        ica = FastICA(num, whiten="unit-variance", random_state=seed, max_iter=max_iter, tol=1e-3)
        return np.asarray(ica.fit(rows).components_)
    if name == "nmf":
        nmf: Any = NMF
        return nmf(num, init="nndsvda", random_state=seed, max_iter=max_iter, tol=1e-3).fit(rows).components_
    # Codes of at least 0 on activations that are not centred: an atom is then something that is there or is not.
    # The stubs of both take floats for whole numbers.
    dictionary: Any = MiniBatchDictionaryLearning
    learning = dictionary(
        num,
        alpha=0.1,
        positive_code=True,
        fit_algorithm="cd",
        transform_algorithm="lasso_cd",
        batch_size=256,
        max_iter=max(1, max_iter // 20),
        random_state=seed,
    )
    return learning.fit(rows / np.sqrt((rows**2).sum(1).mean())).components_


def _normalised(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)

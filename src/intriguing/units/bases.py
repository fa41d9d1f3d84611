"""Make bases of activation space: alternatives to the basis of the units.

A basis is rows v (M, C); the response of an image is <phi(x), v>. An offset shifts all responses of a row equally, so
it changes neither rankings nor scores, and a basis of centred activations needs no mean.
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
"""Names of the bases that ``fitted_basis`` fits to activations."""


def unit_directions(units: Tensor, dim: int) -> Tensor:
    """Return rows of the natural basis, the directions of units.

    Args:
        units: (M,) indices of the units, of any integer dtype.
        dim: number of units of the layer.

    Returns:
        (M, dim), rows e_i.
    """
    return torch.eye(dim)[units.long()]


def random_directions(num: int, dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw isotropic directions, Gaussian and normalised (section 3), independently of each other.

    Args:
        num: number of directions.
        dim: dimension of the activation space.
        generator: random generator; None uses PyTorch's global one.

    Returns:
        (num, dim), rows of length 1.
    """
    return _normalised(torch.randn(num, dim, generator=generator))


def random_orthonormal(num: int, dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw orthonormal directions uniformly; each one alone is distributed as in ``random_directions``.

    Like ``num`` units, they are orthogonal to each other, which makes them the fairest comparison.

    Args:
        num: number of directions.
        dim: dimension of the activation space.
        generator: random generator; None uses PyTorch's global one.

    Returns:
        (num, dim), orthonormal rows.

    Raises:
        ValueError: ``num`` is larger than ``dim``.
    """
    return _haar(num, dim, generator).float()


def random_bases(count: int, num: int, dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw many sets of orthonormal directions at once, each distributed as in ``random_orthonormal``.

    Args:
        count: number of sets.
        num: number of directions in a set.
        dim: dimension of the activation space.
        generator: random generator; None uses PyTorch's global one.

    Returns:
        (count, num, dim), orthonormal rows in each set.

    Raises:
        ValueError: ``num`` is larger than ``dim``.
    """
    per_draw = max(1, 2**23 // max(1, num * dim))
    counts = [min(per_draw, count - first) for first in range(0, count, per_draw)]
    return torch.cat([_haar(num, dim, generator, some).float() for some in counts])


def random_rotation(dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw a rotation uniformly.

    Args:
        dim: dimension of the activation space.
        generator: random generator; None uses PyTorch's global one.

    Returns:
        (dim, dim) float64, orthogonal with determinant 1.
    """
    rotation = _haar(dim, dim, generator)
    if torch.linalg.det(rotation) < 0:
        rotation[0] = -rotation[0]
    return rotation


def _haar(num: int, dim: int, generator: torch.Generator | None, count: int | None = None) -> Tensor:
    """Draw orthonormal rows (num, dim), or (count, num, dim), from the Haar measure."""
    if not 1 <= num <= dim:
        raise ValueError(f"expected 1 to {dim} orthonormal rows, got {num}")
    shape = (dim, num) if count is None else (count, dim, num)
    q, r = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))
    # QR alone is not uniform: the signs of R's diagonal must be those of Q's columns (Mezzadri 2007, section 5).
    return (q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]).mT.contiguous()


def fractional_rotation(rotation: Tensor, fraction: float) -> Tensor:
    """Compute R^t, the rotation a fraction t of the way from the identity to R (Bau 2017, section 3.2).

    The real Schur form splits a rotation into plane rotations; each angle (at most pi) is multiplied by t. This is
    exact for any rotation, whereas the matrix logarithm is ambiguous at the angle pi.

    Args:
        rotation: (C, C), orthogonal with determinant 1.
        fraction: t; 0 gives the identity, 1 gives R.

    Returns:
        (C, C) float64.

    Raises:
        ValueError: ``rotation`` is not a rotation.
    """
    matrix = rotation.detach().double().cpu().numpy()
    dim = len(matrix)
    if matrix.shape != (dim, dim) or not np.allclose(matrix @ matrix.T, np.eye(dim), atol=1e-5):
        raise ValueError(f"expected an orthogonal matrix (C, C), got shape {matrix.shape}")
    if np.linalg.det(matrix) < 0:
        raise ValueError("expected a rotation, got a reflection (determinant -1): change the sign of one row")
    form, vectors = schur(matrix, output="real")[:2]
    power = np.eye(dim)
    flipped: list[int] = []  # single eigenvalues -1: two of them are one rotation by pi in their plane
    i = 0
    while i < dim:
        if i + 1 < dim and abs(form[i + 1, i]) > 1e-9:
            angle = np.arctan2(form[i + 1, i] - form[i, i + 1], form[i, i] + form[i + 1, i + 1])
            _set_plane_rotation(power, i, i + 1, fraction * angle)
            i += 2
        else:
            if form[i, i] < 0:
                flipped.append(i)
            i += 1
    for one, other in zip(flipped[::2], flipped[1::2], strict=True):
        _set_plane_rotation(power, one, other, fraction * np.pi)
    return torch.from_numpy(vectors @ power @ vectors.T)


def _set_plane_rotation(matrix: np.ndarray, i: int, j: int, angle: float) -> None:
    """Write a rotation by an angle in the plane (i, j) into a matrix."""
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[j, i], matrix[i, j] = np.sin(angle), -np.sin(angle)


@dataclass(frozen=True)
class Whitening:
    """Hold the map from activations to uncorrelated ones of variance 1: matrix @ (phi - mean).

    Attributes:
        mean: (C,).
        matrix: (C, C), symmetric (ZCA): whitened units stay as close to the units as possible.
        rank: number of dimensions with variance; the others are dropped.
    """

    mean: Tensor
    matrix: Tensor
    rank: int


def whitening(vectors: Tensor, *, tolerance: float = 1e-6) -> Whitening:
    """Compute the symmetric whitening of activations.

    Args:
        vectors: (S, C).
        tolerance: principal variances below this fraction of the largest one count as zero.

    Returns:
        The whitening.

    Raises:
        ValueError: there are fewer than two vectors, or they are all equal.
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
    """Fit directions to activations with scikit-learn.

    ``pca``: principal axes. ``ica``: unmixing rows of FastICA. ``nmf``: parts of a non-negative factorisation
    (activations must not be negative). ``dictionary``: atoms of a sparse code (Mairal 2009). Where the method leaves
    the sign open, it is chosen so that the long tail of the responses is positive.

    Args:
        name: one of ``FITTED``.
        vectors: (S, C).
        num: number of directions; fewer are returned if the activations have fewer dimensions.
        seed: seed of the method's initialisation.
        max_iter: largest number of iterations; reaching it is no error.

    Returns:
        (M, C) normalised rows, M <= num.

    Raises:
        ValueError: the name is unknown, there are too few vectors, or ``nmf`` gets negative activations.
    """
    from sklearn.exceptions import ConvergenceWarning

    if name not in FITTED:
        raise ValueError(f"unknown basis '{name}'; known: {', '.join(FITTED)}")
    if vectors.dim() != 2 or len(vectors) < 2 or num < 1:
        raise ValueError(f"expected at least two vectors (S, C) and one direction, got {tuple(vectors.shape)}, {num}")
    vectors = vectors.detach()
    if name == "nmf" and float(vectors.min()) < 0:
        raise ValueError("nmf needs activations of at least 0, such as those of ReLU or sigmoid units")
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
    """Fit the components (num, C) with scikit-learn."""
    from sklearn.decomposition import NMF, PCA, FastICA, MiniBatchDictionaryLearning

    if name == "pca":
        return np.asarray(PCA(num, random_state=seed).fit(rows).components_)
    if name == "ica":
        ica = FastICA(num, whiten="unit-variance", random_state=seed, max_iter=max_iter, tol=1e-3)
        return np.asarray(ica.fit(rows).components_)
    if name == "nmf":
        nmf: Any = NMF
        return nmf(num, init="nndsvda", random_state=seed, max_iter=max_iter, tol=1e-3).fit(rows).components_
    # Non-negative codes of activations that are not centred: an atom is then present or absent.
    # The type stubs of both classes declare whole numbers as floats.
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
    """Scale rows to length 1."""
    return rows / rows.norm(dim=1, keepdim=True)

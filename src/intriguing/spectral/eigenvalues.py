"""The largest eigenvalue of many small Hermitian matrices, or of one large one, as a certified upper bound.

An estimate from below is cheap (Lanczos' method, or one matrix of the many). A Cholesky factorisation of ``t I - G``
proves that no eigenvalue lies above it, for it exists exactly where every eigenvalue of G is below t. So only the few
matrices for which it fails are decomposed.
"""

from __future__ import annotations

import contextlib

import torch
from scipy.sparse.linalg import ArpackError, eigsh
from torch import Tensor

MARGIN = 1e-10
"""Relative room between the largest eigenvalue found and the proved bound: far above the rounding of float64."""
_DENSE = 1024  # rows below which one decomposition is cheaper than Lanczos


def largest_eigenvalue(grams: Tensor, at_least: float = 0.0) -> float:
    """Bound every eigenvalue of a batch from above, tight up to a relative `MARGIN`.

    Args:
        grams: (F, n, n) Hermitian and positive semidefinite, float64 or complex128.
        at_least: a value to start from; matrices whose eigenvalues all lie below it are only compared with it.

    Returns:
        The larger of `at_least` and the bound; 0 for zero matrices.
    """
    n, bound = grams.shape[-1], at_least
    # |G|_F is between the largest eigenvalue and sqrt(n) times it: a good order in which to look.
    for index in torch.linalg.matrix_norm(grams).argsort(descending=True)[:1]:
        bound = max(bound, _top(grams[index]))
    identity = torch.eye(n, dtype=grams.dtype, device=grams.device)
    left = grams
    while bound < torch.inf and len(left):
        if bound == 0:
            return 0.0  # the largest Frobenius norm belongs to a zero matrix
        _, failed = torch.linalg.cholesky_ex(bound * identity - left)
        left = left[failed > 0]
        if len(left):
            bound = max(bound * (1 + MARGIN), _top(left[len(left) // 2]))
    return bound


def largest_singular_value(matrix: Tensor) -> float:
    """Bound the 2-norm of a matrix from above, tight up to a relative `MARGIN`.

    Args:
        matrix: (m, n), any floating-point type; converted to float64.

    Raises:
        ValueError: an entry is not finite.
    """
    matrix = matrix.detach().double()
    if matrix.numel() == 0:
        return 0.0
    if not bool(matrix.isfinite().all()):
        raise ValueError("expected weights that are finite, got nan or infinity")
    return _top(_gram(matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T)) ** 0.5


def _gram(matrix: Tensor, block: int = 1024) -> Tensor:
    """Compute A A^T, half of it by symmetry."""
    size = len(matrix)
    gram = matrix.new_empty(size, size)
    for i in range(0, size, block):
        rows = slice(i, i + block)
        gram[rows, : i + block] = matrix[rows] @ matrix[: i + block].T
        gram[:i, rows] = gram[rows, :i].T
    return gram


def _top(gram: Tensor) -> float:
    """Bound the largest eigenvalue of one matrix from above, with the margin."""
    if len(gram) >= _DENSE:
        start = torch.randn(len(gram), dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(gram.dtype)
        with contextlib.suppress(ArpackError):  # a matrix of zeros, or no convergence
            found = eigsh(gram.cpu().numpy(), k=1, which="LA", v0=start.numpy(), return_eigenvectors=False)
            bound = float(found[0]) * (1 + MARGIN)
            identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
            if not int(torch.linalg.cholesky_ex(bound * identity - gram)[1]):
                return bound
    return max(0.0, float(torch.linalg.eigvalsh(gram)[-1])) * (1 + MARGIN)

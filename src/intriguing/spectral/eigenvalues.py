"""The largest eigenvalue of many small Hermitian matrices, or of one large one, as an upper bound that is exact.

A lower estimate is cheap (Lanczos, or one matrix of the many), and that nothing lies above it is proved by a Cholesky
factorisation of ``t I - G``, which exists exactly where every eigenvalue of G is below t. So only the few matrices for
which it fails are decomposed.
"""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 1e-10
"""Relative room between the largest eigenvalue found and the proved bound: far above the rounding of float64."""
_DENSE = 1024  # rows below which one decomposition is cheaper than Lanczos


def largest_eigenvalue(grams: Tensor, at_least: float = 0.0) -> float:
    """An upper bound of every eigenvalue of a batch, above the largest one by at most `MARGIN` of itself.

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
    """An upper bound of a matrix's 2-norm, above it by at most `MARGIN` of itself.

    Args:
        matrix: (m, n), any floating-point type; worked on in float64.
    """
    matrix = matrix.detach().double()
    if matrix.numel() == 0:
        return 0.0
    if not bool(matrix.isfinite().all()):
        raise ValueError("expected weights that are finite, got nan or infinity")
    return _top(_gram(matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T)) ** 0.5


def lanczos(gram: Tensor, *, tolerance: float = 1e-13, max_iter: int = 400) -> float:
    """A lower estimate of the largest eigenvalue, by Lanczos' method with full reorthogonalisation.

    Args:
        gram: (n, n) Hermitian and positive semidefinite, float64 or complex128.
        tolerance: stop when ten steps raise the estimate by less than this, relatively.
        max_iter: most steps, each one product with the matrix.
    """
    num = min(max_iter, len(gram))
    basis = gram.new_zeros(num + 1, len(gram))
    basis[0] = torch.randn(len(gram), dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(gram)
    basis[0] /= basis[0].norm()
    small, estimate = torch.zeros(num + 1, num + 1, dtype=torch.float64), 0.0
    for step in range(num):
        image = gram @ basis[step]
        small[step, step] = float(torch.vdot(basis[step], image).real)
        scale = float(image.norm())
        for _ in range(2):  # once is not enough in floating point
            image = image - basis[: step + 1].T @ (basis[: step + 1].conj() @ image)
        length = float(image.norm())
        closed = length <= tolerance * scale  # the vectors so far span an invariant subspace: what is left is rounding
        if step % 10 == 9 or step == num - 1 or closed:
            previous, estimate = estimate, float(torch.linalg.eigvalsh(small[: step + 1, : step + 1])[-1])
            if closed or estimate - previous <= tolerance * estimate:
                break
        small[step, step + 1] = small[step + 1, step] = length
        basis[step + 1] = image / length
    return estimate


def _gram(matrix: Tensor, block: int = 1024) -> Tensor:
    """A A^T, half of it computed."""
    size = len(matrix)
    gram = matrix.new_empty(size, size)
    for i in range(0, size, block):
        rows = slice(i, i + block)
        gram[rows, : i + block] = matrix[rows] @ matrix[: i + block].T
        gram[:i, rows] = gram[rows, :i].T
    return gram


def _top(gram: Tensor) -> float:
    """The largest eigenvalue of one matrix, with the margin."""
    if len(gram) >= _DENSE:
        bound = lanczos(gram) * (1 + MARGIN)
        _, failed = torch.linalg.cholesky_ex(bound * torch.eye(len(gram), dtype=gram.dtype, device=gram.device) - gram)
        if not int(failed):
            return bound
    return max(0.0, float(torch.linalg.eigvalsh(gram)[-1])) * (1 + MARGIN)

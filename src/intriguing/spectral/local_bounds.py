"""Bound the layers of QuocNet in the L2 norm: untied local filters exactly, L2 pooling, local contrast normalisation.

An untied local layer is a sparse matrix W: a block of rows for each position, over the pixels of its window. Blocks
whose windows do not meet are orthogonal, so W W^T and W^T W are band matrices, with bands as wide as a few rows of the
image. The largest eigenvalue found by Lanczos' method is an estimate from below; a Cholesky factorisation of the band
matrix ``t I - W W^T`` proves that t, larger by a relative ``MARGIN``, is an upper bound.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky_banded
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackError, eigsh
from torch import Tensor

from intriguing.nn.local import L2Pool2d, LocalContrastNorm2d, LocallyConnected2d
from intriguing.spectral.eigenvalues import MARGIN, largest_singular_value

_BAND_ENTRIES = 1 << 26  # of the largest band matrix that is factorised: 512 MB
_DENSE = 1024  # positions of an image up to which the matrix of the mean is decomposed


def locally_connected(layer: LocallyConnected2d, x: Tensor) -> float:
    """Bound the operator norm of untied local filters; the bias plays no part.

    Returns:
        The exact norm up to ``MARGIN`` where the band matrix has at most 2^26 entries (of images of 32x32 or 96x96
        pixels); beyond, the upper bound of ``overlap_bound``.

    Raises:
        ValueError: a weight that is not finite.
    """
    if not bool(layer.weight.isfinite().all()):
        raise ValueError("expected weights that are finite, got nan or infinity")
    return _banded_norm(layer) or overlap_bound(layer)


def overlap_bound(layer: LocallyConnected2d) -> float:
    """Bound the norm of untied local filters by the norms of the filters W_p of each position p.

    ``|W x|^2 = sum_p |W_p x_p|^2 <= sum_p |W_p|^2 |x_p|^2``, in which the square of a pixel counts once for each window
    that holds it: the bound is the root of the largest sum of ``|W_p|^2`` over the windows that hold one pixel.
    """
    weight = layer.weight.detach().double()
    grams = weight @ weight.transpose(1, 2) if weight.shape[1] <= weight.shape[2] else weight.transpose(1, 2) @ weight
    norms = torch.linalg.eigvalsh(grams)[:, -1].clamp(min=0) * (1 + MARGIN)
    windows = norms.view(1, 1, -1).expand(1, layer.kernel_size**2, -1)
    return float(F.fold(windows, layer.size, layer.kernel_size, stride=layer.stride).max().sqrt())


def _banded_norm(layer: LocallyConnected2d) -> float | None:
    """Compute the norm by a band matrix; None where that would be too large, or Lanczos' method does not converge."""
    matrix: Any = sparse_matrix(layer)  # SciPy's annotations leave out the shape of sparse arrays
    sides = {
        # Neighbouring rows of a window's pixels, and of positions whose windows meet, lie this far apart.
        "pixels": (matrix.shape[1], layer.kernel_size * layer.size[1] * layer.in_channels),
        "outputs": (
            matrix.shape[0],
            (-(-layer.kernel_size // layer.stride)) * layer.out_size[1] * layer.out_channels,
        ),
    }
    side = min(sides, key=lambda key: sides[key][0] * min(*sides[key]))
    rows, band = sides[side]
    if rows * min(rows, band) > _BAND_ENTRIES:
        return None
    gram = (matrix.T @ matrix if side == "pixels" else matrix @ matrix.T).tocsr()
    largest = _largest(gram)
    if largest is None:
        return None
    for room in (1.0, 1e2, 1e4, 1e6):  # Lanczos' method may stop a little below
        bound = largest * (1 + MARGIN * room)
        if _no_eigenvalue_above(gram, bound):
            return math.sqrt(bound)
    return None


def sparse_matrix(layer: LocallyConnected2d) -> csr_array:
    """Return a layer's matrix (outputs, pixels), in float64; both are ordered by row, column and channel or map."""
    weight = layer.weight.detach().double().cpu()
    height, width = layer.size
    numbers = torch.arange(layer.in_channels * height * width, dtype=torch.float64)
    pixels = numbers.view(height, width, layer.in_channels).permute(2, 0, 1)[None]
    columns = F.unfold(pixels, layer.kernel_size, stride=layer.stride)[0].T.long()  # (positions, C k^2)
    columns = columns[:, None].expand(weight.shape)
    rows = torch.arange(weight.shape[0] * weight.shape[1]).view(weight.shape[0], -1, 1).expand(weight.shape)
    entries = (weight.reshape(-1).numpy(), (rows.reshape(-1).numpy(), columns.reshape(-1).numpy()))
    return csr_array(entries, shape=(weight.shape[0] * weight.shape[1], len(numbers)))


def _largest(gram: Any) -> float | None:
    """Estimate the largest eigenvalue of a positive semidefinite matrix from below."""
    if not gram.count_nonzero():
        return 0.0
    if gram.shape[0] < 3:
        return float(np.linalg.eigvalsh(gram.toarray())[-1])
    start = torch.randn(gram.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    try:
        return float(eigsh(gram, k=1, which="LA", v0=start.numpy(), return_eigenvectors=False)[0])
    except ArpackError:
        return None


def _no_eigenvalue_above(gram: Any, bound: float) -> bool:
    """Prove that a band matrix has no eigenvalue above a bound: that ``bound I - gram`` has a Cholesky factor."""
    if bound == 0:
        return True
    entries = gram.tocoo()
    apart = entries.col - entries.row
    upper, kept = int(apart.max(initial=0)), apart >= 0
    banded: NDArray[np.float64] = np.zeros((upper + 1, gram.shape[0]))
    banded[upper - apart[kept], entries.col[kept]] = -entries.data[kept]
    banded[upper] += bound
    try:
        cholesky_banded(banded, overwrite_ab=True)
    except LinAlgError:
        return False
    return True


def l2_pool(layer: L2Pool2d, x: Tensor) -> float:
    """Bound L2 pooling by the root of the most windows that hold one pixel.

    Every output has a gradient of norm at most 1 over its window, so ``|J d|^2 <= sum over windows of |d|^2 there``.
    The bound is reached, up to eps, where one pixel of a map alone is not zero.
    """
    most = 1
    for n in x.shape[2:]:
        count = torch.zeros(n, dtype=torch.long)
        for start in range(0, n - layer.kernel_size + 1, layer.stride):
            count[start : start + layer.kernel_size] += 1
        most *= int(count.max())
    return math.sqrt(most)


def local_contrast_norm(layer: LocalContrastNorm2d, x: Tensor) -> float:
    """Bound local contrast normalisation: the norm of ``I - M``, M the mean, times a bound of the division.

    The division is ``y_p = v_p / max(floor, s_p)`` with ``s_p^2 = sum_q w_pq v_q^2``. Where s_p is above the floor, the
    rows of the Jacobian at the position p are ``(d_p - v_p (sum_q w_pq v_q d_q) / s_p^2) / s_p``. By the inequality of
    Cauchy and Schwarz ``(sum_q w_pq v_q d_q)^2 <= s_p^2 sum_q w_pq d_q^2``, and ``|v_p|^2 <= s_p^2 / w_pp``. So the
    second part has a norm of at most the root of the largest ``sum_p w_pq / w_pp``, divided by the floor, and the first
    one of at most 1 / floor. It is a true bound; the constant itself may be smaller.
    """
    _, channels, height, width = x.shape
    line = torch.tensor(layer.window(), dtype=torch.float64)
    half = layer.kernel_size // 2
    reach = [_band_matrix(n, line / line[half]).sum(0).max() for n in (height, width)]
    division = (1 + math.sqrt(float(reach[0] * reach[1]))) / layer.floor
    return _deviation_norm(layer, channels, height, width) * division


def _band_matrix(n: int, line: Tensor) -> Tensor:
    """Return the matrix (n, n) of a convolution with a line of weights, zeros beyond the ends."""
    half, index = len(line) // 2, torch.arange(n)
    apart = index[:, None] - index[None, :]
    return torch.where(apart.abs() <= half, line[(apart + half).clamp(0, len(line) - 1)], line.new_zeros(()))


def _deviation_norm(layer: LocalContrastNorm2d, channels: int, height: int, width: int) -> float:
    """Bound the norm of ``I - M``, M the Gaussian-weighted mean over a window and all maps.

    M acts on the mean of the maps alone: on all that is orthogonal to it, ``I - M`` is the identity. On it M is
    ``A (x) B``, one matrix an axis, whose rows add up to 1; its norm is computed for small images. For larger ones,
    ``A = D^-1 G`` with G symmetric is similar to a symmetric matrix of eigenvalues in [-1, 1], so that ``|I - M|`` is
    at most their largest ``|1 - a b|`` times the root of the ratio of the largest and the smallest entry of D.
    """
    line = torch.tensor(layer.window(), dtype=torch.float64)
    bands = [_band_matrix(n, line) for n in (height, width)]
    masses = [band.sum(1) for band in bands]
    means = [band / mass[:, None] for band, mass in zip(bands, masses, strict=True)]
    if height * width <= _DENSE:
        deviation = torch.eye(height * width, dtype=torch.float64) - torch.kron(means[0], means[1])
        on_mean = largest_singular_value(deviation)
    else:
        ends = []
        for band, mass in zip(bands, masses, strict=True):
            values = torch.linalg.eigvalsh(band / (mass[:, None] * mass[None, :]).sqrt())
            ends.append([float(values[0]), float(values[-1])])
        spread = max(abs(1 - a * b) for a in ends[0] for b in ends[1]) * (1 + MARGIN)
        ratio = math.prod(float(mass.max() / mass.min()) for mass in masses)
        norms = math.prod(largest_singular_value(mean) for mean in means)
        on_mean = min(spread * math.sqrt(ratio), 1 + norms)
    return max(on_mean, 1.0) if channels > 1 else on_mean

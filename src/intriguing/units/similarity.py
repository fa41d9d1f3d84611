"""Compare two layers: linear CKA and Procrustes, which are invariant to rotation, and the matching of single units.

Matrices are activations for N common images, (N, C1) and (N, C2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Compute the linear centred kernel alignment (Kornblith 2019, equation 4), invariant to rotation and scaling.

    Args:
        first: (N, C1).
        second: (N, C2).

    Returns:
        A number in [0, 1]; 1 if one layer is a rotation or a scaling of the other.

    Raises:
        ValueError: the numbers of images differ, or all activations of a layer are equal.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
        >>> rotation = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
        >>> round(linear_cka(x, 5 * x @ rotation), 2)
        1.0
    """
    x, y = _centred(first, second)
    cross = (x.T @ y).square().sum()
    return float(cross / ((x.T @ x).norm() * (y.T @ y).norm()))


Pair = tuple[Tensor, Tensor]
"""Activations of two layers for N common images, (N, C1) and (N, C2)."""


def procrustes(first: Tensor, second: Tensor, *, fit: Pair | None = None) -> float:
    """Compute how much of one layer a rotation of the other explains, at most 1 (Schönemann 1966).

    The value is the inner product of the layers after the rotation over the product of their Frobenius norms. This is
    1 minus half the squared distance of the layers scaled to norm 1.

    Args:
        first: (N, C1).
        second: (N, C2).
        fit: activations for other images, to which the rotation is fitted, because with as many units as images a
            rotation also fits noise. None fits it to ``first`` and ``second``; the value is then the nuclear norm of
            their normalised product.

    Returns:
        The share, at most 1.

    Raises:
        ValueError: the numbers of images differ, or all activations of a layer are equal.
    """
    x, y = _centred(first, second)
    fit_first, fit_second = (x, y) if fit is None else _centred(*fit)
    left, _, right = torch.linalg.svd(fit_first.T @ fit_second, full_matrices=False)
    return float(((x @ left) * (y @ right.mT)).sum() / (x.norm() * y.norm()))


@dataclass(frozen=True)
class Matching:
    """Hold the units of one layer and their partners in another.

    Attributes:
        first, second: (M,) indices; first[i] and second[i] are partners.
        correlation: (M,) correlation of the partners' responses.
    """

    first: Tensor
    second: Tensor
    correlation: Tensor

    @property
    def mean(self) -> float:
        """Return the mean correlation of the partners."""
        return float(self.correlation.mean())


def match_units(first: Tensor, second: Tensor, *, fit: Pair | None = None) -> Matching:
    """Match units one to one, with the largest sum of correlations (Li 2016, section 3); constant units are left out.

    Args:
        first: (N, C1).
        second: (N, C2).
        fit: activations for other images, by which partners are chosen: the best of many noisy candidates always
            correlates on the images by which it was chosen. None chooses them by ``first`` and ``second``.

    Returns:
        The matching.

    Raises:
        ValueError: the numbers of images differ, or all activations of a layer are equal.
    """
    x, y = _centred(first, second)
    fit_first, fit_second = (x, y) if fit is None else _centred(*fit)
    varying = [_varying(rows).nonzero().flatten() for rows in (fit_first, fit_second)]
    chosen = _correlation(fit_first[:, varying[0]], fit_second[:, varying[1]])
    rows, columns = (torch.from_numpy(found) for found in linear_sum_assignment(chosen.cpu().numpy(), maximize=True))
    rows, columns = varying[0][rows], varying[1][columns]
    return Matching(rows, columns, _correlation(x, y)[rows, columns])


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Correlate the columns of centred rows; 0 for constant columns."""
    first, second = (torch.where(_varying(rows), rows / rows.norm(dim=0), 0.0) for rows in (x, y))
    return first.T @ second


def _varying(rows: Tensor) -> Tensor:
    """Return the columns of centred rows that vary by more than rounding."""
    return rows.norm(dim=0) > 1e-9 * rows.norm()


def _centred(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Check two matrices of activations and subtract their means."""
    if first.dim() != 2 or second.dim() != 2 or len(first) != len(second) or len(first) < 2:
        raise ValueError(
            f"expected activations (N, C1) and (N, C2) of the same images, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    x, y = (rows.detach().double() - rows.detach().double().mean(0) for rows in (first, second))
    if float(x.norm()) == 0 or float(y.norm()) == 0:
        raise ValueError("the activations of a layer never vary: there is nothing to compare")
    return x, y

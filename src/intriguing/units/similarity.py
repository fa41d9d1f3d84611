"""Are two layers the same: linear CKA and Procrustes, which are blind to a rotation, and the matching of single units.

Matrices are activations of the same N images, (N, C1) and (N, C2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment (Kornblith 2019, equation 4), in [0, 1]; 1 for a rotation or a scaling.

    Raises:
        ValueError: not the same images, or activations that never vary.
    """
    x, y = _centred(first, second)
    cross = (x.T @ y).square().sum()
    return float(cross / ((x.T @ x).norm() * (y.T @ y).norm()))


Pair = tuple[Tensor, Tensor]
"""Activations of two layers to the same images, (N, C1) and (N, C2)."""


def procrustes(first: Tensor, second: Tensor, *, fit: Pair | None = None) -> float:
    """Share of the one layer that a rotation of the other can give, at most 1: their inner product after the rotation
    over the product of the two Frobenius norms (Schönemann 1966; 1 - half the squared distance of the two scaled to
    norm 1).

    Args:
        first, second: (N, C1) and (N, C2).
        fit: activations of other images, to which the rotation is fitted: with as many units as images, a rotation
            finds agreement in noise. None: it is fitted to these, which makes the share their nuclear norm's.

    Raises:
        ValueError: not the same images, or activations that never vary.
    """
    x, y = _centred(first, second)
    one, other = (x, y) if fit is None else _centred(*fit)
    left, _, right = torch.linalg.svd(one.T @ other, full_matrices=False)
    return float(((x @ left) * (y @ right.mT)).sum() / (x.norm() * y.norm()))


@dataclass(frozen=True)
class Matching:
    """Units of one layer and their partners in another.

    Attributes:
        first, second: (M,) indices; first[i] and second[i] are partners.
        correlation: (M,) of their responses.
    """

    first: Tensor
    second: Tensor
    correlation: Tensor

    @property
    def mean(self) -> float:
        """Mean correlation of the partners."""
        return float(self.correlation.mean())


def match_units(first: Tensor, second: Tensor, *, fit: Pair | None = None) -> Matching:
    """The one-to-one matching of units with the largest sum of correlations (Li 2016, section 3); silent ones left out.

    Args:
        first, second: (N, C1) and (N, C2).
        fit: activations of other images, by which partners are chosen: of many noisy candidates the best one always
            correlates with the images it was chosen by. None: they are chosen by these.

    Raises:
        ValueError: not the same images, or activations that never vary.
    """
    x, y = _centred(first, second)
    one, other = (x, y) if fit is None else _centred(*fit)
    live = [_live(rows).nonzero().flatten() for rows in (one, other)]
    chosen = _correlation(one[:, live[0]], other[:, live[1]])
    rows, columns = (torch.from_numpy(found) for found in linear_sum_assignment(chosen.cpu().numpy(), maximize=True))
    rows, columns = live[0][rows], live[1][columns]
    return Matching(rows, columns, _correlation(x, y)[rows, columns])


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Of the columns of centred rows; 0 with one that never varies."""
    first, second = (torch.where(_live(rows), rows / rows.norm(dim=0), 0.0) for rows in (x, y))
    return first.T @ second


def _live(rows: Tensor) -> Tensor:
    """Which columns of centred rows vary by more than rounding."""
    return rows.norm(dim=0) > 1e-9 * rows.norm()


def _centred(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.dim() != 2 or second.dim() != 2 or len(first) != len(second) or len(first) < 2:
        raise ValueError(
            f"expected activations (N, C1) and (N, C2) of the same images, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    x, y = (rows.detach().double() - rows.detach().double().mean(0) for rows in (first, second))
    if float(x.norm()) == 0 or float(y.norm()) == 0:
        raise ValueError("the activations of a layer never vary: there is nothing to compare")
    return x, y

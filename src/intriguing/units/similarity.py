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


def procrustes(first: Tensor, second: Tensor) -> float:
    """Share of the one layer that a rotation of the other can give, in [0, 1]: the nuclear norm of the
    cross-covariance over the product of the two Frobenius norms (Schönemann 1966; 1 - half the squared distance of
    the two scaled to norm 1).

    Raises:
        ValueError: not the same images, or activations that never vary.
    """
    x, y = _centred(first, second)
    return float(torch.linalg.svdvals(x.T @ y).sum() / (x.norm() * y.norm()))


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


def match_units(first: Tensor, second: Tensor) -> Matching:
    """The one-to-one matching of units with the largest sum of correlations (Li 2016, section 3); silent ones left out.

    Raises:
        ValueError: not the same images, or activations that never vary.
    """
    x, y = _centred(first, second)
    live = [(rows.norm(dim=0) > 1e-9 * rows.norm()).nonzero().flatten() for rows in (x, y)]
    x, y = x[:, live[0]], y[:, live[1]]
    correlation = (x / x.norm(dim=0)).T @ (y / y.norm(dim=0))
    rows, columns = linear_sum_assignment(correlation.cpu().numpy(), maximize=True)
    return Matching(live[0][rows], live[1][columns], correlation[rows, columns])


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

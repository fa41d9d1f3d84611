"""Measure and linearise the margin by which images meet the goal of an attack."""

from __future__ import annotations

import torch
from torch import Tensor

from intriguing.attacks.chunk import Goal
from intriguing.attacks.network import Network


def gap(net: Network, goal: Goal, x: Tensor) -> Tensor:
    """Compute the margin (N,) by which points x (N, n) meet the goal, minus the least margin to trust."""
    logits = net.logits(x)
    return goal.excess(logits) - net.least_margin(logits)


def linearise(net: Network, goal: Goal, x: Tensor, num_rivals: int) -> tuple[Tensor, Tensor, Tensor]:
    """Linearise the conditions of success near points x (N, n): gaps + normals (x' - x) >= 0.

    With targets, there is one inequality for each of the classes nearest to beating the target. Without targets, there
    is one, for the class nearest to beating the label.

    Returns:
        Gaps (N, q), normals (N, q, n), and the logits (N, K).
    """
    num_rivals = min(num_rivals, net.num_classes - 1) if goal.targeted else 1

    def gaps(logits: Tensor, classes: Tensor) -> Tensor:
        column = classes[:, None]
        own, rivals = logits.gather(1, column), logits.scatter(1, column, -torch.inf).topk(num_rivals, dim=1).values
        return own - rivals if goal.targeted else rivals - own

    logits, values, normals = net.differentiate(x, gaps, goal.classes)
    far = torch.finfo(values.dtype).max ** 0.5  # classes that the network never predicts are no obstacle
    values = values.nan_to_num(-far, far, -far)
    return values - net.least_margin(logits)[:, None], normals, logits

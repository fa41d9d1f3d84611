"""SuperDeepFool, for the comparison of attacks; written from the paper.

Abdollahpoorrostam, Abroshan & Moosavi-Dezfooli, "SuperDeepFool: a new fast and accurate minimal adversarial attack"
(arXiv 2303.12481): DeepFool finds a point on the decision boundary; the step from there back to the image is projected
onto the normal of the boundary; both are repeated until the projected point is misclassified; a bisection between the
image and this point ends the attack. The box, which the paper leaves out, is respected by clipping each step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def superdeepfool(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    num_steps: int = 10,
    deepfool_steps: int = 50,
    overshoot: float = 0.02,
    num_classes: int = 10,
    search_steps: int = 10,
) -> Tensor:
    """Find near images (N, ...) of any class but the labels (N,).

    Args:
        model: images to logits (N, K).
        inputs: (N, ...) in [0, 1].
        labels: (N,), the classes to leave.
        num_steps: largest number of projections.
        deepfool_steps: largest number of DeepFool's steps before each projection.
        overshoot: share by which DeepFool's steps are longer than to the linearised boundary.
        num_classes: classes that DeepFool linearises, the label among them: those with the largest logits of the image.
        search_steps: bisections at the end.
    """
    rival = _rivals(model, inputs, labels, num_classes)
    points, going = inputs.clone(), torch.arange(len(inputs), device=inputs.device)
    for _ in range(num_steps):
        going = going[_right(model, points[going], labels[going])]
        if len(going) == 0:
            break
        origin, label = inputs[going], labels[going]
        boundary, reached = deepfool(model, points[going], label, rival[going], deepfool_steps, overshoot)
        _, (normal,) = _gaps(model, boundary, label, reached[:, None])
        normal = normal.flatten(1) / _norms(normal)[:, None]
        shift = torch.linalg.vecdot((boundary - origin).flatten(1), normal)
        points[going] = (points[going] + (shift[:, None] * normal).view_as(origin)).clamp(0, 1)
    low, high = torch.zeros_like(inputs[:, :1].flatten(1)[:, 0]), torch.ones(len(inputs)).to(inputs)
    for _ in range(search_steps):
        middle = (low + high) / 2
        right = _right(model, _between(inputs, points, middle), labels)
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return _between(inputs, points, high)


def deepfool(
    model: nn.Module, points: Tensor, labels: Tensor, rivals: Tensor, num_steps: int, overshoot: float
) -> tuple[Tensor, Tensor]:
    """Step onto the nearest linearised boundary until the points (N, ...) are misclassified.

    Returns:
        The points, and the class (N,) of the last step, or the one that the network answers where it is wrong.
    """
    points, reached = points.clone(), rivals[:, 0].clone()
    going = torch.arange(len(points), device=points.device)
    for _ in range(num_steps):
        gaps, slopes = _gaps(model, points[going], labels[going], rivals[going])
        answers, open_ = gaps.max(dim=1).indices, gaps.amax(dim=1) <= 0
        wrong = going[~open_]
        reached[wrong] = rivals[wrong].gather(1, answers[~open_, None])[:, 0]
        going, gaps, slopes = going[open_], gaps[open_], [slope[open_] for slope in slopes]
        if len(going) == 0:
            break
        norms = torch.stack([_norms(slope) for slope in slopes], dim=1)
        nearest = (gaps.abs() / norms).argmin(dim=1, keepdim=True)
        reached[going] = rivals[going].gather(1, nearest)[:, 0]
        slope = torch.stack(slopes, dim=1).flatten(2).take_along_dim(nearest[..., None], dim=1)[:, 0]
        length = (gaps.abs() + 1e-4).gather(1, nearest) / norms.gather(1, nearest) ** 2
        step = (1 + overshoot) * length * slope
        points[going] = (points[going] + step.view_as(points[going])).clamp(0, 1)
    return points, reached


def _rivals(model: nn.Module, inputs: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the classes (N, count) with the largest logits, without the label."""
    with torch.no_grad():
        logits = model(inputs).scatter(1, labels[:, None], -torch.inf)
    return logits.topk(min(num_classes, logits.shape[1]) - 1, dim=1).indices


def _gaps(model: nn.Module, points: Tensor, labels: Tensor, rivals: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the rivals' logits minus the label's (N, count), and the gradient of each (N, ...)."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(points)
        gaps = logits.gather(1, rivals) - logits.gather(1, labels[:, None])
        last = gaps.shape[1] - 1
        slopes = [torch.autograd.grad(gap.sum(), points, retain_graph=i < last)[0] for i, gap in enumerate(gaps.T)]
    return gaps.detach(), slopes


def _right(model: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return model(points).argmax(dim=1) == labels


def _norms(slope: Tensor) -> Tensor:
    return slope.flatten(1).norm(dim=1).clamp_min(1e-12)


def _between(inputs: Tensor, points: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(inputs, points, share.view(-1, *[1] * (inputs.dim() - 1)))

"""Evaluation of a network on batches of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from intriguing.metrics import wrong
from intriguing.nn.nonfinite import check_logits
from intriguing.nn.state import evaluating
from intriguing.statistics.counts import Count

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images (N, C, H, W) in [0, 1] and labels (N,), batch by batch: what ``batches(size)`` of a data subset yields."""


def logits(model: nn.Module, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the logits (N, K) of each batch and its labels (N,), both on the network's device.

    The network is in evaluation mode during a pass, and no gradient is recorded.

    Args:
        model: images to logits.
        batches: images and labels.

    Raises:
        NotFiniteError: a logit is nan or inf; the message names the layer.
    """
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    for images, labels in batches:
        images = images.to(device)
        with torch.no_grad(), evaluating(model):
            found = model(images)
            if isinstance(found, Tensor) and found.dim() == 2:  # `wrong` refuses anything else
                check_logits(model, images, found)
        yield found, labels.to(device)


def wrong_answers(model: nn.Module, batches: Batches) -> Tensor:
    """Mark the images that a network gets wrong.

    Args:
        model: images to logits.
        batches: images and labels.

    Returns:
        (N,) bool on the CPU, over all batches.
    """
    found = [wrong(outputs, labels).cpu() for outputs, labels in logits(model, batches)]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.bool)


def count_wrong(model: nn.Module, batches: Batches) -> Count:
    """Count the images that a network gets wrong.

    Args:
        model: images to logits.
        batches: images and labels.

    Returns:
        Wrong answers of all images; 0 of 0 without any.
    """
    return Count.of(wrong_answers(model, batches))

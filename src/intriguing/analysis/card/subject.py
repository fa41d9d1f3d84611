"""The network under measurement with its images, in the order of the sample, and a count of its passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from intriguing.analysis.measure import mixed_seed
from intriguing.attacks.base import check_inputs
from intriguing.errors import UserError, error_message
from intriguing.nn import evaluating, pick_output
from intriguing.nn.nonfinite import check_logits

_FLOATS = 1 << 22  # pixels of one forward pass: 4 million floats; activations take a multiple of that
_MOST = 256  # images of one forward pass


@dataclass
class Passes:
    """Count passes of single images."""

    forwards: int = 0
    backwards: int = 0


@dataclass(frozen=True)
class Subject:
    """Hold a network and its sample.

    Attributes:
        name: of the network.
        model: takes float32 images in [0, 1], gives logits (N, K).
        images: (N, C, H, W) in [0, 1], on the CPU, in the order of the sample.
        labels: (N,) int64.
        indices: (N,) places of the images in what was given.
        device: of the network.
        seed: of all noise.
        classes: names of the classes; empty where they have none.
        passes: that were counted so far.
    """

    name: str
    model: nn.Module
    images: Tensor
    labels: Tensor
    indices: Tensor
    device: torch.device
    seed: int
    classes: Sequence[str] = ()
    passes: Passes = field(default_factory=Passes)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_values(self) -> int:
        """Values of an image."""
        return self.images[0].numel()

    @property
    def batch_size(self) -> int:
        """Images of one forward pass."""
        return max(1, min(_MOST, _FLOATS // self.num_values))

    def part(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Return images and labels of the sample's rows on the network's device."""
        return self.images[start:end].to(self.device), self.labels[start:end].to(self.device)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) on the CPU, in evaluation mode and without gradients.

        Raises:
            NotFiniteError: one of them is nan or inf.
        """
        self.passes.forwards += len(images)
        with torch.no_grad(), evaluating(self.model):
            found = []
            for some in images.split(self.batch_size):
                some = some.to(self.device)
                found.append(pick_output(self.model(some.clone())))  # a first layer may work in place
                check_logits(self.model, some, found[-1])
        return torch.cat(found).float().cpu() if found else torch.zeros(0, 2)

    def right(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mark the images (N,) that are answered with their label."""
        return self.logits(images).argmax(1) == labels.cpu()

    def generator(self, *words: Any) -> torch.Generator:
        """Make the random generator of one purpose, by the seed and by words."""
        return torch.Generator().manual_seed(mixed_seed(self.seed, " ".join(map(str, words))))


def check_subject(subject: Subject) -> Tensor:
    """Show the first two images to the network, before anything is measured.

    Returns:
        Their logits.

    Raises:
        UserError: there is no image, they lie outside [0, 1], the network does not take them, returns no logits, or
            none that are finite, or the labels are not among its classes. The line has the remedy.
    """
    if not len(subject):
        raise UserError(f"there is no image to measure {subject.name} on; give at least one, of some hundreds")
    try:
        check_inputs(subject.images)
    except (TypeError, ValueError) as error:
        raise UserError(f"the images do not lie in [0, 1]: {error_message(error)}") from error
    some = subject.images[:2]
    try:
        with torch.no_grad(), evaluating(subject.model):
            output = subject.model(some.to(subject.device).clone())
    except Exception as error:  # whatever the user's code raises
        raise UserError(
            f"{subject.name} does not take images of shape {tuple(some.shape[1:])} (channels, height, width): "
            f"{error_message(error)}; give images of the size that it was trained on (data.size=...)"
        ) from error
    try:
        logits = pick_output(output)
    except TypeError as error:
        raise UserError(f"{subject.name}: {error_message(error)}") from error
    if logits.dim() != 2 or len(logits) != len(some) or logits.shape[1] < 2 or not logits.is_floating_point():
        raise UserError(
            f"{subject.name} must return logits (N, K), one for each of K >= 2 classes, and returned {logits.dtype} of "
            f"shape {tuple(logits.shape)} for {len(some)} images; end it with its last linear layer"
        )
    check_logits(subject.model, some.to(subject.device), logits)
    least, most = (int(end) for end in subject.labels.aminmax())
    if least < 0 or most >= logits.shape[1]:
        raise UserError(
            f"the labels go from {least} to {most}, and {subject.name} has {logits.shape[1]} classes, 0 to "
            f"{logits.shape[1] - 1}; number the classes as the network does, or give a network with as many outputs"
        )
    return logits.float().cpu()

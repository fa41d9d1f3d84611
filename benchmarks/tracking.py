"""Count what an attack asks of a network, and keep the nearest adversarial image that the network was shown.

As AttackBench does (Cina et al., arXiv 2404.19460, section 3.1): a propagation is a forward or a backward pass of one
image, and what counts within a budget is the nearest adversarial image among those that were evaluated.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn


class BudgetSpent(BaseException):  # an attack that catches any Exception of a network does not hide it
    """Signal that every image has used its propagations."""


class RowsMixed(BaseException):
    """Signal a call whose rows cannot be given to their images, so that a budget of each image cannot be kept."""


class Tracked(nn.Module):
    """Run a network for an attack, count propagations, and track distances.

    A call with one row an image says which image each row belongs to, and so does any call where there is one image
    alone. With a budget, any other call raises ``RowsMixed``: such attacks are given one image at a time.

    Args:
        model: images to logits.
        inputs: (N, ...), the images under attack.
        classes: (N,), labels to leave, or targets to reach.
        targeted: which of the two.
        budget: propagations after which an image's record is closed; None for no limit.
        shared: first propagations that are not counted, since the attack makes them once for many images.

    Attributes:
        total: propagations of all images.
        spent: (N,), propagations of each image; of use with a budget only.
        nearest: (N,), L2 distance of the nearest adversarial image seen within the budget; inf if there was none.
        seconds: time that the tracking itself took.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        classes: Tensor,
        targeted: bool,
        budget: int | None = None,
        shared: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.inputs, self.classes, self.targeted, self.budget = model, inputs, classes, targeted, budget
        self.total, self.seconds = 0, 0.0
        self.spent = torch.full((len(inputs),), -shared)
        self.nearest = torch.full((len(inputs),), torch.inf)

    def forward(self, images: Tensor) -> Tensor:
        start = time.perf_counter()
        self._stop_when_spent()
        # Sums of an image and a perturbation lie outside by a rounding. clamp alone would take their gradients.
        images = images + (images.clamp(0, 1) - images).detach()
        self.seconds += time.perf_counter() - start
        logits = self.model(images)
        start = time.perf_counter()
        if self.budget is not None:
            self._record(images.detach(), logits.detach(), self.budget)
        self._count(len(images))
        if logits.requires_grad:
            logits.register_hook(lambda _: self._count(len(images)))
        self.seconds += time.perf_counter() - start
        return logits

    def _stop_when_spent(self) -> None:
        if self.budget is not None and int(self.spent.min()) >= self.budget:
            raise BudgetSpent

    def _count(self, rows: int) -> None:
        self.total += rows
        if len(self.spent) in (1, rows):
            self.spent += rows // len(self.spent)
        elif self.budget is not None:
            raise RowsMixed

    def _record(self, images: Tensor, logits: Tensor, budget: int) -> None:
        """Keep the nearest success among the rows that are within the budget."""
        num, rows = len(self.inputs), len(images)
        if num not in (1, rows):
            raise RowsMixed
        if num == 1:
            rows = min(rows, budget - int(self.spent))
        distances = l2_of_successes(self.inputs, images[:rows], logits[:rows], self.classes, self.targeted).cpu()
        if num == 1:
            distances = distances.amin(dim=0, keepdim=True)
        self.nearest = torch.where(self.spent < budget, torch.minimum(self.nearest, distances), self.nearest)


def l2_of_successes(inputs: Tensor, images: Tensor, logits: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    """Return L2 distances (R,) of images (R, ...) in [0, 1] from inputs (R or 1, ...); inf where one fails."""
    answers, flat = logits.argmax(dim=1), images.flatten(1)
    success = (answers == classes) if targeted else (answers != classes)
    success &= flat.isfinite().all(dim=1) & ~logits.isnan().any(dim=1)
    return torch.where(success, (flat - inputs.flatten(1)).norm(dim=1), torch.inf)


def judge(model: nn.Module, inputs: Tensor, adv_inputs: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    """Return L2 distances (N,) of returned images after the network has classified them again; inf where they fail.

    Images outside [0, 1] by more than a rounding fail.
    """
    clipped = adv_inputs.detach().clamp(0, 1)
    inside = (clipped - adv_inputs.detach()).flatten(1).abs().amax(dim=1) <= 1e-5
    with torch.no_grad():
        distances = l2_of_successes(inputs, clipped, model(clipped), classes, targeted)
    return torch.where(inside, distances, torch.inf).cpu()

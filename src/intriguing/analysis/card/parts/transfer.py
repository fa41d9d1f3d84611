"""Transfer from and to a reference network, with every perturbation at one norm."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from intriguing.analysis.card.numbers import share
from intriguing.analysis.card.parts.distances import Attack, count
from intriguing.analysis.card.parts.sliced import Sliced
from intriguing.analysis.card.subject import Subject
from intriguing.analysis.card.values import Transfer
from intriguing.attacks import AttackWarning, nearest
from intriguing.errors import error_message
from intriguing.metrics import equal_norm_gaussian


class Transferred(Sliced):
    """Attack both networks, move each example on to the norm of a typical distance, and show it to the other."""

    name = "transfer"

    def __init__(self, subject: Subject, reference: Subject, attack: Attack) -> None:
        super().__init__(subject, lambda: 2 * attack.pace)
        self.reference, self.attack = reference, attack
        empty = torch.zeros(0, dtype=torch.bool)
        self.own, self.to, self.back, self.noise_to, self.noise_back = (empty for _ in range(5))

    @property
    def most(self) -> int:
        """Images that were attacked; none where no example gave a norm."""
        return 0 if self.attack.norm is None else self.attack.rows

    def measure(self, start: int, end: int) -> None:
        """Transfer the rows that both networks get right."""
        norm = self.attack.norm
        assert norm is not None
        images, labels = self.subject.images[start:end], self.subject.labels[start:end]
        right = self.subject.right(images, labels) & self.reference.right(images, labels)
        images, labels = images[right], labels[right]
        if not len(images):
            return
        try:
            made = [self._examples(one, images, labels, norm) for one in (self.subject, self.reference)]
        except (TypeError, ValueError) as error:
            self.failed = error_message(error)
            return
        rms = torch.full((len(images),), norm / math.sqrt(images[0].numel()))
        noisy = equal_norm_gaussian(images, rms, generator=self.subject.generator("transfer", start)).clamp(0, 1)
        (adv, found), (other, others) = made
        self.own = torch.cat([self.own, found])
        self.to = torch.cat([self.to, ~self.reference.right(adv[found], labels[found])])
        self.back = torch.cat([self.back, ~self.subject.right(other[others], labels[others])])
        self.noise_to = torch.cat([self.noise_to, ~self.reference.right(noisy, labels)])
        self.noise_back = torch.cat([self.noise_back, ~self.subject.right(noisy, labels)])

    def _examples(self, subject: Subject, images: Tensor, labels: Tensor, norm: float) -> tuple[Tensor, Tensor]:
        """Return examples of the norm, and which images have one within it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AttackWarning)
            inputs, classes = images.to(subject.device), labels.to(subject.device)
            result = nearest(subject.model, inputs, classes, effort=self.attack.effort).at(norm, model=subject.model)
        count(self.subject.passes, result)
        return result.adv_inputs.cpu(), result.success.cpu()

    def width(self) -> float:
        """Return the longer one of the two intervals."""
        return max((share(one).width if len(one) else 1.0 for one in (self.to, self.back)), default=1.0)

    def transfer(self) -> Transfer | None:
        """Return the shares; None where no image has an example of this norm on both networks."""
        if self.attack.norm is None or not (len(self.to) and len(self.back)):
            return None
        return Transfer(
            self.reference.name,
            self.attack.norm,
            share(self.own),
            share(self.to),
            share(self.back),
            share(self.noise_to),
            share(self.noise_back),
        )

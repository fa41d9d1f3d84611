"""Answers on the unperturbed images: accuracy, calibration, confused classes."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from intriguing.analysis.card.numbers import Number, bins_of, calibration_error, mean_number, share
from intriguing.analysis.card.parts.sliced import FORWARD, Sliced
from intriguing.analysis.card.subject import Subject
from intriguing.analysis.card.values import Bin, Calibration, Confusion

PAIRS = 5  # confused pairs that are shown


class Clean(Sliced):
    """Keep the logits of the unperturbed images."""

    name = "clean accuracy"
    sizes = FORWARD

    def __init__(self, subject: Subject, seconds: float) -> None:
        super().__init__(subject, lambda: seconds)
        self.logits = torch.zeros(0, 2)

    def measure(self, start: int, end: int) -> None:
        """Take the logits of rows."""
        found = self.subject.logits(self.subject.images[start:end])
        self.logits = found if not start else torch.cat([self.logits, found])

    def reach(self, rows: int) -> None:
        """Measure on until at least so many rows have logits."""
        while self.rows < rows:
            self.step()

    @property
    def right(self) -> Tensor:
        """(rows,) bool."""
        return self.logits.argmax(1) == self.subject.labels[: self.rows]

    def width(self) -> float:
        """Return the length of the accuracy's interval."""
        return share(self.right).width

    def accuracy(self) -> Number:
        """Return the share of images that are right."""
        return share(self.right)

    def calibration(self) -> Calibration | None:
        """Compare the largest softmax probability with the share of right answers; None for fewer than 10 images."""
        if self.rows < 10:
            return None
        confidence = self.logits.double().softmax(1).amax(1)
        gaps = confidence - self.right.double()
        return Calibration(
            calibration_error(confidence, self.right),
            mean_number(gaps),
            tuple(Bin(*one) for one in bins_of(confidence, self.right)),
        )

    def confused(self) -> list[Confusion]:
        """List the pairs of a class and a wrong answer that are most frequent."""
        return confusions(self.subject.labels[: self.rows], self.logits.argmax(1), adversarial=False)


def confusions(labels: Tensor, answers: Tensor, *, adversarial: bool) -> list[Confusion]:
    """List the most frequent pairs of a label and another answer."""
    pairs = Counter((a, b) for a, b in zip(labels.tolist(), answers.tolist(), strict=True) if a != b)
    ordered = sorted(pairs.items(), key=lambda one: (-one[1], one[0]))[:PAIRS]
    return [
        Confusion(a, b, count, share(answers[labels == a] == b), adversarial) for (a, b), count in ordered if count > 1
    ]

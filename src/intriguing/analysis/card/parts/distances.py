"""Minimal L2 distances by the strongest attack, the security curve, and the examples that are shown."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from intriguing.analysis.card.numbers import first_finite, quantile_number, share
from intriguing.analysis.card.parts.sliced import Sliced
from intriguing.analysis.card.subject import Passes, Subject
from intriguing.analysis.card.values import CurvePoint, Distances, Example
from intriguing.attacks import AttackResult, AttackWarning, nearest
from intriguing.errors import error_message

_SHOWN = 5  # examples of each group
_DIGITS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


class Attack(Sliced):
    """Find the nearest adversarial example of every image."""

    name = "minimal L2 distances"

    def __init__(self, subject: Subject, effort: str, guess: Callable[[], float]) -> None:
        super().__init__(subject, guess)
        self.effort = effort
        self.l2 = torch.zeros(0, dtype=torch.float64)
        self.adv_inputs: list[Tensor] = []
        self.norm: float | None = None

    def measure(self, start: int, end: int) -> None:
        """Attack rows."""
        try:
            result = attacked(self.subject, start, end, effort=self.effort)
        except (TypeError, ValueError) as error:
            self.failed = error_message(error)
            return
        self.l2 = torch.cat([self.l2, result.l2.double().cpu()])
        self.adv_inputs += list(result.adv_inputs.cpu())
        if self.norm is None:  # of all later slices' tests alike, so that no result depends on what was measured when
            self.norm = _typical(result.l2.double().cpu())

    def width(self) -> float:
        """Return the length of the median's interval, divided by the median; inf where the interval has one end."""
        found = self.l2[self.l2 > 0]
        if not len(found):
            return 1.0
        median = quantile_number(found, 0.5)
        return median.width / median.value if math.isfinite(median.value) else 1.0

    @property
    def right(self) -> Tensor:
        """(rows,) bool: which images are right without a perturbation."""
        return self.l2 > 0

    def distances(self) -> Distances | None:
        """Return the distances of the images that are right; None without one."""
        rows = self.right.nonzero().flatten()
        if not len(rows):
            return None
        found = self.l2[rows]
        median = quantile_number(found, 0.5)
        return Distances(
            median=median,
            p5=quantile_number(found, 0.05),
            p95=quantile_number(found, 0.95),
            rms=median.times(1 / math.sqrt(self.subject.num_values)),
            effort=self.effort,
            failed=int(found.isinf().sum()),
            indices=tuple(self.subject.indices[rows].tolist()),
            distances=tuple(found.tolist()),
        )

    def radii(self) -> list[float]:
        """List 0 and the round norms up to the largest distance, from one list for all networks."""
        found = first_finite(self.l2)
        if not len(found):
            return [0.0]
        least, most = float(found.quantile(0.02)), float(found.max())
        grid = [digit * 10.0**power for power in range(-6, 6) for digit in _DIGITS]
        inside = [round(r, 12) for r in grid if least / 1.6 <= r <= most]
        return [0.0, *inside, round(next((r for r in grid if r > most), most), 12)]

    def security_curve(self) -> tuple[CurvePoint, ...]:
        """Return the share of images that are right and not fooled within each norm."""
        return tuple(CurvePoint(r, share(self.l2 > r)) for r in self.radii())

    def examples(self) -> tuple[tuple[Example, ...], Tensor]:
        """Choose the five images nearest to the median distance and the five weakest ones.

        Returns:
            The examples, and the answers (M,) on all successful examples.
        """
        rows = (self.right & self.l2.isfinite()).nonzero().flatten()
        if not len(rows):
            return (), torch.zeros(0, dtype=torch.int64)
        answers = self.subject.logits(torch.stack([self.adv_inputs[row] for row in rows.tolist()])).argmax(1)
        sizes = self.l2[rows]
        weakest = sizes.argsort(stable=True)[:_SHOWN]
        typical = (sizes - sizes.median()).abs().argsort(stable=True)
        typical = typical[~torch.isin(typical, weakest)][:_SHOWN]
        found = []
        for group, places in (("typical", typical[sizes[typical].argsort(stable=True)]), ("weakest", weakest)):
            for place in places.tolist():
                row = int(rows[place])
                label, index = int(self.subject.labels[row]), int(self.subject.indices[row])
                image, adversarial = self.subject.images[row], self.adv_inputs[row]
                found.append(Example(group, index, label, int(answers[place]), float(sizes[place]), image, adversarial))
        return tuple(found), answers


def attacked(subject: Subject, start: int, end: int, *, effort: str) -> AttackResult:
    """Attack rows of the sample with `nearest`, and count its passes.

    Raises:
        TypeError, ValueError: the network cannot be attacked.
    """
    images, labels = subject.part(start, end)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)  # what it would say is on the card, with its remedy
        result = nearest(subject.model, images, labels, effort=effort)
    count(subject.passes, result)
    return result


def count(passes: Passes, result: AttackResult) -> None:
    """Add the passes of an attack."""
    passes.forwards += int(result.num_forwards.clamp(min=0).sum())
    passes.backwards += int(result.num_backwards.clamp(min=0).sum())


def _typical(l2: Tensor) -> float | None:
    """Return the median of the distances that were found, to two digits; None without one."""
    found = first_finite(l2)
    return float(f"{float(found.median()):.1e}") if len(found) else None

"""The comparisons of errors on adversarial examples with errors on the same images otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from intriguing.analysis.measure import Answers, Outcome
from intriguing.statistics.counts import PairedCounts


@dataclass(frozen=True)
class Excess:
    """Define the comparison of an excess table.

    Attributes:
        suffix: of the table's key.
        name: in the table's heading.
        baseline: description of the error that is subtracted.
        counts: picks the two-by-two table of a victim; None where it was not measured.
        difference: (N,) difference of the two errors on each image.
    """

    suffix: str
    name: str
    baseline: str
    counts: Callable[[Outcome], PairedCounts | None]
    difference: Callable[[Answers], Tensor]


def _over_noise(answers: Answers) -> Tensor:
    noise = answers.clean if answers.noise is None else answers.noise
    return answers.adversarial.int() - noise.int()


OVER_CLEAN = Excess(
    "_excess_clean",
    "excess over clean error",
    "the column's network's error on the same images, unperturbed",
    lambda outcome: outcome.against_clean,
    lambda answers: answers.adversarial.int() - answers.clean.int(),
)
OVER_NOISE = Excess(
    "_excess_noise",
    "excess over equal-norm noise",
    "the column's network's error on the same images under Gaussian noise of equal norm, image by image, not clipped",
    lambda outcome: outcome.against_noise,
    _over_noise,
)

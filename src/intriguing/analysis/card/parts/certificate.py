"""Radii within which a certificate proves every answer, and whether the attack contradicts one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from intriguing.analysis.card.numbers import share
from intriguing.analysis.card.subject import Subject
from intriguing.analysis.card.values import Certificate, CurvePoint
from intriguing.errors import error_message
from intriguing.spectral import Certifier, certified_radii
from intriguing.spectral.certificate import split
from intriguing.spectral.lipschitz import trace

_ROUNDING = 1e-5  # relative: distances are of float32 images
_STEPS = 150  # of the semidefinite program
_EIGENVALUES, _OVERHEAD = 5.2, 0.01  # a step takes so many times the eigenvalues of its matrix, and so many seconds


class Certified:
    """Find Lipschitz constants: one of all logits, then, where there is time, one of each pair of classes.

    Args:
        subject: network and sample.
        forward: seconds of one forward pass, for a first prediction.
    """

    name = "certified radii"

    def __init__(self, subject: Subject, forward: Callable[[], float]) -> None:
        self.subject, self._forward = subject, forward
        self.failed = ""
        self.constant: float | None = None
        self.certifier: Certifier | None = None
        self.pairs = False
        self._units: int | None = None
        self._solved = 0.0

    @property
    def started(self) -> bool:
        """Whether there is a constant."""
        return self.constant is not None

    @property
    def done(self) -> bool:
        """Whether nothing is left to find, or nothing can be."""
        return bool(self.failed) or self.pairs

    def predicted(self) -> float:
        """Return the seconds of the constant, or of those of the pairs."""
        if self.constant is None:
            if self._units is None and not self.failed:
                self._units = self._count_units()
            step = _EIGENVALUES * _eigenvalue_seconds(self._units or 0) + (_OVERHEAD if self._units else 0.0)
            return 200 * self._forward() + _STEPS * step
        assert self.certifier is not None
        classes = self.certifier.num_classes
        return 0.4 * self._solved * classes * (classes - 1) / 2

    def _count_units(self) -> int:
        """Count the hidden units of the semidefinite program; note why nothing can be bounded."""
        try:
            layers = trace(self.subject.model, self.subject.images.shape[1:]).layers
            chain = split(layers)[1]
        except Exception as error:  # of the user's code, which runs under a trace
            self.failed = error_message(error)
            return 0
        return 0 if chain is None else chain.num_units

    def width(self) -> float:
        """Return a tenth: sharper constants matter, and less than intervals that are wide."""
        return 0.1

    def step(self) -> None:
        """Find the constant, or those of all pairs."""
        if self.failed:
            return
        if self.certifier is not None:
            for first in range(self.certifier.num_classes):
                for second in range(first):
                    self.certifier.pair_constant(first, second)
            self.pairs = True
            return
        try:
            self.certifier = Certifier(self.subject.model, self.subject.images.shape[1:])
            began = time.perf_counter()
            self.constant = min(self.certifier.constant(), self.certifier.product)
            self._solved = time.perf_counter() - began
        except Exception as error:  # of the user's code, which runs under a trace
            self.failed = error_message(error)
            return
        self.pairs = self.certifier.method == "product"  # pairs then have no constants of their own to find

    def radii(self, logits: Tensor, labels: Tensor) -> Tensor | None:
        """Certify radii (N,) of images by their logits; None where there is no constant above 0."""
        if self.constant is None or self.certifier is None or not (0 < self.constant < math.inf):
            return None
        radii = certified_radii(logits, labels, self.constant)
        if self.pairs and self.certifier.method != "product":
            radii = torch.maximum(radii, self.certifier.radii(logits, labels))
        return radii

    def results(
        self, logits: Tensor, labels: Tensor, l2: Tensor, grid: Sequence[float]
    ) -> tuple[Certificate | None, tuple[CurvePoint, ...] | None]:
        """Return the certificate and its curve on the images of the attack.

        Args:
            logits: (N, K) of the attacked images.
            labels: (N,) of them.
            l2: (N,) distances of the attack.
            grid: the radii of the security curve, to which smaller ones are added where certificates end earlier.
        """
        radii = self.radii(logits, labels)
        if radii is None or self.certifier is None or self.constant is None or not len(radii):
            return None, None
        inside = [r for r in grid if r <= float(radii.max())]
        if len(inside) < 4 and float(radii.max()) > 0:
            top = float(f"{float(radii.max()):.2g}")
            inside = sorted({0.0, *inside, *(float(f"{top * part:.3g}") for part in (0.25, 0.5, 0.75, 1.0))})
        points = sorted({*inside, *[r for r in grid if r > float(radii.max())][:1]} | {0.0})
        curve = tuple(CurvePoint(r, share((radii >= r) & (logits.argmax(1) == labels))) for r in points)
        against = int((l2 < radii * (1 - _ROUNDING)).logical_and(logits.argmax(1) == labels).sum())
        return Certificate(self.certifier.method, self.constant, self.pairs, against), curve


@cache
def _eigenvalue_seconds(size: int) -> float:
    """Measure how long the eigenvalues of a matrix of this size take on this machine now."""
    if size < 2:
        return 0.0
    matrix = torch.eye(size, dtype=torch.float64) + 1 / size
    began = time.perf_counter()
    torch.linalg.eigvalsh(matrix)
    return time.perf_counter() - began

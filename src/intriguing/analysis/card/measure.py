"""Measure the robustness card of one network within a budget of time."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch

from intriguing.analysis.card import faults
from intriguing.analysis.card.budget import Clock, Part, Report, spend
from intriguing.analysis.card.card import RobustnessCard
from intriguing.analysis.card.parts.certificate import Certified
from intriguing.analysis.card.parts.clean import Clean, confusions
from intriguing.analysis.card.parts.distances import Attack
from intriguing.analysis.card.parts.layers import Layers
from intriguing.analysis.card.parts.noise import STDDEVS, Corruptions, Noise
from intriguing.analysis.card.parts.signs import Efforts, Signs
from intriguing.analysis.card.parts.transfer import Transferred
from intriguing.analysis.card.subject import Subject, check_subject
from intriguing.analysis.card.values import Cost, Missing
from intriguing.attacks.effort import EFFORTS

_RESERVE = 0.96  # of the budget is spent on slices, the rest on the last passes and the page
_TESTS = 45 * 2.0  # of the signs of masked gradients


@dataclass(frozen=True)
class Parts:
    """Hold the parts of one card, in order of their weight."""

    clean: Clean
    attack: Attack
    noise: Noise
    corruptions: Corruptions
    signs: Signs
    certified: Certified
    efforts: Efforts
    layers: Layers
    transferred: Transferred | None

    @property
    def all(self) -> list[Part]:
        """All of them."""
        found = [self.clean, self.attack, self.noise, self.corruptions, self.signs, self.certified, self.efforts]
        return [*found, self.layers, *([] if self.transferred is None else [self.transferred])]


def measure_card(
    subject: Subject,
    *,
    minutes: float,
    effort: str = "fast",
    reference: Subject | None = None,
    report: Report = lambda what, share: None,
) -> RobustnessCard:
    """Measure a card.

    Args:
        subject: network and sample.
        minutes: the budget; the page takes some seconds more.
        effort: of the attack, see ``nearest``; the next greater one is compared with it.
        reference: another network for transfer; None: there is none.
        report: is called before every slice.

    Returns:
        The card, without a comparison.

    Raises:
        UserError: see `check_subject`.
    """
    training = faults.was_training(subject.model)
    parts, clock, missing = measure_parts(subject, minutes=minutes, effort=effort, reference=reference, report=report)
    return card_of(subject, parts, clock, missing, minutes, training)


def measure_parts(
    subject: Subject, *, minutes: float, effort: str, reference: Subject | None, report: Report
) -> tuple[Parts, Clock, list[Missing]]:
    """Measure the parts of a card, see `measure_card`.

    Returns:
        The parts, with what they found for each image; the clock; and the parts for which there was no time.
    """
    clock = Clock(60 * minutes * _RESERVE)
    check_subject(subject)
    began = time.perf_counter()
    subject.logits(subject.images[:2])
    forward = (time.perf_counter() - began) / min(2, len(subject))
    if reference is not None:
        check_subject(reference)
    parts = _parts(subject, reference, effort, forward)
    clock.timed(parts.clean.name, parts.clean.step)
    missing = spend(parts.all, clock, report, main=parts.attack)
    used = max([parts.attack.rows, parts.noise.rows, parts.corruptions.rows, 1])
    clock.timed(parts.clean.name, lambda: parts.clean.reach(used))
    report("page", 1.0)
    return parts, clock, missing


def _parts(subject: Subject, reference: Subject | None, effort: str, forward: float) -> Parts:
    clean = Clean(subject, forward)
    attack = Attack(subject, effort, lambda: 1.5 * EFFORTS[effort].budget * clean.pace)
    return Parts(
        clean,
        attack,
        Noise(subject, lambda: len(STDDEVS) * clean.pace),
        Corruptions(subject, lambda: 18 * clean.pace),
        Signs(subject, attack, lambda: _TESTS * clean.pace),
        Certified(subject, lambda: clean.pace),
        Efforts(subject, attack),
        Layers(subject, attack, lambda: clean.pace),
        None if reference is None else Transferred(subject, reference, attack),
    )


def card_of(
    subject: Subject,
    parts: Parts,
    clock: Clock,
    missing: list[Missing],
    minutes: float,
    training: bool,
) -> RobustnessCard:
    """Make the card of what the parts found."""
    attack, clean = parts.attack, parts.clean
    distances, signs, strength = attack.distances(), parts.signs.signs(), parts.efforts.strength()
    examples, answers = attack.examples()
    rows = (attack.right & attack.l2.isfinite()).nonzero().flatten()
    certificate, certified_curve = parts.certified.results(
        clean.logits[: attack.rows], subject.labels[: attack.rows], attack.l2, attack.radii()
    )
    warnings = faults.notices(subject, clean.logits, training=training)
    warnings += [faults.no_gradient(attack.failed)] if attack.failed else []
    warnings += faults.of_signs(signs) + faults.of_strength(strength)
    warnings += [faults.contradiction(certificate.contradictions)] if certificate and certificate.contradictions else []
    return RobustnessCard(
        name=subject.name,
        images=clean.rows,
        shape=tuple(subject.images.shape[1:]),
        num_classes=clean.logits.shape[1],
        seed=subject.seed,
        minutes=float(minutes),
        accuracy=clean.accuracy(),
        calibration=clean.calibration(),
        l2=distances,
        security_curve=attack.security_curve() if attack.rows else (),
        noise_curve=parts.noise.curve(),
        certified_curve=certified_curve,
        certificate=certificate,
        corruptions=parts.corruptions.corruptions(),
        strength=strength,
        signs=signs,
        noise_prediction=parts.noise.prediction(
            clean.right[: parts.noise.rows], None if distances is None else distances.median
        ),
        transfer=None if parts.transferred is None else parts.transferred.transfer(),
        layers=parts.layers.layers,
        confused=(*clean.confused(), *confusions(subject.labels[rows], answers, adversarial=True)),
        examples=examples,
        classes=tuple(subject.classes),
        cost=Cost(subject.passes.forwards, subject.passes.backwards, _seconds(clock), _memory(subject.device)),
        warnings=tuple(warnings),
        missing=(*missing, *_failures(parts, {one.part for one in missing})),
        seconds=round(clock.spent, 2),
    )


def _seconds(clock: Clock) -> dict[str, Any]:
    return {name: round(seconds, 2) for name, seconds in clock.by_part.items()}


def _failures(parts: Parts, named: set[str]) -> list[Missing]:
    """List the parts that could not be measured for another reason than time."""
    found = []
    for part in parts.all:
        why: str = getattr(part, "failed", "")
        if not part.started and part.name not in named:
            found.append(Missing(part.name, why or "the attack found no example whose distance it needs"))
    return found


def _memory(device: torch.device) -> float:
    """Return the largest memory in MB: of the GPU, or of the whole process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(largest / 1e6 if sys.platform == "darwin" else largest / 1e3, 1)

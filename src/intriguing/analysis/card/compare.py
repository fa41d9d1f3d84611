"""Compare two cards number by number."""

from __future__ import annotations

import math
from collections.abc import Iterator

from intriguing.analysis.card.numbers import Number
from intriguing.analysis.card.values import CardValues, Change, CurvePoint
from intriguing.errors import UserError

WORSE, BETTER, SAME = "worse", "better", "as before"
MARGIN_SHARE, MARGIN_L2 = 0.02, 0.1
"""Changes that are never reported: 2 points of a share, and a tenth of a distance.

Two trainings that differ in the seed alone differ by that much in truth, however narrow the intervals are.
"""
_AT = (0.25, 0.5, 0.75)  # the old accuracies whose radii, or noises, are compared


def changes(old: CardValues, new: CardValues) -> tuple[Change, ...]:
    """Compare the numbers of two cards of networks for one task.

    A number is worse where the two 95 % intervals do not meet and it has changed by more than `MARGIN_SHARE` or
    `MARGIN_L2`. Curves are compared at the points where the old accuracy is nearest to three quarters, a half and a
    quarter of the clean one. Numbers that only one of the cards has are left out.

    Raises:
        UserError: the networks take other images or have other classes, or the attacks had another effort.
    """
    if (old.shape, old.num_classes) != (new.shape, new.num_classes):
        raise UserError(
            f"the cards cannot be compared: {old.name} takes images of shape {old.shape} in {old.num_classes} classes, "
            f"{new.name} of {new.shape} in {new.num_classes}; compare cards of one task"
        )
    if old.l2 and new.l2 and old.l2.effort != new.l2.effort:
        raise UserError(
            f"the cards cannot be compared: the attack of {old.name} had effort {old.l2.effort}, that of {new.name} "
            f"{new.l2.effort}; make both with one effort"
        )
    return tuple(
        Change(name, one, other, _verdict(one, other, rising=rising, relative=relative))
        for name, one, other, rising, relative in _pairs(old, new)
    )


def _pairs(old: CardValues, new: CardValues) -> Iterator[tuple[str, Number, Number, bool, bool]]:
    """Yield name, old and new number, whether more is better, and whether changes count relative to the number."""
    yield "accuracy", old.accuracy, new.accuracy, True, False
    if old.calibration and new.calibration:
        yield "calibration error", old.calibration.error, new.calibration.error, False, False
    if old.l2 and new.l2:
        for name in ("median", "p5", "p95"):
            words = {"median": "median L2 distance", "p5": "5 % L2 distance", "p95": "95 % L2 distance"}[name]
            yield words, getattr(old.l2, name), getattr(new.l2, name), True, True
    for title, one, other in (
        ("accuracy at L2", old.security_curve, new.security_curve),
        ("accuracy in noise of", old.noise_curve, new.noise_curve),
        ("certified at L2", old.certified_curve or (), new.certified_curve or ()),
    ):
        theirs = {point.at: point.accuracy for point in other}
        for point in _chosen([point for point in one if point.at in theirs and point.at > 0]):
            yield f"{title} {point.at:g}", point.accuracy, theirs[point.at], True, False
    measured = {(one.name, one.strength): one.accuracy for one in new.corruptions}
    for one in old.corruptions:
        if one.strength == 2 and (one.name, 2) in measured:
            yield f"accuracy under {one.name} ({one.setting})", one.accuracy, measured[one.name, 2], True, False


def _chosen(points: list[CurvePoint]) -> list[CurvePoint]:
    if not points:
        return []
    most = max(point.accuracy.value for point in points)
    nearest = [min(points, key=lambda point: abs(point.accuracy.value - part * most)) for part in _AT]
    return sorted(dict.fromkeys(nearest), key=lambda point: point.at)


def _verdict(old: Number, new: Number, *, rising: bool, relative: bool) -> str:
    if old.low <= new.high and new.low <= old.high:
        return SAME
    if math.isfinite(old.value) and math.isfinite(new.value):
        change, margin = abs(new.value - old.value), MARGIN_L2 * abs(old.value) if relative else MARGIN_SHARE
        if change <= margin:
            return SAME
    return BETTER if (new.value > old.value) == rising else WORSE

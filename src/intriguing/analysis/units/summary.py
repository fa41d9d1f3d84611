"""Summary of the units section: the part of the paper's claim that holds, the part that does not, and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from intriguing.analysis.inputs import Network
from intriguing.analysis.units.evidence import LEVEL, Agreement, Comparison, layers_of, of_layer
from intriguing.analysis.units.measure import RANDOM, UNIT
from intriguing.analysis.units.tables import TITLES, ScoresByLabel, share_beyond, short_layer
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import bootstrap_interval


def summarize(
    measured: ScoresByLabel,
    comparisons: Sequence[Comparison],
    agreements: Sequence[Agreement],
    networks: Sequence[Network],
) -> tuple[str, ...]:
    """Say which part of the paper's claim holds, which does not, and how seeds compare.

    Args:
        measured: scores by label.
        comparisons: units against random bases.
        agreements: layers compared across seeds.
        networks: the networks, for their test errors.
    """
    if not comparisons:
        return ()
    return (_holds(measured, comparisons), _fails(measured, comparisons), *_seeds(agreements, networks))


def _holds(measured: ScoresByLabel, comparisons: Sequence[Comparison]) -> str:
    shares, random = [], []
    for label, results in measured.items():
        random.append(_beyond_chance(results, RANDOM))
        unit = _beyond_chance(results, UNIT)
        own = [one for one in comparisons if one.label == label]
        same = sum(one.verdict == 0 for one in own)
        shares.append(
            f"for {random[-1]:.0f} % of random directions and {unit:.0f} % of units of {label} (no difference between "
            f"the two was shown in {same} of {len(own)} comparisons)"
        )
    found = "random directions are meaningful too" if max(random) >= 50 else "few random directions are meaningful"
    return (
        f"Units and directions: {found}. The top images are purer (a larger share is of one class) than 95 % of image "
        f"sets drawn at random {', '.join(shares)}. A comparison tests the units of one layer by one "
        f"score against {comparisons[0].bases:,} random bases (q < {LEVEL:g})."
    )


def _fails(measured: ScoresByLabel, comparisons: Sequence[Comparison]) -> str:
    parts = []
    for label, results in measured.items():
        own = [one for one in comparisons if one.label == label]
        above, below = (sum(one.verdict == sign for one in own) for sign in (1, -1))
        if above or below:
            part = (
                f"the units of {label} are more meaningful than random bases in {above} and less meaningful in {below} "
                f"of {len(own)} comparisons"
            )
            top = max((one for one in own if one.verdict), key=lambda one: abs(one.effect))
            part += f" (largest difference: {_row(top)}, {_size(top)})"
        else:
            top = max(own, key=lambda one: abs(one.effect))
            part = f"no difference was shown for {label} in {len(own)} comparisons (largest: {_row(top)}, {_size(top)})"
        parts.append(part + _ablation(results))
    words = "; ".join(parts)
    if any(one.verdict for one in comparisons):
        return f"Units and random bases are not equally meaningful throughout: {words}.{_floor(comparisons)}"
    return (
        f"No difference between units and random bases was shown, which does not show that they are alike: {words}."
        f"{_floor(comparisons)}"
    )


def _row(one: Comparison) -> str:
    return f"{TITLES[one.score]} of {short_layer(one.layer)}"


def _size(one: Comparison) -> str:
    interval = one.effect_interval
    ends = "" if interval is None else f", {interval.low:+.2f} to {interval.high:+.2f}"
    return f"effect size {one.effect:+.2f}{ends}".replace("-", "−")


def _floor(comparisons: Sequence[Comparison]) -> str:
    """Warn where the number of random bases is too small for a single difference; empty where it is not."""
    floor = max(one.floor for one in comparisons)
    if floor < LEVEL:
        return ""
    bases = min(one.bases for one in comparisons)
    needed = math.floor(2 * len(comparisons) / LEVEL)
    could = "" if any(one.verdict for one in comparisons) else ", so the test could not have shown it"
    return (
        f" With {bases:,} random bases and {len(comparisons)} rows, the q of a single difference is at least "
        f"{floor:.2g}, however large it is{could}; settings.units.rotations={needed} or more would show it."
    )


def _ablation(results: Sequence) -> str:
    losses = [one.loss for layer in layers_of(results) for one in of_layer(results, layer) if one.loss is not None]
    if not losses:
        return ""
    groups = torch.cat([torch.full((len(loss.unit),), i) for i, loss in enumerate(losses)])
    unit, random = (100 * torch.cat([getattr(loss, key) for loss in losses]) for key in ("unit", "random"))
    interval = bootstrap_interval(unit - random, groups=groups)
    shown = interval is not None and not interval.low <= 0 <= interval.high
    ends = "" if interval is None else f", {interval.low:.2f} to {interval.high:.2f}".replace("-", "−")
    return (
        f"; removing one costs {float(unit.mean()):.2f} points of accuracy, and removing a random direction of equal "
        f"variance {float(random.mean()):.2f} ({'a' if shown else 'no'} difference was shown{ends})"
    )


def _seeds(agreements: Sequence[Agreement], networks: Sequence[Network]) -> list[str]:
    parts = []
    for label in dict.fromkeys(one.label for one in agreements):
        own = [one for one in agreements if one.label == label]
        counts = [network.error("test") for network in networks if network.label == label]
        errors = [count.percent for count in counts if count.n]
        cka, matched, turned = (
            sum(getattr(one, key)[0] for one in own) / len(own) for key in ("cka", "matched", "turned")
        )
        spread = f" (test errors {min(errors):.2f} to {max(errors):.2f} %)" if errors else ""
        parts.append(
            f"{label}{spread} has a mean linear CKA of {cka:.2f}, and its units match with a mean correlation of "
            f"{matched:.2f} ({turned:.2f} after a random rotation)"
        )
    return [f"Across seeds, {'; '.join(parts)}."] if parts else []


def _beyond_chance(results: Sequence, basis: str) -> float:
    """Compute the percentage of rows whose purity is beyond that of 95 % of random image sets."""
    counts = [share_beyond(of_layer(results, layer), basis, "purity")[0] for layer in layers_of(results)]
    return sum(counts, Count(0, 0)).percent

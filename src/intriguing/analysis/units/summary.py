"""What holds of the paper's section 3 and what does not, in two sentences, and one about seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from intriguing.analysis.inputs import Network
from intriguing.analysis.units.evidence import LEVEL, Agreement, Comparison, layers_of, of_layer
from intriguing.analysis.units.measure import RANDOM, UNIT
from intriguing.analysis.units.tables import TITLES, Measured, share_beyond, short_layer
from intriguing.statistics.tests import bootstrap_interval


def summarize(
    measured: Measured, comparisons: Sequence[Comparison], agreements: Sequence[Agreement], networks: Sequence[Network]
) -> tuple[str, ...]:
    """Sentences from the numbers alone: the first says what holds of the paper's claim, the second what does not."""
    if not comparisons:
        return ()
    return (_holds(measured, comparisons), _fails(measured, comparisons), *_seeds(agreements, networks))


def _holds(measured: Measured, comparisons: Sequence[Comparison]) -> str:
    shares, random = [], []
    for label, results in measured.items():
        random.append(_beyond_chance(results, RANDOM))
        unit = _beyond_chance(results, UNIT)
        own = [one for one in comparisons if one.label == label]
        same = sum(one.verdict == 0 for one in own)
        shares.append(
            f"{label}: {random[-1]:.0f} % of random directions, {unit:.0f} % of units, and no difference between the "
            f"two was shown in {same} of {len(own)} comparisons"
        )
    found = "random directions are meaningful too" if max(random) >= 50 else "few random directions are meaningful"
    return (
        f"Units and directions, what holds: {found}, by top images that are purer (a larger share is of one class) "
        f"than 95 % of image sets drawn at random ({'; '.join(shares)}; a comparison is of one layer by one score "
        f"against {comparisons[0].bases:,} random bases, q < {LEVEL:g})."
    )


def _fails(measured: Measured, comparisons: Sequence[Comparison]) -> str:
    parts = []
    for label, results in measured.items():
        own = [one for one in comparisons if one.label == label]
        above, below = (sum(one.verdict == sign for one in own) for sign in (1, -1))
        if above or below:
            part = (
                f"units of {label} are more meaningful than random bases in {above} and less in {below} of {len(own)}"
            )
            top = max((one for one in own if one.verdict), key=lambda one: abs(one.effect))
            part += f" (most: {_row(top)}, {_size(top)})"
        else:
            top = max(own, key=lambda one: abs(one.effect))
            part = f"no difference of {label} was shown in {len(own)} (the largest: {_row(top)}, {_size(top)})"
        parts.append(part + _ablation(results))
    words = "; ".join(parts)
    if any(one.verdict for one in comparisons):
        return f"What does not hold is that units and random bases are alike throughout: {words}.{_floor(comparisons)}"
    return (
        f"That units and random bases differ was not shown, which is not that they are alike: {words}."
        f"{_floor(comparisons)}"
    )


def _row(one: Comparison) -> str:
    return f"{TITLES[one.score]} of {short_layer(one.layer)}"


def _size(one: Comparison) -> str:
    interval = one.effect_interval
    ends = "" if interval is None else f", {interval.low:+.2f} to {interval.high:+.2f}"
    return f"effect size {one.effect:+.2f}{ends}".replace("-", "−")


def _floor(comparisons: Sequence[Comparison]) -> str:
    """What the number of random bases keeps from being shown; empty where a single difference could be."""
    floor = max(one.floor for one in comparisons)
    if floor < LEVEL:
        return ""
    bases = min(one.bases for one in comparisons)
    needed = math.floor(2 * len(comparisons) / LEVEL)
    could = "" if any(one.verdict for one in comparisons) else ": the test could not have shown it"
    return (
        f" With {bases:,} random bases and {len(comparisons)} rows, a difference that stands alone has a q of at least "
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
        f", and removing one costs {float(unit.mean()):.2f} points of accuracy against {float(random.mean()):.2f} for "
        f"a direction of its variance ({'a' if shown else 'no'} difference was shown{ends})"
    )


def _seeds(agreements: Sequence[Agreement], networks: Sequence[Network]) -> list[str]:
    parts = []
    for label in dict.fromkeys(one.label for one in agreements):
        own = [one for one in agreements if one.label == label]
        errors = [
            100 * n.errors["test"][0] / n.errors["test"][1] for n in networks if n.label == label and "test" in n.errors
        ]
        cka, matched, turned = (
            sum(getattr(one, key)[0] for one in own) / len(own) for key in ("cka", "matched", "turned")
        )
        spread = f" (test errors {min(errors):.2f} to {max(errors):.2f} %)" if errors else ""
        parts.append(
            f"{label}{spread} has a mean linear CKA of {cka:.2f} while its units match with a correlation of "
            f"{matched:.2f}, {turned:.2f} after a random rotation"
        )
    return [f"Across seeds, {'; '.join(parts)}."] if parts else []


def _beyond_chance(results: Sequence, basis: str) -> float:
    """Percentage of rows whose purity is beyond that of 95 % of random image sets."""
    counts = [share_beyond(of_layer(results, layer), basis, "purity")[:2] for layer in layers_of(results)]
    return 100 * sum(k for k, _ in counts) / sum(n for _, n in counts)

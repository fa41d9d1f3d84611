"""Arms: the ways in which one network was trained, with and without pools, and the networks of each over seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from intriguing.analysis.back_feeding.pools import BASELINE, DROPOUT, POOLS, Pools, arm_name, loss_scale
from intriguing.analysis.cells import one_attack
from intriguing.analysis.identity import NetworkId, distinct_labels
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet
from intriguing.errors import UserError
from intriguing.statistics.counts import Count

ATTACKS = ("lbfgs", "nearest")
_RATES = ("optimizer.lr", "scheduler.max_lr", "scheduler.second_lr")
_SCALE_FREE = tuple(
    f"torch.optim.{name}" for name in ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad")
)
"""Optimisers whose steps do not depend on the scale of the loss."""


@dataclass
class Arm:
    """Hold the networks of one way of training, one for each seed.

    Attributes:
        name: in words.
        networks: by seed.
        sets: by seed, one measured adversarial set of each attack.
        baseline: the arm it is compared with; None where there is none.
        matched: the arm without pools whose rate and decay compensate for the larger loss of this one; None where the
            loss is no larger, or where there is no such arm.
        matches: for an arm without pools, the scale of the loss that it compensates for; None for all others.
    """

    name: str
    networks: dict[int, Network] = field(default_factory=dict)
    sets: dict[int, list[MeasuredSet]] = field(default_factory=dict)
    baseline: Arm | None = None
    matched: Arm | None = None
    matches: float | None = None

    @property
    def first(self) -> Network:
        """One of its networks."""
        return next(iter(self.networks.values()))

    @property
    def id(self) -> NetworkId:
        """Settings that its networks share."""
        return self.first.id

    @property
    def pools(self) -> Pools | None:
        """Its pools; None without any."""
        return Pools.of(self.id)

    @property
    def scale(self) -> float | None:
        """Scale of its loss relative to training without pools; None where the number of pools is not known."""
        return loss_scale(self.first)

    @property
    def mnist(self) -> bool:
        """Whether it was trained on the paper's data."""
        return self.first.data == "mnist"

    @property
    def plain(self) -> bool:
        """Whether it has weight decay alone."""
        return arm_name(self.id) == BASELINE

    @property
    def seeds(self) -> list[int]:
        """Seeds of its networks, sorted."""
        return sorted(self.networks)

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the networks' runs."""
        return tuple(self.networks[seed].name for seed in self.seeds)

    def of_attack(self, attack: str) -> dict[int, MeasuredSet]:
        """Return the set of an attack by seed; seeds without one are left out."""
        found = {seed: [s for s in self.sets[seed] if s.attack.get("name") == attack] for seed in sorted(self.sets)}
        return {seed: sets[0] for seed, sets in found.items() if sets}

    def counts(self, subset: str = "test") -> dict[int, Count]:
        """Return the wrong answers by seed, on a subset that was counted."""
        counts = {seed: network.error(subset) for seed, network in self.networks.items()}
        return {seed: count for seed, count in counts.items() if count.n}

    def errors(self, subset: str = "test") -> dict[int, float]:
        """Return the error in percent by seed, on a subset that was counted."""
        return {seed: count.percent for seed, count in self.counts(subset).items()}

    def distortions(self, attack: str) -> dict[int, float]:
        """Return the mean distortion of an attack by seed; a seed without a success is left out."""
        return {seed: float(s.distortion.mean()) for seed, s in self.of_attack(attack).items() if s.num_success}


def families(networks: Sequence[Network]) -> dict[str, tuple[str, list[Arm]]]:
    """Sort networks by their shape, data and split, and then by their training.

    Returns:
        Name (empty where there is only one family) and arms, the baseline first, by the key of the family's table.

    Raises:
        UserError: two runs of one arm and seed.
    """
    shapes: dict[tuple[object, ...], list[Network]] = {}
    for one in networks:
        shape = tuple(pair for pair in one.id.architecture if pair[0] != DROPOUT)
        shapes.setdefault((one.id.name, shape, one.data_set, one.split), []).append(one)
    found = [(members[0].id.name, _arms(members)) for members in shapes.values()]
    found = [(name, arms) for name, arms in found if len(arms) > 1 and not all(arm.plain for arm in arms)]
    if len(found) == 1:
        return {"back_feeding": ("", found[0][1])}
    names = distinct_labels([name for name, _ in found], [dict(arms[0].id.settings) for _, arms in found])
    stems = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in names]
    return {f"back_feeding_{stem}": (name, arms) for stem, name, (_, arms) in zip(stems, names, found, strict=True)}


def add_sets(arms: Sequence[Arm], measured: Sequence[MeasuredSet]) -> None:
    """Give each arm one set of each attack, of equal settings in all arms."""
    places = {one.name: (arm, seed) for arm in arms for seed, one in arm.networks.items()}
    for attack in ATTACKS:
        for one in one_attack(s for s in measured if s.attack.get("name") == attack and s.source in places):
            arm, seed = places[one.source or ""]
            arm.sets.setdefault(seed, []).append(one)


def _arms(networks: Sequence[Network]) -> list[Arm]:
    """Make the arms of one family in the order of the networks, baselines first."""
    matches = [_matches(one, networks) for one in networks]
    names = [
        arm_name(one.id) if scale is None else _matched_name(one.id, scale)
        for one, scale in zip(networks, matches, strict=True)
    ]
    names = distinct_labels(names, [dict(n.id.settings) for n in networks])
    arms: dict[str, Arm] = {}
    for name, one, scale in zip(names, networks, matches, strict=True):
        arm = arms.setdefault(name, Arm(name, matches=scale))
        if one.seed in arm.networks:
            raise UserError(
                f"two networks are {one.id.name} with {name}, seed {one.seed}: {arm.networks[one.seed].name} and "
                f"{one.name}; give one of them"
            )
        arm.networks[one.seed] = one
    found = sorted(arms.values(), key=lambda arm: not arm.plain)
    for arm in found:
        arm.baseline = _baseline(arm, found)
        arm.matched = next((one for one in found if not one.pools and _compensates(one.first, arm.first)), None)
    return found


def _baseline(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """Find the arm of equal settings without the pools, or without the dropout; for dropout else the only plain arm."""
    without = POOLS if arm.pools else DROPOUT
    equal = [one for one in arms if one is not arm and one.id.settings == arm.id.without(without)]
    plain = [one for one in arms if one.plain and one.matches is None]
    return equal[0] if equal else plain[0] if not arm.pools and not arm.plain and len(plain) == 1 else None


def _matches(network: Network, networks: Sequence[Network]) -> float | None:
    """Find the scale of the loss that a network without pools compensates for, unless it is another's baseline."""
    if Pools.of(network.id):
        return None
    pooled = [one for one in networks if Pools.of(one.id)]
    if any(one.id.without(POOLS) == network.id.settings for one in pooled):
        return None
    return next((loss_scale(one) for one in pooled if _compensates(network, one)), None)


def _matched_name(network: NetworkId, scale: float) -> str:
    """Name an arm of another rate and decay, "weight decay, rate x 4, decay / 4" or "dropout, rate x 4, decay / 4"."""
    rate = "" if network.get("optimizer._target_") in _SCALE_FREE else f"rate x {scale:g}, "
    return f"{arm_name(network)}, {rate}decay / {scale:g}"


def _compensates(plain: Network, pooled: Network) -> bool:
    """Check whether a network without pools differs from one with them only in a rate and decay for its larger loss.

    To SGD, a loss s times as large is a rate s times as large with a decay s times smaller. The steps of Adam do not
    depend on the scale of a loss: there the decay alone is s times smaller.
    """
    scale = loss_scale(pooled)
    if scale is None or scale == 1:
        return False
    one, other = (
        {key: value for key, value in pairs if key != "model.label"}
        for pairs in (plain.id.settings, pooled.id.without(POOLS))
    )
    if one.keys() != other.keys():
        return False
    faster = 1.0 if pooled.id.get("optimizer._target_") in _SCALE_FREE else scale
    factors = {"weight_decay.value": 1 / scale, **dict.fromkeys(_RATES, faster)}
    return all(_scaled(one[key], other[key], factors[key]) if key in factors else one[key] == other[key] for key in one)


def _scaled(first: str, second: str, factor: float) -> bool:
    """Check whether numbers, as JSON, are others times a factor."""
    ours, theirs = (np.atleast_1d(np.asarray(json.loads(text), dtype=float)) for text in (first, second))
    return ours.shape == theirs.shape and bool(np.allclose(ours, factor * theirs, rtol=1e-6, atol=0))

"""Comparisons of arms seed by seed: paired t-tests, corrected over all comparisons of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from intriguing.analysis.back_feeding.arms import Arm
from intriguing.analysis.back_feeding.pools import POOLS
from intriguing.statistics.tests import holm, paired_p

LEVEL = 0.05


@dataclass(frozen=True)
class ArmComparison:
    """Compare the test errors of two arms seed by seed.

    Attributes:
        first: an arm.
        second: the arm that is expected to have the lower error.
        gains: by seed, the first's test error less the second's, in points.
        p: of the two-sided paired t-test; None for fewer than two seeds.
        q: p corrected over all comparisons of the network (Holm); None without p.
    """

    first: Arm
    second: Arm
    gains: Mapping[int, float]
    p: float | None
    q: float | None = None

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of all networks' runs."""
        return (*self.second.runs, *self.first.runs)

    @property
    def mean_gain(self) -> float:
        """Mean gain over the seeds, in points."""
        return float(np.mean(list(self.gains.values())))

    @property
    def lower(self) -> bool:
        """Whether it was shown that the second arm has the lower error."""
        return self.q is not None and self.q < LEVEL and self.mean_gain > 0

    @property
    def words(self) -> str:
        """The test, and whether it shows a difference."""
        if self.p is None or self.q is None:
            return "too few seeds for a test"
        shown = "a difference was shown" if self.q < LEVEL else "no difference was shown"
        return f"{shown}, paired t-test over {len(self.gains)} seeds: p = {self.p:.2g}, corrected {self.q:.2g}"


def compare(arms: Sequence[Arm]) -> list[ArmComparison]:
    """Compare each arm with its baseline, with the baseline of equal loss scale, and all pools with those of the input.

    Returns:
        Comparisons with a seed in common, the p-values corrected over all of them.
    """
    pairs = [(arm.baseline, arm) for arm in arms if arm.baseline] + [(arm.matched, arm) for arm in arms if arm.matched]
    for arm in arms:
        if arm.pools is not None and arm.pools.whole:
            family = [one for one in arms if one.id.without(POOLS) == arm.id.without(POOLS)]
            pairs += [(one, arm) for one in family if one.pools is not None and one.pools.inputs_alone]
    found = []
    for first, second in pairs:
        one, other = first.errors(), second.errors()
        seeds = [seed for seed in second.seeds if seed in one and seed in other]
        if seeds:
            p = paired_p([one[seed] for seed in seeds], [other[seed] for seed in seeds])
            found.append(ArmComparison(first, second, {seed: one[seed] - other[seed] for seed in seeds}, p))
    corrected = iter(holm([one.p for one in found if one.p is not None]))
    return [one if one.p is None else replace(one, q=next(corrected)) for one in found]

"""From single networks to what can be said: seeds pooled, units against random bases tested, tests corrected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from intriguing.analysis.units.measure import RANDOM, UNIT, LayerScores
from intriguing.statistics.intervals import Interval
from intriguing.statistics.tests import (
    benjamini_hochberg,
    bootstrap_interval,
    effect_size,
    least_p,
    rotation_p,
    t_interval,
)
from intriguing.units import SCORES, linear_cka, match_units, procrustes, random_rotation

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Units against random bases of one layer and score, seeds pooled.

    Attributes:
        label, layer, score: what is compared.
        unit, random: mean scores.
        effect: Hedges' g over directions; positive where units are the more meaningful.
        effect_interval: of g, 95 %: the interval of the units' mean, less the mean of all random directions, in the
            same standard deviations. The random directions are so many that their mean and spread are taken as known.
        p: two-sided, among the random bases.
        q: the same, corrected over all comparisons of the analysis (Benjamini and Hochberg).
        floor: the q of a row that alone has the smallest p that so many random bases allow: where it is above `LEVEL`,
            the test cannot show a single difference, however large.
        num: units.
        bases: random bases.
    """

    label: str
    layer: str
    score: str
    unit: float
    random: float
    effect: float
    effect_interval: Interval | None
    p: float
    num: int
    bases: int
    q: float = math.nan
    floor: float = math.nan

    @property
    def verdict(self) -> int:
        """1: units are the more meaningful; -1: less; 0: no difference was shown, which is not that there is none."""
        return 0 if not self.q < LEVEL else 1 if self.effect > 0 else -1


def more(score: str) -> int:
    """Whether more of a score means more meaningful: 1, or -1 for the entropy."""
    return -1 if score == "entropy" else 1


def layers_of(measured: Sequence[Sequence[LayerScores]]) -> list[str]:
    """Names of the layers of networks that differ in their seed, in order."""
    return list(dict.fromkeys(one.layer for network in measured for one in network))


def of_layer(measured: Sequence[Sequence[LayerScores]], layer: str) -> list[LayerScores]:
    """One layer's results over the seeds."""
    return [one for network in measured for one in network if one.layer == layer]


def pooled(results: Sequence[LayerScores], basis: str, score: str) -> tuple[Tensor, Tensor]:
    """All finite scores of a basis over the seeds (M,), and of which seed each is (M,)."""
    parts = [one.scores[basis][score] for one in results if basis in one.scores and score in one.scores[basis]]
    parts = [part[part.isfinite()] for part in parts]
    groups = [torch.full((len(part),), i) for i, part in enumerate(parts)]
    return (torch.cat(parts), torch.cat(groups)) if parts else (torch.empty(0), torch.empty(0, dtype=torch.int64))


def mean_with_interval(
    results: Sequence[LayerScores], basis: str, score: str
) -> tuple[float, Interval | None, int] | None:
    """Mean over directions and seeds, its 95 % interval (seeds as strata), and how many directions.

    Random directions come in bases, whose means are independent: theirs is Student's interval over the bases.
    """
    values, groups = pooled(results, basis, score)
    if not len(values):
        return None
    if basis == RANDOM:
        bases = [one.random_means[score] for one in results if score in one.random_means]
        bases = [means[means.isfinite()] for means in bases]
        strata = torch.cat([torch.full((len(means),), i) for i, means in enumerate(bases)])
        return float(values.mean()), t_interval(torch.cat(bases), groups=strata), len(values)
    return float(values.mean()), bootstrap_interval(values, groups=groups), len(values)


def compare(label: str, measured: Sequence[Sequence[LayerScores]]) -> list[Comparison]:
    """Every layer and score of networks that differ in their seed."""
    found = []
    for layer in layers_of(measured):
        results = of_layer(measured, layer)
        for score in SCORES:
            unit, seeds = pooled(results, UNIT, score)
            random, _ = pooled(results, RANDOM, score)
            if len(unit) < 2:
                continue
            # The i-th random bases of all seeds together are one draw of the null, as the units of all seeds are.
            null = torch.stack([one.random_means[score] for one in results]).nanmean(0)
            own = torch.stack([one.scores[UNIT][score].nanmean() for one in results]).mean()
            effect = more(score) * effect_size(unit, random)
            found.append(
                Comparison(
                    label=label,
                    layer=layer,
                    score=score,
                    unit=float(own),
                    random=float(null.mean()),
                    effect=effect,
                    effect_interval=_effect_interval(score, unit, seeds, random),
                    p=rotation_p(float(own), null),
                    num=len(unit),
                    bases=len(null),
                )
            )
    return found


def _effect_interval(score: str, unit: Tensor, seeds: Tensor, random: Tensor) -> Interval | None:
    """Interval of Hedges' g; None where it has none."""
    found = bootstrap_interval(unit, groups=seeds)
    if found is None:
        return None
    # The effect is linear in the units' mean: the shift that moves the mean to an end moves g likewise.
    spread = _pooled_spread(unit, random)
    if spread == 0:
        return None
    ends = [more(score) * (end - float(random.double().mean())) / spread for end in found]
    return Interval(min(ends), max(ends))


def _pooled_spread(unit: Tensor, random: Tensor) -> float:
    """What Hedges' g divides by."""
    n, m = len(unit), len(random)
    pooled = ((n - 1) * unit.double().var() + (m - 1) * random.double().var()) / (n + m - 2)
    return math.sqrt(float(pooled)) / (1 - 3 / (4 * (n + m) - 9))


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with q over all of them, and the floor of q."""
    if not comparisons:
        return []
    q = benjamini_hochberg(torch.tensor([one.p for one in comparisons], dtype=torch.float64)).tolist()
    return [
        replace(one, q=value, floor=min(1.0, len(comparisons) * least_p(one.bases)))
        for one, value in zip(comparisons, q, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A layer over the seeds of one architecture: means over all pairs of networks, with the smallest and largest.

    Attributes:
        label, layer: which.
        cka, procrustes, matched: see ``units.similarity``.
        turned: matched correlation after a random rotation of one of the two: what matching gives where no unit has a
            counterpart but the space is the same.
        pairs: how many pairs of networks.
    """

    label: str
    layer: str
    cka: tuple[float, float, float]
    procrustes: tuple[float, float, float]
    matched: tuple[float, float, float]
    turned: tuple[float, float, float]
    pairs: int


def across_seeds(
    label: str,
    features: Sequence[Mapping[str, Tensor]],
    fit: Sequence[Mapping[str, Tensor]] | None = None,
    *,
    seed: int = 0,
) -> list[Agreement]:
    """Compares all pairs of networks layer by layer.

    Args:
        label: of the networks.
        features: of each network, (N, C) by layer, of the same images.
        fit: the same of other images, by which rotations and partners are chosen; None: by those they are scored on.
        seed: of the rotations.
    """
    found = []
    for layer in features[0]:
        generator = torch.Generator().manual_seed(seed)
        rows: list[tuple[float, ...]] = []
        found_in = [i for i, one in enumerate(features) if layer in one]
        for i, j in combinations(found_in, 2):
            first, second = features[i][layer].double(), features[j][layer].double()
            others = (first, second) if fit is None else (fit[i][layer].double(), fit[j][layer].double())
            if any(float(rows.std(0).max()) == 0 for rows in (first, second, *others)):
                continue
            rotation = random_rotation(second.shape[1], generator=generator)
            rows.append(
                (
                    linear_cka(first, second),
                    procrustes(first, second, fit=others),
                    match_units(first, second, fit=others).mean,
                    match_units(first, second @ rotation, fit=(others[0], others[1] @ rotation)).mean,
                )
            )
        if rows:
            columns = [(sum(column) / len(column), min(column), max(column)) for column in zip(*rows, strict=True)]
            cka, rotation, matched, turned = columns
            found.append(
                Agreement(
                    label=label,
                    layer=layer,
                    cka=cka,
                    procrustes=rotation,
                    matched=matched,
                    turned=turned,
                    pairs=len(rows),
                )
            )
    return found

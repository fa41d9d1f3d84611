"""Evidence over networks: seeds pooled, units tested against random bases, p-values corrected, seeds compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from scipy import stats
from torch import Tensor

from intriguing.analysis.units.measure import RANDOM, UNIT, LayerScores
from intriguing.statistics.intervals import Interval, bootstrap_interval, t_interval
from intriguing.statistics.tests import effect_size, least_p, pooled_spread, rotation_p
from intriguing.units import SCORES, linear_cka, match_units, procrustes, random_rotation

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Compare units with random bases of one layer and score, seeds pooled.

    Attributes:
        label: of the networks.
        layer: name of the layer.
        score: name of the score.
        unit: mean score of the units.
        random: mean score of the random bases.
        effect: Hedges' g over directions; positive where units are the more meaningful.
        effect_interval: 95 % interval of g: that of the units' mean, less the mean of all random directions, in the
            standard deviations of g. Mean and spread of the many random directions are taken as known.
        p: two-sided, among the random bases.
        q: p corrected over all comparisons of the analysis (Benjamini and Hochberg).
        floor: q of a row that alone has the smallest possible p. Where it is above `LEVEL`, the test cannot show a
            single difference, however large.
        num: number of units.
        bases: number of random bases.
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
        """1 where units are shown to be more meaningful, -1 where less, 0 where no difference was shown."""
        return 0 if not self.q < LEVEL else 1 if self.effect > 0 else -1


def sign_of(score: str) -> int:
    """Return the sign of a score: 1 if higher is more meaningful, -1 for the entropy."""
    return -1 if score == "entropy" else 1


def layers_of(measured: Sequence[Sequence[LayerScores]]) -> list[str]:
    """List the layers of networks that differ in their seed, in order."""
    return list(dict.fromkeys(one.layer for network in measured for one in network))


def of_layer(measured: Sequence[Sequence[LayerScores]], layer: str) -> list[LayerScores]:
    """Select one layer's scores over the seeds."""
    return [one for network in measured for one in network if one.layer == layer]


def pooled(results: Sequence[LayerScores], basis: str, score: str) -> tuple[Tensor, Tensor]:
    """Join all finite scores of a basis over the seeds (M,), and number the seed of each (M,)."""
    parts = [one.scores[basis][score] for one in results if basis in one.scores and score in one.scores[basis]]
    parts = [part[part.isfinite()] for part in parts]
    groups = [torch.full((len(part),), i) for i, part in enumerate(parts)]
    return (torch.cat(parts), torch.cat(groups)) if parts else (torch.empty(0), torch.empty(0, dtype=torch.int64))


def mean_with_interval(
    results: Sequence[LayerScores], basis: str, score: str
) -> tuple[float, Interval | None, int] | None:
    """Average over directions and seeds.

    Random directions come in bases with independent means: their interval is Student's over the bases.

    Returns:
        The mean, its 95 % interval (seeds as strata), and the number of directions; None without scores.
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
    """Compare units with random bases by every layer and score of networks that differ in their seed."""
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
            effect = sign_of(score) * effect_size(unit, random)
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
    """Compute the interval of Hedges' g; None where it has none."""
    found = bootstrap_interval(unit, groups=seeds)
    if found is None:
        return None
    # The effect is linear in the units' mean: the shift that moves the mean to an end moves g likewise.
    spread = pooled_spread(unit, random)
    if spread == 0:
        return None
    ends = [sign_of(score) * (end - float(random.double().mean())) / spread for end in found]
    return Interval(min(ends), max(ends))


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Set q over all comparisons, and the floor of q."""
    if not comparisons:
        return []
    q = stats.false_discovery_control([one.p for one in comparisons], method="bh").tolist()
    return [
        replace(one, q=value, floor=min(1.0, len(comparisons) * least_p(one.bases)))
        for one, value in zip(comparisons, q, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Compare a layer over the seeds of one architecture: mean, smallest and largest value over pairs of networks.

    Attributes:
        label: of the networks.
        layer: name of the layer.
        cka: linear CKA, see ``units.similarity``.
        procrustes: similarity after the best rotation.
        matched: mean correlation of matched units.
        turned: mean correlation of matched units after a random rotation of one of the two: the value to expect in
            equal spaces whose units have no counterparts.
        pairs: number of pairs of networks.
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
    """Compare all pairs of networks layer by layer.

    Args:
        label: of the networks.
        features: responses of each network, (N, C) by layer, to one set of images.
        fit: responses to other images, by which rotations and partners are chosen; None: ``features``.
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
            values = dict(zip(("cka", "procrustes", "matched", "turned"), columns, strict=True))
            found.append(Agreement(label=label, layer=layer, pairs=len(rows), **values))
    return found

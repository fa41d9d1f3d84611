"""Cells from counts: pooling over seeds, intervals, and the paper's numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor

from intriguing.analysis import paper
from intriguing.analysis.identity import labels_apart
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet
from intriguing.analysis.order import ranks
from intriguing.results import DISTORTION, ERROR, EXCESS, Cell, Quantity
from intriguing.statistics.clusters import clustered_mean, count_images, design_effect
from intriguing.statistics.counts import Count, PairedCounts
from intriguing.statistics.intervals import Interval, excess_interval, mean_interval, wilson_interval

WILSON = "95 % Wilson score interval over the images"
NEWCOMBE = "95 % interval of Newcombe (1998, method 10) for a difference of paired proportions"
MEAN = "mean and 95 % interval of Student's t over the images"
CLUSTERED = ", the answers of several seeds on one image being one draw"
AS_ONE = ", several seeds counted as if they agreed on every image; that is conservative, and only counts are recorded"
PAPERS = "of every count that is printed so (half a unit of the last digit)"

ByImage = tuple[Tensor, Tensor]
"""Values (N,) of one network and the indices (N,) of their images."""
Place = tuple[str, str, str]
"""(table, row, column) of a number in the paper, in the paper's names; see `paper.network_name`."""

FULL, HALVES = "full", "halves"
_PRIMARY_ATTACK = "lbfgs, random targets"


def pool_of(split: str) -> str:
    """Return the pool of networks a split belongs to: those trained on all images, or those trained on halves."""
    return FULL if split == "full" else HALVES


def display_labels(networks: Sequence[Network]) -> dict[str, str]:
    """Label each network, by the name of its run: equal for the seeds of one network, and for them alone.

    Networks of all images and of halves are in different tables, so one label may stand for one of either.
    """
    pools = [{n.name: n.id for n in networks if pool_of(n.split) == pool} for pool in (FULL, HALVES)]
    return {name: label for pool in pools for name, label in labels_apart(pool).items()}


def network_order(networks: Sequence[Network]) -> dict[str, int]:
    """Number the networks by the name of their run: those of all images first, each pool in the order of its table."""
    labels = display_labels(networks)
    found: dict[str, int] = {}
    for pool, table in ((FULL, "table1"), (HALVES, "table3")):
        members = [n for n in networks if pool_of(n.split) == pool]
        placed = ranks(paper.order(table), {labels[n.name]: n.id for n in members})
        for network in sorted(members, key=lambda n: (placed[labels[n.name]], n.seed, n.name)):
            found[network.name] = len(found)
    return found


def variants(sets: Iterable[MeasuredSet]) -> list[tuple[str, list[MeasuredSet]]]:
    """Sort the sets that were made for networks by the attack that made them, the paper's first.

    Attacks are named after their name and targets, and after their other parameters where these differ.
    """
    by_attack: dict[str, dict[str, list[MeasuredSet]]] = {}
    for one in sets:
        if not one.is_noise:
            by_attack.setdefault(one.attack_name, {}).setdefault(one.attack_key, []).append(one)
    found = [
        (name if len(by_key) == 1 else f"{name} {_differences(key, list(by_key))}", members)
        for name, by_key in by_attack.items()
        for key, members in by_key.items()
    ]
    return sorted(found, key=lambda pair: (not pair[0].startswith(_PRIMARY_ATTACK), -len(pair[1]), pair[0]))


def one_attack(sets: Iterable[MeasuredSet]) -> list[MeasuredSet]:
    """Choose the sets of one attack on one image set, unamplified, so that distances of two attacks are never compared.

    Returns:
        At most one set a network, of the attack with the most networks; of several such attacks, of the one with the
        smallest distortions.
    """
    attacks: dict[tuple[str, str], dict[str, MeasuredSet]] = {}
    for one in sets:
        if one.source is not None and one.amplify is None and one.num_success:
            attacks.setdefault((one.attack_key, one.subset), {}).setdefault(one.source, one)
    found = [list(sets.values()) for sets in attacks.values()]
    return min(found, key=lambda sets: (-len(sets), sum(float(s.distortion.mean()) for s in sets)), default=[])


def error_cell(
    counts: Sequence[tuple[int, Count]],
    place: Place | None = None,
    *,
    by_image: Sequence[ByImage] = (),
    judge: bool = True,
    own: bool = False,
    quantity: Quantity = ERROR,
    runs: Iterable[str] = (),
) -> Cell | None:
    """Make the cell of an error rate, or another share of images, in percent, pooled over seeds.

    The interval is about these networks on other images, not about other trainings; see `clusters.design_effect`. Where
    only counts are known, the interval assumes that the seeds agree on every image, so it is conservative.

    Args:
        counts: seed and count of each network; counts of no image are left out.
        place: where the paper may have a number.
        by_image: the errors of each network as 0 and 1, image by image; empty where only the counts are known.
        judge: False where the paper's number is only shown, being about other images.
        own: whether the network is shown the examples made for it.
        quantity: that is counted.
        runs: names of the runs behind it.

    Returns:
        The cell; None without images.
    """
    counts = [(seed, count) for seed, count in counts if count.n]
    total = sum((count for _, count in counts), Count(0, 0))
    if total.n == 0:
        return None
    images, effect = _sample([count.n for _, count in counts], by_image)
    return Cell(
        quantity=quantity,
        value=total.percent,
        interval=wilson_interval(total.k / effect, total.n / effect).percent,
        n=total.n,
        k=total.k,
        images=images,
        paper=paper.value(*place) if place else None,
        paper_interval=paper_error_interval(*place) if place and judge else None,
        own=own,
        by_seed=tuple(sorted(counts, key=lambda pair: pair[0])) if len(counts) > 1 else (),
        runs=tuple(dict.fromkeys(runs)),
    )


def excess_cell(
    counts: Sequence[PairedCounts], *, by_image: Sequence[ByImage] = (), own: bool = False, runs: Iterable[str] = ()
) -> Cell | None:
    """Make the cell of a difference of two error rates in percentage points; the paper has none of these.

    Args:
        counts: one entry per network.
        by_image: first minus second error (-1, 0, 1) of each network, image by image; empty where only counts are
            known.
        own: whether the network is shown the examples made for it.
        runs: names of the runs behind it.

    Returns:
        The cell; None without images.
    """
    total = reduce(add, counts, PairedCounts(0, 0, 0, 0))
    if total.n == 0:
        return None
    images, effect = _sample([c.n for c in counts], by_image)
    return Cell(
        quantity=EXCESS,
        value=100 * total.excess,
        interval=excess_interval(total, design_effect=effect).percent,
        n=total.n,
        k=total.only_first - total.only_second,
        images=images,
        own=own,
        runs=tuple(dict.fromkeys(runs)),
    )


def distortion_cell(
    values: Sequence[Tensor],
    place: Place | None = None,
    *,
    indices: Sequence[Tensor] = (),
    judge: bool = True,
    quantity: Quantity = DISTORTION,
    runs: Iterable[str] = (),
) -> Cell | None:
    """Make the cell of a mean distortion over images and seeds.

    The paper prints no spread, so its interval is made from the spread measured here, its 256 images and its rounding.

    Args:
        values: (N,) per network.
        place: where the paper may have a number.
        indices: (N,) per network, the image of each value; empty where it is not known. The interval then assumes that
            the networks agree on every image.
        judge: False where the paper's number is only shown: of distortions that were prescribed rather than found
            (Gaussian noise), and of other images.
        quantity: of the values.
        runs: names of the runs behind it.

    Returns:
        The cell; None without images.
    """
    known = len(indices) == len(values) and all(i.shape == v.shape for i, v in zip(indices, values, strict=True))
    pooled = torch.cat([v.double() for v in values]) if values else torch.zeros(0)
    n = pooled.numel()
    if n == 0:
        return None
    std = float(pooled.std()) if n > 1 else 0.0
    images = count_images(indices) if known else max(v.numel() for v in values)
    interval = clustered_mean(values, indices)[1] if known else mean_interval(float(pooled.mean()), std, images)
    printed = paper.value(*place) if place else None
    theirs = None
    if judge and printed is not None and std > 0:
        theirs = printed_mean_interval(printed, std)
    return Cell(
        quantity=quantity,
        value=float(pooled.mean()),
        interval=interval if images > 1 else None,
        n=n,
        images=images,
        paper=printed,
        paper_interval=theirs,
        runs=tuple(dict.fromkeys(runs)),
    )


def paper_error_interval(table: str, row: str, column: str) -> Interval | None:
    """Compute the interval, in percent, of an error rate the paper prints; None where it prints none.

    It reaches from the low end of the Wilson interval of the least count that is printed so to the high end of the
    greatest, of the number of images that the paper evidently had (`paper.sample_size`).
    """
    printed = paper.value(table, row, column)
    if printed is None:
        return None
    return printed_interval(printed, paper.sample_size(table, row, column))


def printed_interval(printed: float, n: int) -> Interval:
    """Compute the interval, in percent, of an error rate of n images that is only known as it was printed."""
    least, most = paper.printed_counts(printed, n)
    return Interval(wilson_interval(least, n).low, wilson_interval(most, n).high).percent


def printed_mean_interval(printed: float, std: float) -> Interval:
    """Compute the interval of a mean distortion of the paper's images from its printed digits and a spread."""
    low, high = mean_interval(float(printed), std, paper.NUM_ADVERSARIAL)
    return Interval(low - paper.rounding(printed), high + paper.rounding(printed))


def _sample(sizes: Sequence[int], by_image: Sequence[ByImage]) -> tuple[int, float]:
    """Count the distinct images behind the answers of several seeds, and compute the design effect of their mean."""
    if by_image:
        values, indices = [v for v, _ in by_image], [i for _, i in by_image]
        return count_images(indices), design_effect(values, indices)
    return max(sizes), sum(sizes) / max(sizes)


def method(words: str, cells: Iterable[Cell], *, seeds: str = CLUSTERED) -> str:
    """Describe how intervals were made; the treatment of several seeds only where a cell has several."""
    return words + (seeds if any(cell.num_images < cell.n for cell in cells) else "")


def made_by(sets: Iterable[MeasuredSet]) -> list[str]:
    """List the runs behind the distortion of some sets: the attacks, then the networks they were made for."""
    sets = list(sets)
    return [*(s.name for s in sets), *(s.source for s in sets if s.source)]


def set_label(labels: Mapping[str, str], one: MeasuredSet) -> str:
    """Return the label of the network a set was made for, or of the noise."""
    return labels[one.source] if one.source else one.label


def sample_text(cells: Iterable[Cell], seeds: Iterable[int]) -> str:
    """Write N of the cells, as distinct images, and the seeds."""
    sizes = sorted({cell.num_images for cell in cells})
    many = f"N = {sizes[0]:,}" if len(sizes) == 1 else f"N = {sizes[0]:,} to {sizes[-1]:,}"
    numbers = sorted(set(seeds))
    what = "images" if len(numbers) == 1 else "distinct images"
    return f"{many} {what} a cell, {'seed' if len(numbers) == 1 else 'seeds'} {', '.join(map(str, numbers))}"


def _differences(key: str, keys: list[str]) -> str:
    """List the parameters in which an attack differs from others of its name, "(max_iter=20)"."""
    own, others = json.loads(key), [json.loads(other) for other in keys]
    differing = {name for other in others for name in own.keys() | other.keys() if own.get(name) != other.get(name)}
    return "(" + ", ".join(f"{name}={own.get(name)}" for name in sorted(differing)) + ")"

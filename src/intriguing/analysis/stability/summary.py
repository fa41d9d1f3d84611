"""Summary of the stability section in plain sentences, with the tests of certified shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from intriguing.analysis.stability.measure import Groups, NetworkStability
from intriguing.errors import plural
from intriguing.statistics.counts import Count
from intriguing.statistics.tests import holm, sign_p


def summarize(groups: Groups, radius: float) -> list[str]:
    """Say whether a certificate was broken, and what each penalty changed.

    Args:
        groups: networks by label.
        radius: L2 norm at which certified images are counted.
    """
    sentences = []
    measured = [m for members in groups.values() for m in members if len(m.radii)]
    if measured:
        broken = sum((Count.of(m.radii > m.distances) for m in measured), Count(0, 0))
        sentences.append(
            f"Certificates: {broken.k} of {broken.n:,} certified radii exceed the adversarial distance that was found."
        )
    shares = _certified_shares(groups, radius)
    for label, other in _penalised_pairs(groups):
        plain, members = groups[label], groups[other]
        if not (plain[0].sharper and members[0].sharper and members[0].penalty):
            continue
        fall = _average(plain, lambda m: m.constant) / _average(members, lambda m: m.constant)
        line = (
            f"{label} with a {members[0].penalty.name} of {members[0].strength:g}: the certified constant falls "
            f"{fall:.1f} times, the test error is {_error(members):.2f} % (without {_error(plain):.2f} %)"
        )
        if all(len(m.distances) for m in (*plain, *members)):
            near, far = (_average(one, lambda m: float(m.distances.mean())) for one in (plain, members))
            line += f", the distance found grows {far / near:.2f} times"
        sentences.append(line + shares.get((label, other), "") + ".")
    return sentences


def certified_pairs(
    first: Sequence[NetworkStability], second: Sequence[NetworkStability], radius: float
) -> tuple[list[int], int]:
    """Count, image by image, the seeds at which the second networks are certified, less those of the first ones.

    Args:
        first: networks without a penalty.
        second: networks with a penalty.
        radius: L2 norm.

    Returns:
        The differences of all images that both were measured on, and the number of seeds they share.
    """
    ours = {one.network.seed: one for one in first}
    found: dict[str, int] = {}
    seeds = 0
    for other in second:
        one = ours.get(other.network.seed)
        if one is None:
            continue
        seeds += 1
        before, after = (dict(zip(m.images, (m.radii >= radius).tolist(), strict=True)) for m in (one, other))
        for image in before.keys() & after.keys():
            found[image] = found.get(image, 0) + int(after[image]) - int(before[image])
    return list(found.values()), seeds


def _penalised_pairs(groups: Groups) -> Iterator[tuple[str, str]]:
    """Yield the labels of the networks without and with a penalty that are equal otherwise."""
    for label, plain in groups.items():
        for other, members in groups.items():
            if not plain[0].penalty and members[0].penalty and members[0].family == plain[0].family:
                yield label, other


def _certified_shares(groups: Groups, radius: float) -> dict[tuple[str, str], str]:
    """Compare certified shares by paired tests, by labels without and with a penalty; corrected over all (Holm)."""
    tested: dict[tuple[str, str], tuple[str, float]] = {}
    equal: dict[tuple[str, str], str] = {}
    for label, other in _penalised_pairs(groups):
        differences, seeds = certified_pairs(groups[label], groups[other], radius)
        if not differences:
            continue
        before, after = (Count.of(torch.cat([m.radii >= radius for m in groups[one]])) for one in (label, other))
        words = (
            f", {after.percent:.1f} % of images are certified at {radius:g} (without {before.percent:.1f} %; "
            f"{plural(len(differences), 'image')}, {plural(seeds, 'seed')}"
        )
        if (p := sign_p(differences)) is None:
            equal[label, other] = f"{words}, none differs)"
        else:
            tested[label, other] = words, p
    q = holm([p for _, p in tested.values()])
    return equal | {
        labels: f"{words}, exact sign test by image: p = {p:.2g}, corrected {one:.2g})"
        for (labels, (words, p)), one in zip(tested.items(), q, strict=True)
    }


def _error(members: Sequence[NetworkStability]) -> float:
    return sum((m.network.error("test") for m in members), Count(0, 0)).percent


def _average(members: Sequence[NetworkStability], value: Callable[[NetworkStability], float]) -> float:
    return sum(map(value, members)) / len(members)

"""From counts to cells: pooling over seeds, intervals, and the paper's number beside each."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor

from intriguing.analysis import paper
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet
from intriguing.metrics import Interval, PairedCounts, excess, excess_interval, mean_interval, wilson_interval
from intriguing.results import Cell, SeedCount

WILSON = "95 % Wilson score interval over the images"
NEWCOMBE = "95 % interval of Newcombe (1998, method 10) for a difference of paired proportions"
MEAN = "mean ± 1.96 standard errors"

FULL, HALVES = "full", "halves"
_PRIMARY_ATTACK = "lbfgs, random targets"


def pool_of(split: str) -> str:
    """Which networks belong together: those trained on all images, or those trained on halves of them."""
    return FULL if split == "full" else HALVES


def display_labels(networks: Sequence[Network]) -> dict[str, str]:
    """Label to show for each network, by the name of its run.

    The paper's label; followed by the run's name where several networks of one seed and split share it, which would
    otherwise be pooled as if they were seeds of one network.
    """
    count = Counter((n.label, n.seed, n.split) for n in networks)
    repeated = {n.label for n in networks if count[n.label, n.seed, n.split] > 1}
    return {n.name: f"{n.label} [{n.name}]" if n.label in repeated else n.label for n in networks}


def variants(sets: Iterable[MeasuredSet]) -> list[tuple[str, list[MeasuredSet]]]:
    """Sorts the sets that were made for networks by the attack that made them, the paper's first.

    Attacks are told apart by name and targets; by all their parameters only where one network was attacked twice.
    """
    by_attack: dict[str, list[MeasuredSet]] = {}
    for one in sets:
        if not one.is_noise:
            by_attack.setdefault(one.attack_name, []).append(one)
    found: list[tuple[str, list[MeasuredSet]]] = []
    for name, members in by_attack.items():
        count = Counter((m.source, m.subset, m.amplify) for m in members)
        if max(count.values()) == 1:
            found.append((name, members))
            continue
        by_key: dict[str, list[MeasuredSet]] = {}
        for member in members:
            by_key.setdefault(member.attack_key, []).append(member)
        found += [(f"{name} {_differences(key, list(by_key))}", group) for key, group in by_key.items()]
    return sorted(found, key=lambda pair: (not pair[0].startswith(_PRIMARY_ATTACK), -len(pair[1]), pair[0]))


def error_cell(
    counts: Sequence[SeedCount], place: tuple[str, str, str], *, own: bool = False, runs: Iterable[str] = ()
) -> Cell | None:
    """An error rate in percent, pooled over seeds; None without images.

    Args:
        counts: one entry per seed.
        place: (table, row, column), where the paper may have a number.
        own: whether the network is shown the examples made for it.
        runs: names of the runs behind it.
    """
    k, n = sum(c.k for c in counts), sum(c.n for c in counts)
    if n == 0:
        return None
    return Cell(
        quantity="error",
        value=100 * k / n,
        interval=_percent(wilson_interval(k, n)),
        n=n,
        k=k,
        paper=paper.value(*place),
        paper_interval=paper_error_interval(*place),
        own=own,
        by_seed=tuple(sorted(counts, key=lambda c: c.seed)) if len(counts) > 1 else (),
        runs=tuple(dict.fromkeys(runs)),
    )


def excess_cell(counts: Sequence[PairedCounts], *, own: bool = False, runs: Iterable[str] = ()) -> Cell | None:
    """A difference of two error rates in percentage points; None without images. The paper has none of these."""
    total = reduce(add, counts, PairedCounts(0, 0, 0, 0))
    if total.n == 0:
        return None
    return Cell(
        quantity="excess",
        value=100 * excess(total),
        interval=_percent(excess_interval(total)),
        n=total.n,
        k=total.only_first - total.only_second,
        own=own,
        runs=tuple(dict.fromkeys(runs)),
    )


def distortion_cell(
    values: Sequence[Tensor], place: tuple[str, str, str], *, judge: bool = True, runs: Iterable[str] = ()
) -> Cell | None:
    """A mean distortion over images and seeds; None without images.

    The paper prints no spread, so its interval is made from the spread measured here and its 256 images.

    Args:
        values: (N,) per seed.
        place: (table, row, column), where the paper may have a number.
        judge: False for distortions that were prescribed rather than found (Gaussian noise).
        runs: names of the runs behind it.
    """
    pooled = torch.cat([v.double() for v in values]) if values else torch.zeros(0)
    n = pooled.numel()
    if n == 0:
        return None
    std = float(pooled.std()) if n > 1 else 0.0
    printed = paper.value(*place)
    judged = judge and printed is not None and std > 0
    return Cell(
        quantity="distortion",
        value=float(pooled.mean()),
        interval=mean_interval(float(pooled.mean()), std, n),
        n=n,
        paper=printed,
        paper_interval=mean_interval(float(printed or 0), std, paper.NUM_ADVERSARIAL) if judged else None,
        runs=tuple(dict.fromkeys(runs)),
    )


def paper_error_interval(table: str, row: str, column: str) -> Interval | None:
    """The Wilson interval, in percent, of an error rate the paper prints; None where it prints none."""
    printed = paper.value(table, row, column)
    if printed is None:
        return None
    n = paper.sample_size(table, row, column)
    # The printed percentage is a rounded count out of n.
    return _percent(wilson_interval(round(printed * n / 100), n))


def made_by(sets: Iterable[MeasuredSet]) -> list[str]:
    """The runs behind the distortion of some sets: the attacks, then the networks they were made for."""
    sets = list(sets)
    return [*(s.name for s in sets), *(s.source for s in sets if s.source)]


def sample_text(cells: Iterable[Cell], seeds: Iterable[int]) -> str:
    """N of the cells and the seeds, in words."""
    sizes = sorted({cell.n for cell in cells})
    many = f"N = {sizes[0]:,}" if len(sizes) == 1 else f"N = {sizes[0]:,} to {sizes[-1]:,}"
    numbers = sorted(set(seeds))
    return f"{many} a cell, {'seed' if len(numbers) == 1 else 'seeds'} {', '.join(map(str, numbers))}"


def _percent(interval: Interval) -> Interval:
    return Interval(100 * interval.low, 100 * interval.high)


def _differences(key: str, keys: list[str]) -> str:
    """The parameters in which one attack differs from its namesakes, "(max_iter=20)"."""
    own, others = json.loads(key), [json.loads(other) for other in keys]
    differing = {name for other in others for name in own.keys() | other.keys() if own.get(name) != other.get(name)}
    return "(" + ", ".join(f"{name}={own.get(name)}" for name in sorted(differing)) + ")"

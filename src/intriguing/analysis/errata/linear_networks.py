"""Errata of the paper's attack that are measured on its linear networks: c, the norm, the targets, the penalty."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from intriguing.analysis import paper
from intriguing.analysis.cells import ByImage, distortion_cell, error_cell
from intriguing.analysis.errata.erratum import RATIO, SHARE, Erratum, lines
from intriguing.analysis.errata.linear import affine_part, exact_norms, l1_minimisers, penalty_minimisers
from intriguing.analysis.errata.material import LBFGS, LINEAR, Examples, Material, known, run_names
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet, short
from intriguing.metrics import root_mean_square
from intriguing.results import Cell
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import Interval

FC10_SETS = "networks FC10(1e-4), FC10(1e-2) and FC10(1) with sets of attack=lbfgs attack.targets=random"


def largest_c(material: Material) -> Erratum:
    """Erratum 1: the distortion falls with c, so that the smallest perturbation belongs to the largest c."""
    cs = sorted(set(material.settings.c))
    name, found = next(iter(_linear(material).items()), ("", []))
    by_c: dict[float, list[Tensor]] = {}
    falls: list[tuple[int, Count]] = []
    by_image: list[ByImage] = []
    smallest = []
    for _, network, kept in found:
        weight, bias = affine_part(network.module, kept.inputs.shape[1:])
        origin = kept.inputs.flatten(1).double()
        sizes = []
        for c in cs:
            sizes.append(root_mean_square(penalty_minimisers(weight, bias, origin, kept.targets, c) - origin))
            by_c.setdefault(c, []).append(sizes[-1])
        if len(cs) > 1:
            falling = (torch.stack(sizes).diff(dim=0) < 0).all(dim=0)
            falls.append((network.seed, Count.of(falling)))
            by_image.append((falling, kept.indices))
        smallest.append(root_mean_square((kept.adv_inputs - kept.inputs).double()))
    indices, runs = [kept.indices for _, _, kept in found], run_names((one, network) for one, network, _ in found)
    measured = [
        (f"{name}, distortion at c = {short(c)}", distortion_cell(sizes, indices=indices, runs=runs))
        for c, sizes in by_c.items()
    ]
    at_most = distortion_cell(smallest, indices=indices, runs=runs)
    rate = error_cell(falls, by_image=known(by_image), quantity=SHARE, runs=runs) if falls else None
    return Erratum(
        name="1 c",
        printed="the minimum c > 0",
        correct="the largest c whose minimiser is in the target class",
        note="Erratum 1: the minimiser of c |r|^2 + cross-entropy in the box, which is a convex problem for a linear "
        "network, solved in float64 at each c; then the result of lbfgs, which searches the largest c for each image.",
        lines=lines(
            *measured,
            (f"{name}, distortion at the largest c that succeeds", at_most),
            (f"{name}, images whose distortion falls with each c, %", rate),
        ),
        needs=FC10_SETS,
    )


def norm_of_r(material: Material) -> Erratum:
    """Erratum 2: of the norms that |r| may mean, the squared L2 norm gives the paper's distortions."""
    found = [
        (f"{name}, distortion by the squared L2 norm", material.distortion(pairs, name))
        for name, pairs in material.sets(LINEAR, *LBFGS).items()
    ]
    for name, members in _linear(material).items():
        sizes, indices = [], []
        for _, network, kept in members:
            weight, bias = affine_part(network.module, kept.inputs.shape[1:])
            origin = kept.inputs.flatten(1).double()
            size = root_mean_square(l1_minimisers(weight, bias, origin, kept.targets) - origin)
            sizes.append(size[size.isfinite()])
            indices.append(kept.indices[size.isfinite()] if len(kept.indices) else kept.indices)
        place = ("table1", name, paper.DISTORTION)
        runs = run_names((one, network) for one, network, _ in members)
        cell = distortion_cell(sizes, place, indices=indices, judge=material.judged, runs=runs)
        found.append((f"{name}, distortion by the L1 norm", cell))
    cells = dict(found)
    for norm in ("the squared L2 norm", "the L1 norm"):
        first, last = (cells.get(f"{name}, distortion by {norm}") for name in (LINEAR[0], LINEAR[-1]))
        if first and last:
            ratio = _ratio(last, first, material.judged)
            found.append((f"{LINEAR[-1]} / {LINEAR[0]}, distortions by {norm}", ratio))
    return Erratum(
        name="2 |r|",
        printed="|r|, without a norm",
        correct="the squared L2 norm",
        note="Erratum 2: mean distortions of lbfgs towards one random wrong class, and of the perturbations of the "
        "least L1 norm to the same classes on some of these images, which are the solutions of linear programmes. A "
        "coarser search of c ends farther from every image, so the ratio of two networks' distortions tells more than "
        "either; the intervals of ratios are of independent means, and the paper's of its rounding.",
        lines=lines(*found),
        needs=FC10_SETS,
    )


def targets(material: Material) -> Erratum:
    """Erratum 3: a random wrong class gives the paper's distortions, the closest class about half of them."""
    found = [
        (f"{name}, distortion to the closest class", material.distortion(pairs, name))
        for name, pairs in material.sets(LINEAR, "lbfgs", "closest").items()
    ]
    return Erratum(
        name="3 targets",
        printed="not stated",
        correct="one random wrong class for each image",
        note="Erratum 3: mean distortion of the nearest of the examples of lbfgs towards every wrong class; the first "
        "rows of erratum 2 are towards one random wrong class.",
        lines=lines(*found),
        needs="networks FC10(1e-4), FC10(1e-2) and FC10(1) with sets of attack=lbfgs attack.targets=closest",
    )


def penalty_method(material: Material) -> Erratum:
    """Erratum 8: the penalty method stops above the exact minimum, even of a convex problem."""
    found: list[tuple[str, Cell | None]] = []
    solved = Count(0, 0)
    for name, members in _linear(material).items():
        ratios, indices = [], []
        for _, network, kept in members:
            weight, bias = affine_part(network.module, kept.inputs.shape[1:])
            origin = kept.inputs.flatten(1).double()
            exact = exact_norms(weight, bias, origin, kept.targets)
            norms = (kept.adv_inputs.flatten(1).double() - origin).norm(dim=1)
            rows = exact.proved & (exact.norms > 0)
            solved += Count.of(exact.proved)
            ratios.append((norms / exact.norms)[rows])
            indices.append(kept.indices[rows] if len(kept.indices) else kept.indices)
        runs = run_names((one, network) for one, network, _ in members)
        cell = distortion_cell(ratios, indices=indices, quantity=RATIO, runs=runs)
        found.append((f"{name}, distance of lbfgs / exact minimum", cell))
    return Erratum(
        name="8 penalty",
        printed="the penalty method is exact for convex losses",
        correct="it stops above the minimum even of a linear softmax",
        note="Erratum 8: the exact minimum for the same target is a quadratic programme with K - 1 half-spaces and the "
        f"box, solved on its dual in float64; its optimality is proved to 1e-6 for {solved.k:,} of {solved.n:,} "
        "images, and only these count.",
        lines=lines(*found),
        needs=FC10_SETS,
    )


def _linear(material: Material) -> dict[str, list[tuple[MeasuredSet, Network, Examples]]]:
    """Find the linear networks with examples of the paper's attack, by the paper's name."""
    found: dict[str, list[tuple[MeasuredSet, Network, Examples]]] = {}
    for name, pairs in material.sets(LINEAR, *LBFGS).items():
        for one, network in pairs:
            kept = material.observed(one).examples
            if kept is not None and len(kept.inputs):
                found.setdefault(name, []).append((one, network, kept))
    return found


def _ratio(over: Cell, under: Cell, judged: bool) -> Cell | None:
    """Make the cell of a ratio of two mean distortions, beside that of the paper's numbers."""
    if over.interval is None or under.interval is None or not under.value or not over.value:
        return None
    spread = math.hypot(*((one.interval.high - one.value) / one.value for one in (over, under) if one.interval))
    value = over.value / under.value
    printed, theirs = None, None
    if over.paper and under.paper:
        (low, high), (less, more) = ((p - paper.rounding(p), p + paper.rounding(p)) for p in (over.paper, under.paper))
        printed, theirs = round(over.paper / under.paper, 2), Interval(low / more, high / less)
    return Cell(
        quantity=RATIO,
        value=value,
        interval=Interval(value * (1 - spread), value * (1 + spread)),
        n=min(over.n, under.n),
        images=min(over.num_images, under.num_images),
        paper=printed,
        paper_interval=theirs if judged else None,
        runs=tuple(dict.fromkeys([*over.runs, *under.runs])),
    )

"""Errata of sections 4.1 and 4.2 that are measured on trained networks and their adversarial sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from intriguing.analysis import paper
from intriguing.analysis.cells import HALVES, ByImage, distortion_cell, error_cell, excess_cell, made_by
from intriguing.analysis.errata.erratum import PERCENT, RATIO, SHARE, Erratum, Line, lines
from intriguing.analysis.errata.linear import affine_part, exact_norms, l1_minimisers, penalty_minimisers
from intriguing.analysis.errata.material import HALF, LBFGS, LINEAR, NOISE, Examples, Material
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet, short
from intriguing.metrics import root_mean_square
from intriguing.results import DISTORTION, Cell, Quantity
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import mean_interval, t_interval

Pair = tuple[MeasuredSet, Network]
FC10_SETS = "networks FC10(1e-4), FC10(1e-2) and FC10(1) with sets of attack=lbfgs attack.targets=random"


def largest_c(material: Material) -> Erratum:
    """Erratum 1: the distortion falls with c, so that the smallest perturbation belongs to the largest c."""
    cs = material.settings.c
    name, found = next(iter(_linear(material).items()), ("", []))
    by_c: dict[float, list[Tensor]] = {}
    falls: list[tuple[int, Count]] = []
    by_image: list[ByImage] = []
    smallest = []
    for _, network, kept in found:
        weight, bias = affine_part(network.module, kept.inputs.shape[1:])
        origin = kept.inputs.flatten(1).double()
        sizes = []
        for c in sorted(cs):
            sizes.append(root_mean_square(penalty_minimisers(weight, bias, origin, kept.targets, c) - origin))
            by_c.setdefault(c, []).append(sizes[-1])
        falling = (torch.stack(sizes).diff(dim=0) < 0).all(dim=0)
        falls.append((network.seed, Count.of(falling)))
        by_image.append((falling, kept.indices))
        smallest.append(root_mean_square((kept.adv_inputs - kept.inputs).double()))
    indices, runs = [kept.indices for _, _, kept in found], _runs((one, network) for one, network, _ in found)
    measured = [
        (f"{name}, distortion at c = {short(c)}", distortion_cell(sizes, indices=indices, runs=runs))
        for c, sizes in by_c.items()
    ]
    at_most = distortion_cell(smallest, indices=indices, runs=runs)
    rate = error_cell(falls, by_image=by_image, quantity=SHARE, runs=runs) if len(cs) > 1 else None
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
        (f"{name}, distortion by the squared L2 norm", _distortion(material, pairs, name))
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
        runs = _runs((one, network) for one, network, _ in members)
        cell = distortion_cell(sizes, place, indices=indices, judge=material.judged, runs=runs)
        found.append((f"{name}, distortion by the L1 norm", cell))
    return Erratum(
        name="2 |r|",
        printed="|r|, without a norm",
        correct="the squared L2 norm",
        note="Erratum 2: mean distortions of lbfgs towards one random wrong class, and of the perturbations of the "
        "least L1 norm to the same classes on some of these images, which are the solutions of linear programmes.",
        lines=lines(*found),
        needs=FC10_SETS,
    )


def targets(material: Material) -> Erratum:
    """Erratum 3: a random wrong class gives the paper's distortions, the closest class about half of them."""
    found = [
        (f"{name}, distortion to the closest class", _distortion(material, pairs, name))
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


def clipped_noise(material: Material) -> Erratum:
    """Erratum 5: Gaussian noise that is not clipped gives the paper's error."""
    (name, *_), row = LINEAR, f"Gaussian {short(NOISE)}"
    pairs = material.sets([name], *LBFGS).get(name, [])
    found = []
    for words, clip in (("not clipped", False), ("clipped", True)):
        noise = [(network, material.observed(one).noise.get(clip)) for one, network in pairs]
        known = [(network, errors) for network, errors in noise if errors is not None]
        cell = error_cell(
            [(network.seed, Count.of(wrong)) for network, (wrong, _) in known],
            ("table2", row, name),
            by_image=_known([errors for _, errors in known]),
            judge=material.judged,
            quantity=SHARE,
            runs=[network.name for network, _ in known],
        )
        found.append((f"{name}, error in {row}, {words}, %", cell))
    return Erratum(
        name="5 noise",
        printed="not stated whether noise is clipped to [0, 1]",
        correct="it is not clipped",
        note="Erratum 5: the error on the images of the network's adversarial set, in one draw of noise each.",
        lines=lines(*found),
        needs=f"{LINEAR[0]} with a set of attack=lbfgs attack.targets=random",
    )


def clean_error(material: Material) -> Erratum:
    """Erratum 7: a transfer percentage contains the victim's error on the same images without a perturbation."""
    maker, victim = LINEAR[0], LINEAR[-1]
    networks = {one.seed: one for one in material.networks.get(("full", victim), ())}
    pairs = [
        (one, networks[network.seed])
        for one, network in material.sets([maker], *LBFGS).get(maker, [])
        if network.seed in networks and networks[network.seed].name in one.outcomes
    ]
    outcomes = [one.outcomes[network.name] for one, network in pairs]
    counts = [outcome.against_clean for outcome in outcomes]
    answers = [outcome.answers for outcome in outcomes if outcome.answers is not None]
    answers = answers if len(answers) == len(outcomes) else []
    runs, seeds = _runs(pairs), [network.seed for _, network in pairs]
    transfer = error_cell(
        [(seed, count.first) for seed, count in zip(seeds, counts, strict=True)],
        ("table2", maker, victim),
        by_image=_known([(one.adversarial, one.indices) for one in answers]),
        judge=material.judged,
        quantity=SHARE,
        runs=runs,
    )
    clean = error_cell(
        [(seed, count.second) for seed, count in zip(seeds, counts, strict=True)],
        by_image=_known([(one.clean, one.indices) for one in answers]),
        quantity=SHARE,
        runs=runs,
    )
    by_image = _known([(one.adversarial.int() - one.clean.int(), one.indices) for one in answers])
    excess = excess_cell(counts, by_image=by_image, runs=runs)
    pair = f"{maker} to {victim}"
    return Erratum(
        name="7 transfer",
        printed="the error on the examples",
        correct="its excess over the clean error of the same images",
        note="Erratum 7: both errors on the same images, and their difference image by image.",
        lines=lines(
            (f"{pair}, error on the examples, %", transfer),
            (f"{pair}, error on the same images unperturbed, %", clean),
            (f"{pair}, excess, points", excess),
        ),
        needs=f"networks {maker} and {victim}, and a set of attack=lbfgs attack.targets=random of the first",
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
        runs = _runs((one, network) for one, network, _ in members)
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


def table_1_and_figure_7(material: Material) -> Erratum:
    """Erratum 9: two numbers for one mean distortion, nearer to one another than the sample can tell apart."""
    name = "FC200-200-10"
    pairs = material.sets([name], *LBFGS).get(name, [])
    values = [one.distortion for one, _ in pairs]
    runs = _runs(pairs)
    found = [Line(what=f"{name}, distortion", cell=cell)] if (cell := _distortion(material, pairs, name)) else []
    pooled = torch.cat(values) if values else torch.zeros(0)
    if len(pooled) > 1:
        half = mean_interval(0.0, float(pooled.std()), paper.NUM_ADVERSARIAL).high
        cell = Cell(quantity=DISTORTION, value=half, interval=None, n=len(pooled), runs=tuple(runs))
        found.append(Line(what=f"{name}, half-width of an interval of {paper.NUM_ADVERSARIAL} images", cell=cell))
    if len(values) > 1:
        means = torch.stack([value.double().mean() for value in values])
        cell = _over_seeds(means, quantity=DISTORTION, runs=runs)
        found.append(Line(what=f"{name}, distortion, mean over seeds", cell=cell, of="seeds"))
    return Erratum(
        name="9 distortion",
        printed=".065 in Table 1, .063 in Figure 7",
        correct="one number; 256 images cannot tell the two apart",
        note="Erratum 9: the mean over images, the half-width of the 95 % interval of so many images as the paper "
        "evidently had, and Student's t over the means of the seeds.",
        lines=tuple(found),
        needs=f"{name} with a set of attack=lbfgs attack.targets=random",
    )


def processor(material: Material) -> Erratum:
    """Erratum 11: results of trainings move with the seed and the processor."""
    place = HALVES, HALF[0]
    name = f"{place[1]} trained on P1, error on P2"
    members = [one for one in material.networks.get(place, ()) if one.error("p2").n]
    rates = torch.tensor([one.error("p2").percent for one in members], dtype=torch.float64)
    runs = [one.name for one in members]
    found: list[tuple[str, Cell | None]] = []
    if len(rates) > 1:
        width = Cell(
            quantity=PERCENT, value=float(rates.max() - rates.min()), interval=None, n=len(rates), runs=tuple(runs)
        )
        found += [
            (f"{name}, mean over seeds, %", _over_seeds(rates, quantity=PERCENT, runs=runs)),
            (f"{name}, largest minus smallest of the seeds, points", width),
        ]
    counted = [one for one in material.runs.get(place, ()) if one.error("p2").n]
    pairs = [
        (one, other)
        for number, one in enumerate(counted)
        for other in counted[:number]
        if one.seed == other.seed and one.checkpoint_sha256 != other.checkpoint_sha256
    ]
    if pairs:
        moved = [abs(one.error("p2").percent - other.error("p2").percent) for one, other in pairs]
        both = tuple(dict.fromkeys(run.name for pair in pairs for run in pair))
        cell = Cell(quantity=PERCENT, value=max(moved), interval=None, n=len(pairs), runs=both)
        found.append((f"{name}, largest difference of two runs of one seed, points", cell))
    return Erratum(
        name="11 seeds",
        printed="one training of each network",
        correct="several seeds: one is no result",
        note="Erratum 11: Student's t over seeds. The same seed on another kind of processor is one more run of the "
        "network under another name: ATEN_CPU_CAPABILITY=default chooses PyTorch's plain kernels.",
        lines=lines(*found, of="seeds"),
        needs=f"{place[1]} trained on P1 from two seeds or more",
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


def _distortion(material: Material, pairs: Sequence[Pair], name: str) -> Cell | None:
    return distortion_cell(
        [one.distortion for one, _ in pairs],
        ("table1", name, paper.DISTORTION),
        indices=[one.indices for one, _ in pairs],
        judge=material.judged,
        runs=made_by(one for one, _ in pairs),
    )


def _over_seeds(values: Tensor, *, quantity: Quantity, runs: Sequence[str]) -> Cell:
    return Cell(
        quantity=quantity, value=float(values.mean()), interval=t_interval(values), n=len(values), runs=tuple(runs)
    )


def _known(by_image: Sequence[ByImage]) -> list[ByImage]:
    """Return the values where the images of all of them are known; else nothing."""
    return list(by_image) if all(values.shape == indices.shape for values, indices in by_image) else []


def _runs(pairs: Iterable[Pair]) -> list[str]:
    return list(dict.fromkeys(name for one, network in pairs for name in (one.name, network.name)))

"""Errata of sections 4.1 and 4.2 on noise, transfer, distortions and seeds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from intriguing.analysis import paper
from intriguing.analysis.cells import HALVES, error_cell, excess_cell
from intriguing.analysis.errata.erratum import PERCENT, SHARE, Erratum, Line, lines
from intriguing.analysis.errata.material import HALF, LBFGS, LINEAR, NOISE, Material, known, run_names
from intriguing.analysis.measure import short
from intriguing.results import DISTORTION, Cell, Quantity
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import mean_interval, t_interval


def clipped_noise(material: Material) -> Erratum:
    """Erratum 5: Gaussian noise that is not clipped gives the paper's error."""
    (name, *_), row = LINEAR, f"Gaussian {short(NOISE)}"
    pairs = material.sets([name], *LBFGS).get(name, [])
    found = []
    for words, clip in (("not clipped", False), ("clipped", True)):
        noise = [(network, material.observed(one).noise.get(clip)) for one, network in pairs]
        counted = [(network, errors) for network, errors in noise if errors is not None]
        cell = error_cell(
            [(network.seed, Count.of(wrong)) for network, (wrong, _) in counted],
            ("table2", row, name),
            by_image=known([errors for _, errors in counted]),
            judge=material.judged,
            quantity=SHARE,
            runs=[network.name for network, _ in counted],
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
    runs, seeds = run_names(pairs), [network.seed for _, network in pairs]
    transfer = error_cell(
        [(seed, count.first) for seed, count in zip(seeds, counts, strict=True)],
        ("table2", maker, victim),
        by_image=known([(one.adversarial, one.indices) for one in answers]),
        judge=material.judged,
        quantity=SHARE,
        runs=runs,
    )
    clean = error_cell(
        [(seed, count.second) for seed, count in zip(seeds, counts, strict=True)],
        by_image=known([(one.clean, one.indices) for one in answers]),
        quantity=SHARE,
        runs=runs,
    )
    by_image = known([(one.adversarial.int() - one.clean.int(), one.indices) for one in answers])
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


def table_1_and_figure_7(material: Material) -> Erratum:
    """Erratum 9: two numbers for one mean distortion, nearer to one another than the sample can tell apart."""
    name = "FC200-200-10"
    pairs = material.sets([name], *LBFGS).get(name, [])
    values = [one.distortion for one, _ in pairs]
    runs = run_names(pairs)
    found = [Line(what=f"{name}, distortion", cell=cell)] if (cell := material.distortion(pairs, name)) else []
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


def _over_seeds(values: Tensor, *, quantity: Quantity, runs: Sequence[str]) -> Cell:
    return Cell(
        quantity=quantity, value=float(values.mean()), interval=t_interval(values), n=len(values), runs=tuple(runs)
    )

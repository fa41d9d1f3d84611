"""Section "back_feeding": one network trained with and without pools, arm by arm over seeds (section 4.2).

An arm is compared with the one that differs from it in the pools alone, never with whatever else has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from intriguing.analysis.cells import one_attack
from intriguing.analysis.drawing import COLOURS, GREY, MARKERS, canvas, chart, style
from intriguing.analysis.identity import NetworkId, differences, tell_apart
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet
from intriguing.analysis.sections import Made, Material
from intriguing.errors import UserError, plural
from intriguing.metrics import Interval
from intriguing.results import Cell, Figure, Table

ATTACKS = ("lbfgs", "nearest")
BASELINE = "weight decay"
CURVE = "curve/test_error"
PAPER = {BASELINE: "1.6 %", "dropout": "about 1.3 %", "all pools": "below 1.2 %"}
"""Test errors as section 4.2 gives them."""

_ERROR, _TRAIN, _GAIN, _P = "test error, %", "train error, %", "less than weight decay, points", "p (paired t)"
_TO, _FROM = "fooled by weight decay's, %", "fools weight decay's, %"


POOLS = "callbacks.back_feeding."
_DROPOUT = "model.settings.dropout"
_TRAINING = (_DROPOUT, *(f"model.settings.{key}" for key in ("learning_rate", "softmax_rate", "optimizer", "schedule")))
"""Settings of a model that are a way of training it; all others make it another network."""


@dataclass
class Arm:
    """The networks of one way of training, a seed each.

    Attributes:
        name: in words.
        networks: by seed.
        sets: the measurement of one adversarial set of each attack, by seed.
        baseline: the arm it is compared with; None where there is none.
    """

    name: str
    networks: dict[int, Network] = field(default_factory=dict)
    sets: dict[int, list[MeasuredSet]] = field(default_factory=dict)
    baseline: Arm | None = None

    @property
    def id(self) -> NetworkId:
        """What its networks share."""
        return next(iter(self.networks.values())).id

    @property
    def plain(self) -> bool:
        """Whether it has weight decay alone."""
        return arm_name(next(iter(self.networks.values())).config) == BASELINE

    @property
    def seeds(self) -> list[int]:
        return sorted(self.networks)

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the networks' runs."""
        return tuple(self.networks[seed].name for seed in self.seeds)

    def attacks(self, attack: str) -> tuple[str, ...]:
        """Names of the runs of one attack."""
        return tuple(s.name for seed in sorted(self.sets) for s in self.sets[seed] if s.attack.get("name") == attack)

    def errors(self, subset: str = "test") -> dict[int, float]:
        """Error in percent by seed."""
        return {seed: 100 * one.errors[subset][0] / one.errors[subset][1] for seed, one in self.networks.items()}

    def distortions(self, attack: str) -> dict[int, float]:
        """Mean distortion that the attack needed, by seed; a seed without a success is left out."""
        found = {seed: [s for s in sets if s.attack.get("name") == attack] for seed, sets in self.sets.items()}
        return {seed: float(sets[0].distortion.mean()) for seed, sets in found.items() if sets and sets[0].num_success}


def arm_name(config: Mapping[str, Any]) -> str:
    """How a network was trained, in words, from its resolved configuration."""
    feed = (config.get("callbacks") or {}).get("back_feeding")
    dropout = config.get("model", {}).get("settings", {}).get("dropout")
    if not feed:
        return "dropout" if dropout and any(dropout) else BASELINE
    layers = feed.get("layers")
    what = "all pools" if layers is None else " and ".join(f"{layer} pool" for layer in layers)
    if feed.get("attack") == "noise":
        what = f"{what}, noise"
    elif feed.get("attack") == "lbfgs":
        what = f"{what}, L-BFGS"
    elif feed.get("num_steps", 1) > 1:
        what = f"{what}, PGD-{feed['num_steps']}"
    return f"{what}, dropout" if dropout and any(dropout) else what


def section(material: Material) -> Made:
    """Make the arms' table, their curves, and robustness against error, for each network that was trained with pools.

    Returns:
        One of each for every network that has two arms, one of them with pools or dropout.

    Raises:
        UserError: two runs of one arm and seed.
    """
    tables, figures, sentences = [], [], []
    for key, (name, arms) in families(material.networks).items():
        _add_sets(arms, material.measured)
        tables.append(_table(key, name, arms))
        figures += [_curves_figure(key, name, arms), _scatter_figure(key, name, arms)]
        sentences += _summary(name, arms)
    return Made(
        tables=tuple(tables),
        figures=tuple(figure for figure in figures if figure is not None),
        summary=tuple(sentences),
    )


def families(networks: Sequence[Network]) -> dict[str, tuple[str, list[Arm]]]:
    """Sort networks by their shape, data and split, and then by how they were trained.

    Returns:
        Name (empty where there is only one family) and arms, the baseline first, by the key of the family's table.

    Raises:
        UserError: two runs of one arm and seed.
    """
    shapes: dict[tuple[object, ...], list[Network]] = {}
    for one in networks:
        shape = tuple(pair for pair in one.id.architecture if pair[0] not in _TRAINING)
        shapes.setdefault((one.id.name, shape, one.data_set, one.split), []).append(one)
    found = [(members[0].id.name, _arms(members)) for members in shapes.values()]
    found = [(name, arms) for name, arms in found if len(arms) > 1 and not all(arm.plain for arm in arms)]
    if len(found) == 1:
        return {"back_feeding": ("", found[0][1])}
    names = tell_apart([name for name, _ in found], [dict(arms[0].id.settings) for _, arms in found])
    stems = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in names]
    return {f"back_feeding_{stem}": (name, arms) for stem, name, (_, arms) in zip(stems, names, found, strict=True)}


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Student's interval of a mean over seeds; None for fewer than two."""
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = error * float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    return Interval(mean - half, mean + half)


def paired_p(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p-value of the paired t-test; None for fewer than two pairs, or where all differences are equal."""
    differences = np.subtract(first, second)
    if len(differences) < 2 or np.ptp(differences) == 0:
        return None
    return float(stats.ttest_rel(first, second).pvalue)


def _arms(networks: Sequence[Network]) -> list[Arm]:
    """The arms of one family in the order in which they were trained, baselines first."""
    names = tell_apart([arm_name(n.config) for n in networks], [dict(n.id.settings) for n in networks])
    arms: dict[str, Arm] = {}
    for name, one in zip(names, networks, strict=True):
        arm = arms.setdefault(name, Arm(name))
        if one.seed in arm.networks:
            raise UserError(
                f"two networks are {one.id.name} with {name}, seed {one.seed}: {arm.networks[one.seed].name} and "
                f"{one.name}; give one of them"
            )
        arm.networks[one.seed] = one
    found = sorted(arms.values(), key=lambda arm: not arm.plain)
    for arm in found:
        arm.baseline = _baseline(arm, found)
    return found


def _baseline(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The arm with the same settings but for the pools, or for the dropout; for dropout else the only plain arm."""
    pools = any(key.startswith(POOLS) for key, _ in arm.id.settings)
    what = POOLS if pools else _DROPOUT
    same = [one for one in arms if one is not arm and one.id.settings == arm.id.without(what)]
    plain = [one for one in arms if one.plain]
    return same[0] if same else plain[0] if not pools and not arm.plain and len(plain) == 1 else None


def _add_sets(arms: Sequence[Arm], measured: Sequence[MeasuredSet]) -> None:
    """Give each arm one set of each attack, of the same settings in all arms."""
    places = {one.name: (arm, seed) for arm in arms for seed, one in arm.networks.items()}
    for attack in ATTACKS:
        for one in one_attack(s for s in measured if s.attack.get("name") == attack and s.source in places):
            arm, seed = places[one.source or ""]
            arm.sets.setdefault(seed, []).append(one)


def _mean(values: Mapping[int, float], quantity: str, runs: tuple[str, ...]) -> Cell | None:
    if not values:
        return None
    numbers = list(values.values())
    mean, interval = float(np.mean(numbers)), t_interval(numbers)
    return Cell(quantity=quantity, value=mean, interval=interval, n=len(numbers), runs=runs)


def _table(key: str, name: str, arms: Sequence[Arm]) -> Table:
    cells: dict[tuple[str, str], Cell | None] = {}
    attacks = [attack for attack in ATTACKS if any(arm.distortions(attack) for arm in arms)]
    columns = [_ERROR, _TRAIN, _GAIN, _P, *(f"distortion, {attack}" for attack in attacks), _FROM, _TO]
    for arm in arms:
        error, base = arm.errors(), arm.baseline
        cells[arm.name, _ERROR] = _mean(error, "percent", arm.runs)
        cells[arm.name, _TRAIN] = _mean(arm.errors("train"), "percent", arm.runs)
        for attack in attacks:
            cells[arm.name, f"distortion, {attack}"] = _mean(arm.distortions(attack), "rms", arm.attacks(attack))
        if base is None:
            continue
        both, plain = (*arm.runs, *base.runs), base.errors()
        shared = [seed for seed in arm.seeds if seed in plain]
        if shared:
            gains = {seed: plain[seed] - error[seed] for seed in shared}
            cells[arm.name, _GAIN] = _mean(gains, "points", both)
            p = paired_p([plain[s] for s in shared], [error[s] for s in shared])
            if p is not None:
                cells[arm.name, _P] = Cell(quantity="p", value=p, interval=None, n=len(shared), runs=both)
        cells[arm.name, _FROM] = _mean(_transfer(arm, base), "percent", (*arm.attacks("lbfgs"), *base.runs))
        cells[arm.name, _TO] = _mean(_transfer(base, arm), "percent", (*base.attacks("lbfgs"), *arm.runs))
    sets = [one for arm in arms for found in arm.sets.values() for one in found]
    images = f", {plural(sets[0].num, 'image')} an attack" if sets else ""
    seeds = sorted({seed for arm in arms for seed in arm.seeds})
    paper = ", ".join(f"{way} {value}" for way, value in PAPER.items())
    return Table(
        key=key,
        title="Back-feeding: training on adversarial examples of every layer" + (f" · {name}" if name else ""),
        caption="One row for each way of training the same network; each number is a mean over seeds. The distortion "
        "is what an attack needs to fool the trained network; transfer is the share of adversarial examples (lbfgs) "
        "made for one network that fool the other of the same seed, less what it gets wrong without a perturbation.",
        row_header="training",
        rows=tuple(arm.name for arm in arms),
        columns=tuple(columns),
        cells={place: cell for place, cell in cells.items() if cell is not None},
        sample=f"{plural(len(seeds), 'seed')} ({', '.join(map(str, seeds))}){images}",
        method="95 % interval of Student's t over the seeds; the p-value is that of the two-sided paired t-test "
        "against weight decay alone",
        notes=(f"The paper gives test errors without a spread or a number of seeds: {paper}.", *_comparisons(arms)),
        runs=tuple(run for arm in arms for run in arm.runs),
    )


def _comparisons(arms: Sequence[Arm]) -> list[str]:
    """What a reader must know of the arms that are not compared with weight decay alone, all else being equal."""
    notes = []
    for arm in arms:
        if arm.baseline is None:
            if not arm.plain:
                notes.append(f"{arm.name}: nothing to compare with, for no network without pools has its settings.")
            continue
        if arm.baseline.name != BASELINE:
            notes.append(f"{arm.name}: compared with {arm.baseline.name}.")
        if other := differences(arm.id, arm.baseline.id, POOLS, _DROPOUT):
            notes.append(f"{arm.name} differs from {arm.baseline.name} also in its own settings: {other}.")
    return notes


def _transfer(source: Arm, victim: Arm) -> dict[int, float]:
    """By seed, percent of the source's lbfgs examples that fool the victim, less its errors on the originals."""
    found = {}
    for seed, sets in source.sets.items():
        chosen = [one for one in sets if one.attack.get("name") == "lbfgs"]
        if not chosen or seed not in victim.networks:
            continue
        outcome = chosen[0].outcomes.get(victim.networks[seed].name)
        if outcome is not None and outcome.against_clean.n:
            counts = outcome.against_clean
            found[seed] = 100 * (counts.only_first - counts.only_second) / counts.n
    return found


def _summary(name: str, arms: Sequence[Arm]) -> list[str]:
    sentences = []
    for arm in arms:
        base = arm.baseline.errors() if arm.baseline else {}
        shared = [seed for seed in arm.seeds if seed in base]
        if not arm.name.startswith("all pools") or not shared or arm.baseline is None:
            continue
        error = arm.errors()
        own, plain = (float(np.mean([one[s] for s in shared])) for one in (error, base))
        p = paired_p([base[s] for s in shared], [error[s] for s in shared])
        tested = f" (paired t-test over {len(shared)} seeds: p = {p:.2g})" if p is not None else ""
        more = arm.name.removeprefix("all pools")
        sentences.append(
            f"Pools of adversarial examples for every layer{f' of {name}' if name else ''}{more} bring the test error "
            f"from {plain:.2f} % with {arm.baseline.name}{'' if more else ' alone'} to {own:.2f} %{tested}; the paper "
            "says from 1.6 to below 1.2 %."
        )
    return sentences


def _colours(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def _curves_figure(key: str, name: str, arms: Sequence[Arm]) -> Figure | None:
    """Test error over training, a line an arm with a band from the lowest to the highest seed."""
    drawn_arms = [arm for arm in arms if all(CURVE in one.curves for one in arm.networks.values())]
    if len(drawn_arms) < 2:
        return None
    with style():
        figure = canvas(8.6, 4.6)
        axes = figure.subplots()
        for index, arm in enumerate(drawn_arms):
            curves = [list(one.curves[CURVE]) for one in arm.networks.values()]
            length = min(map(len, curves))
            values = 100 * np.array([curve[:length] for curve in curves])
            epochs = np.arange(1, length + 1)
            look = _colours(index)
            axes.fill_between(epochs, values.min(0), values.max(0), color=look["color"], alpha=0.15, linewidth=0)
            axes.plot(epochs, values.mean(0), label=arm.name, markevery=max(1, length // 8), markersize=4, **look)
        last = [100 * one.curves[CURVE][-1] for arm in drawn_arms for one in arm.networks.values()]
        axes.set(xlabel="epoch", ylabel="test error, %", ylim=(0.9 * min(last), 2.2 * float(np.median(last))))
        axes.grid(axis="y")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return chart(
        figure,
        key=f"{key}_curves",
        title="Test error over training" + (f" · {name}" if name else ""),
        caption="Test error after each epoch, the mean over seeds, with a band from the lowest to the highest seed.",
        alt=f"Line chart of the test error over epochs for {', '.join(arm.name for arm in drawn_arms)}.",
        runs=tuple(run for arm in drawn_arms for run in arm.runs),
    )


def _scatter_figure(key: str, name: str, arms: Sequence[Arm]) -> Figure | None:
    """Distortion needed to fool each network against its test error, a point a run."""
    attack = next((name for name in ("nearest", "lbfgs") if any(arm.distortions(name) for arm in arms)), None)
    if attack is None:
        return None
    with style():
        figure = canvas(8.6, 4.6)
        axes = figure.subplots()
        for index, arm in enumerate(arms):
            error, distortion = arm.errors(), arm.distortions(attack)
            seeds = [seed for seed in arm.seeds if seed in distortion]
            look = _colours(index)
            axes.plot([error[s] for s in seeds], [distortion[s] for s in seeds], linestyle="", label=arm.name, **look)
        axes.axvline(1.2, color=GREY, linewidth=1, linestyle="--")
        axes.set(xlabel="test error, %", ylabel=f"mean distortion that {attack} needs")
        axes.grid()
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return chart(
        figure,
        key=f"{key}_robustness",
        title="Robustness against test error" + (f" · {name}" if name else ""),
        caption=f"A point for each run: test error, and the mean per-pixel RMS distortion with which {attack} fools "
        "it. The dashed line is the 1.2 % below which the paper's network came.",
        alt="Scatter plot of the distortion needed to fool a network against its test error, one colour for each way "
        "of training.",
        runs=tuple(run for arm in arms for run in (*arm.runs, *arm.attacks(attack))),
    )

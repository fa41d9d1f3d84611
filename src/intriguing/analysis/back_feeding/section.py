"""Section "back_feeding": one network trained with and without pools, arm by arm over seeds (section 4.2).

An arm is compared with the one that differs from it in the pools alone, never with whatever else has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import nn

from intriguing.analysis.cells import one_attack
from intriguing.analysis.drawing import COLOURS, GREY, MARKERS, canvas, chart, style
from intriguing.analysis.identity import NetworkId, differences, tell_apart
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.callbacks.split_network import INPUT, injectable_layers
from intriguing.errors import UserError, plural
from intriguing.results import Cell, Figure, Table
from intriguing.statistics.intervals import Interval
from intriguing.statistics.tests import holm

ATTACKS = ("lbfgs", "nearest")
BASELINE = "weight decay"
CURVE = "curve/test_error"
PAPER = {BASELINE: "1.6 %", "dropout": "about 1.3 %", "all pools": "below 1.2 %"}
"""Test errors as section 4.2 gives them."""

_ERROR, _TRAIN, _GAIN, _P = "test error, %", "train error, %", "less than weight decay, points", "p (paired t)"
_Q = "p, corrected"
LEVEL = 0.05
_TO, _FROM = "fooled by weight decay's, %", "fools weight decay's, %"


POOLS = "callbacks.back_feeding."
_DROPOUT = "model.settings.dropout"
_TRAINING = (_DROPOUT, *(f"model.settings.{key}" for key in ("learning_rate", "softmax_rate", "optimizer", "schedule")))
"""Settings of a model that are a way of training it; all others make it another network."""
_RATES = ("model.settings.learning_rate", "model.settings.softmax_rate")


@dataclass
class Arm:
    """The networks of one way of training, a seed each.

    Attributes:
        name: in words.
        networks: by seed.
        sets: the measurement of one adversarial set of each attack, by seed.
        baseline: the arm it is compared with; None where there is none.
        matched: the arm without pools whose rate and decay make up for the larger loss of this one; None where the loss
            is no larger, or where there is no such arm.
        matches: for an arm without pools, how many times as large a loss it makes up for; None for all others.
    """

    name: str
    networks: dict[int, Network] = field(default_factory=dict)
    sets: dict[int, list[MeasuredSet]] = field(default_factory=dict)
    baseline: Arm | None = None
    matched: Arm | None = None
    matches: float | None = None

    @property
    def first(self) -> Network:
        """One of its networks."""
        return next(iter(self.networks.values()))

    @property
    def scale(self) -> float | None:
        """How many times as large the loss is as without pools; None where the number of pools is not known."""
        return loss_scale(self.first)

    @property
    def mnist(self) -> bool:
        """Whether it was trained on the paper's data."""
        return self.first.data == "mnist"

    @property
    def id(self) -> NetworkId:
        """What its networks share."""
        return self.first.id

    @property
    def plain(self) -> bool:
        """Whether it has weight decay alone."""
        return arm_name(self.first.config) == BASELINE

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


def _feed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of the pools; empty without them."""
    return (config.get("callbacks") or {}).get("back_feeding") or {}


def loss_scale(network: Network) -> float | None:
    """Return how many times as large the loss is as that of the originals alone.

    With ``keep_scale=false`` each pool in a step adds its loss, so that gradients grow: the network is trained as if
    its learning rate were that many times as large and its weight decay that much smaller.

    Returns:
        1 without pools or with ``keep_scale``; None where the number of pools is not known.
    """
    feed = _feed(network.config)
    if not feed or feed.get("keep_scale", True):
        return 1.0
    weight = float(feed.get("weight", 1.0))
    if feed.get("turns") == "alternate":
        return 1 + weight
    if feed.get("layers") is not None:
        return 1 + weight * len(feed["layers"])
    chain = getattr(network.module, "network", network.module)
    if isinstance(chain, nn.Sequential):
        return 1 + weight * len(injectable_layers(chain))
    widths = network.config.get("model", {}).get("settings", {}).get("widths")
    return None if widths is None else 1 + weight * (1 + len(widths))


def arm_name(config: Mapping[str, Any]) -> str:
    """How a network was trained, in words, from its resolved configuration."""
    feed = _feed(config)
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


def section(inputs: SectionInputs) -> SectionOutput:
    """Make the arms' table, their curves, and robustness against error, for each network that was trained with pools.

    Returns:
        One of each for every network that has two arms, one of them with pools or dropout.

    Raises:
        UserError: two runs of one arm and seed.
    """
    tables, figures, sentences = [], [], []
    for key, (name, arms) in families(inputs.networks).items():
        _add_sets(arms, inputs.sets)
        tests = comparisons(arms)
        tables += [_table(key, name, arms, tests), *_test_tables(key, name, tests)]
        figures += [_curves_figure(key, name, arms), _scatter_figure(key, name, arms)]
        sentences += _summary(name, arms, tests)
    return SectionOutput(
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
    matches = [_matches(one, networks) for one in networks]
    names = [
        arm_name(one.config) if scale is None else _matched_name(one.config, scale)
        for one, scale in zip(networks, matches, strict=True)
    ]
    names = tell_apart(names, [dict(n.id.settings) for n in networks])
    arms: dict[str, Arm] = {}
    for name, one, scale in zip(names, networks, matches, strict=True):
        arm = arms.setdefault(name, Arm(name, matches=scale))
        if one.seed in arm.networks:
            raise UserError(
                f"two networks are {one.id.name} with {name}, seed {one.seed}: {arm.networks[one.seed].name} and "
                f"{one.name}; give one of them"
            )
        arm.networks[one.seed] = one
    found = sorted(arms.values(), key=lambda arm: not arm.plain)
    for arm in found:
        arm.baseline = _baseline(arm, found)
        arm.matched = next((one for one in found if one.plain and _makes_up(one.first, arm.first)), None)
    return found


def _matches(network: Network, networks: Sequence[Network]) -> float | None:
    """How many times as large a loss of another network this one makes up for, if it is no baseline of another."""
    if arm_name(network.config) != BASELINE:
        return None
    fed = [one for one in networks if _feed(one.config)]
    if any(one.id.without(POOLS) == network.id.settings for one in fed):
        return None
    return next((loss_scale(one) for one in fed if _makes_up(network, one)), None)


def _matched_name(config: Mapping[str, Any], scale: float) -> str:
    """ "weight decay, rate x 4, decay / 4"."""
    adam = config.get("model", {}).get("settings", {}).get("optimizer") == "adam"
    return f"{BASELINE}, " + ("" if adam else f"rate x {scale:g}, ") + f"decay / {scale:g}"


def _makes_up(plain: Network, fed: Network) -> bool:
    """Whether a network without pools has the other's settings, but a rate and decay that make up for its larger loss.

    A loss s times as large is, to SGD, a rate s times as large with a decay s times smaller. Adam does not see the
    scale of a loss: there the decay alone is s times smaller.
    """
    scale = loss_scale(fed)
    if scale is None or scale == 1:
        return False
    one, other = (
        {key: value for key, value in pairs if key != "model.label"}
        for pairs in (plain.id.settings, fed.id.without(POOLS))
    )
    if one.keys() != other.keys():
        return False
    faster = 1.0 if other.get("model.settings.optimizer") == '"adam"' else scale
    factors = {"weight_decay.value": 1 / scale, **dict.fromkeys(_RATES, faster)}
    return all(_scaled(one[key], other[key], factors[key]) if key in factors else one[key] == other[key] for key in one)


def _scaled(first: str, second: str, factor: float) -> bool:
    """Whether numbers, as JSON, are others times a factor."""
    ours, theirs = (np.atleast_1d(np.asarray(json.loads(text), dtype=float)) for text in (first, second))
    return ours.shape == theirs.shape and bool(np.allclose(ours, factor * theirs, rtol=1e-6, atol=0))


@dataclass(frozen=True)
class Comparison:
    """Test errors of two arms, seed by seed.

    Attributes:
        first, second: the arms; the second is expected to err less.
        gains: by seed, the first's test error less the second's, in points.
        p: of the two-sided paired t-test; None for fewer than two seeds.
        q: p corrected over all comparisons of the same network (Holm); None without p.
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
    def words(self) -> str:
        """Test, and whether a difference was shown."""
        if self.p is None or self.q is None:
            return "too few seeds for a test"
        shown = "a difference was shown" if self.q < LEVEL else "no difference was shown"
        return f"{shown}, paired t-test over {len(self.gains)} seeds: p = {self.p:.2g}, corrected {self.q:.2g}"


def comparisons(arms: Sequence[Arm]) -> list[Comparison]:
    """Compare each arm with its baseline, with the baseline of equal loss scale, and all pools with those of the input.

    Returns:
        Those with a seed in common, the p-values corrected over all of them.
    """
    pairs = [(arm.baseline, arm) for arm in arms if arm.baseline] + [(arm.matched, arm) for arm in arms if arm.matched]
    for arm in arms:
        if _whole(arm):
            pairs += [
                (one, arm)
                for one in arms
                if list(_feed(one.first.config).get("layers") or ()) == [INPUT]
                and _feed(one.first.config).get("attack") != "noise"
                and one.id.without(POOLS) == arm.id.without(POOLS)
            ]
    found = []
    for first, second in pairs:
        one, other = first.errors(), second.errors()
        gains = {seed: one[seed] - other[seed] for seed in second.seeds if seed in one}
        if gains:
            found.append(
                Comparison(first, second, gains, paired_p(*zip(*((one[s], other[s]) for s in gains), strict=True)))
            )
    tested = [i for i, one in enumerate(found) if one.p is not None]
    for i, q in zip(
        tested, holm(torch.tensor([found[i].p for i in tested], dtype=torch.float64)).tolist(), strict=True
    ):
        found[i] = replace(found[i], q=q)
    return found


def _whole(arm: Arm) -> bool:
    """Whether it has a pool for every layer."""
    feed = _feed(arm.first.config)
    return bool(feed) and feed.get("layers") is None and feed.get("attack") != "noise"


def _baseline(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The arm with the same settings but for the pools, or for the dropout; for dropout else the only plain arm."""
    pools = any(key.startswith(POOLS) for key, _ in arm.id.settings)
    what = POOLS if pools else _DROPOUT
    same = [one for one in arms if one is not arm and one.id.settings == arm.id.without(what)]
    plain = [one for one in arms if one.plain and one.matches is None]
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


def _table(key: str, name: str, arms: Sequence[Arm], tests: Sequence[Comparison]) -> Table:
    cells: dict[tuple[str, str], Cell | None] = {}
    attacks = [attack for attack in ATTACKS if any(arm.distortions(attack) for arm in arms)]
    columns = [_ERROR, _TRAIN, _GAIN, _P, _Q, *(f"distortion, {attack}" for attack in attacks), _FROM, _TO]
    for arm in arms:
        error, base = arm.errors(), arm.baseline
        cells[arm.name, _ERROR] = _mean(error, "percent", arm.runs)
        cells[arm.name, _TRAIN] = _mean(arm.errors("train"), "percent", arm.runs)
        for attack in attacks:
            cells[arm.name, f"distortion, {attack}"] = _mean(arm.distortions(attack), "rms", arm.attacks(attack))
        if base is None:
            continue
        for one in tests:
            if one.first is base and one.second is arm:
                _test_cells(cells, arm.name, one, (_GAIN, _P, _Q))
        cells[arm.name, _FROM] = _mean(_transfer(arm, base), "percent", (*arm.attacks("lbfgs"), *base.runs))
        cells[arm.name, _TO] = _mean(_transfer(base, arm), "percent", (*base.attacks("lbfgs"), *arm.runs))
    sets = [one for arm in arms for found in arm.sets.values() for one in found]
    images = f", {plural(sets[0].num, 'image')} an attack" if sets else ""
    seeds = sorted({seed for arm in arms for seed in arm.seeds})
    paper = ", ".join(f"{way} {value}" for way, value in PAPER.items())
    where = "" if arms[0].mnist else f", on MNIST (these networks saw {arms[0].first.data_set})"
    paper = f"The paper gives test errors without a spread or a number of seeds{where}: {paper}."
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
        f"against weight decay alone, {_CORRECTED}",
        notes=(paper, *_comparisons(arms), *_previous_batch(arms)),
        runs=tuple(run for arm in arms for run in arm.runs),
    )


_CORRECTED = "corrected over all comparisons of this network, those of the next table too (Holm)"


def _test_cells(
    cells: dict[tuple[str, str], Cell | None], row: str, one: Comparison, columns: tuple[str, str, str]
) -> None:
    cells[row, columns[0]] = _mean(one.gains, "points", one.runs)
    for column, value in zip(columns[1:], (one.p, one.q), strict=True):
        if value is not None:
            cells[row, column] = Cell(quantity="p", value=value, interval=None, n=len(one.gains), runs=one.runs)


def _test_tables(key: str, name: str, tests: Sequence[Comparison]) -> list[Table]:
    """The comparisons beyond those with weight decay alone; none, or one table."""
    beyond = [one for one in tests if one.first is not one.second.baseline]
    if not beyond:
        return []
    cells: dict[tuple[str, str], Cell | None] = {}
    columns = ("less test error, points", _P, _Q)
    rows = [f"{one.second.name} against {one.first.name}" for one in beyond]
    for row, one in zip(rows, beyond, strict=True):
        _test_cells(cells, row, one, columns)
    return [
        Table(
            key=f"{key}_tests",
            title="What the pools add" + (f" · {name}" if name else ""),
            caption="With keep_scale=false each pool's loss is added to that of the originals, which also makes every "
            "step larger. Weight decay at that many times the rate, with as many times less decay, makes steps as "
            "large without pools: what the pools gain over it is theirs. Pools of all layers are compared with the "
            "input's alone too; where those have another number of pools, a part of the difference may be the rate's.",
            row_header="comparison",
            rows=tuple(rows),
            columns=columns,
            cells={place: cell for place, cell in cells.items() if cell is not None},
            sample=f"{plural(max(len(one.gains) for one in beyond), 'seed')}",
            method="Mean over the seeds that both have, with its 95 % interval of Student's t; two-sided paired t-test "
            "corrected over all comparisons of this network, those of the table before too (Holm)",
            runs=tuple(dict.fromkeys(run for one in beyond for run in one.runs)),
        )
    ]


def _comparisons(arms: Sequence[Arm]) -> list[str]:
    """What a reader must know of the arms that are not compared with weight decay alone, all else being equal."""
    notes = []
    for arm in arms:
        if not arm.plain and arm.scale != 1 and arm.matched is None:
            scale = "larger" if arm.scale is None else f"{arm.scale:g} times as large"
            notes.append(
                f"{arm.name}: its loss is {scale}, and no network without pools has a rate and decay that make up for "
                "it: a part of its gain may be the rate's."
            )
        if arm.baseline is None:
            if not arm.plain:
                notes.append(f"{arm.name}: nothing to compare with, for no network without pools has its settings.")
            continue
        if arm.baseline.name != BASELINE:
            notes.append(f"{arm.name}: compared with {arm.baseline.name}.")
        if other := differences(arm.id, arm.baseline.id, POOLS, _DROPOUT):
            notes.append(f"{arm.name} differs from {arm.baseline.name} also in its own settings: {other}.")
    return notes


def _previous_batch(arms: Sequence[Arm]) -> list[str]:
    """Say of which arms a pool holds nothing but the examples of the batch before."""
    names = []
    for arm in arms:
        feed, batch = _feed(arm.first.config), arm.first.config.get("data", {}).get("batch_size")
        if not feed or batch is None or "size" not in feed or feed["size"] > batch:
            continue
        if feed.get("refresh", 1.0) == 1 and feed.get("every", 1) == 1:
            names.append(arm.name)
    if not names:
        return []
    return [
        f"{'; '.join(names)}: a pool holds no more than one batch and is renewed whole at every step, so it is the "
        "adversarial examples of the batch before, not a collection that lasts."
    ]


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


def _summary(name: str, arms: Sequence[Arm], tests: Sequence[Comparison]) -> list[str]:
    sentences = []
    for arm in arms:
        own = [one for one in tests if one.second is arm]
        base = next((one for one in own if one.first is arm.baseline), None)
        if not arm.name.startswith("all pools") or base is None:
            continue
        more = arm.name.removeprefix("all pools")
        paper = "; the paper says from 1.6 to below 1.2 %" if arm.mnist else ""
        parts = [
            f"Pools of adversarial examples for every layer{f' of {name}' if name else ''}{more} bring the test error "
            f"{_from_to(base)} ({base.words}){paper}."
        ]
        matched = next((one for one in own if one.first is arm.matched), None)
        if matched is not None:
            parts.append(
                f"Their loss is {arm.scale:g} times as large; at a rate and decay that make up for it, they bring the "
                f"test error {_from_to(matched)} ({matched.words})."
            )
        elif arm.scale != 1:
            parts.append(
                "Their loss is larger than without pools, and no network without pools was trained at a rate and decay "
                "that make up for it: how much of this the pools do is not known."
            )
        inputs = [one for one in own if one is not base and one is not matched]
        parts += [f"They bring it {_from_to(one)} ({one.words})." for one in inputs]
        sentences.append(" ".join([*parts, _claim(arm, matched or base, inputs)]))
    return sentences


def _from_to(one: Comparison) -> str:
    """ "from 1.71 % with weight decay alone to 1.11 %"."""
    before, after = (float(np.mean([arm.errors()[seed] for seed in one.gains])) for arm in (one.first, one.second))
    alone = " alone" if one.first.name == BASELINE else ""
    return f"from {before:.2f} % with {one.first.name}{alone} to {after:.2f} %"


def _claim(arm: Arm, fair: Comparison, inputs: Sequence[Comparison]) -> str:
    """What stays of the paper's claim that examples for every layer, the higher ones above all, lower the error."""
    where = "" if arm.scale == 1 or fair.first is arm.matched else ", at another scale of the loss"
    lower = "was shown" if _lower(fair) else "was not shown"
    if not inputs:
        hidden = "was not tested"
    elif all(_lower(one) for one in inputs):
        hidden = "was shown"
    elif any(_lower(one) for one in inputs):
        better = ", ".join(one.first.name for one in inputs if _lower(one))
        hidden = f"was shown against {better} alone"
    else:
        hidden = "was not shown"
    return (
        f"What stays of the paper's claim: that {arm.name} lower the test error of {fair.first.name} {lower}{where}; "
        f"that pools of the hidden layers add to those of the input {hidden}."
    )


def _lower(one: Comparison) -> bool:
    return one.q is not None and one.q < LEVEL and float(np.mean(list(one.gains.values()))) > 0


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
        if arms[0].mnist:
            axes.axvline(1.2, color=GREY, linewidth=1, linestyle="--")
        axes.set(xlabel="test error, %", ylabel=f"mean distortion that {attack} needs")
        axes.grid()
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return chart(
        figure,
        key=f"{key}_robustness",
        title="Robustness against test error" + (f" · {name}" if name else ""),
        caption=f"A point for each run: test error, and the mean per-pixel RMS distortion with which {attack} fools "
        "it." + (" The dashed line is the 1.2 % below which the paper's network came." if arms[0].mnist else ""),
        alt="Scatter plot of the distortion needed to fool a network against its test error, one colour for each way "
        "of training.",
        runs=tuple(run for arm in arms for run in (*arm.runs, *arm.attacks(attack))),
    )

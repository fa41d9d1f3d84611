"""Tables of the units section."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

from intriguing.analysis.inputs import Network
from intriguing.analysis.units.evidence import LEVEL, Agreement, Comparison, layers_of, mean_with_interval, of_layer
from intriguing.analysis.units.measure import RANDOM, TESTED, UNIT, UNTRAINED, LayerScores
from intriguing.analysis.units.settings import UnitSettings
from intriguing.results import Cell, Quantity, Table
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import Interval, bootstrap_interval, t_interval, wilson_interval
from intriguing.statistics.tests import least_p
from intriguing.units import SCORES

TITLES = {
    "purity": "purity",
    "entropy": "entropy, bits",
    "pixel_similarity": "similarity in pixels",
    "feature_similarity": "similarity in features",
    "selectivity": "selectivity",
    "kurtosis": "kurtosis",
    "lpips_similarity": "similarity by LPIPS",
}
SCORE_QUANTITIES = {score: Quantity(name=score, unit="bits" if score == "entropy" else "") for score in SCORES}
SHARE, PERCENT = Quantity(name="share", unit="%"), Quantity(name="percent", unit="%")
POINTS, AGREEMENT = Quantity(name="points", unit="points"), Quantity(name="agreement")
DIRECTIONS = "the wider of Student's t and the studentised bootstrap over directions, within each seed"
"""Method of the interval of a mean over directions."""
ScoresByLabel = Mapping[str, Sequence[Sequence[LayerScores]]]
"""By label, the layers of each network."""
Runs = Mapping[str, Sequence[str]]
"""By label, names of the networks' runs."""


def short_layer(layer: str) -> str:
    """Shorten "network.relu2" to "relu2", "network.4" to "layer 4"."""
    name = layer.removeprefix("network.").removeprefix("model.") or layer
    return f"layer {name}" if name.isdecimal() else name


def _all(runs: Runs) -> tuple[str, ...]:
    return tuple(name for names in runs.values() for name in names)


def stem(label: str) -> str:
    """Write a label as a part of a table's key."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def score_tables(
    measured: ScoresByLabel,
    controls: ScoresByLabel,
    networks: Sequence[Network],
    settings: UnitSettings,
    sample: str,
    notes: Sequence[str],
) -> list[Table]:
    """Make a table for each architecture: the scores of every basis of every layer."""
    tables = []
    for label, results in measured.items():
        cells: dict[tuple[str, str], Cell] = {}
        for layer in layers_of(results):
            _rows(cells, layer, "", of_layer(results, layer))
            _rows(cells, layer, UNTRAINED, of_layer(controls.get(label, ()), layer))
        columns = tuple(TITLES[score] for score in SCORES if any(c == TITLES[score] for _, c in cells))
        used = [n for n in networks if n.label == label]
        tables.append(
            Table(
                key=f"units_{stem(label)}",
                title="Units and directions",
                detail=label,
                caption=f"Mean scores of the {settings.columns} images that excite a direction most (purity, entropy, "
                "similarities) and of its responses to all images (selectivity, kurtosis), basis by basis. A higher "
                "score is more meaningful, except for the entropy.",
                row_header="layer and basis",
                rows=tuple(dict.fromkeys(row for row, _ in cells)),
                columns=columns,
                cells=cells,
                sample=sample,
                method=f"95 % interval of the mean: {DIRECTIONS}; of random directions Student's t over the random "
                "bases. Bases and the whitening are fitted to other images, see the notes",
                notes=(*notes, *_silent(results)),
                runs=tuple(n.name for n in used),
            )
        )
    return tables


def _rows(cells: dict[tuple[str, str], Cell], layer: str, prefix: str, results: Sequence[LayerScores]) -> None:
    for basis in dict.fromkeys(name for one in results for name in one.scores):
        for score in SCORES:
            found = mean_with_interval(results, basis, score)
            if found:
                mean, interval, n = found
                row = f"{short_layer(layer)} · {prefix}{basis}"
                cells[row, TITLES[score]] = Cell(quantity=SCORE_QUANTITIES[score], value=mean, interval=interval, n=n)


def _silent(results: Sequence[Sequence[LayerScores]]) -> tuple[str, ...]:
    notes = []
    for layer in layers_of(results):
        per_seed = of_layer(results, layer)
        if any(one.silent for one in per_seed):
            counts = ", ".join(f"{one.silent} of {one.channels}" for one in per_seed)
            notes.append(f"{short_layer(layer)}: units that never change are left out of every basis ({counts}).")
    return tuple(notes)


def comparison_table(
    comparisons: Sequence[Comparison], runs: Runs, sample: str, notes: Sequence[str], *, control: bool = False
) -> Table | None:
    """Make the table of units against random bases: means, effect size, p and q.

    Args:
        comparisons: one row each.
        runs: names of the runs by label.
        sample: N and the seeds, in words.
        notes: below the table.
        control: whether the networks are untrained.

    Returns:
        The table; None without comparisons.
    """
    if not comparisons:
        return None
    cells: dict[tuple[str, str], Cell] = {}
    for one in comparisons:
        row = f"{one.label} · {short_layer(one.layer)} · {TITLES[one.score]}"
        values = {
            "units": (one.unit, None),
            "random bases": (one.random, None),
            "effect size": (one.effect, one.effect_interval),
            "p": (one.p, None),
            "q": (one.q, None),
        }
        own = tuple(runs[one.label])
        for column, (value, interval) in values.items():
            quantity = Quantity(name=column)
            cells[row, column] = Cell(quantity=quantity, value=value, interval=interval, n=one.num, runs=own)
    return Table(
        key="units_control" if control else "units_tests",
        title="Units against random bases",
        detail="before training" if control else "",
        caption="Does the natural basis differ from a random rotation of it? The effect size is Hedges' g over "
        "directions, positive where units are the more meaningful. Where q is above .05, no difference was shown."
        + (" These networks are untrained, so a difference here does not come from training." if control else ""),
        row_header="network, layer and score",
        rows=tuple(dict.fromkeys(row for row, _ in cells)),
        columns=("units", "random bases", "effect size", "p", "q"),
        cells=cells,
        sample=sample,
        method=f"p: two-sided rank of the units' mean among the means of {comparisons[0].bases} random orthonormal "
        f"bases of equal size, so at least {least_p(comparisons[0].bases):.2g}; q: p corrected over all rows of this "
        f"table (Benjamini and Hochberg), at least {comparisons[0].floor:.2g} for a single small p; 95 % interval "
        f"of the effect size: that of the units' mean ({DIRECTIONS}), the random directions taken as known",
        notes=tuple(notes),
        runs=_all(runs),
    )


def share_beyond(results: Sequence[LayerScores], basis: str, score: str) -> tuple[Count, Interval | None]:
    """Count the rows with p of at most .05 against random image sets.

    All rows have one level: a share of rows chosen by a correction is no binomial share, and its interval would cover
    far too seldom.

    Returns:
        Rows beyond the level, and the 95 % interval of their share: Wilson's for single directions, Student's over the
        random bases for random directions, which come in bases.
    """
    own = [one.p_rows[basis][score] for one in results if score in one.p_rows.get(basis, {})]
    beyond = [p <= LEVEL for p in own]
    count = sum(map(Count.of, beyond), Count(0, 0))
    if basis != RANDOM or not count.n:
        return count, wilson_interval(count.k, count.n) if count.n else None
    sizes = [len(one.p_rows[UNIT][score]) for one in results if score in one.p_rows.get(basis, {})]
    bases = [one.double().view(-1, size).mean(1) for one, size in zip(beyond, sizes, strict=True)]
    strata = torch.cat([torch.full((len(one),), i) for i, one in enumerate(bases)])
    return count, t_interval(torch.cat(bases), groups=strata)


def chance_table(measured: ScoresByLabel, runs: Runs, settings: UnitSettings, sample: str) -> Table | None:
    """Make the table of the shares of single rows beyond random image sets; None without tests."""
    cells: dict[tuple[str, str], Cell] = {}
    for label, results in measured.items():
        for layer in layers_of(results):
            for basis in (UNIT, RANDOM):
                for score in TESTED:
                    count, interval = share_beyond(of_layer(results, layer), basis, score)
                    if not count.n:
                        continue
                    cells[f"{label} · {short_layer(layer)} · {basis}", TITLES[score]] = Cell(
                        quantity=SHARE,
                        value=count.percent,
                        interval=None if interval is None else interval.percent,
                        n=count.n,
                        runs=tuple(runs[label]),
                    )
    if not cells:
        return None
    return Table(
        key="units_chance",
        title="Rows against random image sets",
        caption="Percentage of rows whose top images are more alike than 95 % of image sets that were drawn at random: "
        "by chance alone these are 5 % of rows (fewer for purity, which has few values).",
        row_header="network, layer and basis",
        rows=tuple(dict.fromkeys(row for row, _ in cells)),
        columns=tuple(TITLES[score] for score in TESTED if any(c == TITLES[score] for _, c in cells)),
        cells=cells,
        sample=sample,
        method=f"One-sided permutation test against {settings.sets:,} random sets of {settings.columns} images, "
        "p of at most .05, row by row. 95 % interval of the share: Wilson's over units, Student's t over the random "
        "bases for random directions",
        runs=_all(runs),
    )


def ablation_table(measured: ScoresByLabel, runs: Runs, settings: UnitSettings, sample: str) -> Table | None:
    """Make the table of the falls of accuracy without a unit and without a random direction; None without any."""
    cells: dict[tuple[str, str], Cell] = {}
    for label, results in measured.items():
        for layer in layers_of(results):
            losses = [one.loss for one in of_layer(results, layer) if one.loss is not None]
            if not losses:
                continue
            groups = torch.cat([torch.full((len(loss.unit),), i) for i, loss in enumerate(losses)])
            unit = 100 * torch.cat([loss.unit for loss in losses])
            random = 100 * torch.cat([loss.random for loss in losses])
            row, own = f"{label} · {short_layer(layer)}", tuple(runs[label])
            columns = {"unit": unit, "random direction": random, "difference": unit - random}
            for column, values in columns.items():
                interval = bootstrap_interval(values, groups=groups)
                cells[row, column] = Cell(
                    quantity=POINTS, value=float(values.mean()), interval=interval, n=len(values), runs=own
                )
            worst = [float(values.max()) for values in (unit, random)]
            for column, value in zip(("worst unit", "worst direction"), worst, strict=True):
                cells[row, column] = Cell(quantity=POINTS, value=value, interval=None, n=len(unit), runs=own)
    if not cells:
        return None
    return Table(
        key="units_ablation",
        title="Ablation",
        detail="a unit, and a random direction of equal variance",
        caption="Fall of accuracy, in percentage points, when one direction of a layer is held at its mean.",
        row_header="network and layer",
        rows=tuple(dict.fromkeys(row for row, _ in cells)),
        columns=("unit", "random direction", "difference", "worst unit", "worst direction"),
        cells=cells,
        sample=f"{sample}; accuracy on up to {settings.ablation_limit:,} of them",
        method=f"95 % interval of the mean: {DIRECTIONS}; the difference is paired",
        runs=_all(runs),
    )


def agreement_table(agreements: Sequence[Agreement], networks: Sequence[Network], sample: str) -> Table | None:
    """Make the table of one architecture from different seeds: spaces and units compared, beside the test error."""
    if not agreements:
        return None
    cells: dict[tuple[str, str], Cell] = {}
    for one in agreements:
        row = f"{one.label} · {short_layer(one.layer)}"
        same = [n for n in networks if n.label == one.label]
        columns = {
            "linear CKA": one.cka,
            "Procrustes": one.procrustes,
            "matched units": one.matched,
            "after a rotation": one.turned,
        }
        for column, (mean, low, high) in columns.items():
            interval = Interval(low, high)
            cells[row, column] = Cell(
                quantity=AGREEMENT, value=mean, interval=interval, n=one.pairs, runs=tuple(n.name for n in same)
            )
        errors = [n.error("test").percent for n in same if n.error("test").n]
        if errors:
            interval = Interval(min(errors), max(errors))
            cells[row, "test error %"] = Cell(
                quantity=PERCENT,
                value=sum(errors) / len(errors),
                interval=interval,
                n=len(errors),
                runs=tuple(n.name for n in same),
            )
    return Table(
        key="units_seeds",
        title="One architecture from different seeds",
        caption="Can networks of one architecture perform alike with quite different units? Linear CKA and Procrustes "
        "do not depend on a rotation, the matching of single units does: mean correlation of one-to-one partners, also "
        "after a random rotation of one of the two networks.",
        row_header="network and layer",
        rows=tuple(dict.fromkeys(row for row, _ in cells)),
        columns=("linear CKA", "Procrustes", "matched units", "after a rotation", "test error %"),
        cells=cells,
        sample=sample,
        method="Mean over all pairs of seeds, in brackets the smallest and the largest",
        runs=tuple(n.name for n in networks if n.label in {one.label for one in agreements}),
    )

"""The tables of the section "units"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

from intriguing.analysis.inputs import Network
from intriguing.analysis.units.evidence import (
    Agreement,
    Comparison,
    layers_of,
    mean_with_interval,
    of_layer,
)
from intriguing.analysis.units.measure import RANDOM, TESTED, UNIT, UNTRAINED, LayerScores
from intriguing.analysis.units.settings import UnitSettings
from intriguing.metrics import Interval, wilson_interval
from intriguing.results import Cell, Table
from intriguing.units import SCORES
from intriguing.units.significance import benjamini_hochberg, bootstrap_interval

TITLES = {
    "purity": "purity",
    "entropy": "entropy, bits",
    "pixel_similarity": "similarity in pixels",
    "feature_similarity": "similarity in features",
    "selectivity": "selectivity",
    "kurtosis": "kurtosis",
}
Measured = Mapping[str, Sequence[Sequence[LayerScores]]]
"""By label: of each network, its layers."""
Runs = Mapping[str, Sequence[str]]
"""By label: names of the networks' runs."""


def short_layer(layer: str) -> str:
    """ "network.relu2" as "relu2", "network.4" as "layer 4"."""
    name = layer.removeprefix("network.").removeprefix("model.") or layer
    return f"layer {name}" if name.isdecimal() else name


def _all(runs: Runs) -> tuple[str, ...]:
    return tuple(name for names in runs.values() for name in names)


def stem(label: str) -> str:
    """A label as part of a table's key."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def score_tables(
    measured: Measured, controls: Measured, networks: Sequence[Network], settings: UnitSettings, sample: str
) -> list[Table]:
    """For each architecture, every basis of every layer with its scores."""
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
                title=f"Units and directions · {label}",
                caption=f"Mean scores of the {settings.columns} images that excite a direction most (purity, entropy, "
                "similarities) and of its responses to all images (selectivity, kurtosis), basis by basis. More is "
                "more meaningful, but for the entropy.",
                row_header="layer and basis",
                rows=tuple(dict.fromkeys(row for row, _ in cells)),
                columns=columns,
                cells=cells,
                sample=sample,
                method="95 % percentile bootstrap over directions, within each seed",
                notes=_silent(results),
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
                cells[row, TITLES[score]] = Cell(quantity=score, value=mean, interval=interval, n=n)


def _silent(results: Sequence[Sequence[LayerScores]]) -> tuple[str, ...]:
    notes = []
    for layer in layers_of(results):
        per_seed = of_layer(results, layer)
        if any(one.silent for one in per_seed):
            counts = ", ".join(f"{one.silent} of {one.channels}" for one in per_seed)
            notes.append(f"{short_layer(layer)}: units that never change are left out of every basis ({counts}).")
    return tuple(notes)


def comparison_table(comparisons: Sequence[Comparison], runs: Runs, sample: str, *, key: str) -> Table | None:
    """Units against random bases: means, effect size, p and q."""
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
            cells[row, column] = Cell(quantity=column, value=value, interval=interval, n=one.num, runs=own)
    control = key == "units_control"
    return Table(
        key=key,
        title="Units against random bases" + (" · before training" if control else ""),
        caption="Is the natural basis another than one that a random rotation makes? The effect size is Hedges' g over "
        "directions, positive where units are the more meaningful."
        + (" These networks have fresh weights: what differs here, training did not make." if control else ""),
        row_header="network, layer and score",
        rows=tuple(dict.fromkeys(row for row, _ in cells)),
        columns=("units", "random bases", "effect size", "p", "q"),
        cells=cells,
        sample=sample,
        method=f"p: two-sided, the units' mean among those of {comparisons[0].bases} random orthonormal bases of as "
        "many rows; q: corrected for all rows of this table (Benjamini and Hochberg); effect size with its 95 % normal "
        "interval",
        runs=_all(runs),
    )


def chance_table(measured: Measured, runs: Runs, settings: UnitSettings, sample: str) -> Table | None:
    """How many single rows are more than random image sets."""
    cells: dict[tuple[str, str], Cell] = {}
    for label, results in measured.items():
        for layer in layers_of(results):
            for basis in (UNIT, RANDOM):
                for score in TESTED:
                    parts = [
                        one.p_rows[basis][score]
                        for one in of_layer(results, layer)
                        if score in one.p_rows.get(basis, {})
                    ]
                    if not parts:
                        continue
                    q = benjamini_hochberg(torch.cat(parts))
                    k, n = int((q < 0.05).sum()), len(q)
                    low, high = wilson_interval(k, n)
                    row, column = f"{label} · {short_layer(layer)} · {basis}", TITLES[score]
                    interval = Interval(100 * low, 100 * high)
                    cells[row, column] = Cell(
                        quantity="share", value=100 * k / n, interval=interval, n=n, runs=tuple(runs[label])
                    )
    if not cells:
        return None
    return Table(
        key="units_chance",
        title="Rows against random image sets",
        caption="Percentage of rows whose top images are more alike than images that were drawn at random, each row "
        "tested alone.",
        row_header="network, layer and basis",
        rows=tuple(dict.fromkeys(row for row, _ in cells)),
        columns=tuple(TITLES[score] for score in TESTED if any(c == TITLES[score] for _, c in cells)),
        cells=cells,
        sample=sample,
        method=f"One-sided permutation test against {settings.sets:,} random sets of {settings.columns} images, "
        "corrected over the rows of a cell (Benjamini and Hochberg, 5 %); 95 % Wilson interval",
        runs=_all(runs),
    )


def ablation_table(measured: Measured, runs: Runs, settings: UnitSettings, sample: str) -> Table | None:
    """How much accuracy falls without a unit, and without a random direction of equal variance."""
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
                    quantity="points", value=float(values.mean()), interval=interval, n=len(values), runs=own
                )
            worst = [float(values.max()) for values in (unit, random)]
            for column, value in zip(("worst unit", "worst direction"), worst, strict=True):
                cells[row, column] = Cell(quantity="points", value=value, interval=None, n=len(unit), runs=own)
    if not cells:
        return None
    return Table(
        key="units_ablation",
        title="Ablation · a unit, and a random direction of equal variance",
        caption="By how many percentage points accuracy falls when one direction of a layer is held at its mean.",
        row_header="network and layer",
        rows=tuple(dict.fromkeys(row for row, _ in cells)),
        columns=("unit", "random direction", "difference", "worst unit", "worst direction"),
        cells=cells,
        sample=f"{sample}; accuracy on up to {settings.ablation_limit:,} of them",
        method="95 % percentile bootstrap over directions, within each seed; the difference is paired",
        runs=_all(runs),
    )


def agreement_table(agreements: Sequence[Agreement], networks: Sequence[Network], sample: str) -> Table | None:
    """The same architecture from different seeds: spaces and units compared, beside the test error."""
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
                quantity="agreement", value=mean, interval=interval, n=one.pairs, runs=tuple(n.name for n in same)
            )
        errors = [100 * n.errors["test"][0] / n.errors["test"][1] for n in same if "test" in n.errors]
        if errors:
            interval = Interval(min(errors), max(errors))
            cells[row, "test error %"] = Cell(
                quantity="percent",
                value=sum(errors) / len(errors),
                interval=interval,
                n=len(errors),
                runs=tuple(n.name for n in same),
            )
    return Table(
        key="units_seeds",
        title="One architecture from different seeds",
        caption="Can it learn quite different units and perform alike? Linear CKA and Procrustes do not see a "
        "rotation, matching single units does: mean correlation of one-to-one partners, and the same after a random "
        "rotation of one of the two networks.",
        row_header="network and layer",
        rows=tuple(dict.fromkeys(row for row, _ in cells)),
        columns=("linear CKA", "Procrustes", "matched units", "after a rotation", "test error %"),
        cells=cells,
        sample=sample,
        method="Mean over all pairs of seeds, in brackets the smallest and the largest",
        runs=tuple(n.name for n in networks if n.label in {one.label for one in agreements}),
    )

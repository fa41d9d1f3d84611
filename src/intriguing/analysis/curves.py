"""The lambda curve: weight decay against error and distortion, from any sweep."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from intriguing.analysis import paper
from intriguing.analysis.cells import (
    MEAN,
    WILSON,
    distortion_cell,
    error_cell,
    made_by,
    pool_of,
    sample_text,
    variants,
)
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet
from intriguing.results import Cell, SeedCount, Table

LAMBDA_TABLE = "lambda"


@dataclass(frozen=True)
class Point:
    """One lambda of a sweep: its value, its row in the table, and its cells by column."""

    weight_decay: float
    row: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Curve:
    """A sweep over lambda: networks of one architecture and split that differ in their weight decay."""

    name: str
    points: tuple[Point, ...]


def lambda_curves(networks: Sequence[Network], sets: Sequence[MeasuredSet]) -> tuple[Curve, ...]:
    """Finds every sweep over lambda among the networks.

    Networks belong to one curve if they share architecture and split; seeds of one lambda are pooled. Where a network
    has several lambdas, one per layer, the curve runs over the first layer whose lambda differs within the sweep.

    Returns:
        Curves with at least two lambdas, by name.
    """
    families: dict[tuple[str, str], list[Network]] = {}
    for network in networks:
        if network.weight_decay:
            families.setdefault((_architecture(network.label), network.split), []).append(network)
    curves = []
    for (name, split), members in sorted(families.items()):
        lambdas = {n.weight_decay for n in members}
        if len(lambdas) < 2:
            continue
        layer = _varying_layer(lambdas)
        title = name if split == "full" else f"{name}, {split}"
        points = [
            _point(title, decay, decay[layer], members, sets) for decay in sorted(lambdas, key=lambda d: d[layer])
        ]
        curves.append(Curve(title, tuple(points)))
    return tuple(curves)


def lambda_table(curves: Sequence[Curve], networks: Sequence[Network], sets: Sequence[MeasuredSet]) -> Table | None:
    """The curves as a table, or None where there is none."""
    cells = {(p.row, column): cell for curve in curves for p in curve.points for column, cell in p.cells.items()}
    if not cells:
        return None
    rows = tuple(p.row for curve in curves for p in curve.points)
    used = [
        n for n in networks if n.weight_decay and any(c.name.split(",")[0] == _architecture(n.label) for c in curves)
    ]
    return Table(
        key=LAMBDA_TABLE,
        title="Weight decay · error and distortion along λ",
        caption="Errors in percent and the mean distortion of adversarial examples as weight decay grows.",
        row_header="network and λ",
        rows=rows,
        columns=(paper.TRAIN_ERROR, paper.TEST_ERROR, paper.DISTORTION),
        cells=cells,
        sample=sample_text(cells.values(), (n.seed for n in used)),
        method=f"Errors: {WILSON}. Distortion: {MEAN}",
        source=f"{paper.SOURCE}, Table 1",
        runs=(*(n.name for n in used), *(s.name for s in sets if s.source in {n.name for n in used} and not s.amplify)),
    )


def _point(
    title: str, decay: tuple[float, ...], value: float, members: Sequence[Network], sets: Sequence[MeasuredSet]
) -> Point:
    same = [n for n in members if n.weight_decay == decay]
    label = same[0].label
    train = [_count(n, ("full", "train") if n.split == "full" else ("train", n.split)) for n in same]
    test = [_count(n, ("test",)) for n in same]
    # Examples are made from training images in Tables 1 and 2, from test images in Tables 3 and 4.
    own = [s for s in sets if s.amplify is None and s.source in {n.name for n in same}]
    preferred = "train" if pool_of(same[0].split) == "full" else "test"
    fitting = [s for s in own if s.subset == preferred] or own
    attacked = next(iter(variants(fitting)), ("", []))[1]
    names, sizes = [n.name for n in same], [s.distortion for s in attacked]
    cells = {
        paper.TRAIN_ERROR: error_cell([c for c in train if c], ("table1", label, paper.TRAIN_ERROR), runs=names),
        paper.TEST_ERROR: error_cell([c for c in test if c], ("table1", label, paper.TEST_ERROR), runs=names),
        paper.DISTORTION: distortion_cell(sizes, ("table1", label, paper.DISTORTION), runs=made_by(attacked)),
    }
    row = f"{title}, λ = {', '.join(f'{d:g}' for d in decay)}"
    return Point(value, row, {column: cell for column, cell in cells.items() if cell is not None})


def _count(network: Network, names: tuple[str, ...]) -> SeedCount | None:
    for name in names:
        if name in network.errors:
            k, n = network.errors[name]
            return SeedCount(network.seed, int(k), int(n))
    return None


def _architecture(label: str) -> str:
    """The label without its lambda and its prime: "FC10(1e-4)" is an "FC10"."""
    return re.sub(r"(\([^)]*\))?'*$", "", label)


def _varying_layer(lambdas: set[tuple[float, ...]]) -> int:
    """The first layer whose lambda is not the same everywhere; 0 where the lengths differ."""
    if len({len(decay) for decay in lambdas}) > 1:
        return 0
    return next(i for i, column in enumerate(zip(*lambdas, strict=True)) if len(set(column)) > 1)

"""The lambda curve: error and distortion along weight decay, of any sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from intriguing.analysis import paper
from intriguing.analysis.cells import (
    AS_ONE,
    FULL,
    MEAN,
    WILSON,
    display_labels,
    distortion_cell,
    error_cell,
    made_by,
    method,
    pool_of,
    sample_text,
    variants,
)
from intriguing.analysis.identity import distinct_labels
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet
from intriguing.results import Cell, Table

LAMBDA_TABLE = "lambda"


@dataclass(frozen=True)
class Point:
    """Hold one lambda of a sweep: its value, its row in the table, and its cells by column."""

    weight_decay: float
    row: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Curve:
    """Hold a sweep over lambda: networks that differ in their weight decay and their seeds alone.

    Attributes:
        name: name that the networks share.
        points: in the order of lambda.
        networks: networks of all points.
        attack: description of the one attack of all distortions; empty without any.
        sets: sets of that attack.
    """

    name: str
    points: tuple[Point, ...]
    networks: tuple[Network, ...]
    attack: str
    sets: tuple[MeasuredSet, ...]


def lambda_curves(networks: Sequence[Network], sets: Sequence[MeasuredSet]) -> tuple[Curve, ...]:
    """Find every sweep over lambda among the networks, also of networks trained with a spectral penalty.

    Networks belong to one curve if all of their settings but lambda and the seed are equal; seeds of one lambda are
    pooled. Of networks with one lambda per layer the curve runs over the first layer whose lambda differs in the sweep.

    Args:
        networks: all networks.
        sets: all measured sets, for the distortions.

    Returns:
        Curves with at least two lambdas, by name; the settings that differ follow equal names.
    """
    labels = display_labels(networks)
    families: dict[tuple[int, tuple[tuple[str, str], ...]], list[Network]] = {}
    for network in networks:
        if decay := network.id.weight_decay:
            families.setdefault((len(decay), network.id.without("weight_decay.value")), []).append(network)
    names = distinct_labels([_name(members[0]) for members in families.values()], [dict(key[1]) for key in families])
    curves = []
    for name, members in sorted(zip(names, families.values(), strict=True), key=lambda pair: pair[0]):
        lambdas = {n.id.weight_decay for n in members}
        if len(lambdas) < 2:
            continue
        layer = _varying_layer(lambdas)
        groups: dict[tuple[tuple[float, ...], str], list[Network]] = {}
        for network in sorted(members, key=lambda n: (n.id.weight_decay[layer], n.id.weight_decay, labels[n.name])):
            groups.setdefault((network.id.weight_decay, labels[network.name]), []).append(network)
        repeated = len(groups) > len(lambdas)  # several runs of one lambda and seed are separate points
        attack, attacked = _attacked(members, sets)
        points = []
        for (decay, _), same in groups.items():
            row = f"{name}, λ = {', '.join(f'{d:g}' for d in decay)}" + (f" [{same[0].name}]" if repeated else "")
            points.append(_point(row, decay[layer], same, attacked))
        curves.append(Curve(name, tuple(points), tuple(members), attack, tuple(attacked)))
    return tuple(curves)


def lambda_table(curves: Sequence[Curve]) -> Table | None:
    """Make a table of the curves, or None without any."""
    cells = {(p.row, column): cell for curve in curves for p in curve.points for column, cell in p.cells.items()}
    if not cells:
        return None
    rows = tuple(p.row for curve in curves for p in curve.points)
    used = [n for curve in curves for n in curve.networks]
    distortions = [cell for (_, column), cell in cells.items() if column == paper.DISTORTION]
    errors = [cell for (_, column), cell in cells.items() if column != paper.DISTORTION]
    return Table(
        key=LAMBDA_TABLE,
        title="Weight decay",
        detail="error and distortion along λ",
        caption="Errors in percent and the mean distortion of adversarial examples as weight decay grows.",
        row_header="network and λ",
        rows=rows,
        columns=(paper.TRAIN_ERROR, paper.TEST_ERROR, paper.DISTORTION),
        cells=cells,
        sample=sample_text(cells.values(), (n.seed for n in used)),
        method=f"Errors: {method(WILSON, errors, seeds=AS_ONE)}. Distortion: {method(MEAN, distortions)}",
        source=f"{paper.SOURCE}, Table 1",
        notes=tuple(f"{curve.name}: distortions of {curve.attack}." for curve in curves if curve.attack),
        runs=(*(n.name for n in used), *(s.name for curve in curves for s in curve.sets)),
    )


def _attacked(networks: Sequence[Network], sets: Sequence[MeasuredSet]) -> tuple[str, list[MeasuredSet]]:
    """Choose the attack and image set with the most networks, and return its description and its sets."""
    own = [s for s in sets if s.amplify is None and s.source in {n.name for n in networks}]
    # Examples are made from training images in Tables 1 and 2, from test images in Tables 3 and 4.
    preferred = "train" if pool_of(networks[0].split) == FULL else "test"
    found = [
        (f"{attack} on {subset} images", made)
        for subset in sorted({s.subset for s in own}, key=lambda subset: (subset != preferred, subset))
        for attack, made in variants(s for s in own if s.subset == subset)
    ]
    return max(found, key=lambda pair: len(pair[1]), default=("", []))


def _point(row: str, value: float, same: Sequence[Network], sets: Sequence[MeasuredSet]) -> Point:
    """Make the cells of one lambda; ``sets`` are those of the whole curve."""
    named, judge = paper.network_name(same[0].config), paper.is_paper_data(same[0].config)
    place = "table1" if pool_of(same[0].split) == FULL else "", named
    trained_on = ("full", "train") if same[0].split == "full" else ("train", same[0].split)
    train, test = ([(n.seed, n.error(*names)) for n in same] for names in (trained_on, ("test",)))
    attacked = [s for s in sets if s.source in {n.name for n in same}]
    names, sizes, indices = [n.name for n in same], [s.distortion for s in attacked], [s.indices for s in attacked]
    cells = {
        paper.TRAIN_ERROR: error_cell(train, (*place, paper.TRAIN_ERROR), judge=judge, runs=names),
        paper.TEST_ERROR: error_cell(test, (*place, paper.TEST_ERROR), judge=judge, runs=names),
        paper.DISTORTION: distortion_cell(
            sizes, (*place, paper.DISTORTION), indices=indices, judge=judge, runs=made_by(attacked)
        ),
    }
    return Point(value, row, {column: cell for column, cell in cells.items() if cell is not None})


def _name(network: Network) -> str:
    """Name the architecture, its penalty and its split."""
    penalty = network.id.penalty
    trained = f" {penalty.name} {penalty.strength:g}" if penalty else ""
    return network.id.name + trained + ("" if network.split == "full" else f", {network.split}")


def _varying_layer(lambdas: set[tuple[float, ...]]) -> int:
    """Find the first layer whose lambda varies; 0 where the numbers of layers differ."""
    if len({len(decay) for decay in lambdas}) > 1:
        return 0
    return next(i for i, column in enumerate(zip(*lambdas, strict=True)) if len(set(column)) > 1)

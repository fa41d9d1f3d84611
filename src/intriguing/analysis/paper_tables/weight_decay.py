"""The lambda curve: weight decay against error and distortion, from any sweep."""

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
from intriguing.analysis.identity import tell_apart
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
    """A sweep over lambda: networks that differ in their weight decay and their seeds, and in nothing else.

    Attributes:
        name: what the networks share.
        points: by lambda.
        networks: of all points.
        attack: in words, the one attack that all distortions are of; empty without any.
        sets: what it made.
    """

    name: str
    points: tuple[Point, ...]
    networks: tuple[Network, ...]
    attack: str
    sets: tuple[MeasuredSet, ...]


def lambda_curves(networks: Sequence[Network], sets: Sequence[MeasuredSet]) -> tuple[Curve, ...]:
    """Find every sweep over lambda among the networks.

    Networks belong to one curve if all of their settings but lambda are equal; seeds of one lambda are pooled. Where a
    network has several lambdas, one per layer, the curve runs over the first layer whose lambda differs in the sweep.

    Returns:
        Curves with at least two lambdas, by name. Where curves would share a name, the settings that differ follow it.
    """
    labels = display_labels(networks)
    families: dict[tuple[int, tuple[tuple[str, str], ...]], list[Network]] = {}
    for network in networks:
        if network.weight_decay:
            key = len(network.weight_decay), network.id.without("weight_decay.value")
            families.setdefault(key, []).append(network)
    names = tell_apart([_name(members[0]) for members in families.values()], [dict(key[1]) for key in families])
    curves = []
    for name, members in sorted(zip(names, families.values(), strict=True), key=lambda pair: pair[0]):
        lambdas = {n.weight_decay for n in members}
        if len(lambdas) < 2:
            continue
        layer = _varying_layer(lambdas)
        groups: dict[tuple[tuple[float, ...], str], list[Network]] = {}
        for network in sorted(members, key=lambda n: (n.weight_decay[layer], n.weight_decay, labels[n.name])):
            groups.setdefault((network.weight_decay, labels[network.name]), []).append(network)
        repeated = len(groups) > len(lambdas)  # of one lambda and seed several runs, which are points of their own
        attack, attacked = _attacked(members, sets)
        points = []
        for (decay, _), same in groups.items():
            row = f"{name}, λ = {', '.join(f'{d:g}' for d in decay)}" + (f" [{same[0].name}]" if repeated else "")
            points.append(_point(row, decay[layer], same, attacked))
        curves.append(Curve(name, tuple(points), tuple(members), attack, tuple(attacked)))
    return tuple(curves)


def lambda_table(curves: Sequence[Curve]) -> Table | None:
    """The curves as a table, or None where there is none."""
    cells = {(p.row, column): cell for curve in curves for p in curve.points for column, cell in p.cells.items()}
    if not cells:
        return None
    rows = tuple(p.row for curve in curves for p in curve.points)
    used = [n for curve in curves for n in curve.networks]
    distortions = [cell for (_, column), cell in cells.items() if column == paper.DISTORTION]
    errors = [cell for (_, column), cell in cells.items() if column != paper.DISTORTION]
    return Table(
        key=LAMBDA_TABLE,
        title="Weight decay · error and distortion along λ",
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
    """The attack on one image set that most of the networks have seen, with its sets."""
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
    """One lambda; `sets` are those of the whole curve."""
    named, judge = paper.network_name(same[0].config), paper.is_paper_data(same[0].config)
    place = "table1" if pool_of(same[0].split) == FULL else "", named
    train = [_count(n, ("full", "train") if n.split == "full" else ("train", n.split)) for n in same]
    test = [_count(n, ("test",)) for n in same]
    attacked = [s for s in sets if s.source in {n.name for n in same}]
    names, sizes, indices = [n.name for n in same], [s.distortion for s in attacked], [s.indices for s in attacked]
    cells = {
        paper.TRAIN_ERROR: error_cell([c for c in train if c], (*place, paper.TRAIN_ERROR), judge=judge, runs=names),
        paper.TEST_ERROR: error_cell([c for c in test if c], (*place, paper.TEST_ERROR), judge=judge, runs=names),
        paper.DISTORTION: distortion_cell(
            sizes, (*place, paper.DISTORTION), indices=indices, judge=judge, runs=made_by(attacked)
        ),
    }
    return Point(value, row, {column: cell for column, cell in cells.items() if cell is not None})


def _count(network: Network, names: tuple[str, ...]) -> SeedCount | None:
    for name in names:
        if name in network.errors:
            k, n = network.errors[name]
            return SeedCount(network.seed, int(k), int(n))
    return None


def _name(network: Network) -> str:
    """The architecture, its penalty and its split."""
    kind, strength = network.penalty or ("", 0)
    penalty = f" {'margin' if kind == 'margin' else 'penalty'} {strength:g}" if strength else ""
    return network.id.name + penalty + ("" if network.split == "full" else f", {network.split}")


def _varying_layer(lambdas: set[tuple[float, ...]]) -> int:
    """The first layer whose lambda is not the same everywhere; 0 where the lengths differ."""
    if len({len(decay) for decay in lambdas}) > 1:
        return 0
    return next(i for i, column in enumerate(zip(*lambdas, strict=True)) if len(set(column)) > 1)

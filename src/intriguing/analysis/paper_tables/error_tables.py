"""Tables 1 and 3: errors of the networks, and the distortion that fools them."""

from __future__ import annotations

from collections.abc import Sequence

from intriguing.analysis import paper
from intriguing.analysis.cells import (
    AS_ONE,
    FULL,
    HALVES,
    MEAN,
    PAPERS,
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
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet
from intriguing.analysis.order import in_order
from intriguing.results import DISTORTION, ERROR, Cell, Table

_LAYOUTS = {
    "table1": (FULL, "train", {paper.TRAIN_ERROR: ("full", "train"), paper.TEST_ERROR: ("test",)}),
    "table3": (
        HALVES,
        "test",
        {paper.P1_ERROR: ("p1",), paper.P2_ERROR: ("p2",), paper.TEST_ERROR: ("test",)},
    ),
}
_TITLES = {
    "table1": "Error and distortion of the networks",
    "table3": "Networks trained on disjoint halves",
}
_CAPTIONS = {
    "table1": "Error in percent on the images a network was trained on and on the test set, and the mean per-pixel RMS "
    "distortion that turns training images into adversarial examples.",
    "table3": "Error in percent on the two halves P1 and P2 of the training images and on the test set, and the mean "
    "distortion of adversarial examples made from test images. A prime marks the network trained on P2.",
}


def error_table(key: str, networks: Sequence[Network], sets: Sequence[MeasuredSet]) -> Table | None:
    """Make Table 1 ("table1", networks trained on all images) or Table 3 ("table3", networks trained on halves).

    Args:
        key: "table1" or "table3".
        networks: all networks; those of the other pool are left out.
        sets: measured sets, for the distortions; those of the paper's attack, or else of the most frequent one.

    Returns:
        The table, or None where no network belongs to it.
    """
    pool, subset, error_columns = _LAYOUTS[key]
    members = [n for n in networks if pool_of(n.split) == pool]
    if not members:
        return None
    labels = display_labels(networks)
    rows = in_order(paper.order(key), {labels[n.name]: n.id for n in members})
    fitting = [s for s in sets if s.subset == subset and s.amplify is None and pool_of(s.split) == pool]
    attack, attacked = next(iter(variants(fitting)), ("", []))
    cells: dict[tuple[str, str], Cell | None] = {}
    for row in rows:
        same = [n for n in members if labels[n.name] == row]
        named, judge = paper.network_name(same[0].config), paper.is_paper_data(same[0].config)
        for column, names in error_columns.items():
            counts, place = [(n.seed, n.error(*names)) for n in same], (key, named, column)
            cells[row, column] = error_cell(counts, place, judge=judge, runs=[n.name for n in same])
        own = [s for s in attacked if s.source in {n.name for n in same}]
        place = (key, named, paper.DISTORTION)
        cells[row, paper.DISTORTION] = distortion_cell(
            [s.distortion for s in own], place, indices=[s.indices for s in own], judge=judge, runs=made_by(own)
        )
    present = {place: cell for place, cell in cells.items() if cell is not None}
    if not present:
        return None
    return Table(
        key=key,
        number=f"Table {key[-1]}",
        title=_TITLES[key],
        caption=_CAPTIONS[key] + (f" Attack: {attack}." if attack else ""),
        row_header="network",
        rows=rows,
        columns=(*error_columns, paper.DISTORTION),
        cells=present,
        sample=sample_text(present.values(), (n.seed for n in members)),
        method=_method(list(present.values())),
        source=f"{paper.SOURCE}, Table {key[-1]}",
        notes=_missing_distortions(subset, fitting, sets),
        runs=(*(n.name for n in members), *(s.name for s in attacked)),
    )


def _missing_distortions(subset: str, fitting: Sequence[MeasuredSet], sets: Sequence[MeasuredSet]) -> tuple[str, ...]:
    """Say why a table has no distortions although networks were attacked; nothing where it has some."""
    others = sorted({s.subset for s in sets if not s.is_noise and s.amplify is None} - {subset})
    if fitting or not others:
        return ()
    return (
        f"The distortions of this table are of {subset} images (attack.py subset={subset}); the adversarial sets here "
        f"are of {' and '.join(others)} images.",
    )


def _method(cells: Sequence[Cell]) -> str:
    """Describe how the intervals of errors and distortions were made, and the paper's where they are compared."""
    errors = [cell for cell in cells if cell.quantity == ERROR]
    distortions = [cell for cell in cells if cell.quantity == DISTORTION]
    words = f"Errors: {method(WILSON, errors, seeds=AS_ONE)}"
    if any(cell.paper_interval for cell in errors):
        words += f"; the paper's from its own set sizes, {PAPERS}"
    if distortions:
        words += f". Distortion: {method(MEAN, distortions)}"
    if any(cell.paper_interval for cell in distortions):
        words += (
            f"; the paper prints no spread, so its interval takes the spread measured here, {paper.NUM_ADVERSARIAL} "
            "images, and half a unit of its last digit"
        )
    return words

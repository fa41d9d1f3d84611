"""Tables of the networks at hand: bounds of their layers, and bounds, distances and radii of each network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from intriguing.analysis.cells import AS_ONE, MEAN, WILSON, distortion_cell, error_cell, method
from intriguing.analysis.stability.measure import Groups, NetworkStability
from intriguing.analysis.stability.table_5 import BOUND, CORRECTED, FORMULA, bound_cell, printed_formula
from intriguing.results import Cell, Quantity, Table
from intriguing.spectral.lipschitz import trace
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import Interval

TEST, PRODUCT, CERTIFIED, JACOBIAN = "test error", "product of bounds", "certified constant", "largest Jacobian"
DISTANCE, RADIUS, SHARE = "distance found", "certified radius", "share certified"
RANGE = "bounds: mean and range over seeds"
L2 = Quantity(name="L2 norm")


def layer_table(groups: Groups) -> Table:
    """Make the table of the bounds of each network's layers, of the lowest seed."""
    cells: dict[tuple[str, str], Cell] = {}
    for label, members in groups.items():
        network = members[0].network
        traced = trace(network.module, members[0].shape)
        shapes, number, runs = dict(traced.calls), 0, (network.name,)
        for layer in traced.layers:
            weighted = isinstance(layer.module, nn.Linear | nn.Conv2d)
            if layer.bound == 1 and not weighted:
                continue
            number += 1
            row = f"{label}: {number} {layer.kind}"
            cells[row, CORRECTED] = bound_cell(layer.bound, runs)
            if isinstance(layer.module, nn.Linear | nn.Conv2d):
                formula = printed_formula(layer.module, shapes[layer.module], layer.bound)
                cells[row, FORMULA] = bound_cell(formula, runs)
    return Table(
        key="stability_layers",
        title="Table 5 for these networks",
        caption="Upper bounds of the Lipschitz constants of the layers, in order; layers of bound 1 are left out. Of "
        "several seeds the lowest.",
        row_header="layer",
        rows=tuple(dict.fromkeys(row for row, _ in cells)),
        columns=(FORMULA, CORRECTED),
        cells=cells,
        sample="one network of each label, that of the lowest seed",
        method="operator norms by singular values and Fourier blocks, 1/4 for a sigmoid; float64",
        runs=tuple(members[0].network.name for members in groups.values()),
    )


def bound_table(groups: Groups, radius: float, attack: str = "") -> Table:
    """Make the table of the bounds, distances and certified radii of each network, seeds pooled.

    Args:
        groups: networks by label.
        radius: L2 norm at which certified images are counted.
        attack: description of the attack behind the distances; empty without any.
    """
    cells = {(label, column): cell for label, ms in groups.items() for column, cell in _row(ms, radius).items()}
    errors, shares, sizes = (
        [cell for (_, column), cell in cells.items() if column in columns]
        for columns in ((TEST,), (SHARE,), (DISTANCE, RADIUS))
    )
    return Table(
        key="stability",
        title="Between the bound and the truth",
        caption="The network's Lipschitz constant lies between the largest Jacobian norm met on test images and the "
        "certified constant, which lies below the product of the layers' bounds. No perturbation of an L2 norm below "
        f"an image's certified radius changes its answer; the last column counts images certified at {radius:g}. "
        "Distances are L2 norms: the distortion times the square root of the number of pixel values.",
        row_header="network",
        rows=tuple(groups),
        columns=(TEST, PRODUCT, CERTIFIED, JACOBIAN, DISTANCE, RADIUS, SHARE),
        cells=cells,
        sample=f"up to {max((len(m.radii) for ms in groups.values() for m in ms), default=0)} images a network",
        method=f"test errors: {method(WILSON, errors, seeds=AS_ONE)}; shares certified: {method(WILSON, shares)}; "
        f"{RANGE}; distances and radii: {method(MEAN, sizes)}",
        notes=(
            "Certified constant: LipSDP with one multiplier a unit (Fazlyab et al. 2019), slopes bounded over images "
            "in [0, 1]; empty where a network is not fully connected. Radii there are certified by that constant, or "
            "by one for each pair of classes (settings.stability.pairs), and elsewhere by the product of the bounds.",
            "Shares are in percent.",
            *([f"Distances found by {attack}, for every network."] if attack else []),
        ),
        runs=tuple(dict.fromkeys(run for members in groups.values() for run in _runs(members))),
    )


def _row(members: Sequence[NetworkStability], radius: float) -> dict[str, Cell]:
    """Make the cells of one label by column; empty ones are left out."""
    names = tuple(m.network.name for m in members)
    cells: dict[str, Cell | None] = {
        TEST: error_cell([(m.network.seed, m.network.error("test")) for m in members], runs=names),
        PRODUCT: _pooled(members, lambda m: m.product),
        CERTIFIED: _pooled(members, lambda m: m.constant) if all(m.sharper for m in members) else None,
        JACOBIAN: _pooled(members, lambda m: m.jacobian),
    }
    if found := [m for m in members if len(m.distances)]:
        certified = [(m.radii >= radius, m.indices) for m in found]
        known = certified if all(reached.shape == i.shape for reached, i in certified) else []
        shares = [(m.network.seed, Count.of(m.radii >= radius)) for m in found]
        cells[DISTANCE] = _mean(found, lambda m: m.distances)
        cells[RADIUS] = _mean(found, lambda m: m.radii)
        cells[SHARE] = error_cell(shares, by_image=known, runs=_runs(found))
    return {column: cell for column, cell in cells.items() if cell is not None}


def _pooled(members: Sequence[NetworkStability], value: Callable[[NetworkStability], float]) -> Cell:
    """Make a cell of the mean over seeds, with the range as its interval."""
    values = [value(m) for m in members]
    interval = Interval(min(values), max(values)) if len(values) > 1 else None
    runs = tuple(m.network.name for m in members)
    return Cell(quantity=BOUND, value=sum(values) / len(values), interval=interval, n=len(values), runs=runs)


def _mean(members: Sequence[NetworkStability], value: Callable[[NetworkStability], Tensor]) -> Cell | None:
    """Make a cell of a mean L2 norm over images and seeds."""
    indices = [m.indices for m in members]
    return distortion_cell([value(m) for m in members], indices=indices, quantity=L2, runs=_runs(members))


def _runs(members: Sequence[NetworkStability]) -> tuple[str, ...]:
    return tuple(run for m in members for run in m.runs)

"""Tables 2 and 4: error rates on the adversarial examples of other networks, beyond clean error and noise."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from intriguing.analysis import paper
from intriguing.analysis.cells import (
    FULL,
    HALVES,
    MEAN,
    NEWCOMBE,
    PAPERS,
    WILSON,
    display_labels,
    distortion_cell,
    made_by,
    method,
    pool_of,
    sample_text,
    set_label,
    variants,
)
from intriguing.analysis.excess import OVER_CLEAN, OVER_NOISE, Excess
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet
from intriguing.analysis.order import in_order
from intriguing.analysis.paper_tables._transfer_cells import (
    clean_target_share,
    target_cell,
    transfer_cell,
    transfer_excess_cell,
)
from intriguing.analysis.paper_tables._transfer_rows import Rows, notes, paper_row, row_order, rows_of
from intriguing.results import Cell, Table
from intriguing.statistics.counts import Count

_KEYS = {(FULL, "train"): "table2", (HALVES, "test"): "table4"}
_TITLES = {
    "table2": "Transfer between networks trained on all images",
    "table4": "Transfer between networks trained on disjoint halves",
}
_WORDS = {"train": "training", "val": "validation", "test": "test", FULL: "trained on all images", HALVES: "on halves"}


def transfer_tables(networks: Sequence[Network], sets: Sequence[MeasuredSet], *, keys: Sequence[str]) -> list[Table]:
    """Make the transfer tables and, after each, its excess over clean error and over equal-norm noise.

    One family of three for every combination of networks (all images or halves), image set and attack of the sets; the
    paper has two of them.

    Args:
        networks: all networks: the columns.
        sets: all measured sets: the rows.
        keys: which of "table2", "table4" and "transfer" (every other combination) are wanted.

    Raises:
        UserError: two sets of one network, image set, attack and seed: pooling them would count images twice.
    """
    labels = display_labels(networks)
    found: list[Table] = []
    several = len(variants(sets)) > 1
    combinations = {(pool_of(s.split), s.subset) for s in sets if not s.is_noise}
    order = list(_KEYS)
    for pool, subset in sorted(combinations, key=lambda c: (order.index(c) if c in order else len(order), c)):
        key = _KEYS.get((pool, subset), f"transfer_{pool}_{subset}")
        if (key if key in _TITLES else "transfer") not in keys:
            continue
        victims = [n for n in networks if pool_of(n.split) == pool]
        noise = [s for s in sets if s.is_noise and s.subset == subset]
        members = [s for s in sets if not s.is_noise and (pool_of(s.split), s.subset) == (pool, subset)]
        for number, (attack, group) in enumerate(variants(members)):
            matrix = _Matrix(key, subset, pool, attack, number, several, victims, labels)
            found += matrix.tables(rows_of([*group, *noise], labels))
    return found


@dataclass(frozen=True)
class _Matrix:
    """Lay out the tables of one combination of networks, image set and attack.

    Attributes:
        key: of the transfer table.
        subset: images the examples were made from.
        pool: networks trained on all images or on halves.
        attack: description of the attack.
        number: of the attack among those of this combination; 0 is the paper's.
        several: whether the analysis has other attacks, so that titles name theirs.
        victims: the columns' networks.
        labels: of the networks, by the name of the run.
    """

    key: str
    subset: str
    pool: str
    attack: str
    number: int
    several: bool
    victims: Sequence[Network]
    labels: Mapping[str, str]

    def tables(self, rows: Rows) -> list[Table]:
        """Make the transfer table and its two excess tables; none where the transfer table is empty."""
        base = self._assemble(rows)
        if base is None:
            return []
        own = () if self.key in _TITLES else self._clean_errors(rows)
        found = [replace(base, notes=(*notes(base, rows), *own))]
        attacked = {row: sets for row, sets in rows.items() if not any(s.is_noise for s in sets)}
        for excess, chosen in ((OVER_CLEAN, rows), (OVER_NOISE, attacked)):
            table = self._assemble(chosen, excess)
            if table is not None:
                found.append(table)
        if self.key not in _TITLES and (table := self._targets(attacked)) is not None:
            found.append(table)
        return found

    def _clean_errors(self, rows: Rows) -> tuple[str, ...]:
        """Say how often each network errs on the rows' images without a perturbation."""
        found: dict[str, Count] = {}
        for victim in self.victims:
            for one in (one for sets in rows.values() for one in sets if one.amplify is None and not one.is_noise):
                if victim.name in one.outcomes:
                    label = self.labels[victim.name]
                    found[label] = found.get(label, Count(0, 0)) + one.outcomes[victim.name].against_clean.second
        words = "; ".join(f"{label} {count.percent:.1f} %" for label, count in found.items() if count.n)
        return (f"Errors on the images of all rows without a perturbation: {words}.",) if words else ()

    def _targets(self, rows: Rows) -> Table | None:
        """Make the table of the shares that end in the class that the attack aimed at; None without targets."""
        by_name = {v.name: v for v in self.victims}
        ids = {self.labels[v.name]: v.id for v in self.victims}
        columns = in_order(paper.order(self.key, columns=True), ids)
        row_labels = row_order(rows, paper.order(self.key), ids, self.labels)
        cells: dict[tuple[str, str], Cell] = {}
        clean: dict[str, Count] = {}
        for row in row_labels:
            for column in columns:
                shown = [v for v in self.victims if self.labels[v.name] == column]
                pairs = [(s, v) for s in rows[row] for v in shown if v.name in s.outcomes]
                if (cell := target_cell(pairs, by_name)) is not None:
                    cells[row, column] = cell
                    clean[column] = clean.get(column, Count(0, 0)) + clean_target_share(pairs)
        if not cells:
            return None
        unperturbed = "; ".join(f"{column} {count.percent:.1f} %" for column, count in clean.items())
        return Table(
            key=f"{self.key}_target{self._suffix}",
            title=self._title,
            detail=": ".join([self.attack] * self.several + ["share in the target's class"]),
            caption="Percentage of the row's examples that the column's network puts into the class that the attack on "
            "the row's network aimed at.",
            row_header="examples made for",
            rows=tuple(row for row in row_labels if any(place[0] == row for place in cells)),
            columns=columns,
            cells=cells,
            sample=sample_text(cells.values(), (s.seed for sets in rows.values() for s in sets)),
            method=method(WILSON, cells.values()),
            notes=(f"Of the images without a perturbation, in that class: {unperturbed}.",),
            runs=(*(s.name for sets in rows.values() for s in sets), *by_name),
            sources={row: set_label(self.labels, rows[row][0]) for row in row_labels},
        )

    def _assemble(self, rows: Rows, excess: Excess | None = None) -> Table | None:
        """Make one table: error rates and distortions, or an excess; None if it is empty."""
        by_name = {v.name: v for v in self.victims}
        ids = {self.labels[v.name]: v.id for v in self.victims}
        row_labels = row_order(rows, paper.order(self.key), ids, self.labels)
        columns = in_order(paper.order(self.key, columns=True), ids)
        cells: dict[tuple[str, str], Cell | None] = {}
        used: dict[str, None] = {}
        for row, sets in ((row, rows[row]) for row in row_labels):
            place = self.key, paper_row(sets[0], by_name)
            for column in columns:
                shown = [v for v in self.victims if self.labels[v.name] == column]
                pairs = [(s, v) for s in sets for v in shown if v.name in s.outcomes]
                used |= dict.fromkeys(v.name for _, v in pairs)
                cells[row, column] = (
                    transfer_cell(pairs, place, by_name)
                    if excess is None
                    else transfer_excess_cell(pairs, excess, by_name)
                )
            if excess is None:
                cells[row, paper.DISTORTION] = _distortion(sets, (*place, paper.DISTORTION), by_name)
        present = {place: cell for place, cell in cells.items() if cell is not None}
        if not present:
            return None
        return Table(
            key=self.key + ("" if excess is None else excess.suffix) + self._suffix,
            number=self._number,
            title=self._title,
            detail=self._detail(excess),
            caption=self._caption(excess),
            row_header="examples made for",
            rows=row_labels,
            columns=columns if excess else (*columns, paper.DISTORTION),
            cells=present,
            sample=sample_text(present.values(), (s.seed for sets in rows.values() for s in sets)),
            method=method(NEWCOMBE, present.values()) if excess else _method(self.key, present),
            source=f"{paper.SOURCE}, {self._number}" if self._number and excess is None else "",
            runs=(*(s.name for sets in rows.values() for s in sets), *used),
            sources={row: set_label(self.labels, rows[row][0]) for row in row_labels if not rows[row][0].is_noise},
        )

    @property
    def _suffix(self) -> str:
        return "" if self.number == 0 else "_" + re.sub(r"[^a-z0-9]+", "_", self.attack.lower()).strip("_")

    @property
    def _number(self) -> str:
        return f"Table {self.key[-1]}" if self.key in _TITLES else ""

    @property
    def _title(self) -> str:
        other = f"Transfer, {_WORDS.get(self.subset, self.subset)} images, networks {_WORDS[self.pool]}"
        return _TITLES.get(self.key, other)

    def _detail(self, excess: Excess | None) -> str:
        """Name the attack, where there are several, and the excess."""
        return ": ".join([self.attack] * self.several + ([excess.name] if excess else []))

    def _caption(self, excess: Excess | None) -> str:
        if excess is not None:
            return f"{self._number or 'Transfer'} minus {excess.baseline}, in percentage points."
        return (
            f"Error in percent of the column's network on examples made for the row's network from "
            f"{_WORDS.get(self.subset, self.subset)} images. Attack: {self.attack}."
        )


def _distortion(
    sets: Sequence[MeasuredSet], place: tuple[str, str, str], networks: Mapping[str, Network]
) -> Cell | None:
    """Make the mean distortion of a row; prescribed distortions are not compared, scaled ones have no interval."""
    found = not any(s.is_noise or s.amplify is not None for s in sets)
    judge = found and all(paper.is_paper_data(networks[s.source].config) for s in sets if s.source)
    values, indices = [s.distortion for s in sets], [s.indices for s in sets]
    cell = distortion_cell(values, place, indices=indices, judge=judge, runs=made_by(sets))
    scaled = any(s.amplify is not None for s in sets)
    return replace(cell, interval=None) if cell is not None and scaled else cell


def _method(key: str, cells: Mapping[tuple[str, str], Cell]) -> str:
    """Describe how the intervals of errors and distortions were made, and the paper's where errors are compared."""
    errors = [cell for (_, column), cell in cells.items() if column != paper.DISTORTION]
    distortions = [cell for (_, column), cell in cells.items() if column == paper.DISTORTION]
    words = method(WILSON, errors)
    if any(cell.paper_interval for cell in errors):
        noise = f" (noise: {paper.NUM_TEST:,})" if key == "table4" else ""
        words += f"; the paper's from its evident N = {paper.NUM_ADVERSARIAL}{noise}, {PAPERS}"
    return f"{words}. Distortion: {method(MEAN, distortions)}"

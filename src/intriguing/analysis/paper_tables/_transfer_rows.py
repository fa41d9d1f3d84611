"""Rows of a transfer table: the adversarial sets behind each, and the notes on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from intriguing.analysis import paper
from intriguing.analysis.cells import set_label
from intriguing.analysis.identity import NetworkId, distinct_labels
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet, short
from intriguing.analysis.order import Rank, ranks
from intriguing.errors import UserError
from intriguing.results import Table
from intriguing.statistics.clusters import sharing

Rows = dict[str, list[MeasuredSet]]
"""The sets behind each row: one per seed."""

_AMPLIFIED_BY = {
    "set": "each set by one factor, so that its mean distortion is {size}: the paper's evident reading, as its "
    "diagonal is 100 %",
    "image": "each image by another factor, so that its distortion is {size}: an image that needed more is shrunk. The "
    "paper evidently took one factor for the whole set (attack.amplify_by=set), so its numbers are not shown here",
    "": "by a rule that the set does not record",
}


def rows_of(sets: Sequence[MeasuredSet], labels: Mapping[str, str]) -> Rows:
    """Group the sets into rows, several seeds of one source into one row.

    Args:
        sets: sets of one attack, and noise.
        labels: of the networks, by the name of the run.

    Raises:
        UserError: two sets of one row have one seed, so that pooling them would count images twice.
    """
    noise = [s for s in sets if s.is_noise]
    described = distinct_labels([s.label for s in noise], [{"data.name": s.data_set} for s in noise])
    named = {s.name: label for s, label in zip(noise, described, strict=True)}
    rows: Rows = {}
    for one in sets:
        label = named.get(one.name) or set_label(labels, one)
        rows.setdefault(f"{label}{_amplification(one)}", []).append(one)
    for label, members in rows.items():
        by_seed: dict[int, str] = {}
        for member in members:
            if member.seed in by_seed:
                raise UserError(
                    f"two adversarial sets are of {label}, {member.subset} images, seed {member.seed}: "
                    f"{by_seed[member.seed]} and {member.name}; give one of them"
                )
            by_seed[member.seed] = member.name
    return rows


def row_order(
    rows: Rows, known: Sequence[str], networks: Mapping[str, NetworkId], labels: Mapping[str, str]
) -> tuple[str, ...]:
    """Sort rows: networks as in the columns, noise by its size, amplified sets, and sets of other networks last.

    Args:
        rows: sets by label of the row.
        known: rows of the paper's table, in its order.
        networks: identities by label.
        labels: of the networks, by the name of the run.
    """
    placed = ranks(known, networks)

    def rank(row: str) -> tuple[Rank, float, str]:
        one = rows[row][0]
        if one.is_noise:
            size = float(one.distortion.mean()) if one.num_success else 0.0
            return Rank(known.index(row) if row in known else len(known), size=size), 0.0, row
        own = placed.get(labels.get(one.source or "", ""), Rank(len(known)))
        if one.amplify is not None:
            own = own._replace(place=known.index(row) if row in known else len(known) + 1)
        if one.stranger:
            own = own._replace(place=len(known) + 2)
        return own, one.amplify or 0.0, row

    return tuple(sorted(rows, key=rank))


def paper_row(one: MeasuredSet, networks: Mapping[str, Network]) -> str:
    """Return a row's name in the paper's tables; empty for a network that is not the paper's."""
    if one.is_noise:
        return one.label
    named = paper.network_name(networks[one.source].config) if one.source else ""
    return f"{named}{_amplification(one)}" if named else ""


def _amplification(one: MeasuredSet) -> str:
    """Write the size to which a row's perturbations were scaled; empty where they were not."""
    if one.amplify is None:
        return ""
    return f", amplified to {short(one.amplify)}{' image by image' if one.amplified_by == 'image' else ''}"


def notes(table: Table, rows: Rows) -> tuple[str, ...]:
    """Write the notes below a transfer table.

    They name foreign sources, failed attacks, a diagonal that is not 100 %, the images that seeds share, and the rule
    of amplification.
    """
    found = []
    for row in table.rows:
        if stranger := rows[row][0].stranger:
            found.append(f"{row}: made for {stranger}, whose weights no network of this analysis has.")
        tried, succeeded = sum(s.num for s in rows[row]), sum(s.num_success for s in rows[row])
        if succeeded < tried:
            found.append(f"{row}: {tried - succeeded} of {tried} attacks failed; those images are left out.")
        for column in table.columns:
            cell = table.cells.get((row, column))
            if cell and cell.own and cell.k != cell.n and all(s.source in cell.runs for s in rows[row]):
                found.append(
                    f"{row}: its own network gets {cell.n - (cell.k or 0)} of its {cell.n} adversarial examples right, "
                    "against the success that the set records."
                )
    return (*found, *_pooling(rows), *_amplified(rows))


def _pooling(rows: Rows) -> list[str]:
    """Say how several seeds were pooled; nothing where no row has several."""
    shared = [sharing([s.indices for s in sets]) for sets in rows.values() if len(sets) > 1]
    if not shared:
        return []
    known = all(len(s.indices) == s.num_success for sets in rows.values() for s in sets)
    images = (
        f"Of their images two seeds share {' or '.join(sorted(set(shared)))}. "
        if known
        else "Whether they share images is not known, so the intervals assume that they agree on every image. "
    )
    return [
        f"Counts of several seeds are summed, a source always with the victims of its seed. {images}The intervals are "
        "about these networks on other images, not about other trainings; the data files list each seed."
    ]


def _amplified(rows: Rows) -> list[str]:
    """Say how rows were amplified."""
    found = {
        (one.amplified_by, short(one.amplify)): None
        for sets in rows.values()
        for one in sets
        if one.amplify is not None
    }
    return [f"Amplified to {size}: {_AMPLIFIED_BY[rule].format(size=size)}." for rule, size in found]

"""Tables 2 and 4: what examples made for one network do to the others, beyond clean error and mere size."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from intriguing.analysis import paper
from intriguing.analysis.cells import (
    FULL,
    HALVES,
    MEAN,
    NEWCOMBE,
    PAPERS,
    WILSON,
    ByImage,
    display_labels,
    distortion_cell,
    error_cell,
    excess_cell,
    made_by,
    method,
    pool_of,
    sample_text,
    set_label,
    variants,
)
from intriguing.analysis.identity import tell_apart
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import Answers, MeasuredSet, Outcome, short
from intriguing.errors import UserError
from intriguing.results import Cell, SeedCount, Table
from intriguing.statistics.clusters import sharing
from intriguing.statistics.intervals import PairedCounts

_KEYS = {(FULL, "train"): "table2", (HALVES, "test"): "table4"}
_TITLES = {
    "table2": "Table 2 · Transfer between networks trained on all images",
    "table4": "Table 4 · Transfer between networks trained on disjoint halves",
}
_WORDS = {"train": "training", "val": "validation", "test": "test", FULL: "trained on all images", HALVES: "on halves"}

_AMPLIFIED = ", amplified to "
_BY_IMAGE = " image by image"
_AMPLIFIED_BY = {
    "set": "each set by one factor, so that its mean distortion is {size}: the paper's evident reading, as its own "
    "columns are 100 %",
    "image": "each image by a factor of its own, so that its distortion is {size}: an image that needed more shrinks "
    "back. The paper evidently took one factor for the whole set (attack.amplify_by=set), so its numbers are not "
    "beside these",
    "": "in a way that the set does not record",
}

Rows = dict[str, list[MeasuredSet]]
"""The sets behind each row: one per seed."""
Pick = tuple[Callable[[Outcome], PairedCounts | None], Callable[[Answers], Tensor]]
"""The comparison an excess is about: its counts, and (N,) the difference of the errors on each image."""


def transfer_tables(networks: Sequence[Network], sets: Sequence[MeasuredSet], *, keys: Sequence[str]) -> list[Table]:
    """The transfer tables and, after each, its excess over clean error and over equal-norm noise.

    One family of three for every combination of networks (all images or halves), image set and attack that the sets
    hold; the paper has two of them.

    Args:
        networks: all networks: the columns.
        sets: all measured sets: the rows.
        keys: which of "table2", "table4" and "transfer" (every other combination) are wanted.

    Raises:
        UserError: two sets are the same but for their name, so that pooling them would count images twice.
    """
    labels = display_labels(networks)
    found: list[Table] = []
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
            rows = _rows([*group, *noise], labels)
            suffix = "" if number == 0 else "_" + re.sub(r"[^a-z0-9]+", "_", attack.lower()).strip("_")
            title = _TITLES.get(key, f"Transfer · {_WORDS.get(subset, subset)} images, networks {_WORDS[pool]}")
            caption = (
                f"Error in percent of the column's network on examples made for the row's network from "
                f"{_WORDS.get(subset, subset)} images. Attack: {attack}."
            )
            base = _assemble(key, rows, victims, labels, title=title if number == 0 else f"{title}, {attack}")
            if base is not None:
                found += [
                    replace(table, key=table.key + suffix) for table in _family(base, caption, rows, victims, labels)
                ]
    return found


def _family(base: Table, caption: str, rows: Rows, victims: Sequence[Network], labels: dict[str, str]) -> list[Table]:
    """The transfer table with its words, and its two excess tables."""
    tables = [replace(base, caption=caption, notes=_notes(base, rows))]
    attacked = {row: sets for row, sets in rows.items() if not any(s.is_noise for s in sets)}
    for suffix, of, chosen, name, words in (
        (
            "_excess_clean",
            _CLEAN,
            rows,
            "over clean error",
            "the column's network's error on the same images, unperturbed",
        ),
        (
            *("_excess_noise", _NOISE, attacked, "over equal-norm noise"),
            "the column's network's error on the same images under Gaussian noise of the same norm, image by image, "
            "not clipped",
        ),
    ):
        table = _assemble(base.key, chosen, victims, labels, title=f"{base.title}: excess {name}", outcome=of)
        if table is not None:
            tables.append(
                replace(
                    table,
                    key=base.key + suffix,
                    caption=f"{base.title.split(' · ')[0]} minus {words}, in percentage points.",
                    method=method(NEWCOMBE, table.cells.values()),
                    source="",
                )
            )
    return tables


def _assemble(
    key: str,
    rows: Rows,
    victims: Sequence[Network],
    labels: dict[str, str],
    *,
    title: str,
    outcome: Pick | None = None,
) -> Table | None:
    """One matrix: error rates and distortions without `outcome`, else the excess it picks; None if it is empty."""
    row_labels = paper.in_order(key, set(rows))
    columns = paper.in_order(key, {labels[v.name] for v in victims}, columns=True)
    by_name = {v.name: v for v in victims}
    cells: dict[tuple[str, str], Cell | None] = {}
    used: dict[str, None] = {}
    for row in row_labels:
        named = _paper_row(rows[row][0], by_name)
        for column in columns:
            pairs = [(s, v) for s in rows[row] for v in victims if labels[v.name] == column and v.name in s.outcomes]
            used |= dict.fromkeys(v.name for _, v in pairs)
            own = bool(pairs) and all(_is_own(s, v, by_name) for s, v in pairs)
            cells[row, column] = _error(pairs, (key, named), own) if outcome is None else _excess(pairs, outcome, own)
        if outcome is None:
            values = [s.distortion for s in rows[row]]
            found = not any(s.is_noise or s.amplify is not None for s in rows[row])
            judge = found and all(paper.is_paper_data(by_name[s.source].config) for s in rows[row] if s.source)
            place = (key, named, paper.DISTORTION)
            indices = [s.indices for s in rows[row]]
            size = distortion_cell(values, place, indices=indices, judge=judge, runs=made_by(rows[row]))
            if size is not None and any(s.amplify is not None for s in rows[row]):
                size = replace(size, interval=None)  # it is what it was scaled to
            cells[row, paper.DISTORTION] = size
    present = {place: cell for place, cell in cells.items() if cell is not None}
    if not present:
        return None
    return Table(
        key=key,
        title=title,
        caption="",
        row_header="examples made for",
        rows=row_labels,
        columns=columns if outcome else (*columns, paper.DISTORTION),
        cells=present,
        sample=sample_text(present.values(), (s.seed for sets in rows.values() for s in sets)),
        method=_method(key, present),
        source=f"{paper.SOURCE}, Table {key[-1]}" if key in _TITLES else "",
        runs=(*(s.name for sets in rows.values() for s in sets), *used),
    )


def _method(key: str, cells: Mapping[tuple[str, str], Cell]) -> str:
    """How the intervals of errors and distortions were made, and those of the paper where errors are judged by them."""
    errors = [cell for (_, column), cell in cells.items() if column != paper.DISTORTION]
    distortions = [cell for (_, column), cell in cells.items() if column == paper.DISTORTION]
    words = method(WILSON, errors)
    if any(cell.paper_interval for cell in errors):
        noise = f" (noise: {paper.NUM_TEST:,})" if key == "table4" else ""
        words += f"; the paper's from its evident N = {paper.NUM_ADVERSARIAL}{noise}, {PAPERS}"
    return f"{words}. Distortion: {method(MEAN, distortions)}"


def _rows(sets: Sequence[MeasuredSet], labels: dict[str, str]) -> Rows:
    """Group the sets into rows, several seeds of one source into one row."""
    noise = [s for s in sets if s.is_noise]
    described = tell_apart([s.label for s in noise], [{"data.name": s.data_set} for s in noise])
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
                    f"two adversarial sets hold the same thing ({label}, {member.subset} images, seed {member.seed}): "
                    f"{by_seed[member.seed]} and {member.name}; give one of them"
                )
            by_seed[member.seed] = member.name
    return rows


def source_of(row: str) -> str:
    """The label of the network that a row's examples were made for, amplified or not."""
    return row.partition(_AMPLIFIED)[0]


def _paper_row(one: MeasuredSet, networks: Mapping[str, Network]) -> str:
    """A row's name in the paper's tables: of a network only where it is the paper's."""
    if one.is_noise:
        return one.label
    named = paper.network_name(networks[one.source].config) if one.source else ""
    return f"{named}{_amplification(one)}" if named else ""


def _amplification(one: MeasuredSet) -> str:
    """What a row's name says of the size its perturbations were scaled to; empty where they were not."""
    if one.amplify is None:
        return ""
    return f"{_AMPLIFIED}{short(one.amplify)}{_BY_IMAGE if one.amplified_by == 'image' else ''}"


def _amplified_notes(rows: Rows) -> list[str]:
    """Which rows were amplified, and by which rule."""
    found: dict[tuple[str, str], None] = {}
    for sets in rows.values():
        found |= {(one.amplified_by, short(one.amplify)): None for one in sets if one.amplify is not None}
    return [f"Amplified to {size}: {_AMPLIFIED_BY[rule].format(size=size)}." for rule, size in found]


def _error(pairs: list[tuple[MeasuredSet, Network]], place: tuple[str, str], own: bool) -> Cell | None:
    counts = [
        SeedCount(v.seed, s.outcomes[v.name].against_clean.first, s.outcomes[v.name].against_clean.n) for s, v in pairs
    ]
    column = paper.network_name(pairs[0][1].config) if pairs else ""
    judge = all(paper.is_paper_data(v.config) for _, v in pairs)
    by_image = _by_image(pairs, lambda answers: answers.adversarial)
    return error_cell(counts, (*place, column), by_image=by_image, judge=judge, own=own, runs=_runs(pairs))


def _excess(pairs: list[tuple[MeasuredSet, Network]], outcome: Pick, own: bool) -> Cell | None:
    counted, difference = outcome
    pairs = [(s, v) for s, v in pairs if counted(s.outcomes[v.name]) is not None]
    counts = [counted(s.outcomes[v.name]) for s, v in pairs]
    by_image = _by_image(pairs, difference)
    return excess_cell([c for c in counts if c is not None], by_image=by_image, own=own, runs=_runs(pairs))


def _by_image(pairs: list[tuple[MeasuredSet, Network]], values: Callable[[Answers], Tensor]) -> list[ByImage]:
    """The values of each pair image by image; empty where the images of one of them are not known."""
    found = [s.outcomes[v.name].answers for s, v in pairs]
    if any(answers is None or answers.indices.shape != answers.adversarial.shape for answers in found):
        return []
    return [(values(answers), answers.indices) for answers in found if answers is not None]


def _runs(pairs: list[tuple[MeasuredSet, Network]]) -> list[str]:
    """The attacks behind a cell, then the victims."""
    return [*(s.name for s, _ in pairs), *(v.name for _, v in pairs)]


def _is_own(one: MeasuredSet, victim: Network, networks: Mapping[str, Network]) -> bool:
    """Whether a network is shown its own examples, or those of the same network and seed trained in another run.

    An amplified example is another point, which need not fool its own network.
    """
    if one.source is None or one.source not in networks:
        return False
    if one.source == victim.name:
        return one.amplify is None
    return networks[one.source].id == victim.id and networks[one.source].seed == victim.seed


def _over_noise(answers: Answers) -> Tensor:
    noise = answers.clean if answers.noise is None else answers.noise
    return answers.adversarial.int() - noise.int()


_CLEAN: Pick = (lambda o: o.against_clean, lambda a: a.adversarial.int() - a.clean.int())
_NOISE: Pick = (lambda o: o.against_noise, _over_noise)


def _notes(table: Table, rows: Rows) -> tuple[str, ...]:
    """What a reader must know: failed attacks, and own columns that are not 100."""
    notes = []
    for row in table.rows:
        if stranger := rows[row][0].stranger:
            notes.append(f"{row}: made for {stranger}, with weights that no network of this analysis has.")
        tried, succeeded = sum(s.num for s in rows[row]), sum(s.num_success for s in rows[row])
        if succeeded < tried:
            notes.append(f"{row}: {tried - succeeded} of {tried} attacks failed; those images are left out.")
        for column in table.columns:
            cell = table.cells.get((row, column))
            if cell and cell.own and cell.k != cell.n and all(s.source in cell.runs for s in rows[row]):
                notes.append(
                    f"{row}: its own network gets {cell.n - (cell.k or 0)} of its {cell.n} adversarial examples right; "
                    f"the stored success flags say otherwise."
                )
    shared = [sharing([s.indices for s in sets]) for sets in rows.values() if len(sets) > 1]
    if shared:
        known = all(len(s.indices) == s.num_success for sets in rows.values() for s in sets)
        notes.append(
            "Counts of several seeds are summed, a source always with the victims of its own seed. "
            + (f"Of their images two seeds share {_alternatives(shared)}. " if known else _UNKNOWN)
            + "The intervals are about these networks on other images, not about other trainings; the data files list "
            "each seed."
        )
    return (*notes, *_amplified_notes(rows))


def _alternatives(shared: Sequence[str]) -> str:
    """What pairs of seeds share, for all rows: "all", or "none or 3 to 10 of 256"."""
    return " or ".join(sorted(set(shared)))


_UNKNOWN = "Whether they share images is not known, so the intervals take it that they agree on every image. "

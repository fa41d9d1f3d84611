"""The result in plain sentences, for a reader who reads nothing else."""

from collections.abc import Iterable, Sequence

from intriguing.analysis import paper
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet
from intriguing.analysis.paper_tables.transfer import source_of
from intriguing.results import Cell, Table

DISTORTION_MARGIN = 0.25
"""How far a mean distortion may be from the paper's to be called near it."""


def comparable(networks: Sequence[Network]) -> bool:
    """Whether every network was trained on the paper's data, so that agreement may be expected."""
    return bool(networks) and all(network.data == paper.DATA for network in networks)


def summarize(networks: Sequence[Network], sets: Sequence[MeasuredSet], tables: Sequence[Table]) -> tuple[str, ...]:
    """What was measured, what was found, and how many cells agree with the paper."""
    sentences = [_measured(networks, sets)]
    main = [t for t in tables if t.key in paper.TABLES]
    met, total = (sum(t.agreement()[i] for t in main) for i in (0, 1))
    if total and comparable(networks):
        share = "; ".join(f"{_short(t)} {t.agreement()[0]} of {t.agreement()[1]}" for t in main if t.agreement()[1])
        sentences.append(
            f"The 95 % interval of the measured error rate meets the paper's in {met} of {_count(total, 'cell')} "
            f"({100 * met / total:.0f} %; {share})."
        )
        sentences += _distortions(main)
    elif not comparable(networks) and any(cell.paper is not None for t in main for cell in t.cells.values()):
        sentences.append(
            f"The paper used MNIST, this is {_data(networks)}: its numbers stand beside "
            "these for orientation, and no agreement is to be expected."
        )
    sentences += _transfer(tables)
    return tuple(sentences)


def _measured(networks: Sequence[Network], sets: Sequence[MeasuredSet]) -> str:
    seeds = sorted({n.seed for n in networks})
    attacks = sorted({s.attack_name for s in sets if not s.is_noise})
    attacked = [s for s in sets if not s.is_noise and s.amplify is None]
    seeds_text = f"{'seed' if len(seeds) == 1 else 'seeds'} {_listed(seeds)}"
    text = f"{_count(len(networks), 'network')} trained on {_data(networks)} ({seeds_text})"
    if not attacked:
        return f"{text}; no attack was measured."
    tried, succeeded = sum(s.num for s in attacked), sum(s.num_success for s in attacked)
    were = "was" if len(networks) == 1 else "were"
    return (
        f"{text} {were} attacked with {_listed(attacks)}: {succeeded:,} of {tried:,} attacks succeeded "
        f"({100 * succeeded / tried:.1f} %)."
        if tried
        else f"{text}; the adversarial sets are empty."
    )


def _distortions(tables: Sequence[Table]) -> list[str]:
    cells = [
        cell
        for table in tables
        if table.key in ("table1", "table3")
        for cell in table.cells.values()
        if cell.quantity == "distortion" and cell.paper
    ]
    if not cells:
        return []
    near = sum(abs(cell.value / float(cell.paper or 1) - 1) <= DISTORTION_MARGIN for cell in cells)
    margin = f"{100 * DISTORTION_MARGIN:.0f} %"
    return [f"Mean distortions lie within {margin} of the paper's for {near} of {_count(len(cells), 'network')}."]


def _transfer(tables: Sequence[Table]) -> list[str]:
    """How much of the transfer is neither clean error nor what noise of the same size does, to other networks."""
    found = []
    for key, name in (("table2", "Table 2"), ("table4", "Table 4")):
        excess = next((t for t in tables if t.key == f"{key}_excess_noise"), None)
        cells: list[Cell] = []
        if excess:
            cells = [c for (row, to), c in excess.cells.items() if source_of(row) != to and not c.own]
        if cells:
            above = sum(cell.interval is not None and cell.interval.low > 0 for cell in cells)
            found.append(
                f"{name}: examples made for one network fool another more than noise of the same size in {above} of "
                f"{_count(len(cells), 'pair')} (95 % interval above zero)."
            )
    return found


def _short(table: Table) -> str:
    return table.title.split(" · ")[0]


def _data(networks: Sequence[Network]) -> str:
    names = {"mnist": "MNIST", "digits": "scikit-learn's 8x8 digits"}
    return _listed(sorted({names.get(n.data, n.data) for n in networks})) or "no data"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _listed(values: Iterable[object]) -> str:
    words = [str(v) for v in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""

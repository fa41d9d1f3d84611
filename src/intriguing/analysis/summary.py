"""The result in plain sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from intriguing.analysis import paper
from intriguing.analysis.excess import OVER_NOISE
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet
from intriguing.analysis.reference import Reference
from intriguing.results import DISTORTION, Table
from intriguing.statistics.counts import Count

DISTORTION_MARGIN = 0.25
"""Largest relative difference from the paper's mean distortion that counts as near it."""


def comparable(networks: Sequence[Network]) -> bool:
    """Check whether every network was trained on the paper's data, so that agreement may be expected."""
    return bool(networks) and all(network.data == paper.DATA for network in networks)


def summarize(
    networks: Sequence[Network],
    sets: Sequence[MeasuredSet],
    tables: Sequence[Table],
    reference: Reference | None = None,
) -> tuple[str, ...]:
    """Say what was measured, what was found, and how many cells agree with the paper or another reference."""
    whose, compared = ("the paper's", comparable(networks)) if reference is None else (f"{reference.name}'s", True)
    sentences = [_measured(networks, sets)]
    main = [t for t in tables if t.key in paper.TABLES or (reference and t.agreement().n)]
    met = sum((t.agreement() for t in main), Count(0, 0))
    if met.n and compared:
        share = "; ".join(
            f"{t.number or t.title} {t.agreement().k} of {t.agreement().n}" for t in main if t.agreement().n
        )
        sentences.append(
            f"The 95 % interval of the measured error rate meets {whose} in {met.k} of {_count(met.n, 'cell')} "
            f"({met.percent:.0f} %; {share})."
        )
        sentences += _distortions(main, whose)
    elif not compared and any(cell.paper is not None for t in main for cell in t.cells.values()):
        sentences.append(
            f"The paper used MNIST, and these networks were trained on {_data(networks)}: the paper's numbers are "
            "shown for orientation only, and no agreement is to be expected."
        )
    sentences += _transfer(tables)
    return tuple(sentences)


def _measured(networks: Sequence[Network], sets: Sequence[MeasuredSet]) -> str:
    seeds = sorted({n.seed for n in networks})
    attacked = [s for s in sets if not s.is_noise and s.amplify is None]
    seeds_text = f"{'seed' if len(seeds) == 1 else 'seeds'} {_listed(seeds)}"
    taken = sum(not n.is_trained for n in networks)
    verb = "evaluated" if networks and taken == len(networks) else "trained"
    some = f", {taken} of them evaluated only" if 0 < taken < len(networks) else ""
    text = f"{_count(len(networks), 'network')} {verb} on {_data(networks)} ({seeds_text}{some})"
    if not attacked:
        return f"{text}; no attack was measured."
    if not any(s.num for s in attacked):
        return f"{text}; the adversarial sets are empty."
    were = "was" if len(networks) == 1 else "were"
    shares = {
        attack: sum((Count(s.num_success, s.num) for s in attacked if s.attack_name == attack), Count(0, 0))
        for attack in sorted({s.attack_name for s in attacked})
    }
    if len(shares) == 1:
        ((attack, share),) = shares.items()
        return f"{text} {were} attacked with {attack}: {_succeeded(share)}."
    return f"{text} {were} attacked: " + "; ".join(f"{attack}: {_succeeded(n)}" for attack, n in shares.items()) + "."


def _succeeded(share: Count) -> str:
    if not share.n:
        return "no attacks"
    return f"{share.k:,} of {share.n:,} attacks succeeded ({share.percent:.1f} %)"


def _distortions(tables: Sequence[Table], whose: str) -> list[str]:
    cells = [
        cell
        for table in tables
        if table.key in ("table1", "table3")
        for cell in table.cells.values()
        if cell.quantity == DISTORTION and cell.paper
    ]
    if not cells:
        return []
    near = sum(abs(cell.value / float(cell.paper or 1) - 1) <= DISTORTION_MARGIN for cell in cells)
    margin = f"{100 * DISTORTION_MARGIN:.0f} %"
    return [f"Mean distortions lie within {margin} of {whose} for {near} of {_count(len(cells), 'network')}."]


def _transfer(tables: Sequence[Table]) -> list[str]:
    """Count the pairs of networks whose transfer exceeds the effect of noise of equal norm."""
    groups = {
        **{one.number or "": [one] for one in tables if one.key in ("table2_excess_noise", "table4_excess_noise")},
        "Other transfer": [one for one in tables if one.key.startswith("transfer_") and OVER_NOISE.suffix in one.key],
    }
    found = []
    for name, excesses in groups.items():
        cells = [
            cell
            for excess in excesses
            for (row, to), cell in excess.cells.items()
            if excess.sources.get(row) != to and not cell.own
        ]
        if cells:
            above = sum(cell.interval is not None and cell.interval.low > 0 for cell in cells)
            found.append(
                f"{name}: in {above} of {_count(len(cells), 'pair')} of networks, examples made for the one fool the "
                "other more often than noise of equal norm does (95 % interval above zero)."
            )
    return found


def _data(networks: Sequence[Network]) -> str:
    names = {"mnist": "MNIST", "digits": "scikit-learn's 8x8 digits"}
    return _listed(sorted({names.get(n.data, n.data_name) for n in networks})) or "no data"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _listed(values: Iterable[object]) -> str:
    words = [str(v) for v in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""

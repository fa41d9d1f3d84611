"""Cells of a transfer table: error rates of a victim on a source's examples, and their excess."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from torch import Tensor

from intriguing.analysis import paper
from intriguing.analysis.cells import ByImage, error_cell, excess_cell
from intriguing.analysis.excess import Excess
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import Answers, MeasuredSet
from intriguing.results import Cell, Quantity
from intriguing.statistics.counts import Count

REACHED = Quantity(name="in target class", unit="%", digits=1, counted=True, column="percent")
"""Share of examples that end in the class that the attack aimed at."""
Pair = tuple[MeasuredSet, Network]
"""A set and a victim that was shown it."""


def transfer_cell(pairs: Sequence[Pair], place: tuple[str, str], networks: Mapping[str, Network]) -> Cell | None:
    """Make the error rate of a column's networks on a row's examples.

    Args:
        pairs: sets of the row, each with a victim of the column.
        place: (table, row) in the paper's names.
        networks: all victims by name.
    """
    counts = [(v.seed, s.outcomes[v.name].against_clean.first) for s, v in pairs]
    column = paper.network_name(pairs[0][1].config) if pairs else ""
    return error_cell(
        counts,
        (*place, column),
        by_image=_by_image(pairs, lambda answers: answers.adversarial),
        judge=all(paper.is_paper_data(v.config) for _, v in pairs),
        own=_all_own(pairs, networks),
        runs=_runs(pairs),
    )


def transfer_excess_cell(pairs: Sequence[Pair], excess: Excess, networks: Mapping[str, Network]) -> Cell | None:
    """Make the excess of a column's networks on a row's examples; arguments as for `transfer_cell`."""
    own = _all_own(pairs, networks)
    counted = [(s, v, excess.counts(s.outcomes[v.name])) for s, v in pairs]
    counts = [found for _, _, found in counted if found is not None]
    pairs = [(s, v) for s, v, found in counted if found is not None]
    return excess_cell(counts, by_image=_by_image(pairs, excess.difference), own=own, runs=_runs(pairs))


def target_cell(pairs: Sequence[Pair], networks: Mapping[str, Network]) -> Cell | None:
    """Make the share of a row's examples that a column's networks put into the class that the attack aimed at."""
    counted = [(s, v, None if (found := s.outcomes[v.name].answers) is None else found.reached) for s, v in pairs]
    pairs = [(s, v) for s, v, reached in counted if reached is not None]
    return error_cell(
        [(v.seed, Count.of(reached)) for _, v, reached in counted if reached is not None],
        by_image=_by_image(pairs, lambda answers: cast(Tensor, answers.reached)),
        own=_all_own(pairs, networks),
        quantity=REACHED,
        runs=_runs(pairs),
    )


def clean_target_share(pairs: Sequence[Pair]) -> Count:
    """Count the unperturbed images that the victims put into the class that the attack aims at."""
    found = [s.outcomes[v.name].answers for s, v in pairs]
    counts = [Count.of(one.reached_clean) for one in found if one is not None and one.reached_clean is not None]
    return sum(counts, Count(0, 0))


def _by_image(pairs: Sequence[Pair], values: Callable[[Answers], Tensor]) -> list[ByImage]:
    """Collect the values of each pair image by image; nothing where the images of one of them are not known."""
    found = [s.outcomes[v.name].answers for s, v in pairs]
    if any(answers is None or answers.indices.shape != answers.adversarial.shape for answers in found):
        return []
    return [(values(answers), answers.indices) for answers in found if answers is not None]


def _runs(pairs: Sequence[Pair]) -> list[str]:
    """List the attacks behind a cell, then the victims."""
    return [*(s.name for s, _ in pairs), *(v.name for _, v in pairs)]


def _all_own(pairs: Sequence[Pair], networks: Mapping[str, Network]) -> bool:
    return bool(pairs) and all(_is_own(s, v, networks) for s, v in pairs)


def _is_own(one: MeasuredSet, victim: Network, networks: Mapping[str, Network]) -> bool:
    """Check whether a network is shown its own examples, or those of the network of equal settings and seed.

    An amplified example is another point, which need not fool its own network.
    """
    if one.source is None or one.source not in networks:
        return False
    if one.source == victim.name:
        return one.amplify is None
    return networks[one.source].id == victim.id and networks[one.source].seed == victim.seed

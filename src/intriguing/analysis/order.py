"""The order of rows, columns and figures: the paper's networks as it lists them, and each network along lambda."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from intriguing.analysis.identity import NetworkId


class Rank(NamedTuple):
    """Place of a row, a column or a figure; ranks are compared element by element.

    Attributes:
        place: of the network's family in the paper's table; beyond its last for a family that the paper does not have.
        name: the architecture.
        split: part of the training images.
        penalty: kind of the spectral penalty.
        size: strength of the penalty, or the size of noise.
        weight_decay: lambda by layer.
        label: in the table.
    """

    place: int
    name: str = ""
    split: str = ""
    penalty: str = ""
    size: float = 0.0
    weight_decay: tuple[float, ...] = ()
    label: str = ""


def ranks(known: Sequence[str], networks: Mapping[str, NetworkId]) -> dict[str, Rank]:
    """Rank networks by their facts.

    Networks of one architecture and split stay together, along lambda: 1e-5 before 1e-4 before 1.

    Args:
        known: labels in the order of the paper's table.
        networks: identities by label.

    Returns:
        The rank of each label.
    """
    places: dict[tuple[str, str], int] = {}
    for label, one in networks.items():
        place = known.index(label) if label in known else len(known)
        family = one.name, one.split
        places[family] = min(place, places.get(family, place))
    return {label: _rank(places[one.name, one.split], label, one) for label, one in networks.items()}


def in_order(known: Sequence[str], networks: Mapping[str, NetworkId]) -> tuple[str, ...]:
    """Sort labels by `ranks`."""
    found = ranks(known, networks)
    return tuple(sorted(found, key=found.__getitem__))


def _rank(place: int, label: str, one: NetworkId) -> Rank:
    penalty = (one.penalty.kind, one.penalty.strength) if one.penalty else ("", 0.0)
    return Rank(place, one.name, one.split, *penalty, one.weight_decay, label)

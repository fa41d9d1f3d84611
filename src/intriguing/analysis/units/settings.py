"""What the section "units" may be told, checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from intriguing.units import AGGREGATES, FITTED

SUBSETS = ("train", "val", "test", "full", "p1", "p2")


FEWEST, MOST = 999, 1999
"""Random bases that are drawn where no number is asked for."""


def rotations_for(rows: int) -> int:
    """Return how many random bases so many rows need, between `FEWEST` and `MOST`.

    A single row at the smallest possible p, 2 / (1 + B), then has a corrected q of .04, up to 40 rows.

    Args:
        rows: comparisons that are corrected together.
    """
    return min(MOST, max(FEWEST, 50 * rows - 1))


@dataclass(frozen=True)
class UnitSettings:
    """Settings of the section; conf/analyze.yaml says them in the same words.

    Attributes:
        networks: globs of labels or run names; None: all.
        layers: names or globs, see ``units.find_layers``; None: every hidden layer.
        subset: whose images.
        limit: images at most, drawn by the seed; None: all.
        aggregate: what the response of a convolution to an image is, see ``units.AGGREGATES``.
        rows, columns: of a sheet; ``columns`` is also how many top images are scored.
        units: units of a layer that are scored, drawn by the seed where it has more.
        bases: further bases, of ``units.FITTED``.
        whitened: also the units and random directions of whitened activations.
        untrained: also the same network before training, of the lowest seed.
        rotations: random bases that the units are tested against; None: as many as the rows need, see `rotations_for`.
        sweeps: random rotations along which the units are turned.
        fractions: how far, 1 being all the way.
        sets: random image sets that a row is tested against.
        ablated: units that are removed, one at a time.
        ablation_limit: images the accuracy is counted on meanwhile, drawn likewise.
    """

    networks: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None
    subset: str = field(default="test", metadata={"choices": SUBSETS})
    limit: int | None = field(default=None, metadata={"low": 2})
    aggregate: str = field(default="max", metadata={"choices": AGGREGATES})
    rows: int = field(default=8, metadata={"low": 1})
    columns: int = field(default=9, metadata={"low": 2})
    units: int = field(default=64, metadata={"low": 1})
    bases: tuple[str, ...] = field(default=("pca", "ica", "nmf", "dictionary"), metadata={"choices": FITTED})
    whitened: bool = True
    untrained: bool = True
    rotations: int | None = field(default=None, metadata={"low": 19})
    sweeps: int = field(default=5, metadata={"low": 0})
    fractions: tuple[float, ...] = field(default=(0.25, 0.5, 0.75, 1.0), metadata={"above": 0})
    sets: int = field(default=9999, metadata={"low": 99})
    ablated: int = field(default=32, metadata={"low": 0})
    ablation_limit: int = field(default=2000, metadata={"low": 1})

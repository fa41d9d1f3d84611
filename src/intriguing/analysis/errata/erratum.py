"""An erratum of the paper with its measurements, and the settings of the section."""

from __future__ import annotations

from dataclasses import dataclass, field

from intriguing.results import Cell, Quantity

RATIO = Quantity(name="ratio")
SHARE = Quantity(name="share", unit="%", digits=1, counted=True, column="percent")
"""A rate in percent that no count of agreeing error rates takes in."""
PERCENT = Quantity(name="percent", unit="%")
POINTS = Quantity(name="deviation", unit="points")
NUMBER = Quantity(name="number")


@dataclass(frozen=True)
class ErrataSettings:
    """Settings of the section.

    Attributes:
        limit: images of each set on which the penalty is minimised at fixed c, and beside the exact minimum.
        c: weights of the perturbation's norm at which it is minimised, in ascending order.
        amplify: per-pixel RMS to which the sets of Table 4 are scaled.
        kernels: random convolutions for the misprints of the operator norm.
    """

    limit: int = field(default=64, metadata={"low": 2})
    c: tuple[float, ...] = field(default=(0.001, 0.01, 0.1), metadata={"above": 0})
    amplify: float = field(default=0.1, metadata={"above": 0})
    kernels: int = field(default=16, metadata={"low": 2})


@dataclass(frozen=True, kw_only=True)
class Line:
    """Hold one measurement of an erratum.

    Attributes:
        what: the measured quantity in words, which no other line of the erratum has.
        cell: the number.
        of: what its N counts.
    """

    what: str
    cell: Cell
    of: str = "images"

    @property
    def sample(self) -> str:
        """N in words: "768 (256 distinct images)"."""
        distinct = "" if self.cell.num_images == self.cell.n else f" ({self.cell.num_images:,} distinct {self.of})"
        return f"{self.cell.n:,}{distinct}" if distinct else f"{self.cell.n:,} {self.of}"


@dataclass(frozen=True, kw_only=True)
class Erratum:
    """Hold a misprint or a gap of the paper.

    Attributes:
        name: short name, which begins with its place in the list.
        printed: what the paper prints.
        correct: what it must be.
        note: how it was measured.
        lines: its measurements; none where the material is missing.
        needs: the networks and sets that it is measured on; empty where it needs none.
    """

    name: str
    printed: str
    correct: str
    note: str
    lines: tuple[Line, ...] = ()
    needs: str = ""


def lines(*found: tuple[str, Cell | None], of: str = "images") -> tuple[Line, ...]:
    """List the measurements that could be made."""
    return tuple(Line(what=what, cell=cell, of=of) for what, cell in found if cell is not None)

"""One number of a table, with its interval and the paper's number."""

from __future__ import annotations

from dataclasses import dataclass

from intriguing.results.quantities import Quantity
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import Interval, intervals_meet

THE_PAPER = "the paper"
"""Whose numbers stand beside the measured ones, unless others are given."""


def short_name(reference: str) -> str:
    """Name whose numbers these are in few letters: "paper"."""
    return reference.removeprefix("the ")


@dataclass(frozen=True, kw_only=True)
class CellText:
    """Hold the numbers of a cell as a table shows them, all with the decimals of their column.

    Attributes:
        value: measured number, "3.1"; or the words of a cell without a number.
        interval: its interval, "1.6 to 6.0"; empty where there is none.
        paper: the paper's number as it is printed; empty where the paper has none.
        paper_interval: interval of the paper's number; empty where there is none.
        sign: the agreement of the two, see `Cell.sign`; empty where a network is shown its own examples, which fool it
            by construction.
        is_words: whether the cell holds words, which may be long.
    """

    value: str
    interval: str = ""
    paper: str = ""
    paper_interval: str = ""
    sign: str = ""
    is_words: bool = False

    @staticmethod
    def short(interval: str) -> str:
        """Write an interval with few characters, "1.6–6.0"; one with signs stays as it is."""
        return interval if {"+", "−"} & set(interval) else interval.replace(" to ", "–")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Hold one number of a table, with its interval and the paper's number.

    Attributes:
        quantity: measured quantity.
        value: measured number.
        interval: its confidence interval, in the unit of the value; None where there is none.
        n: how many answers (or distortions) it rests on: one for each network and image.
        k: how many of them were wrong; for an excess the net number; None for a mean.
        images: how many distinct images these are; None where each answer is on another image.
        paper: the printed number, an int where the paper prints no decimals; None where the paper has none.
        paper_interval: interval of the printed number, given the paper's sample size.
        own: whether a network is shown the examples made for itself (or for the network of equal settings and seed of
            another run): 100 % by construction and so no evidence of agreement.
        by_seed: seed and count of each network, if several were pooled.
        runs: names of the runs behind this number; empty where they are those of the whole table.
    """

    quantity: Quantity
    value: float
    interval: Interval | None
    n: int
    k: int | None = None
    images: int | None = None
    paper: float | None = None
    paper_interval: Interval | None = None
    own: bool = False
    by_seed: tuple[tuple[int, Count], ...] = ()
    runs: tuple[str, ...] = ()

    @property
    def meets(self) -> bool | None:
        """Whether the measured and the paper's interval share a point; None where the paper has no number."""
        if self.paper_interval is None or self.interval is None:
            return None
        return intervals_meet(self.interval, self.paper_interval)

    @property
    def sign(self) -> str:
        """The agreement as one sign: a check mark, "not equal", or nothing without a paper value."""
        return {None: "", True: "✓", False: "≠"}[self.meets]

    @property
    def num_images(self) -> int:
        """How many distinct images it rests on."""
        return self.n if self.images is None else self.images

    @property
    def sample(self) -> str:
        """The sample in words: "58 of 768, on 256 images"; the images only where several networks saw them."""
        count = f"mean of {self.n:,}" if self.k is None else f"{self.k:,} of {self.n:,}"
        return count if self.num_images == self.n else f"{count}, on {self.num_images:,} images"

    @property
    def paper_text(self) -> str:
        """The paper's number as printed."""
        if self.paper is None:
            return ""
        return f"{self.paper}".removeprefix("0") if 0 < self.paper < 1 else f"{self.paper}"

    def text(self, decimals: int | None) -> CellText:
        """Write the numbers of the cell with so many decimals; None for a power of ten."""
        written = self.quantity.interval_text
        return CellText(
            value=self.quantity.text(self.value, decimals),
            interval="" if self.interval is None else written(self.interval, decimals),
            paper=self.paper_text,
            paper_interval="" if self.paper_interval is None else written(self.paper_interval, decimals),
            sign="" if self.own else self.sign,
        )

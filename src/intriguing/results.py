"""What an analysis returns to a report: tables of cells, figures, and a summary of each run behind them.

These are plain frozen values: the analysis does not know the layout of a page, and the report does not know how a
number was measured. Percentages are in percent, distortions in the unit of a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import Interval, intervals_meet

if TYPE_CHECKING:
    import pandas

TIDY_COLUMNS = (
    *("table", "row", "column", "quantity", "k", "n", "images", "percent", "distortion", "low", "high"),
    *("paper", "paper_low", "paper_high", "meets", "own", "by_seed", "value", "runs"),
)
MANY = 5000
"""Answers from which the second decimal of a rate in percent is written."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Name a measured quantity and define how its numbers are written.

    Attributes:
        name: in the data files, e.g. "error".
        unit: of its numbers, e.g. "%"; empty for a bare number.
        digits: decimals in a table; None for three significant digits.
        counted: whether it is a rate of counted answers, in percent or percentage points, with a second decimal from
            `MANY` answers on.
        signed: whether a positive number has a plus sign.
        column: column of its numbers in a data file: "percent", "distortion" or "value".
    """

    name: str
    unit: str = ""
    digits: int | None = None
    counted: bool = False
    signed: bool = False
    column: str = "value"

    def text(self, value: float, n: int) -> str:
        """Write a number that rests on n answers."""
        if self.digits is None:
            return _significant(value)
        if not self.counted:
            return f"{value:.{self.digits}f}".removeprefix("0")
        text = f"{value:.{self.digits + (n >= MANY)}f}"
        text = text.removeprefix("-") if float(text) == 0 else text
        return f"+{text}" if self.signed and float(text) > 0 else text.replace("-", "−")

    def interval_text(self, interval: Interval, n: int) -> str:
        """Write an interval that rests on n answers, "3.1 to 8.0"."""
        return " to ".join(self.text(end, n) for end in interval)

    def short_interval(self, interval: Interval, n: int) -> str:
        """Write an interval with few characters: "3.1–8.0", ".061–.063"."""
        if self.digits is not None and not self.counted:
            return "–".join(f"{end:.{self.digits - 1}f}".removeprefix("0") for end in interval)
        text = self.interval_text(interval, n)
        return text if self.signed or "−" in text else text.replace(" to ", "–")  # no dash beside a minus sign

    def stored(self, value: float) -> float:
        """Round a number for a data file."""
        return float(f"{value:.6g}") if self.digits is None else round(value, 4 if self.counted else 6)


ERROR = Quantity(name="error", unit="%", digits=1, counted=True, column="percent")
EXCESS = Quantity(name="excess", unit="points", digits=1, counted=True, signed=True, column="percent")
DISTORTION = Quantity(name="distortion", digits=4, column="distortion")
"""Per-pixel RMS of a perturbation, .0622 as the paper writes it."""


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
    def text(self) -> str:
        """The measured number as a table shows it."""
        return self.quantity.text(self.value, self.n)

    @property
    def interval_text(self) -> str:
        """The interval, "3.1 to 8.0"; empty where there is none."""
        return "" if self.interval is None else self.quantity.interval_text(self.interval, self.n)

    @property
    def paper_text(self) -> str:
        """The paper's number as printed."""
        if self.paper is None:
            return ""
        return f"{self.paper}".removeprefix("0") if 0 < self.paper < 1 else f"{self.paper}"


def _html(cell: Cell) -> str:
    paper = f" ({cell.paper_text} {cell.sign})".replace(" )", ")") if cell.paper is not None else ""
    below = f"<br><small>{escape(cell.interval_text)}</small>" if cell.interval is not None else ""
    return f"{escape(cell.text)}{paper}{below}"


def _heading(one: Table | Figure) -> str:
    return " · ".join(part for part in (one.number, one.title, one.detail) if part)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Hold a table in the paper's layout.

    Attributes:
        key: file name stem and anchor, e.g. "table2".
        number: its number in the paper, "Table 2"; empty for a table that the paper does not have.
        title: what it shows.
        detail: what distinguishes it from other tables of its number and title, e.g. a network; may be empty.
        caption: one or two sentences that explain a cell.
        row_header: what the rows are.
        rows: labels in order.
        columns: labels in order.
        cells: by (row, column); a missing pair is an empty cell.
        sample: N and the seeds, in words.
        method: how the intervals were made, in words.
        source: where the paper prints it; empty if it does not.
        notes: what a reader must know to read it right.
        runs: names of the runs behind the numbers; a cell may name others.
        sources: of a transfer table, the column's label of the network behind the examples of each row.
    """

    key: str
    title: str
    caption: str
    row_header: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]
    sample: str
    method: str
    number: str = ""
    detail: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """Number, title and detail in one line."""
        return _heading(self)

    @property
    def printed_in(self) -> str:
        """Where the paper prints the numbers beside the measured ones; empty if none is shown."""
        return self.source if any(cell.paper is not None for cell in self.cells.values()) else ""

    @property
    def method_note(self) -> str:
        """The sample and the method of the intervals, in two sentences."""
        return " ".join(f"{part[:1].upper()}{part[1:]}." for part in (self.sample, self.method))

    def tidy(self) -> list[dict[str, Any]]:
        """Return one flat record per cell, with the keys of `TIDY_COLUMNS`; None where there is no value."""
        records = []
        for row in self.rows:
            for column in self.columns:
                if cell := self.cells.get((row, column)):
                    records.append(_record(self.key, row, column, cell, self.runs_of(cell)))
        return records

    def to_frame(self) -> pandas.DataFrame:
        """Return the cells as a pandas DataFrame, one row a cell, with the columns `TIDY_COLUMNS`.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas

        return pandas.DataFrame(self.tidy(), columns=list(TIDY_COLUMNS))

    def _repr_html_(self) -> str:
        """Show the table in a notebook: each number, its interval below it, and the paper's number."""
        head = "".join(f"<th>{escape(name)}</th>" for name in (self.row_header, *self.columns))
        body = ""
        for row in self.rows:
            cells = (self.cells.get((row, column)) for column in self.columns)
            shown = "".join(f"<td>{'' if cell is None else _html(cell)}</td>" for cell in cells)
            body += f"<tr><th>{escape(row)}</th>{shown}</tr>"
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        notes = "".join(f"<br>{escape(note)}" for note in (self.caption, self.method_note, *self.notes))
        return f"<b>{escape(self.heading)}</b>{table}<small>{notes.removeprefix('<br>')}</small>"

    def runs_of(self, cell: Cell) -> tuple[str, ...]:
        """Return the names of the runs behind a cell of this table."""
        return cell.runs or self.runs

    def agreement(self) -> Count:
        """Count the error cells whose interval meets the paper's; cells on a network's own examples are left out."""
        judged = [c for c in self.cells.values() if c.quantity == ERROR and c.meets is not None and not c.own]
        return Count(sum(bool(c.meets) for c in judged), len(judged))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Hold a picture, ready to be written.

    Attributes:
        key: file name stem and anchor.
        number: its number in the paper, "Figure 7"; empty for a figure that the paper does not have.
        title: what it shows.
        detail: what distinguishes it from other figures of its title, e.g. a network; may be empty.
        caption: how to read it.
        alt: description for readers who cannot see it.
        png: bytes of the file.
        svg: the drawing as SVG markup with transparent ground and ``currentColor`` ink; None for photographs.
        runs: names of the runs behind it.
    """

    key: str
    title: str
    caption: str
    alt: str
    png: bytes = field(repr=False)
    svg: str | None = field(default=None, repr=False)
    number: str = ""
    detail: str = ""
    runs: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Number, title and detail in one line."""
        return _heading(self)

    def _repr_png_(self) -> bytes:
        """Show the figure in a notebook."""
        return self.png


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Describe one finished run behind the numbers.

    Attributes:
        name: the run's name, unique.
        stage: "train" or "attack".
        label: what it is in the paper's words.
        folder: path of its folder, relative to the project.
        command: the command that made it.
        config: its resolved configuration.
        facts: short facts to show beside it, e.g. seed, commit, seconds.
    """

    name: str
    stage: str
    label: str
    folder: str = ""
    command: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AnalysisResult:
    """Hold everything an analysis found.

    Attributes:
        title: heading of the page.
        summary: plain sentences, the result in short.
        tables: in the order in which they are shown.
        figures: in the order in which they are shown.
        runs: every run that went in.
        comparable: whether the data are the paper's, so that agreement may be expected at all.
        provenance: facts of this analysis: commit, config, versions, times.
    """

    title: str
    summary: tuple[str, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    runs: tuple[RunSummary, ...]
    comparable: bool
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def table(self, key: str) -> Table:
        """Return the table called ``key``; KeyError if there is none."""
        return {table.key: table for table in self.tables}[key]

    def figure(self, key: str) -> Figure:
        """Return the figure called ``key``; KeyError if there is none."""
        return {figure.key: figure for figure in self.figures}[key]


def fact_text(value: Any) -> str:
    """Write a fact about a run or an analysis in one line: a mapping as "torch 2.15.0, numpy 2.4.6"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {fact_text(inner)}" for name, inner in value.items())
    return ", ".join(map(fact_text, value)) if isinstance(value, list | tuple) else str(value)


def _significant(value: float) -> str:
    """Write three significant digits, with an exponent only for very large and very small numbers."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "–")
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{digits}f}".replace("-", "−")
    return f"{value:.2e}".replace("-", "−")


def _record(table: str, row: str, column: str, cell: Cell, runs: tuple[str, ...]) -> dict[str, Any]:
    stored = cell.quantity.stored
    low, high = cell.interval or (None, None)
    paper_low, paper_high = cell.paper_interval or (None, None)
    given: dict[str, Any] = {
        "table": table,
        "row": row,
        "column": column,
        "quantity": cell.quantity.name,
        "k": cell.k,
        "n": cell.n,
        "images": cell.num_images,
        cell.quantity.column: stored(cell.value),
        "low": None if low is None else stored(low),
        "high": None if high is None else stored(high),
        "paper": cell.paper,
        "paper_low": None if paper_low is None else stored(paper_low),
        "paper_high": None if paper_high is None else stored(paper_high),
        "meets": cell.meets,
        "own": cell.own,
        "runs": " ".join(runs),
        "by_seed": " ".join(f"{seed}:{count.k}/{count.n}" for seed, count in cell.by_seed),
    }
    return {key: given.get(key) for key in TIDY_COLUMNS}

"""What an analysis hands to a report: tables of cells, figures, and the runs they came from.

Plain frozen values without behaviour beyond their own text, so that the analysis need not know how a page looks and the
report need not know how a number was measured. Percentages are in percent, distortions in the unit of a pixel.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from intriguing.statistics.intervals import Interval, intervals_meet

TIDY_COLUMNS = (
    *("table", "row", "column", "quantity", "k", "n", "images", "percent", "distortion", "low", "high"),
    *("paper", "paper_low", "paper_high", "meets", "own", "by_seed", "value", "runs"),
)


@dataclass(frozen=True)
class SeedCount:
    """One seed's share of a pooled cell: k out of n."""

    seed: int
    k: int
    n: int


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of a table, with its interval and what the paper printed in its place.

    Attributes:
        quantity: "error" (percent), "excess" (percentage points, may be negative), "distortion" (per-pixel RMS), or any
            other word for a number that is shown to three significant digits.
        value: the measured number.
        interval: its confidence interval, in the same unit; None where there is none.
        n: how many answers (or distortions) it rests on: one for each network and image.
        k: how many of them were wrong; for an excess the net number; None for a distortion.
        images: how many distinct images these are; None where each answer is on an image of its own.
        paper: the printed number, an int where the paper prints no decimals; None where the paper has none.
        paper_interval: the interval the printed number has, given the paper's sample size.
        own: a network on the examples made for itself (or for the same network and seed, trained in another run), 100 %
            by construction and so no evidence of agreement.
        by_seed: the counts of each seed, if several were pooled.
        runs: names of the runs this number came from; empty where they are those of the whole table.
    """

    quantity: str
    value: float
    interval: Interval | None
    n: int
    k: int | None = None
    images: int | None = None
    paper: float | None = None
    paper_interval: Interval | None = None
    own: bool = False
    by_seed: tuple[SeedCount, ...] = ()
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
        """The measured number as a reader wants it."""
        return self._format(self.value)

    @property
    def interval_text(self) -> str:
        """The interval, "3.1 to 8.0"; empty where there is none."""
        if self.interval is None:
            return ""
        return f"{self._format(self.interval.low)} to {self._format(self.interval.high)}"

    @property
    def paper_text(self) -> str:
        """The paper's number as printed."""
        return (
            "" if self.paper is None else f"{self.paper}".removeprefix("0") if 0 < self.paper < 1 else f"{self.paper}"
        )

    def _format(self, value: float) -> str:
        if self.quantity == "distortion":
            return f"{value:.4f}".removeprefix("0")
        if self.quantity not in ("error", "excess"):
            return _significant(value)
        # Two decimals only where the sample is large enough to make the second one mean something.
        text = f"{value:.{2 if self.n >= 5000 else 1}f}"
        text = text.removeprefix("-") if float(text) == 0 else text
        return f"+{text}" if self.quantity == "excess" and float(text) > 0 else text.replace("-", "−")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table in the paper's layout.

    Attributes:
        key: file name stem and anchor, e.g. "table2".
        title: heading.
        caption: one or two sentences that say what a cell is.
        row_header: what the rows are.
        rows, columns: labels in order.
        cells: by (row, column); a missing pair is an empty cell.
        sample: N and the seeds, in words.
        method: how the intervals were made, in words.
        source: where the paper prints it; empty if it does not.
        notes: anything a reader must know to read it right.
        runs: names of the runs the numbers came from; a cell may name its own.
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
    source: str = ""
    notes: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    def tidy(self) -> list[dict[str, Any]]:
        """One flat record per cell, with the keys of `TIDY_COLUMNS`; None where there is nothing to say."""
        records = []
        for row in self.rows:
            for column in self.columns:
                if cell := self.cells.get((row, column)):
                    records.append(_record(self.key, row, column, cell, self.runs_of(cell)))
        return records

    def runs_of(self, cell: Cell) -> tuple[str, ...]:
        """Names of the runs a cell of this table came from."""
        return cell.runs or self.runs

    def agreement(self) -> tuple[int, int]:
        """How many error cells meet the paper's interval, out of how many; own columns are left out."""
        judged = [c for c in self.cells.values() if c.quantity == "error" and c.meets is not None and not c.own]
        return sum(bool(c.meets) for c in judged), len(judged)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture, ready to be written.

    Attributes:
        key: file name stem and anchor.
        title, caption: what is seen.
        alt: the same for readers who cannot see it.
        png: the file's bytes.
        svg: the same drawing as SVG markup with transparent ground and `currentColor` ink; None for photographs.
        runs: names of the runs it came from.
    """

    key: str
    title: str
    caption: str
    alt: str
    png: bytes = field(repr=False)
    svg: str | None = field(default=None, repr=False)
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Where a number came from: one finished run.

    Attributes:
        name: the run's name, unique.
        stage: "train" or "attack".
        label: what it is in the paper's words.
        folder: where it lies, relative to the project.
        command: the command that made it.
        config: its resolved configuration.
        facts: short things worth seeing at once, e.g. seed, commit, seconds.
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
    """Everything an analysis found.

    Attributes:
        title: heading of the page.
        summary: plain sentences for a reader who reads nothing else.
        tables, figures: in the order they are to be shown.
        runs: every run that went in.
        comparable: whether the data are the paper's, so that agreement may be expected at all.
        provenance: commit, config, versions, times: whatever the caller knows about this analysis.
    """

    title: str
    summary: tuple[str, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    runs: tuple[RunSummary, ...]
    comparable: bool
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def table(self, key: str) -> Table:
        """The table called `key`; KeyError if there is none."""
        return {table.key: table for table in self.tables}[key]

    def figure(self, key: str) -> Figure:
        """The figure called `key`; KeyError if there is none."""
        return {figure.key: figure for figure in self.figures}[key]


def fact_text(value: Any) -> str:
    """A fact about a run or an analysis in one line: a mapping as "torch 2.15.0, numpy 2.4.6"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {fact_text(inner)}" for name, inner in value.items())
    return ", ".join(map(fact_text, value)) if isinstance(value, list | tuple) else str(value)


def _significant(value: float) -> str:
    """Three significant digits, with an exponent only where the number is very large or very small."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "–")
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{digits}f}".replace("-", "−")
    return f"{value:.2e}".replace("-", "−")


def _record(table: str, row: str, column: str, cell: Cell, runs: tuple[str, ...]) -> dict[str, Any]:
    shares, is_distortion = cell.quantity in ("error", "excess"), cell.quantity == "distortion"
    digits = 4 if shares else 6
    low, high = cell.interval or (None, None)
    paper_low, paper_high = cell.paper_interval or (None, None)
    values = (
        *(table, row, column, cell.quantity, cell.k, cell.n, cell.num_images),
        round(cell.value, digits) if shares else None,
        round(cell.value, digits) if is_distortion else None,
        *(_rounded(end, digits, shares or is_distortion) for end in (low, high)),
        cell.paper,
        *(None if end is None else round(end, digits) for end in (paper_low, paper_high)),
        *(cell.meets, cell.own, " ".join(f"{s.seed}:{s.k}/{s.n}" for s in cell.by_seed)),
        None if shares or is_distortion else float(f"{cell.value:.6g}"),
        " ".join(runs),
    )
    return dict(zip(TIDY_COLUMNS, values, strict=True))


def _rounded(value: float | None, digits: int, fixed: bool) -> float | None:
    if value is None:
        return None
    return round(value, digits) if fixed else float(f"{value:.6g}")

"""A table in the paper's layout, and its forms as a data frame, in a notebook and for LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from intriguing.results.cells import THE_PAPER, Cell, CellText, short_name
from intriguing.results.digits import decimals_of, decimals_of_one
from intriguing.results.latex import latex_table
from intriguing.results.notebook import html_table, text_table
from intriguing.results.quantities import ERROR
from intriguing.statistics.counts import Count
from intriguing.validation import import_pandas

if TYPE_CHECKING:
    import pandas

TIDY_COLUMNS = (
    *("table", "row", "column", "quantity", "k", "n", "images", "percent", "distortion", "low", "high"),
    *("paper", "paper_low", "paper_high", "meets", "own", "by_seed", "value", "runs"),
)


@dataclass(frozen=True, kw_only=True, repr=False)
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
        words: by (row, column), of cells that hold words instead of a number.
        sample: N and the seeds, in words.
        method: how the intervals were made, in words.
        source: where the paper prints it; empty if it does not.
        reference: whose numbers stand beside the measured ones, such that "'s" can follow.
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
    reference: str = THE_PAPER
    notes: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """Number, title and detail in one line."""
        return " · ".join(part for part in (self.number, self.title, self.detail) if part)

    @property
    def printed_in(self) -> str:
        """Where the paper prints the numbers beside the measured ones; empty if none is shown."""
        return self.source if any(cell.paper is not None for cell in self.cells.values()) else ""

    @property
    def method_note(self) -> str:
        """The sample and the method of the intervals, in two sentences."""
        return " ".join(f"{_capitalised(part)}." for part in (self.sample, self.method))

    def text(self, row: str, column: str) -> CellText | None:
        """Write a cell; the numbers of one quantity in one column have equally many decimals.

        Args:
            row: label of the row.
            column: label of the column.

        Returns:
            The texts; None for an empty cell.
        """
        cell = self.cells.get((row, column))
        if cell is None:
            words = self.words.get((row, column))
            return None if words is None else CellText(value=words, is_words=True)
        decimals = self._decimals[column, cell.quantity.name]
        return cell.text(decimals_of_one(cell) if decimals is None else decimals)

    @property
    def head(self) -> tuple[str, ...]:
        """The header of the rows, then those of the columns."""
        return (self.row_header, *self.columns)

    @property
    def text_rows(self) -> list[tuple[str, list[CellText | None]]]:
        """The label and the texts of each row; None for an empty cell."""
        return [(row, [self.text(row, column) for column in self.columns]) for row in self.rows]

    @cached_property
    def _decimals(self) -> Mapping[tuple[str, str], int | None]:
        """Decimals by column and quantity; None where each cell has its own."""
        alike: dict[tuple[str, str], list[Cell]] = {}
        for (_, column), cell in self.cells.items():
            alike.setdefault((column, cell.quantity.name), []).append(cell)
        return {place: decimals_of(cells) for place, cells in alike.items()}

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
        return import_pandas().DataFrame(self.tidy(), columns=list(TIDY_COLUMNS))

    def to_latex(self) -> str:
        r"""Return the table as a LaTeX float: each number, the paper's in brackets, and its interval below it.

        The first line names the packages that it needs: ``booktabs``, and ``graphicx`` or ``longtable``. The caption
        holds the title, the caption and the method; the label is ``tab:`` and the key.
        """
        number = f" (the paper's {self.number})" if self.number else ""
        title = ", ".join(part for part in (self.title, self.detail) if part)
        caption = f"{title}{number}. {self.caption} {self.method_note}"
        return latex_table(key=self.key, caption=caption, head=self.head, rows=self.text_rows, reference=self.reference)

    def __repr__(self) -> str:
        return f"Table({self.heading}: {len(self.rows)} x {len(self.columns)})"

    def __str__(self) -> str:
        """Write the table as plain text: each number with its interval in brackets."""
        notes = (self.caption, self.method_note, *self.notes)
        words = short_name(self.reference)
        return text_table(heading=self.heading, head=self.head, rows=self.text_rows, notes=notes, reference=words)

    def _repr_html_(self) -> str:
        """Show the table in a notebook: each number, its interval below it, and the paper's number."""
        notes = (self.caption, self.method_note, *self.notes)
        return html_table(heading=self.heading, head=self.head, rows=self.text_rows, notes=notes)

    def runs_of(self, cell: Cell) -> tuple[str, ...]:
        """Return the names of the runs behind a cell of this table."""
        return cell.runs or self.runs

    def agreement(self) -> Count:
        """Count the error cells whose interval meets the paper's; cells on a network's own examples are left out."""
        judged = [c for c in self.cells.values() if c.quantity == ERROR and c.meets is not None and not c.own]
        return Count(sum(bool(c.meets) for c in judged), len(judged))


def _capitalised(sentence: str) -> str:
    """Begin a sentence with a capital letter, unless it begins with a symbol of one letter, such as p."""
    return sentence if sentence[1:2] and not sentence[1].isalpha() else f"{sentence[:1].upper()}{sentence[1:]}"


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

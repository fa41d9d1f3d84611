"""The tables on the console."""

from __future__ import annotations

import re

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from intriguing.results import AnalysisResult, Cell, Table
from intriguing.storage.streams import unfailing

LEGEND = "measured above the paper's"
SIGNS = "✓ the 95 % intervals meet, ≠ they do not"
_GAP = 2  # between columns


def show(result: AnalysisResult, console: Console | None = None) -> None:
    """Print the tables and the summary; each cell is the measured number above the paper's.

    Args:
        result: the analysis.
        console: None for standard output in any encoding.
    """
    with unfailing():
        _show(result, console or Console())


def _show(result: AnalysisResult, console: Console) -> None:
    for table in result.tables:
        console.print(Text(f"\n{table.heading}", style="bold"))
        for part in grids(table, width=console.width, comparable=result.comparable):
            console.print(part, "")
        judged = any(cell.meets is not None for cell in table.cells.values())
        about = f"{LEGEND} · {SIGNS}" if judged else LEGEND if table.printed_in else "95 % interval below"
        console.print(Text(f"{table.sample} · {about}", style="dim"))
    console.print()
    bullets = Grid.grid(padding=(0, 1, 0, 0))
    for sentence in result.summary:
        bullets.add_row("•", Text(sentence))
    console.print(bullets)


def grids(table: Table, *, width: int, comparable: bool = True) -> list[Grid]:
    """Lay out a table for a rich console: in one piece where it fits into ``width``, else in blocks of columns."""
    heads = [Text(_folded(table.row_header)), *(Text(_folded_row(row)) for row in table.rows)]
    columns = [
        [Text(_folded(name)), *(_text(table.cells.get((row, name)), comparable=comparable) for row in table.rows)]
        for name in table.columns
    ]
    for count in range(1, len(columns) + 1):
        size = -(-len(columns) // count)
        parts = [[heads, *columns[i : i + size]] for i in range(0, len(columns), size)]
        if size == 1 or all(sum(map(_width, part)) + _GAP * (len(part) - 1) <= width for part in parts):
            return [_grid(part) for part in parts]
    return []


def _grid(columns: list[list[Text]]) -> Grid:
    drawn = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for number, (name, *_) in enumerate(columns):
        drawn.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in zip(*(cells for _, *cells in columns), strict=True):
        drawn.add_row(*row)
    return drawn


def _width(column: list[Text]) -> int:
    return max(line.cell_len for text in column for line in text.split("\n"))


def _text(cell: Cell | None, *, comparable: bool) -> Text:
    if cell is None:
        return Text("")
    style = "" if not comparable or cell.own else {None: "", True: "green", False: "yellow"}[cell.meets]
    sign = "" if cell.own else cell.sign  # its own examples fool a network by construction: that is no agreement
    text = Text(cell.text if cell.quantity.signed else f"{cell.text} {sign or ' '}", style=style)
    below = f"{cell.paper_text}  " if cell.paper is not None else ""
    if cell.quantity.signed and cell.interval is not None:
        below = f"{_whole(cell.interval.low)} to {_whole(cell.interval.high)}"
    elif cell.quantity.digits is None:
        below = cell.interval_text
    return text.append(f"\n{below}", style="dim")


def _whole(value: float) -> str:
    return f"{round(value)}".replace("-", "−")


def _folded(header: str) -> str:
    """Fold a long header into two lines: "FC100-100-10" after its first layer, "FC10(1e-4)" before its lambda."""
    if len(header) < 10:
        return header
    return re.sub(r" |(?<=-)|(?=\()", "\n", header, count=1)


def _folded_row(row: str) -> str:
    """Fold a row's name into two lines: before its last part, or after its first comma."""
    if len(row) > 20 and " · " in row:
        return " ·\n".join(row.rsplit(" · ", 1))
    return row.replace(", ", ",\n", 1)

"""The tables on the console."""

import re

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from intriguing.results import AnalysisResult, Cell, Table


def show(result: AnalysisResult, console: Console | None = None) -> None:
    """Prints the summary and the tables; each cell is the measured number above the paper's.

    Args:
        result: what to show.
        console: where; a new one on standard output if None.
    """
    console = console or Console()
    for table in result.tables:
        console.print(Text(f"\n{table.title}", style="bold"))
        console.print(grid(table, comparable=result.comparable))
        legend = "measured above the paper's · ✓ the 95 % intervals meet, ≠ they do not"
        about = legend if table.source else "95 % interval below"
        console.print(Text(f"{table.sample} · {about}", style="dim"))
    console.print()
    for sentence in result.summary:
        console.print(f"• {sentence}", highlight=False, markup=False)


def grid(table: Table, *, comparable: bool = True) -> Grid:
    """The cells of one table for a rich console."""
    drawn = Grid(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column(Text(_folded(table.row_header)), min_width=max(len(_first_line(row)) for row in table.rows))
    for column in table.columns:
        drawn.add_column(Text(_folded(column)), justify="right")
    for row in table.rows:
        drawn.add_row(
            Text(row.replace(", ", ",\n", 1)),
            *(_text(table.cells.get((row, column)), comparable=comparable) for column in table.columns),
        )
    return drawn


def _text(cell: Cell | None, *, comparable: bool) -> Text:
    if cell is None:
        return Text("")
    style = "" if not comparable or cell.own else {None: "", True: "green", False: "yellow"}[cell.meets]
    text = Text(f"{cell.text} {cell.sign or ' '}" if cell.quantity != "excess" else cell.text, style=style)
    below = f"{cell.paper_text}  " if cell.paper is not None else ""
    if cell.quantity == "excess" and cell.interval is not None:
        below = f"{_whole(cell.interval.low)} to {_whole(cell.interval.high)}"
    elif cell.paper is None and cell.quantity not in ("error", "distortion"):
        below = cell.interval_text
    return text.append(f"\n{below}", style="dim")


def _whole(value: float) -> str:
    return f"{round(value)}".replace("-", "−")


def _folded(header: str) -> str:
    """A long header on two lines: "FC100-100-10" breaks after its first layer, "FC10(1e-4)" before its lambda."""
    if len(header) < 10:
        return header
    return re.sub(r" |(?<=-)|(?=\()", "\n", header, count=1)


def _first_line(row: str) -> str:
    return row.split(", ", 1)[0] + ("," if ", " in row else "")

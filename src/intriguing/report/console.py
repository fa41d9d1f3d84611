"""The tables on the console."""

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
        console.print(grid(table, comparable=result.comparable))
    for sentence in result.summary:
        console.print(f"• {sentence}", highlight=False, markup=False)


def grid(table: Table, *, comparable: bool = True) -> Grid:
    """One table for a rich console."""
    title = Text(table.title, style="bold", justify="left")
    legend = (
        "measured above the paper's · ✓ the 95 % intervals meet, ≠ they do not"
        if table.source
        else "95 % interval below"
    )
    drawn = Grid(
        title=title,
        caption=Text(f"{table.sample} · {legend}", style="dim", justify="left"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    drawn.add_column(Text(table.row_header), overflow="fold")
    for column in table.columns:
        drawn.add_column(Text(column), justify="right", overflow="fold")
    for row in table.rows:
        drawn.add_row(
            Text(row), *(_text(table.cells.get((row, column)), comparable=comparable) for column in table.columns)
        )
    return drawn


def _text(cell: Cell | None, *, comparable: bool) -> Text:
    if cell is None:
        return Text("")
    style = "" if not comparable or cell.own else {None: "", True: "green", False: "yellow"}[cell.meets]
    text = Text(f"{cell.text} {cell.sign or ' '}".rstrip("\n"), style=style)
    below = f"{cell.paper_text}  " if cell.paper is not None else ""
    if cell.quantity == "excess":
        below = f"{cell.interval_text}  "
    return text.append(f"\n{below}", style="dim")

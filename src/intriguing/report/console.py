"""The tables on the console."""

from __future__ import annotations

import re
from textwrap import wrap

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from intriguing.results import AnalysisResult, Cell, CellText, Table
from intriguing.storage.streams import unfailing

SIGNS = "✓ the 95 % intervals meet, ≠ they do not"
MOST_LABEL, MOST_HEADER, MOST_WORDS = 16, 16, 24
"""Letters of a line of a label, on a narrow console, of a column's header and of a cell in words at most."""
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
        console.print(Text(" · ".join((table.sample, *_legend(table))), style="dim"))
    console.print()
    bullets = Grid.grid(padding=(0, 1, 0, 0))
    for sentence in result.summary:
        bullets.add_row("•", Text(sentence))
    console.print(bullets)


def _legend(table: Table) -> list[str]:
    """Say what the second line of a cell is: the paper's number where the table has one, else the interval."""
    cells = table.cells.values()
    if _beside_paper(table):
        return [
            f"measured above {table.reference}'s",
            *([SIGNS] if any(cell.meets is not None for cell in cells) else []),
        ]
    return ["95 % interval below"] if any(cell.interval is not None for cell in cells) else []


def _beside_paper(table: Table) -> bool:
    return any(cell.paper is not None for cell in table.cells.values())


def grids(table: Table, *, width: int, comparable: bool = True) -> list[Grid]:
    """Lay out a table for a rich console: in one piece where it fits into ``width``, else in blocks of columns."""
    beside_paper, most = _beside_paper(table), max(MOST_LABEL, width // 3)
    heads = [Text(_wrapped(_folded(table.row_header), most)), *(Text(_folded_row(row, most)) for row in table.rows)]
    columns = [
        [
            Text(_wrapped(_folded(name), MOST_HEADER)),
            *(
                _text(table.cells.get((row, name)), table.text(row, name), comparable, beside_paper)
                for row in table.rows
            ),
        ]
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


def _text(cell: Cell | None, text: CellText | None, comparable: bool, beside_paper: bool) -> Text:
    if cell is None or text is None:
        return Text(_wrapped(text.value, MOST_WORDS) if text else "")
    style = "" if not comparable or cell.own else {None: "", True: "green", False: "yellow"}[cell.meets]
    shown = Text(f"{text.value} {text.sign or ' '}" if beside_paper else text.value, style=style)
    if beside_paper:
        below = f"{text.paper}  " if text.paper else ""
    elif cell.quantity.signed and cell.interval is not None:
        below = " to ".join(cell.quantity.text(end, 0) for end in cell.interval)  # so that eight columns fit
    else:
        below = text.short(text.interval)
    return shown.append(f"\n{below}", style="dim") if below else shown


def _folded(header: str) -> str:
    """Fold a long header into two lines: "FC100-100-10" after its first layer, "FC10(1e-4)" before its lambda."""
    if len(header) < 10:
        return header
    return re.sub(r" |(?<=-)|(?=\()", "\n", header, count=1)


def _folded_row(row: str, most: int) -> str:
    """Fold a row's name into lines: before its last part or after its first comma, and where it is longer than most."""
    if len(row) > 20 and " · " in row:
        return _wrapped(" ·\n".join(row.rsplit(" · ", 1)), most)
    return _wrapped(row.replace(", ", ",\n", 1), most)


def _wrapped(text: str, most: int) -> str:
    """Break lines that are longer than most, at spaces where there are any."""
    return "\n".join(part for line in text.split("\n") for part in wrap(line, most) or [""])

"""Draw the columns of a table as one line for each network."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from intriguing.analysis.drawing import COLOURS, error_bars
from intriguing.results import Table


def draw_lines(axes: Axes, table: Table, columns: Sequence[str], places: Sequence[float]) -> None:
    """Draw the cells of each row with their intervals, column by column.

    Args:
        axes: to draw on.
        table: its rows are the lines; cells that are missing are left out.
        columns: of the table.
        places: x of each column.
    """
    for number, row in enumerate(table.rows):
        points = [
            (x, table.cells[row, column])
            for x, column in zip(places, columns, strict=True)
            if (row, column) in table.cells
        ]
        values = [cell.value for _, cell in points]
        reach = error_bars(values, [cell.interval for _, cell in points])
        colour = COLOURS[number % len(COLOURS)]
        axes.errorbar([x for x, _ in points], values, yerr=reach, marker="o", color=colour, label=row)

"""Tables for a notebook, in its own colours, and as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from intriguing.results.cells import CellText

_LEFT = "text-align:left;vertical-align:top"
_RIGHT = "text-align:right;vertical-align:top;white-space:nowrap"


def html_table(
    *,
    heading: str,
    head: Sequence[str],
    rows: Sequence[tuple[str, Sequence[CellText | None]]],
    notes: Sequence[str],
) -> str:
    """Write a table as HTML without a style sheet: text and ground are the notebook's, light or dark.

    Args:
        heading: above it.
        head: header of the rows, then those of the columns.
        rows: label and cells of each row; None for an empty cell.
        notes: below it.
    """
    aligned = (_LEFT, *[_RIGHT] * (len(head) - 1))
    names = "".join(f'<th scope="col" style="{style}">{escape(n)}</th>' for n, style in zip(head, aligned, strict=True))
    body = "".join(
        f'<tr><th scope="row" style="{_LEFT}">{escape(name)}</th>'
        + "".join(f'<td style="{_LEFT if cell and cell.is_words else _RIGHT}">{_cell(cell)}</td>' for cell in cells)
        + "</tr>"
        for name, cells in rows
    )
    below = "<br>".join(map(escape, notes))
    return (
        f'<b>{escape(heading)}</b><div style="overflow-x:auto"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div><small>{below}</small>"
    )


def text_table(
    *,
    heading: str,
    head: Sequence[str],
    rows: Sequence[tuple[str, Sequence[CellText | None]]],
    notes: Sequence[str],
    reference: str,
) -> str:
    """Write a table as plain text, with its columns aligned.

    Args:
        heading: above it.
        head: header of the rows, then those of the columns.
        rows: label and cells of each row; None for an empty cell.
        notes: below it.
        reference: whose numbers stand beside the measured ones.
    """
    lines = [list(head), *([name, *(_text(cell, reference) for cell in cells)] for name, cells in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    written = ["  ".join([one[0].ljust(widths[0]), *map(str.rjust, one[1:], widths[1:])]).rstrip() for one in lines]
    return "\n".join([heading, written[0], "-" * max(map(len, written)), *written[1:], *notes])


def _text(cell: CellText | None, reference: str) -> str:
    if cell is None:
        return ""
    paper = f" ({reference} {f'{cell.paper} {cell.sign}'.strip()})" if cell.paper else ""
    return cell.value + (f" [{cell.interval}]" if cell.interval else "") + paper


def _cell(cell: CellText | None) -> str:
    if cell is None:
        return ""
    paper = f" ({f'{cell.paper} {cell.sign}'.strip()})" if cell.paper else ""
    between = f"<br><small>{escape(cell.interval)}</small>" if cell.interval else ""
    return f"{escape(cell.value)}{paper}{between}"

"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from intriguing.results import AnalysisResult, CellText, Figure, Table, fact_text


def document(result: AnalysisResult, paths: Mapping[str, str]) -> str:
    """Write the report.

    Args:
        result: the analysis.
        paths: path of each figure's PNG by key, relative to the document.

    Returns:
        Markdown text.
    """
    parts = [f"# {result.title}", *(f"- {sentence}" for sentence in result.summary), ""]
    parts += [
        f"A cell: **measured** (95 % interval), {result.reference}'s number, ✓ if the two intervals meet and ≠ if they "
        "do not.",
        "",
    ]
    leading = [figure for figure in result.figures if figure.key == "agreement"]
    parts += [_figures([figure], paths) for figure in leading]
    parts += [_table(table) for table in result.tables]
    others = [figure for figure in result.figures if figure.key != "agreement"]
    parts += [
        _figures(list(alike), paths)
        for _, alike in groupby(others, key=lambda one: (one.number, one.title, one.caption))
    ]
    parts += ["## Where the numbers come from", ""]
    parts += [f"- {name}: {fact_text(value)}" for name, value in result.provenance.items()]
    parts += ["", "| run | what | command |", "|---|---|---|"]
    parts += [f"| `{run.name}` | {_safe(run.label)} | `{_safe(run.command)}` |" for run in result.runs]
    return "\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [f"## {table.heading}", "", table.caption, ""]
    lines.append(f"| {' | '.join(_safe(name) for name in table.head)} |")
    lines.append(f"|{'---|' * (len(table.columns) + 1)}")
    for row, cells in table.text_rows:
        lines.append(f"| {' | '.join((_safe(row), *map(_cell, cells)))} |")
    beside = f" Beside them: {table.reference}'s numbers as printed, {table.printed_in}." if table.printed_in else ""
    lines += ["", f"{table.method_note}{beside}", *(f"- {note}" for note in table.notes), ""]
    return "\n".join(lines)


def _cell(cell: CellText | None) -> str:
    if cell is None:
        return ""
    if cell.is_words:
        return _safe(cell.value)
    beside = f", {cell.paper} {cell.sign}".rstrip() if cell.paper else ""
    between = f" ({cell.interval})" if cell.interval else ""
    return f"**{cell.value}**{between}{beside}"


def _figures(figures: Sequence[Figure], paths: Mapping[str, str]) -> str:
    """Write figures of one caption, which is written once."""
    parts = []
    for figure in figures:
        parts += [f"## {figure.heading}", f"![{_safe(figure.alt)}]({paths[figure.key]})", figure.note]
    return "\n\n".join(part for part in (*parts, figures[0].caption) if part) + "\n"


def _safe(text: str) -> str:
    """Escape bars, which would end a table cell."""
    return text.replace("|", "\\|")

"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from intriguing.results import AnalysisResult, Cell, Figure, Table, fact_text


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
        "A cell: **measured** (95 % interval), paper's number, ✓ if the two intervals meet and ≠ if they do not.",
        "",
    ]
    leading = [figure for figure in result.figures if figure.key == "agreement"]
    parts += [_figure(figure, paths) for figure in leading]
    parts += [_table(table) for table in result.tables]
    parts += [_figure(figure, paths) for figure in result.figures if figure.key != "agreement"]
    parts += ["## Where the numbers come from", ""]
    parts += [f"- {name}: {fact_text(value)}" for name, value in result.provenance.items()]
    parts += ["", "| run | what | command |", "|---|---|---|"]
    parts += [f"| `{run.name}` | {_safe(run.label)} | `{_safe(run.command)}` |" for run in result.runs]
    return "\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [f"## {table.heading}", "", table.caption, ""]
    lines.append(f"| {' | '.join(_safe(name) for name in (table.row_header, *table.columns))} |")
    lines.append(f"|{'---|' * (len(table.columns) + 1)}")
    for row in table.rows:
        cells = (_cell(table.cells.get((row, column))) for column in table.columns)
        lines.append(f"| {' | '.join((_safe(row), *cells))} |")
    beside = f" Paper: {table.printed_in}." if table.printed_in else ""
    lines += ["", f"{table.method_note}{beside}", *(f"- {note}" for note in table.notes), ""]
    return "\n".join(lines)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    beside = f", {cell.paper_text} {cell.sign}".rstrip() if cell.paper is not None else ""
    between = f" ({cell.interval_text})" if cell.interval is not None else ""
    return f"**{cell.text}**{between}{beside}"


def _figure(figure: Figure, paths: Mapping[str, str]) -> str:
    return f"## {figure.heading}\n\n![{_safe(figure.alt)}]({paths[figure.key]})\n\n{figure.caption}\n"


def _safe(text: str) -> str:
    """Escape bars, which would end a table cell."""
    return text.replace("|", "\\|")

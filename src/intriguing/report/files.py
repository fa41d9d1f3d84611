"""The files of a result: tables, figures and both reports, each written completely or not at all."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from intriguing.report.html import page
from intriguing.report.markdown import document
from intriguing.results import TIDY_COLUMNS, AnalysisResult, Cell, Table
from intriguing.storage.files import replacing


def write(result: AnalysisResult, folder: Path | str) -> list[Path]:
    """Write tables, figures and both reports.

    ``tables/<key>.csv`` is tidy (one row for each cell), ``tables/<key>_wide.csv`` has the paper's layout, and
    ``tables/all.csv`` holds every cell of every table. ``figures/<key>.png`` and ``report.md`` follow, and
    ``report.html`` is written last, so that a folder with a page is complete.

    Args:
        result: the analysis.
        folder: target, created if it is missing.

    Returns:
        The files, in the order they were written.

    Raises:
        UserError: a file cannot be written.
    """
    folder = Path(folder)
    contents: dict[Path, bytes] = {}
    for table in result.tables:
        contents[folder / "tables" / f"{file_stem(table.key)}.csv"] = tidy_csv([table]).encode()
        contents[folder / "tables" / f"{file_stem(table.key)}_wide.csv"] = wide_csv(table).encode()
    contents[folder / "tables" / "all.csv"] = tidy_csv(result.tables).encode()
    for figure in result.figures:
        contents[folder / "figures" / f"{file_stem(figure.key)}.png"] = figure.png
    paths = {figure.key: f"figures/{file_stem(figure.key)}.png" for figure in result.figures}
    contents[folder / "report.md"] = document(result, paths).encode()
    downloads = {table.key: tidy_csv([table]) for table in result.tables}
    contents[folder / "report.html"] = page(result, downloads).encode()
    for path, content in contents.items():
        with replacing(path) as temporary:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
    return list(contents)


def tidy_csv(tables: Iterable[Table]) -> str:
    """Write one row for each cell, with the columns `TIDY_COLUMNS`; empty where there is no value."""
    return _csv([TIDY_COLUMNS, *(list(record.values()) for table in tables for record in table.tidy())])


def wide_csv(table: Table) -> str:
    """Write a table in the paper's layout, each cell in words."""
    rows = [[row, *(_words(table.cells.get((row, column))) for column in table.columns)] for row in table.rows]
    return _csv([[table.row_header, *table.columns], *rows])


def file_stem(key: str) -> str:
    """Write a key as a file name that is valid on every system."""
    return re.sub(r"[^A-Za-z0-9_.=-]+", "_", key).strip("_.") or "unnamed"


def _words(cell: Cell | None) -> str:
    """Write a cell as "22.7 [18.0 to 28.2] 58/256, paper 22.7 ✓"."""
    if cell is None:
        return ""
    count = f" {cell.k}/{cell.n}" if cell.k is not None else f" n={cell.n}"
    beside = f", paper {cell.paper_text} {cell.sign}".rstrip() if cell.paper is not None else ""
    between = f" [{cell.interval_text}]" if cell.interval is not None else ""
    return f"{cell.text}{between}{count}{beside}"


def _csv(rows: Iterable[Sequence]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()

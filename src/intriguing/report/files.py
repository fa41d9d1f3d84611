"""The files of a result: tables, figures and both reports, each written completely or not at all."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from intriguing.report.html import page
from intriguing.report.markdown import document
from intriguing.results import TIDY_COLUMNS, AnalysisResult, Cell, CellText, Table, short_name
from intriguing.storage.files import replacing


def write(result: AnalysisResult, folder: Path | str) -> list[Path]:
    """Write tables, figures and both reports.

    ``tables/<key>.csv`` is tidy (one row for each cell), ``tables/<key>_wide.csv`` has the paper's layout, and
    ``tables/all.csv`` holds every cell of every table, and ``tables/<key>.tex`` is a table for LaTeX.
    ``figures/<key>.png``, for print ``.svg`` and ``.pdf``, and ``report.md`` follow, and ``report.html`` is written
    last, so that a folder with a page is complete.

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
        contents[folder / "tables" / f"{file_stem(table.key)}.tex"] = table.to_latex().encode()
    contents[folder / "tables" / "all.csv"] = tidy_csv(result.tables).encode()
    for figure in result.figures:
        stem = folder / "figures" / file_stem(figure.key)
        contents[Path(f"{stem}.png")] = figure.png
        if figure.svg is not None:
            contents[Path(f"{stem}.svg")] = standalone_svg(figure.svg).encode()
        if figure.pdf is not None:
            contents[Path(f"{stem}.pdf")] = figure.pdf
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
    reference = short_name(table.reference)
    rows = [
        [row, *(_words(table.cells.get((row, name)), table.text(row, name), reference) for name in table.columns)]
        for row in table.rows
    ]
    return _csv([table.head, *rows])


def standalone_svg(markup: str) -> str:
    """Turn the SVG markup of a page into a file of its own: a size, and colours instead of the page's variables."""
    markup = re.sub(r"var\(--\w+, (#\w+)\)", r"\1", markup)
    box = re.search(r'viewBox="\S+ \S+ (\S+) ([^"\s]+)"', markup)
    size = f' width="{box[1]}pt" height="{box[2]}pt"' if box else ""
    return '<?xml version="1.0" encoding="utf-8"?>\n' + markup.replace("<svg", f"<svg{size}", 1)


def file_stem(key: str) -> str:
    """Write a key as a file name that is valid on every system."""
    return re.sub(r"[^A-Za-z0-9_.=-]+", "_", key).strip("_.") or "unnamed"


def _words(cell: Cell | None, text: CellText | None, reference: str) -> str:
    """Write a cell as "22.7 [18.0 to 28.2] 58/256, paper 22.7 ✓"; one without a number as its words."""
    if cell is None or text is None:
        return text.value if text else ""
    count = f" {cell.k}/{cell.n}" if cell.k is not None else f" n={cell.n}"
    beside = f", {reference} {text.paper} {text.sign}".rstrip() if text.paper else ""
    between = f" [{text.interval}]" if text.interval else ""
    return f"{text.value}{between}{count}{beside}"


def _csv(rows: Iterable[Sequence]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()

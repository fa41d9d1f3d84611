"""The report as one self-contained HTML page, which makes no network requests."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from intriguing.results import AnalysisResult, Cell, CellText, Figure, Table, fact_text, short_name

TEMPLATES = Path(__file__).parent / "templates"


def page(result: AnalysisResult, downloads: Mapping[str, str]) -> str:
    """Render the page.

    Args:
        result: the analysis.
        downloads: the CSV of each table, by key.

    Returns:
        The page's HTML.
    """
    figures = {figure.key: figure for figure in result.figures}
    text = (
        _environment()
        .get_template("report.html.j2")
        .render(
            result=result,
            agreement=figures.get("agreement"),
            figures=_groups(figure for figure in result.figures if figure.key != "agreement"),
            contents=_contents(result),
            uses=_uses(result),
            scores=[(table, table.agreement()) for table in result.tables if table.number and table.agreement().n],
            downloads={key: f"data:text/csv;base64,{_base64(text.encode())}" for key, text in downloads.items()},
            known={run.name for run in result.runs},
            details=_details,
            reference=short_name(result.reference),
        )
    )
    # A number and its per cent sign stay on one line.
    return text.replace(" %", "\u00a0%")


Link = tuple[str, str]
"""An anchor and its text."""


def _contents(result: AnalysisResult) -> list[tuple[str, list[tuple[str, list[Link]]]]]:
    """List the links of the contents: kinds of things, headings of each kind, and the links below each heading."""
    tables = _headed((_anchor(table.key), table) for table in result.tables)
    figures = _headed((_figure_anchor(figure), figure) for figure in result.figures)
    runs = [("This analysis", [("analysis", "")]), ("Networks and adversarial sets", [("runs", "")])]
    return [("Tables", tables), ("Figures", figures), ("Runs", runs)]


def _groups(figures: Iterable[Figure]) -> list[list[Figure]]:
    """Group consecutive figures of one number and title, which share a heading."""
    return [list(group) for _, group in groupby(figures, key=lambda figure: (figure.number, figure.title))]


def _headed(entries: Iterable[tuple[str, Table | Figure]]) -> list[tuple[str, list[Link]]]:
    """Group consecutive entries of one number, or of one title where they have no number."""
    return [
        (head, [(anchor, one.detail or (one.title if one.number else "")) for anchor, one in group])
        for head, group in groupby(entries, key=lambda entry: entry[1].number or entry[1].title)
    ]


def _uses(result: AnalysisResult) -> dict[str, list[Link]]:
    """List the tables and figures that show each run."""
    uses: dict[str, list[Link]] = {run.name: [] for run in result.runs}
    shown = [
        (_anchor(table.key), table.heading, {*table.runs, *(run for cell in table.cells.values() for run in cell.runs)})
        for table in result.tables
    ]
    shown += [(_figure_anchor(figure), figure.heading, set(figure.runs)) for figure in result.figures]
    for anchor, title, runs in shown:
        for name in runs & uses.keys():
            uses[name].append((anchor, title))
    return uses


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "drawing": _drawing,
        "anchor": _anchor,
        "run_anchor": _run_anchor,
        "config": _config,
        "fact": fact_text,
    }
    return environment


def _drawing(figure: Figure) -> Markup:
    """Embed a figure: as SVG where there is one, which follows the page's colours, else as PNG."""
    if figure.svg is None:
        width, height = struct.unpack(">II", figure.png[16:24])
        markup = '<img alt="{}" width="{}" height="{}" src="data:image/png;base64,{}">'
        return Markup(markup).format(figure.alt, width, height, _base64(figure.png))
    return Markup(embedded(figure.svg, _figure_anchor(figure), str(Markup.escape(figure.alt))))


def embedded(svg: str, prefix: str, alt: str) -> str:
    """Adapt SVG markup to the page: unique ids, no namespaces (HTML needs none), a label."""
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-")
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    box = re.search(r'viewBox="\S+ \S+ ([\d.]+)', svg)
    width = f' style="--width:{float(box[1]):.0f}"' if box else ""
    return svg.replace("<svg", f'<svg role="img" aria-label="{alt}" preserveAspectRatio="xMinYMid"{width}', 1)


def _details(cell: Cell, text: CellText, reference: str) -> str:
    """Write the tooltip of a cell: numbers, sample, intervals and seeds."""
    between = f", interval {text.interval}" if text.interval else ""
    unit = f" {cell.quantity.unit}" if cell.quantity.unit else ""
    words = [f"measured {text.value}{unit} ({cell.sample}){between}"]
    if text.paper:
        words.append(
            f"{short_name(reference)} {text.paper}"
            + (f", interval {text.paper_interval}" if text.paper_interval else "")
        )
    words += [f"seed {seed}: {count.k} of {count.n}" for seed, count in cell.by_seed]
    return "; ".join(words)


def _anchor(name: str) -> str:
    """Write a name as an identifier."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)


def _figure_anchor(figure: Figure) -> str:
    """Write a figure's key as an identifier that no table has."""
    return f"figure-{_anchor(figure.key)}"


def _run_anchor(name: str) -> str:
    return f"run-{_anchor(name)}"


def _config(config: Mapping) -> str:
    return json.dumps(config, indent=1, default=str, ensure_ascii=False)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()

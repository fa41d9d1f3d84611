"""The report as one self-contained page: no request, no file beside it."""

import base64
import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from intriguing.results import AnalysisResult, Cell, Figure, fact_text
from intriguing.statistics.intervals import Interval

TEMPLATES = Path(__file__).parent / "templates"


def page(result: AnalysisResult, downloads: Mapping[str, str]) -> str:
    """The page.

    Args:
        result: what to show.
        downloads: the CSV behind each table, by key.
    """
    figures = {figure.key: figure for figure in result.figures}
    text = (
        _environment()
        .get_template("report.html.j2")
        .render(
            result=result,
            agreement=figures.get("agreement"),
            figures=[figure for figure in result.figures if figure.key != "agreement"],
            contents=_contents(result),
            uses=_uses(result),
            scores=[(t, *t.agreement()) for t in result.tables if t.key.startswith("table") and t.agreement()[1]],
            downloads={key: f"data:text/csv;base64,{_base64(text.encode())}" for key, text in downloads.items()},
            known={run.name for run in result.runs},
        )
    )
    # A number and its per cent sign stay on one line.
    return text.replace(" %", "\u00a0%")


Link = tuple[str, str]
"""An anchor and what it is called."""


def _contents(result: AnalysisResult) -> list[tuple[str, list[tuple[str, list[Link]]]]]:
    """What a reader may want to jump to: kinds of things, their headings, and the links below each heading."""
    tables = [(_anchor(table.key), table.title) for table in result.tables]
    figures = [(_figure_anchor(figure), figure.title) for figure in result.figures]
    runs = [("analysis", "This analysis"), ("runs", "Networks and adversarial sets")]
    return [("Tables", _headed(tables)), ("Figures", _headed(figures)), ("Runs", _headed(runs))]


def _headed(links: Iterable[Link]) -> list[tuple[str, list[Link]]]:
    """Titles "head · tail" in a row with one head share it; what a tail repeats of the one before, up to ": ", goes."""
    found = []
    for head, group in groupby(links, key=lambda link: link[1].partition(" · ")[0]):
        whole, short = "", []
        for anchor, title in group:
            tail = title.partition(" · ")[2]
            repeats = bool(whole) and tail.startswith(f"{whole}: ")
            short.append((anchor, tail.removeprefix(f"{whole}: ") if repeats else tail))
            whole = whole if repeats else tail
        found.append((head, short))
    return found


def _uses(result: AnalysisResult) -> dict[str, list[Link]]:
    """Where each run is shown."""
    uses: dict[str, list[Link]] = {run.name: [] for run in result.runs}
    shown = [
        (_anchor(table.key), table.title, {*table.runs, *(run for cell in table.cells.values() for run in cell.runs)})
        for table in result.tables
    ]
    shown += [(_figure_anchor(figure), figure.title, set(figure.runs)) for figure in result.figures]
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
        "details": _details,
        "anchor": _anchor,
        "run_anchor": _run_anchor,
        "config": _config,
        "between": _between,
        "fact": fact_text,
    }
    return environment


def _drawing(figure: Figure) -> Markup:
    """The figure inside the page: as drawing where there is one, which follows the page's colours, else as picture."""
    if figure.svg is None:
        width, height = struct.unpack(">II", figure.png[16:24])
        markup = '<img alt="{}" width="{}" height="{}" src="data:image/png;base64,{}">'
        return Markup(markup).format(figure.alt, width, height, _base64(figure.png))
    return Markup(_embedded(figure.svg, _figure_anchor(figure), str(Markup.escape(figure.alt))))


def _embedded(svg: str, prefix: str, alt: str) -> str:
    """SVG markup made fit to stand in a page: names of its own, no namespaces (a page needs none), described."""
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-")
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    box = re.search(r'viewBox="\S+ \S+ ([\d.]+)', svg)
    width = f' style="--width:{float(box[1]):.0f}"' if box else ""
    return svg.replace("<svg", f'<svg role="img" aria-label="{alt}" preserveAspectRatio="xMinYMid"{width}', 1)


def _details(cell: Cell) -> str:
    """All that is known about a cell, for those who point at it."""
    between = f", interval {cell.interval_text}" if cell.interval is not None else ""
    words = [f"measured {cell.text} ({cell.sample}){between}"]
    if cell.paper is not None:
        interval = cell.paper_interval
        between = f", interval {interval.low:.3g} to {interval.high:.3g}" if interval else ""
        words.append(f"paper {cell.paper_text}{between}")
    words += [f"seed {s.seed}: {s.k} of {s.n}" for s in cell.by_seed]
    return "; ".join(words)


def _between(interval: Interval | None, cell: Cell) -> str:
    """An interval of the cell's quantity in as few characters as possible; empty where there is none."""
    if interval is None:
        return ""
    if cell.quantity == "excess":
        return cell.interval_text
    if cell.quantity == "distortion":
        return "–".join(f"{end:.3f}".removeprefix("0") for end in interval)
    text = replace(cell, interval=interval).interval_text
    return text if "−" in text else text.replace(" to ", "–")  # a dash beside a minus sign cannot be read


def _anchor(name: str) -> str:
    """A name as an identifier."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)


def _figure_anchor(figure: Figure) -> str:
    """A table may have the same key."""
    return f"figure-{_anchor(figure.key)}"


def _run_anchor(name: str) -> str:
    return f"run-{_anchor(name)}"


def _config(config: Mapping) -> str:
    return json.dumps(config, indent=1, default=str, ensure_ascii=False)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()

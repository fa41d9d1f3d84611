"""Tabulate the runs of a sweep: what was swept, what came out, the best one; for the console, and as a tidy CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from intriguing.cli import overrides as texts
from intriguing.errors import UserError
from intriguing.runs.records import RunRecord, read_run

LONGEST = 60  # characters of an error on the console
_NOT_SWEPT = ("runs", "logger", "tags", "study", "threads")  # settings that no result depends on
_ERRORS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold one run of a sweep.

    Attributes:
        number: of the job.
        swept: value by setting, of those that differ between the jobs: a number, a text, a bool, None or a list.
        name: of the run; empty where none was made.
        state: ``finished``, ``failed``, ``interrupted`` or ``running``.
        error: why it failed.
        quantities: numbers by name; empty where it failed.
        best: whether no run is better, see `mark_best`.
        by: the quantity it is the best by.
    """

    number: int
    swept: Mapping[str, Any]
    name: str = ""
    state: str = "finished"
    error: str = ""
    quantities: Mapping[str, float] = field(default_factory=dict)
    best: bool = False
    by: str = ""


def rows_of(jobs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Make the rows of a sweep's jobs, in their order; a job that attacked several networks has a row for each.

    Args:
        jobs: records as ``sweep.recording`` writes them: number, overrides, state, reason, runs.
    """
    typed = [_typed(job["overrides"]) for job in jobs]
    keys = dict.fromkeys(key for one in typed for key in one if key.split(".")[0] not in _NOT_SWEPT)
    alone = len(typed) == 1
    swept = [key for key in keys if alone or len({repr(one.get(key, "as it is")) for one in typed}) > 1]
    found = []
    for job, given in zip(jobs, typed, strict=True):
        row = Row(
            number=int(job["number"]),
            swept={key: given.get(key) for key in swept},
            state=str(job["state"]),
            error=str(job["reason"]),
        )
        made = [replace(row, name=record.name, quantities=_quantities(record)) for record in _records(job["runs"])]
        found += made or [row]
    return mark_best(found)


def _typed(overrides: Sequence[str]) -> dict[str, Any]:
    found = {}
    for text in overrides:
        _, key, value = texts.split(text)
        parsed = texts.parse(text)
        read = value if parsed is None or parsed.is_sweep_override() else texts.plain_value(parsed.value())
        found[key] = read if isinstance(read, int | float | str | list | None) else value
    return found


def _records(folders: Sequence[str]) -> list[RunRecord]:
    found = []
    for folder in folders:
        try:
            found.append(read_run(Path(folder)))
        except UserError:  # it was removed meanwhile
            continue
    return found


def _quantities(record: RunRecord) -> dict[str, float]:
    """Read the numbers of a finished run: errors in percent, distortions (RMS)."""
    result, found = record.result, {}
    for name, (wrong, images) in (result.get("errors") or {}).items():
        found |= {f"{name}_error": 100 * wrong / images, f"{name}_wrong": wrong, f"{name}_images": images}
    if result.get("num"):
        found["success"] = 100 * result["num_success"] / result["num"]
    kept = ("num", "num_success", "mean_distortion", "median_distortion", "epochs", "steps", "seconds")
    return found | {key: result[key] for key in kept if result.get(key) is not None}


def mark_best(rows: Sequence[Row]) -> list[Row]:
    """Mark the rows that no other exceeds.

    Of trained networks these have the lowest error on the images set apart, on the test images where none are; of
    adversarial sets the largest share of success, and of equal shares the smallest mean distortion.
    """
    finished = [row for row in rows if row.state == "finished"]
    for by in ("val_error", "test_error", "mean_distortion"):
        if any(by in row.quantities for row in finished):
            scores = {id(row): _score(row, by) for row in finished if by in row.quantities}
            lowest = min(scores.values())
            return [replace(row, best=scores.get(id(row)) == lowest, by=by) for row in rows]
    return list(rows)


def _score(row: Row, by: str) -> tuple[float, float]:
    return -row.quantities.get("success", 0.0), row.quantities[by]


def as_csv(rows: Sequence[Row]) -> str:
    """Write one row a run and one column a quantity; of a list its text and, as numbers, a column for each entry.

    Errors and shares are in percent, distortions per-pixel RMS. A run that failed has its error and no quantities.
    """
    entries = {
        key: max((len(row.swept[key]) for row in rows if isinstance(row.swept[key], list)), default=0)
        for key in (rows[0].swept if rows else ())
    }
    names = dict.fromkeys(name for row in rows for name in row.quantities)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    of_lists = [f"{key}[{i}]" for key, length in entries.items() for i in range(length)]
    writer.writerow(["job", "run", "state", "best", *entries, *of_lists, *names, "error"])
    for row in rows:
        cells = [_text(row.swept[key]) for key in entries]
        for key, length in entries.items():
            value = row.swept[key]
            numbers = value if isinstance(value, list) else []
            cells += [_text(numbers[i]) if i < len(numbers) else "" for i in range(length)]
        known = [_text(row.quantities[name]) if name in row.quantities else "" for name in names]
        best = str(row.best).lower() if row.by else ""
        writer.writerow([row.number, row.name, row.state, best, *cells, *known, row.error])
    return stream.getvalue()


def as_text(rows: Sequence[Row]) -> str:
    """Write the table for the console, the best rows marked by a star."""
    if not rows:
        return ""
    keys = list(rows[0].swept)
    shown = [f"{name}_error" for name in _ERRORS] + ["success", "mean_distortion"]
    names = [name for name in shown if any(name in row.quantities for row in rows)]
    heads = {"success": "success %", "mean_distortion": "mean distortion"}
    several = len({row.number for row in rows}) < len(rows) or not keys
    header = [
        "",
        *keys,
        *(["run"] if several else []),
        *(heads.get(n, f"{n.split('_')[0]} error %") for n in names),
        "",
    ]
    lines = [header]
    for row in rows:
        error = row.error or ("" if row.state == "finished" else f"{row.state}, without an error message")
        error = error if len(error) <= LONGEST else f"{error[: LONGEST - 3]}..."
        numbers = [_digits(name, row.quantities[name]) if name in row.quantities else "-" for name in names]
        values = [_text(row.swept[key]) for key in keys]
        lines.append(["*" if row.best else "", *values, *([row.name or "-"] if several else []), *numbers, error])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    first = len(header) - len(names) - 1
    table = "\n".join(
        "  ".join(
            cell.rjust(width) if first <= i < len(header) - 1 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    by = rows[0].by
    words = {"mean_distortion": "most success, then the smallest mean distortion"}
    legend = f"\n* lowest {by.split('_')[0]} error" if by.endswith("_error") else f"\n* {words.get(by, '')}"
    return table + (legend if by else "")


def _digits(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "mean_distortion" else f"{value:.2f}"


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(_text(one) for one in value)}]"
    if isinstance(value, float) and math.isfinite(value):
        return repr(value) if value != int(value) or abs(value) >= 1e16 else f"{value:.1f}"
    return str(value)

"""Numbers of the files in results/, written as README and the documentation write them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[2]


def lines(document: str) -> list[str]:
    """Return the lines of a page of docs/: ``results/paper.md``."""
    return (ROOT / "docs" / document).read_text(encoding="utf-8").splitlines()


@cache
def frame(file: str) -> pd.DataFrame:
    """Read a table of results/, without its ending: ``paper/tables/all``."""
    return pd.read_csv(ROOT / "results" / f"{file}.csv")


def cell(file: str, row: str, column: str, *, table: str | None = None) -> pd.Series:
    """Return the one entry of a study's table: value or percent, low, high, n, k."""
    found = frame(file)
    found = found[(found["row"] == row) & (found["column"] == column)]
    found = found if table is None else found[found["table"] == table]
    assert len(found) == 1, f"{file} has {len(found)} entries of {row}, {column}"
    return found.iloc[0]


def number(entry: pd.Series) -> float:
    """Return the measured number, whatever its kind."""
    return next(float(entry[key]) for key in ("value", "percent", "distortion") if not pd.isna(entry.get(key)))


def short(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, without a leading 0: ".973", "1.08", "43.6"."""
    text = f"{value:#.{digits}g}"
    return text[1:] if text.startswith("0.") else text.rstrip(".")


def percent(entry: pd.Series, decimals: int = 2) -> str:
    """Write a percentage: "1.71"."""
    return f"{number(entry):.{decimals}f}"


def with_interval(entry: pd.Series, decimals: int = 2, *, between: str = " ") -> str:
    """Write a percentage with its interval: "1.71 (1.61 to 1.80)"."""
    return f"{number(entry):.{decimals}f}{between}({entry['low']:.{decimals}f} to {entry['high']:.{decimals}f})"


def decimal(value: float, places: int) -> str:
    """Write a number with so many decimals, without a leading 0: ".26", "-.03"."""
    text = f"{value:.{places}f}"
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text

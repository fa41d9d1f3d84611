"""Comparison numbers of a user's own, from a CSV file, in place of the paper's.

The file has the columns ``table`` (key of a table, such as table1), ``row``, ``column`` (as the table shows them) and
``value`` (a percentage, a distortion, whatever the table's cells are), and may have ``n`` (images behind the value, from
which its interval follows) and ``rounding`` (its largest rounding error; empty: half a unit of its last digit).
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from intriguing.errors import UserError, shown
from intriguing.results import DISTORTION, ERROR, Cell, Table
from intriguing.statistics.intervals import Interval, mean_interval, wilson_interval

REQUIRED, OPTIONAL = ("table", "row", "column", "value"), ("n", "rounding")
MAX_BYTES = 1 << 22

Place = tuple[str, str, str]
"""Key of a table, row and column."""


@dataclass(frozen=True)
class Number:
    """Hold a number as it was printed.

    Attributes:
        value: an int where it has no decimals.
        rounding: its largest rounding error.
        n: images behind it; None where it is not known, and then it has no interval.
    """

    value: float
    rounding: float
    n: int | None

    def interval(self, cell: Cell) -> Interval | None:
        """Compute the 95 % interval of the number, beside a cell that measures the same quantity.

        Of an error rate it reaches from the low end of the Wilson interval of the least count that is rounded to the
        number to the high end of the greatest; of a mean distortion it takes the spread measured here.
        """
        if self.n is None or self.n < 1:
            return None
        if cell.quantity == ERROR:
            least = max(0, math.ceil((self.value - self.rounding) * self.n / 100 - 1e-9))
            most = min(self.n, math.floor((self.value + self.rounding) * self.n / 100 + 1e-9))
            if least > most:
                least = most = min(self.n, max(0, round(self.value * self.n / 100)))
            return Interval(wilson_interval(least, self.n).low, wilson_interval(most, self.n).high).percent
        if cell.quantity == DISTORTION and cell.interval is not None and cell.num_images > 1:
            half = (cell.interval.high - cell.interval.low) / 2
            spread = half / mean_interval(0.0, 1.0, cell.num_images).high
            low, high = mean_interval(self.value, spread, self.n)
            return Interval(low - self.rounding, high + self.rounding)
        return None


@dataclass(frozen=True)
class Reference:
    """Hold comparison numbers.

    Attributes:
        name: what they are called where they are shown.
        file: name of the file.
        sha256: digest of the file.
        numbers: by place.
    """

    name: str
    file: str
    sha256: str
    numbers: Mapping[Place, Number] = field(repr=False)

    @classmethod
    def read(cls, path: str | Path, name: str | None = None) -> Reference:
        """Read a file of comparison numbers.

        Args:
            path: the file, see the top of this module.
            name: what they are called; None: the file's name without its ending.

        Raises:
            UserError: the file cannot be read, a column is missing or unknown, a value is no number, a place is named
                twice.
        """
        path = Path(path)
        try:
            content = path.read_bytes()
            if len(content) > MAX_BYTES:
                raise UserError(f"settings.reference: {path} is larger than {MAX_BYTES} bytes")
            rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
            columns = [str(column).strip() for column in rows.fieldnames or ()]
            found = list(enumerate(rows, start=2))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            why = getattr(error, "strerror", None) or f"it is no CSV file in UTF-8 ({shown(str(error))})"
            raise UserError(f"settings.reference: cannot read {path}: {why}") from error
        if unknown := [column for column in columns if column not in (*REQUIRED, *OPTIONAL)]:
            near = _nearest(unknown[0], (*REQUIRED, *OPTIONAL))
            raise UserError(f"settings.reference: {path} has the unknown column {shown(unknown[0])}{near}")
        if missing := [column for column in REQUIRED if column not in columns]:
            raise UserError(f"settings.reference: {path} lacks the column {missing[0]}; it needs {', '.join(REQUIRED)}")
        numbers: dict[Place, Number] = {}
        for line, row in found:
            where = f"settings.reference: {path}, line {line}"
            cells = {str(key).strip(): (text or "").strip() for key, text in row.items() if key is not None}
            if None in row:
                raise UserError(f"{where} has more than {len(columns)} columns; quote a text that holds a comma")
            place = cells["table"], cells["row"], cells["column"]
            if place in numbers:
                raise UserError(f"{where} repeats {', '.join(place)}")
            numbers[place] = _number(cells, where)
        if not numbers:
            raise UserError(f"settings.reference: {path} holds no numbers")
        return cls(name or path.stem, path.name, hashlib.sha256(content).hexdigest(), numbers)

    def beside(self, table: Table) -> Table:
        """Return a table with these numbers beside the measured ones, in place of any others."""
        cells = {place: self._beside(cell, (table.key, *place)) for place, cell in table.cells.items()}
        compared = any(cell.paper is not None for cell in cells.values())
        judged = any(cell.paper_interval is not None for cell in cells.values())
        words = f"; {self.name}'s intervals from its n, and half a unit of its last digit where rounding is not given"
        return replace(
            table,
            cells=cells,
            source=f"{self.name} ({self.file})" if compared else "",
            method=table.method + words * judged,
        )

    def _beside(self, cell: Cell, place: Place) -> Cell:
        number = self.numbers.get(place)
        if number is None:
            return replace(cell, paper=None, paper_interval=None)
        return replace(cell, paper=number.value, paper_interval=number.interval(cell))

    def check(self, tables: Sequence[Table]) -> None:
        """Refuse numbers that stand beside no cell.

        Raises:
            UserError: there is one; the line names the nearest place.
        """
        for key, row, column in self.numbers:
            of_key = [table for table in tables if table.key == key]
            where = f"settings.reference: {self.file}"
            if not of_key:
                raise UserError(f"{where}: no table is called {key}{_nearest(key, [table.key for table in tables])}")
            (table,) = of_key
            if row not in table.rows:
                raise UserError(f"{where}: {key} has no row {shown(row)}{_nearest(row, table.rows)}")
            if column not in table.columns:
                raise UserError(f"{where}: {key} has no column {shown(column)}{_nearest(column, table.columns)}")
            if (row, column) not in table.cells:
                raise UserError(f"{where}: {key} has no number in row {shown(row)}, column {shown(column)}")


def _number(cells: Mapping[str, str], where: str) -> Number:
    value = _finite(cells["value"], f"{where}: value")
    text, count = cells.get("rounding", ""), cells.get("n", "")
    if count and not (count.isascii() and count.isdigit() and int(count) >= 1):
        raise UserError(f"{where}: n must be a whole number of at least 1 or empty, got {shown(count)}")
    exponent = int(Decimal(cells["value"]).as_tuple().exponent)
    rounding = _finite(text, f"{where}: rounding") if text else 0.5 * 10.0**exponent
    if rounding < 0:
        raise UserError(f"{where}: rounding must be at least 0, got {shown(text)}")
    return Number(int(value) if exponent >= 0 else value, rounding, int(count) if count else None)


def _finite(text: str, where: str) -> float:
    try:
        value = float(Decimal(text))
    except ArithmeticError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where} must be a number, got {shown(text) or 'nothing'}")
    return value


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    listed = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    return (f" (did you mean {near[0]}?)" if near else "") + (f"; there are {listed}" if known else "; there are none")

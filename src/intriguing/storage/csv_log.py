"""Log numbers over time to a plain CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from intriguing.errors import UserError, shown
from intriguing.storage.files import reason, write_atomic


class CsvLog:
    """Append rows to a CSV file, each synced to the disk when ``append`` returns.

    The header is the union of all keys seen, in order of appearance; a new key rewrites the file (atomically), with
    empty fields in earlier rows. An existing file is continued; a last row that a killed process left half-written is
    dropped.

    Args:
        path: The file; its folder must exist. Nothing is written before the first row.

    Raises:
        UserError: The file cannot be read or written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.header: list[str] = []
        try:
            with open(self.path, newline="", encoding="utf-8") as file:  # the csv module splits the lines itself
                content = file.read()
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            why = reason(error) if isinstance(error, OSError) else "not text"
            raise UserError(f"cannot read {self.path}: {why}") from error
        whole = content[: content.rfind("\n") + 1]
        if whole != content:
            write_atomic(self.path, whole)
        try:
            self.header = next(csv.reader(io.StringIO(whole)), [])
        except csv.Error as error:
            raise self._damaged(error) from error

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row.

        Args:
            row: Numbers, text or None (an empty field) by column; 0-d tensors and arrays count as numbers.

        Raises:
            UserError: The file cannot be written.
        """
        values = {key: _field(value) for key, value in row.items()}
        new = [key for key in values if key not in self.header]
        if new:
            rows = self.rows()
            self.header += new
            self._write_all([*rows, values])
            return
        try:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.header, restval="", lineterminator="\n").writerow(values)
                file.flush()
                os.fsync(file.fileno())  # the checkpoint that follows relies on the row
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {reason(error)}") from error

    def rows(self) -> list[dict[str, str]]:
        """Read all rows as text, with an empty text where a row has no value.

        Raises:
            UserError: The file is damaged.
        """
        if not self.header:
            return []
        try:
            with open(self.path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file, restval=""))
        except csv.Error as error:
            raise self._damaged(error) from error
        if any(None in row for row in rows):
            raise self._damaged("a row has more fields than the header")
        return rows

    def _damaged(self, why: object) -> UserError:
        return UserError(f"{self.path} is damaged ({shown(str(why))}); remove it, and the run goes on without its rows")

    def rewind(self, key: str, value: float) -> None:
        """Drop the rows whose ``key`` is at least ``value``, which a resumed run writes again."""
        rows = self.rows()
        try:
            kept = [row for row in rows if not row.get(key) or float(row[key]) < value]
        except ValueError as error:
            raise self._damaged(error) from error
        if len(kept) < len(rows):
            self._write_all(kept)

    def _write_all(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.header, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.path, text.getvalue())


def _field(value: Any) -> str:
    if value is None:
        return ""
    if hasattr(value, "item"):  # a 0-d tensor or a NumPy scalar
        value = value.item()
    # One row is one line, so that a half-written row can be recognised.
    return str(value).replace("\r", " ").replace("\n", " ")

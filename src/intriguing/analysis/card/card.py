"""The robustness card of one network: what was measured, as typed values, a file and a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intriguing.analysis.card.plain import from_plain, to_plain
from intriguing.analysis.card.values import CardValues, Change
from intriguing.errors import UserError
from intriguing.storage.files import reason, write_atomic

SCHEMA = 1
"""Version of the file's layout; it grows when a key changes its meaning or goes."""
_LARGEST = 1 << 26  # bytes of a file; cards are some ten kB


@dataclass(frozen=True, kw_only=True, repr=False)
class RobustnessCard(CardValues):
    """Hold what was measured of one network; `to_dict` writes it, `save` makes the page or the file.

    Its attributes are those of `CardValues`.
    """

    def __repr__(self) -> str:
        at = "" if self.l2 is None else f", median L2 {self.l2.median.value:.3g}"
        return f"RobustnessCard({self.name}: accuracy {100 * self.accuracy.value:.1f} %{at}, N = {self.images})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with ``schema`` first; docs/card.md describes every key."""
        values = to_plain(self)
        for key, name in (("security_curve", "l2"), ("certified_curve", "l2"), ("noise_curve", "stddev")):
            if values[key] is not None:
                values[key] = [{name: one["at"], **_flat(one["accuracy"])} for one in values[key]]
        return {"schema": SCHEMA, **values}

    @classmethod
    def from_dict(cls, values: Any) -> RobustnessCard:
        """Read what `to_dict` returned; the pictures of the examples are not in it.

        Raises:
            UserError: another schema, or a key or a value that is not one of a card.
        """
        if not isinstance(values, dict) or "schema" not in values:
            raise UserError("it is no card: expected a mapping with the key schema")
        if values["schema"] != SCHEMA:
            raise UserError(f"it has schema {values['schema']!r}, and this version reads {SCHEMA}: make the card again")
        values = {key: value for key, value in values.items() if key != "schema"}
        for key, name in (("security_curve", "l2"), ("certified_curve", "l2"), ("noise_curve", "stddev")):
            if isinstance(values.get(key), list):
                values[key] = [_point(one, name) for one in values[key]]
        return from_plain(cls, values)

    @classmethod
    def load(cls, path: str | Path) -> RobustnessCard:
        """Read a card from its JSON file.

        Raises:
            UserError: no file, or another kind of file.
        """
        try:
            with open(path, "rb") as file:
                content = file.read(_LARGEST + 1)
        except OSError as error:
            raise UserError(f"cannot read the card {path}: {reason(error)}; give the card.json of a card") from error
        try:
            if len(content) > _LARGEST:
                raise UserError("it is larger than any card")
            return cls.parse(content)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is no card: it is no JSON; give the card.json of a card") from error
        except UserError as error:
            raise UserError(f"{path} cannot be read as a card: {error}") from error

    @classmethod
    def parse(cls, content: bytes) -> RobustnessCard:
        """Read the text of a card's file.

        Raises:
            ValueError: it is no JSON.
            UserError: see `from_dict`.
        """
        return cls.from_dict(json.loads(content))

    def json(self) -> str:
        """Write the file's text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the page (``card.html``) or the values (``card.json``) to a file that is whole at any moment.

        Raises:
            UserError: another ending, or a file that cannot be written.
        """
        ending = Path(path).suffix.lower()
        if ending not in (".html", ".htm", ".json"):
            raise UserError(f"cannot save a card as {path}: give a name that ends in .html (the page) or .json")
        if ending == ".json":
            write_atomic(path, self.json())
            return
        from intriguing.analysis.card.page import page  # matplotlib is slow to import

        write_atomic(path, page([self]))

    def compare(self, old: CardValues) -> tuple[Change, ...]:
        """Compare the numbers with those of an earlier card, see `intriguing.analysis.card.compare`."""
        from intriguing.analysis.card.compare import changes

        return changes(old, self)

    def _repr_html_(self) -> str:
        """Show the card in a notebook, in a frame, whose style touches nothing outside."""
        from html import escape

        from intriguing.analysis.card.page import page

        style = "width:100%;height:720px;border:0"
        return f'<iframe style="{style}" title="Robustness card" srcdoc="{escape(page([self]))}"></iframe>'


def _flat(number: dict[str, Any]) -> dict[str, Any]:
    return {"accuracy": number["value"], "low": number["low"], "high": number["high"], "n": number["n"]}


def _point(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or set(value) != {name, "accuracy", "low", "high", "n"}:
        raise UserError(f"a point of a curve must have {name}, accuracy, low, high and n, got {value!r:.80}")
    number = {"value": value["accuracy"], **{key: value[key] for key in ("low", "high", "n")}}
    return {"at": value[name], "accuracy": number}

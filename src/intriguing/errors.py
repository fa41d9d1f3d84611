"""User-facing exceptions, and how counts, errors and untrusted values are written in their messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LONGEST = 80
NAMED = 3  # things that are named of those which one reason ended


class UserError(Exception):
    """Report a file, folder or setting that cannot be used.

    The message is one line that says what was wrong and what would be right. The entry points (``train.py``,
    ``attack.py``, ``analyze.py``) print it without a traceback and exit with status 1; a program that imports the
    package may catch it.
    """


class Stopped(SystemExit):
    """Raised on SIGTERM or Ctrl-C; code that knows what has been saved records it with ``add_note``.

    As a SystemExit it is not caught as a failure. The process that it ends has the status 128 + the signal's number
    (143, 130).
    """

    @property
    def by(self) -> str:
        """The name of the signal."""
        return {130: "Ctrl-C", 143: "SIGTERM"}.get(int(self.code or 0), f"status {self.code}")

    @property
    def saved(self) -> str:
        """All notes on one line."""
        return "; ".join(getattr(self, "__notes__", []))


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Write a count and its noun: ``1 image``, ``1,000 images``.

    Args:
        count: The number of things.
        noun: The noun in the singular.
        many: The noun in the plural; None: ``noun`` and an s.
    """
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def shown(value: Any, longest: int = LONGEST) -> str:
    """Write an untrusted value for a message: on one line, without control characters, cut if it is long."""
    if isinstance(value, str):
        text = value if value.isprintable() else repr(value)
    elif value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 64):
        text = repr(value)
    elif isinstance(value, list | tuple) and len(value) <= 8:
        text = f"[{', '.join(shown(one, 20) if not isinstance(one, list | tuple) else '...' for one in value)}]"
    else:
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def error_message(error: BaseException, longest: int = 200) -> str:
    """Write the message of an exception on one line; its type if it has no message."""
    return shown(" ".join(str(error).split()) or type(error).__name__, longest)


def error_summary(error: BaseException, longest: int = 300) -> str:
    """Write the type and message of an exception on one line; of a ``UserError`` the message alone, in full."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    return shown(f"{type(error).__name__}: {text or 'no message'}", longest)


def did_you_mean(name: str, known: Iterable[str], section: str = "") -> str:
    """Write the nearest known name as a question; nothing where none is near.

    Args:
        name: The unknown name.
        known: The names that could be meant.
        section: What stands before the name, with its point.

    Example:
        >>> did_you_mean("lrr", ["lr", "momentum"], "optimizer.")
        '; did you mean optimizer.lr?'
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {section}{near[0]}?" if near else ""


def by_reason(failed: Iterable[tuple[str, str]]) -> str:
    """Write why things failed, each reason once, with the names of the first things that it ended.

    Args:
        failed: Pairs of a name and a reason.

    Example:
        >>> by_reason([("seed 0", "no images"), ("seed 1", "disk full"), ("seed 2", "no images")])
        'seed 0, seed 2: no images; seed 1: disk full'
    """
    names: dict[str, list[str]] = {}
    for name, reason in failed:
        names.setdefault(reason, []).append(name)
    return "; ".join(
        f"{', '.join(ended[:NAMED])}{f' and {len(ended) - NAMED} more' if len(ended) > NAMED else ''}: {reason}"
        for reason, ended in names.items()
    )

"""The one exception that a user is meant to read, and how counts and what others wrote are written in it."""

from typing import Any

LONGEST = 80


class UserError(Exception):
    """Something the user gave cannot be used: a file, a folder or a setting.

    The message is one line that says what was wrong and what would be right. The doors (train.py, attack.py,
    analyze.py) print it without a traceback and exit with status 1; a program that imports the package may catch it.
    """


class Stopped(SystemExit):
    """SIGTERM or Ctrl-C, raised where the work stands; whoever knows what is saved says so with ``add_note``.

    A SystemExit, so that nothing on the way takes it for a failure: a process that it leaves ends with its status,
    128 + the signal's number (143, 130).
    """

    @property
    def by(self) -> str:
        """What stopped the work, in words."""
        return {130: "Ctrl-C", 143: "SIGTERM"}.get(int(self.code or 0), f"status {self.code}")

    @property
    def saved(self) -> str:
        """All notes in one line."""
        return "; ".join(getattr(self, "__notes__", []))


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Write a count and its noun: ``1 image``, ``1,000 images``.

    Args:
        count: how many.
        noun: what one is called.
        many: what several are called; None: ``noun`` and an s.
    """
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def shown(value: Any, longest: int = LONGEST) -> str:
    """A value from a file as part of a message: on one line, without control characters, cut where it is long."""
    if isinstance(value, str):
        text = value if value.isprintable() else repr(value)
    elif value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 64):
        text = repr(value)
    elif isinstance(value, list | tuple) and len(value) <= 8:
        text = f"[{', '.join(shown(one, 20) if not isinstance(one, list | tuple) else '...' for one in value)}]"
    else:
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."

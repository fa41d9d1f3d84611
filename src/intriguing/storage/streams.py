"""Make standard output and standard error accept every text.

A console with few letters, a closed pipe or a full disk must not end a command after its results are finished.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_ERRORS = "intriguing.spelled"
# Replacements for signs of the tables that a console lacks; one letter each, so that columns stay aligned.
_SPELLED = {"·": "-", "•": "*", "−": "-", "–": "-", "✓": "v", "≠": "x", "≤": "<", "≥": ">", "…": ".", "\u00a0": " "}


@contextmanager
def unfailing() -> Iterator[None]:
    """Replace ``sys.stdout`` and ``sys.stderr`` within the block by streams whose writes never raise.

    Letters that the encoding lacks are spelled or escaped. Text that a closed pipe or a full disk refuses is dropped.
    A stream that is closed from the start becomes the null device, so that no file gets its descriptor.
    """
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _unfailing(before[0]), _unfailing(before[1])
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):
                    stream.flush()
        sys.stdout, sys.stderr = before


class _DroppingFile(io.FileIO):
    """A file that drops the bytes it cannot write."""

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        try:
            written = super().write(data)
        except OSError:
            return size
        return size if written is None else written


def _unfailing(stream: TextIO) -> TextIO:
    """Open a text stream to the same file; return the stream itself if it has no file, as in a notebook."""
    if not isinstance(stream, io.TextIOWrapper) or isinstance(getattr(stream.buffer, "raw", None), _DroppingFile):
        return stream
    try:
        stream.flush()
    except OSError:  # the pipe is closed
        pass
    except ValueError:  # the stream is closed
        return stream
    try:
        file = _DroppingFile(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):
        return stream
    strict = stream.errors in ("strict", "surrogateescape", "surrogatepass")
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=stream.encoding,
        errors=_ERRORS if strict else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _fill_closed_descriptors() -> None:
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_SPELLED.get(one) or one.encode("ascii", "backslashreplace").decode() for one in letters), error.end


codecs.register_error(_ERRORS, _spell)

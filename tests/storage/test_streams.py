"""Writing to a console never fails: few letters, a reader that has gone, a stream that is closed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from intriguing.storage.streams import unfailing

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("ascii", "v x - \\u03bb \\xe9"),
        ("latin-1", "v x · \\u03bb é"),
        ("cp1252", "v x · \\u03bb é"),
        ("utf-8", "✓ ≠ · λ é"),
    ],
)
def test_letters_that_a_console_lacks_are_spelled(
    encoding: str, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "console", "w", encoding=encoding) as console:  # strict, as Python opens standard output
        monkeypatch.setattr(sys, "stdout", console)
        with unfailing():
            print("✓ ≠ · λ é")
        assert sys.stdout is console
    assert (tmp_path / "console").read_text(encoding=encoding) == f"{written}\n"


def test_a_reader_that_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stderr", stream)
    with unfailing():
        for _ in range(10):
            print("x" * 100_000, file=sys.stderr)
    stream.close()


def test_a_stream_without_a_file_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = io.StringIO()
    monkeypatch.setattr(sys, "stdout", notebook)
    with unfailing():
        print("✓")
    assert notebook.getvalue() == "✓\n"


def test_nothing_gets_the_number_of_a_closed_stream() -> None:
    code = (
        "import os\nfrom intriguing.storage.streams import unfailing\n"
        "with unfailing():\n    print('lost')\n    assert os.open('/dev/null', os.O_RDONLY) > 2\n"
    )
    command = ["sh", "-c", 'exec "$0" -c "$1" >&- 2>&- <&-', sys.executable, code]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == 0

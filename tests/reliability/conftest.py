"""Ctrl-C reaches the processes of these tests also where the tests themselves run in the background (nohup, CI)."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _ctrl_c_is_not_ignored() -> Iterator[None]:
    """A process that is started with Ctrl-C ignored goes on ignoring it, as nohup means it, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

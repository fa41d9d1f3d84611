"""Log how far a long pass over images is, so that no command works for minutes without a line."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from intriguing.storage.ranks import is_first_process

log = logging.getLogger(__name__)
T = TypeVar("T")
SECONDS = 10.0  # between two lines


def announced(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield items, and log every ten seconds how many have been taken.

    Args:
        items: Things that take their time.
        what: What is done with them, such as "reading images of photographs".
        total: Number of items.
    """
    next_line = time.monotonic() + SECONDS
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() >= next_line and is_first_process():
            next_line = time.monotonic() + SECONDS
            log.info("%s: %s of %s", what, f"{done:,}", f"{total:,}")

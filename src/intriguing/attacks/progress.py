"""Report how much of an attack is done, from inside it to whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_watcher: ContextVar[Callable[[float], None] | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(observe: Callable[[float], None]) -> Iterator[None]:
    """Call a function with the share of an attack that is done, from 0 to 1, while the attack runs inside the context.

    Args:
        observe: called often, so it must be fast; the share never falls.
    """
    most = 0.0

    def rise(share: float) -> None:
        nonlocal most
        if share > most:  # a search that starts again, for the images on which it failed, begins at 0
            most = share
            observe(share)

    token = _watcher.set(rise)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextmanager
def portion(start: float, end: float) -> Iterator[None]:
    """Let the shares that are reported inside the context stand for the part from ``start`` to ``end`` of the work."""
    observe = _watcher.get()
    if observe is None:
        yield
        return
    with watching(lambda share: observe(start + (end - start) * share)):
        yield
    observe(end)


def report(share: float) -> None:
    """Report that a share of the work, from 0 to 1, is done; nothing happens if nobody watches."""
    observe = _watcher.get()
    if observe is not None:
        observe(share)

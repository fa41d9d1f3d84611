"""Turn SIGTERM and Ctrl-C into one exception, and end child processes with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from types import FrameType

from intriguing.errors import Stopped

PAUSE = 10.0  # seconds to save in; a further signal (uv, a terminal or a scheduler may send one) changes nothing
_DEFAULTS = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


class _Listener:
    """Signal handler that raises ``Stopped``, on Ctrl-C too: Lightning ends a KeyboardInterrupt with status 1."""

    def __init__(self) -> None:
        self.status = 0
        self.last = -PAUSE

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.status = self.status or 128 + number
        if time.monotonic() - self.last < PAUSE:  # the program is saving
            return
        self.last = time.monotonic()
        raise Stopped(self.status)


_handlers: dict[signal.Signals, _Listener] = {}  # those that ``listening`` has set


@contextmanager
def listening() -> Iterator[None]:
    """Raise ``Stopped`` on SIGTERM and Ctrl-C within the block, once, even if a library changes the exception.

    Signals that have another handler already (of an outer ``listening``, or of a scheduler's launcher) keep it, and
    all signals do in a thread that is not the main one.
    """
    main = threading.current_thread() is threading.main_thread()
    before = {one: signal.getsignal(one) for one in _DEFAULTS} if main else {}
    listener = _Listener()
    mine = [one for one, handler in before.items() if handler == _DEFAULTS[one]]
    _handlers.update(dict.fromkeys(mine, listener))
    reclaim()
    try:
        yield
    except BaseException as error:
        if listener.status and not isinstance(error, Stopped):
            raise Stopped(listener.status) from error
        raise
    finally:
        for one in mine:
            signal.signal(one, before[one])
            del _handlers[one]


def reclaim() -> None:
    """Restore the handlers that a library replaced within ``listening``.

    Lightning's handler of SIGTERM calls a collective operation, which hangs while other processes are in another one.
    """
    if threading.current_thread() is threading.main_thread():
        for one, listener in _handlers.items():
            signal.signal(one, listener)


def die_with_parent() -> None:
    """End this process, a child that multiprocessing started, as soon as its parent is gone.

    A killed parent cannot signal its children, and they would go on writing. All files on the disk are whole at any
    moment, so the same command makes again what is lost.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def end_children() -> None:
    """Terminate the processes that multiprocessing started for this one, and wait for their end."""
    for process in multiprocessing.active_children():
        process.terminate()
    for process in multiprocessing.active_children():
        process.join()


def _follow(parent: int) -> None:
    connection.wait([parent])
    os._exit(137)  # as a process that was killed

"""SIGTERM and Ctrl-C as one exception, and children that do not outlive their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from intriguing.errors import Stopped

PAUSE = 10.0  # seconds to save in, in which a further signal changes nothing: uv, a terminal, a scheduler may send one
_DEFAULTS = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


class _Listener:
    """Raises ``Stopped`` where the program stands, also on Ctrl-C: of KeyboardInterrupt Lightning makes status 1."""

    def __init__(self) -> None:
        self.status = 0
        self.last = -PAUSE

    def __call__(self, number: int, frame: Any) -> None:
        self.status = self.status or 128 + number
        if time.monotonic() - self.last < PAUSE:  # it is saving: not to be interrupted there
            return
        self.last = time.monotonic()
        raise Stopped(self.status)


_handlers: dict[signal.Signals, _Listener] = {}  # what ``listening`` has set


@contextmanager
def listening() -> Iterator[None]:
    """Within it SIGTERM and Ctrl-C raise ``Stopped``, once, even where a library made another exception of it.

    Signals that someone else handles already (a caller of this function, a scheduler's launcher) stay with them, and
    so do all of them in a thread that is not the main one.
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
    """Take the signals back that a library took within ``listening``.

    Lightning's handler of SIGTERM calls a collective operation, in which processes that are in another one hang.
    """
    if threading.current_thread() is threading.main_thread():
        for one, listener in _handlers.items():
            signal.signal(one, listener)


def die_with_parent() -> None:
    """Kill this process, a child that multiprocessing started, as soon as its parent is gone, however it went.

    A killed parent can tell its children nothing, and without it they would go on writing. What is on the disk is
    whole at any moment, so nothing is lost that the same command would not make again.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def end_children() -> None:
    """Tell the processes that multiprocessing started for this one to stop, and wait until they have."""
    for process in multiprocessing.active_children():
        process.terminate()
    for process in multiprocessing.active_children():
        process.join()


def _follow(parent: int) -> None:
    connection.wait([parent])
    os.kill(os.getpid(), signal.SIGKILL)

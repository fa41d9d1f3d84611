"""Give back the state of the process that a fit changes."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities.seed import isolate_rng

_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG")
_LOGGERS = ("lightning.pytorch", "lightning.fabric")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def restored() -> Iterator[None]:
    """Restore, when the block ends, what seeding and Lightning's Trainer change.

    It is the random state of torch, NumPy and Python, the number of threads, the switches for deterministic algorithms,
    environment variables, the levels of Lightning's loggers and signal handlers. A Ctrl-C, which Lightning turns into
    the end of the process, is raised as the KeyboardInterrupt that it was.
    """
    variables = {name: os.environ.get(name) for name in _VARIABLES}
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, threads = torch.backends.cudnn.benchmark, torch.get_num_threads()
    main = threading.current_thread() is threading.main_thread()
    handlers = {one: signal.getsignal(one) for one in _SIGNALS} if main else {}
    try:
        with _random_state():
            yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(threads)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for one, handler in handlers.items():
            signal.signal(one, handler)


@contextmanager
def _random_state() -> Iterator[None]:
    context = isolate_rng()
    context.__enter__()
    try:
        yield
    finally:  # Lightning's own restores nothing after an exception
        context.__exit__(None, None, None)

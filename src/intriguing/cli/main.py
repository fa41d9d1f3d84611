"""What the three doors have in common: from a Hydra config to a typed job, from an error to one line.

Nothing heavy is imported here, so that ``--help`` and ``--cfg job`` answer at once.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from intriguing.cli import overrides as texts
from intriguing.cli import sweep
from intriguing.errors import Stopped, UserError
from intriguing.runs.interrupts import listening
from intriguing.storage.ranks import is_first_process
from intriguing.storage.streams import unfailing

_FILES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.ENAMETOOLONG)
LONGEST = 2000  # characters of a line that is printed
_FULL = "INTRIGUING_FULL_ERROR"


def run(door: Callable[[], Any]) -> None:
    """Run a ``@hydra.main`` function; a user's mistake becomes one line and status 1, not a traceback.

    With ``HYDRA_FULL_ERROR=1`` every error is raised as it is. Ctrl-C ends with status 130, SIGTERM with 143, a sweep
    of which a job failed with 1.
    """
    # a further process of a distributed run finds in its environment what this one has put there below
    full = os.environ.get(_FULL, os.environ.get("HYDRA_FULL_ERROR")) == "1"
    os.environ[_FULL] = str(int(full))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print over many lines
    sweep.forget()
    with unfailing(), _folder_for_matplotlib():
        _run(door, full=full)


def _run(door: Callable[[], Any], *, full: bool) -> None:
    try:
        with listening():
            sys.argv[:] = texts.arranged(sys.argv)
            door()
        if failures := sweep.failures():
            _say(failures)
            sys.exit(1)
    except Stopped as stop:
        if "lightning" in sys.modules and not is_first_process():
            sys.exit(0)  # the first process speaks, and Lightning would kill it for another status here
        saved = "; ".join(part for part in (sweep.standing(), stop.saved or "what was finished is saved") if part)
        print(f"stopped by {stop.by}: {saved}; the same command goes on there", file=sys.stderr)
        sys.exit(stop.code)
    except Exception as error:
        if full:
            raise
        _say("; ".join(part for part in (_reason(error), sweep.failures()) if part))
        sys.exit(1)
    finally:
        os.environ.pop(_FULL, None)
        if not full:
            os.environ.pop("HYDRA_FULL_ERROR", None)


@contextmanager
def _folder_for_matplotlib() -> Iterator[None]:
    """Give matplotlib a folder for its cache where the home folder is not known or not writable; it would warn."""
    home = os.path.expanduser("~")
    named = {"MPLCONFIGDIR", "XDG_CONFIG_HOME"} & set(os.environ)
    if named or (os.path.isabs(home) and os.access(home, os.W_OK)):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="matplotlib-", ignore_cleanup_errors=True) as folder:
        os.environ["MPLCONFIGDIR"] = folder  # also for the processes that are started
        try:
            yield
        finally:
            os.environ.pop("MPLCONFIGDIR", None)


def task(job: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Wrap the body of a door: an error in a single run ends it here, before Hydra adds lines of its own.

    In a sweep it is named and recorded, and the other jobs still run, whichever process the launcher put this one in.
    """

    @functools.wraps(job)
    def body(cfg: DictConfig) -> Any:
        full, sweeping = os.environ.get(_FULL) == "1", HydraConfig.get().mode == RunMode.MULTIRUN
        with unfailing(), listening():  # also where a launcher runs this in a process of its own
            try:
                with sweep.recording(_reason) if sweeping else nullcontext():
                    return job(cfg)
            except Exception as error:
                if full and not sweeping:
                    raise
                if full:
                    traceback.print_exc()
                _say(sweep.job_name() + _reason(error))
                if not sweeping:
                    raise SystemExit(1) from error
                if sweep.wants_exceptions():
                    raise
                return None

    return body


def _say(message: str) -> None:
    visible = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)
    print(f"error: {visible if len(visible) <= LONGEST else visible[:LONGEST] + '...'}", file=sys.stderr)


def _reason(error: BaseException) -> str:
    """What is printed of an error: its message; with its kind, if it is none that was foreseen."""
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be a string"):
        groups = [text for text in sys.argv[1:] if text.endswith("=null") and "." not in text]
        return f"{' '.join(groups) or 'a group'} cannot be: such a group needs one of its options, see --help"
    if isinstance(error, UserError | HydraException | OmegaConfBaseException | YAMLError):
        return one_line(error)
    if isinstance(error, OSError) and error.filename and error.errno in _FILES:
        return f"cannot use {error.filename}: {error.strerror}; give a folder that can be written, with space"
    return f"{type(error).__name__}: {one_line(error)} (HYDRA_FULL_ERROR=1 shows where)"


def one_line(error: BaseException) -> str:
    """An error's message as one line; of a chain, the innermost message, which says what was wrong."""
    cause = error
    while isinstance(cause, HydraException) and cause.__cause__ is not None and not str(cause).strip():
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).partition("Config search path:")[0].splitlines()]
    noise = ("Set the environment variable", "full_key:", "object_type=", "reference_type=")
    text = "; ".join(line for line in lines if line and not line.startswith(noise))
    return text.replace(":; ", ": ") or type(error).__name__

"""Run the entry points, and print each error as one line.

Heavy packages are not imported here, so that ``--help`` and ``--cfg job`` answer at once.
"""

from __future__ import annotations

import argparse
import errno
import functools
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser  # of hydra.main; no public name has them
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from intriguing.cli import overrides as texts
from intriguing.cli import sweep
from intriguing.cli.help import help_text
from intriguing.commands import CONF
from intriguing.errors import Stopped, UserError
from intriguing.runs.interrupts import listening
from intriguing.storage.ranks import is_first_process
from intriguing.storage.streams import unfailing

_FILES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.ENAMETOOLONG)
T = TypeVar("T")
LONGEST = 2000  # characters of a line that is printed
_FULL = "INTRIGUING_FULL_ERROR"


def run(entry: Callable[[], object]) -> None:
    """Run a ``@hydra.main`` function; print a user's mistake as one line, with status 1 and no traceback.

    With ``HYDRA_FULL_ERROR=1`` every error is raised as it is. Ctrl-C ends with status 130, SIGTERM with 143, a sweep
    of which a job failed with 1.
    """
    # Further processes of a distributed run inherit the variables that this one sets.
    full = os.environ.get(_FULL, os.environ.get("HYDRA_FULL_ERROR")) == "1"
    os.environ[_FULL] = str(int(full))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print over many lines
    sweep.forget()
    with unfailing(), _folder_for_matplotlib():
        _run(entry, full=full)


def _run(entry: Callable[[], object], *, full: bool) -> None:
    try:
        with listening():
            sys.argv[:] = texts.arranged(sys.argv)
            given = get_args_parser().parse_args(sys.argv[1:])
            _check_own_configs(given)
            if given.help:
                print(help_text(entry.__module__.rpartition(".")[2], _summary(entry), given.overrides))
                return
            entry()
        if table := sweep.table():
            print(f"\n{table}")
        if failures := sweep.failures():
            _say(failures)
            sys.exit(1)
    except Stopped as stop:
        if "lightning" in sys.modules and not is_first_process():
            sys.exit(0)  # the first process prints, and Lightning would kill it for another status here
        sweep.table()
        saved = "; ".join(part for part in (sweep.progress(), stop.saved or "finished runs are saved") if part)
        print(f"stopped by {stop.by}: {saved}; the same command resumes there", file=sys.stderr)
        sys.exit(stop.code)
    except Exception as error:
        if full:
            raise
        if table := sweep.table():  # a sweeper that chooses has raised what ended a job
            print(f"\n{table}")
        said = _unknown(entry, error) or _reason(error)
        _say("; ".join(part for part in (said, sweep.failures()) if part))
        sys.exit(1)
    finally:
        os.environ.pop(_FULL, None)
        if not full:
            os.environ.pop("HYDRA_FULL_ERROR", None)


def _summary(entry: Callable[[], object]) -> str:
    return (sys.modules[entry.__module__].__doc__ or "").strip()


def _unknown(entry: Callable[[], object], error: Exception) -> str | None:
    """Write which name of the command line no config has; None for other errors than Hydra's of composing."""
    if not isinstance(error, HydraException):
        return None
    from intriguing.cli.unknown import unknown

    stage, given = entry.__module__.rpartition(".")[2], get_args_parser().parse_args(sys.argv[1:])
    search_path = create_config_search_path(given.config_path or str(CONF))
    if given.config_dir is not None:
        search_path.prepend("command-line", f"file://{os.path.abspath(given.config_dir)}", SearchPathQuery("schema"))
    GlobalHydra.instance().clear()
    try:
        Hydra.create_main_hydra2(stage, search_path)  # as hydra.main does; hydra.initialize knows no second folder
        return unknown(given.config_name or stage, stage, given.overrides)
    except (HydraException, OmegaConfBaseException):
        return None
    finally:
        GlobalHydra.instance().clear()


def _check_own_configs(given: argparse.Namespace) -> None:
    """Refuse a file of ``--config-dir`` that Hydra never reads, for a config of the project has its name."""
    if given.config_dir is None or given.config_path is not None:
        return
    folder = Path(given.config_dir)
    for file in sorted(folder.rglob("*.yaml")):
        if (theirs := CONF / file.relative_to(folder)).is_file() and not theirs.samefile(file):
            raise UserError(f"{file} is never read, for the project has a config of this name; rename the file")


@contextmanager
def _folder_for_matplotlib() -> Iterator[None]:
    """Give matplotlib a folder for its cache if the home folder is not known or not writable; it would warn."""
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


def task(job: Callable[[DictConfig], T]) -> Callable[[DictConfig], T | None]:
    """Wrap the body of an entry point: an error in a single run is printed here, before Hydra prints its lines.

    In a sweep the error is printed and recorded, and the other jobs run, in any process that a launcher starts.
    """

    @functools.wraps(job)
    def body(cfg: DictConfig) -> T | None:
        full, sweeping = os.environ.get(_FULL) == "1", HydraConfig.get().mode == RunMode.MULTIRUN
        with unfailing(), listening():  # again, for a launcher that runs this in another process
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
    """Write an error as one line: the message, and the type if the error was not foreseen."""
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be a string"):
        groups = [text for text in sys.argv[1:] if text.endswith("=null") and "." not in text]
        return f"{' '.join(groups) or 'a group'} cannot be: such a group needs one of its options, see --help"
    if isinstance(error, UserError | HydraException | OmegaConfBaseException | YAMLError):
        return one_line(error)
    if isinstance(error, OSError) and error.filename and error.errno in _FILES:
        return f"cannot use {error.filename}: {error.strerror}; give a folder that can be written, with space"
    return f"{type(error).__name__}: {one_line(error)} (HYDRA_FULL_ERROR=1 shows where)"


def one_line(error: BaseException) -> str:
    """Write the message of an error as one line; of a chain of Hydra's the innermost message, without its hints."""
    cause = error
    while isinstance(cause, HydraException) and cause.__cause__ is not None and not str(cause).strip():
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).partition("Config search path:")[0].splitlines()]
    noise = ("Set the environment variable", "full_key:", "object_type=", "reference_type=")
    text = "; ".join(line for line in lines if line and not line.startswith(noise))
    return text.replace(":; ", ": ") or type(error).__name__

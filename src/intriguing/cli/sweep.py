"""Record the outcome of each job of a sweep (``-m``) in a file beside multirun.yaml, and tabulate them at its end.

Files are used because a launcher may run a job in another process or on another machine.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from intriguing.errors import Stopped, UserError, by_reason, plural
from intriguing.runs.names import natural_key
from intriguing.runs.provenance import relative_path
from intriguing.storage.files import make_folder, write_atomic
from intriguing.tracking.jobs import check_run_id

OmegaConf.register_new_resolver("expanduser", os.path.expanduser, replace=True)  # of conf/base.yaml

TABLE = "runs.csv"
_folder: list[Path] = []  # of the sweep that this process has started
_made: list[Path] = []  # run folders of the job that runs in this process
_SIZE = "INTRIGUING_SWEEP"  # number of jobs, for the jobs: Hydra gives each its own number only


class Watch(Callback):
    """Hydra's callback that notes the folder of the sweep and counts the jobs of a grid, see conf/base.yaml."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Prepare the records of a new sweep, and refuse a W&B run that its jobs would share."""
        _folder[:] = [Path(config.hydra.sweep.dir).absolute()]
        for file in _records():  # of an earlier sweep in the same folder
            file.unlink(missing_ok=True)
        os.environ.pop(_SIZE, None)
        if config.hydra.sweeper._target_.endswith(".BasicSweeper"):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            overrides = parser.parse_overrides(list(config.hydra.overrides.task))
            grid = [one for one in overrides if one.is_sweep_override()]
            os.environ[_SIZE] = str(math.prod(sum(1 for _ in one.sweep_string_iterator()) for one in grid))
        try:
            check_run_id(config.logger, int(os.environ.get(_SIZE, 2)))  # a sweeper that chooses runs several jobs
        except UserError as error:  # Hydra turns exceptions of callbacks into warnings
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from error


def forget() -> None:
    """Forget the sweep of an earlier command."""
    _folder.clear()


@contextmanager
def recording(reason: Callable[[BaseException], str]) -> Iterator[None]:
    """Record a job of a sweep as running, and at the end as finished, failed (with the reason) or interrupted.

    The record names the run folders that ``made`` was called with.
    """
    _made.clear()
    job = HydraConfig.get()
    folder = Path(job.runtime.cwd) / job.sweep.dir  # hydra.job.chdir may have changed the working folder
    about = {"number": int(job.job.num), "overrides": list(job.overrides.task)}

    def write(state: str, why: str = "") -> None:
        content = about | {"state": state, "reason": why, "runs": [str(folder.absolute()) for folder in _made]}
        write_atomic(folder / f"job{about['number']}.json", json.dumps(content) + "\n")

    make_folder(folder)
    write("running")
    try:
        yield
    except (Stopped, KeyboardInterrupt):
        write("interrupted")
        raise
    except Exception as error:
        write("failed", reason(error))
        raise
    write("finished")


def made(folder: Path) -> None:
    """Note a run folder that the running job has made, or found finished."""
    _made.append(folder)


def table() -> str:
    """Write the runs of the sweep as ``runs.csv`` into its folder.

    Returns:
        The table and where the file is, for the console; empty without a sweep.
    """
    from intriguing.cli.sweep_table import as_csv, as_text, rows_of

    jobs = _jobs()
    if not jobs:
        return ""
    rows = rows_of(jobs)
    write_atomic(_folder[0] / TABLE, as_csv(rows))
    return f"{as_text(rows)}\n{relative_path(str(_folder[0] / TABLE), None)}"


def job_name() -> str:
    """Write the start of a line about this job; empty in a single run."""
    job = HydraConfig.get()
    return f"job {job.job.num} ({' '.join(job.overrides.task)}): " if job.mode == RunMode.MULTIRUN else ""


def is_alone() -> bool:
    """Return whether no other job of a sweep runs at the same time."""
    job = HydraConfig.get()
    return job.mode != RunMode.MULTIRUN or str(job.launcher._target_).endswith(".BasicLauncher")


def place() -> tuple[int, int] | None:
    """Return this job's number, from 0, and the number of jobs; None outside a sweep, or if it is not known."""
    job, size = HydraConfig.get(), os.environ.get(_SIZE)
    return None if job.mode != RunMode.MULTIRUN or size is None else (int(job.job.num), int(size))


def wants_exceptions() -> bool:
    """Return whether the sweeper needs exceptions of failed jobs; the basic sweeper would stop at the first."""
    return not str(HydraConfig.get().sweeper._target_).endswith("BasicSweeper")


def failures() -> str:
    """Write ``k of n jobs failed: names: reason; ...``; a name is the overrides that not all jobs share."""
    jobs = _jobs()
    failed = [job for job in jobs if job["state"] != "finished"]
    shared = set.intersection(*(set(job["overrides"]) for job in jobs)) if len(jobs) > 1 else set()
    said = []
    for job in failed:
        name = " ".join(part for part in job["overrides"] if part not in shared) or f"job {job['number']}"
        said.append((name, job["reason"] or "it ended without an error message (killed?)"))
    return f"{len(failed)} of {plural(len(jobs), 'job')} failed: {by_reason(said)}" if failed else ""


def progress() -> str:
    """Write the number of finished jobs of the sweep; empty without a sweep."""
    if not _folder:
        return ""
    done = sum(job["state"] == "finished" for job in _jobs())
    return f"{plural(done, 'job')} of the sweep {'is' if done == 1 else 'are'} finished"


def _jobs() -> list[dict[str, Any]]:
    return [content for _, content in sorted(_records().items(), key=lambda one: natural_key(one[0].name))]


def _records() -> dict[Path, dict[str, Any]]:
    """Read the files that ``recording`` has written; other files of such a name are ignored."""
    found = {}
    for file in _folder[0].glob("job*.json") if _folder else ():
        with suppress(OSError, ValueError):
            content = json.loads(file.read_text())
            if isinstance(content, dict) and set(content) == {"number", "overrides", "state", "reason", "runs"}:
                found[file] = content
    return found

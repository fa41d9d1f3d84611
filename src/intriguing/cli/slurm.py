"""Run the steps of a study as jobs of Slurm, by submitit."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intriguing.cli.scheduler import PATIENCE, Outcome, Perform, Step, attempt
from intriguing.errors import Stopped, UserError, error_message
from intriguing.runs.interrupts import listening

if TYPE_CHECKING:
    from submitit import Job
    from submitit.helpers import DelayedSubmission

POLL = 1.0  # seconds between two looks for results
ASK = 15.0  # seconds between two questions to Slurm: a job that was killed leaves no result
_GENERIC = ("timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb")


class Slurm:
    """Run steps as jobs of Slurm.

    A job that runs out of time, or is preempted, is sent again and goes on from its last saved state.

    Args:
        perform: Runs one step.
        settings: Those of conf/launcher/slurm.yaml.
        folder: Where scripts, logs and results of the jobs go; the nodes share it.
        jobs: Jobs at once; None for no limit.

    Raises:
        UserError: submitit or Slurm is not there, or a setting is unknown.
    """

    def __init__(self, perform: Perform, settings: Mapping[str, Any], folder: Path, jobs: int | None) -> None:
        try:
            import submitit
        except ImportError as error:
            raise UserError("launcher=slurm needs submitit: pip install 'intriguing[submitit]'") from error
        own = {key: value for key, value in settings.items() if key not in ("name", "max_num_timeout")}
        given = {key if key in _GENERIC else f"slurm_{key}": value for key, value in own.items() if value is not None}
        try:
            self._executor = submitit.AutoExecutor(
                folder / "%j", cluster="slurm", slurm_max_num_timeout=settings["max_num_timeout"]
            )
            self._executor.update_parameters(**given)
        except RuntimeError as error:
            raise UserError(
                f"launcher=slurm: {error_message(error)}; run it where sbatch is, or launcher=local"
            ) from error
        except (NameError, TypeError, ValueError) as error:
            raise UserError(f"launcher=slurm: {error_message(error)}") from error
        self._task, self._limit, self._asked = _Task(perform), jobs, time.monotonic()
        self._jobs: dict[str, tuple[Job[Outcome], Step]] = {}

    def has_room(self) -> bool:
        """Return whether the limit allows a further job."""
        return self._limit is None or len(self._jobs) < self._limit

    def start(self, step: Step) -> None:
        """Send a step to Slurm.

        Raises:
            UserError: Slurm refuses the job.
        """
        self._executor.update_parameters(name=step.stage)
        try:
            job = self._executor.submit(self._task, step)
        except Exception as error:  # sbatch's own words: an unknown partition, a limit of the account
            raise UserError(f"Slurm refuses {step.key}: {error_message(error, 400)}") from error
        self._jobs[str(job.job_id)] = job, step

    def wait(self) -> list[tuple[Step, Outcome]]:
        """Wait for the next jobs to end."""
        while True:
            if ended := self._collect():
                return ended
            time.sleep(POLL)

    def _collect(self) -> list[tuple[Step, Outcome]]:
        known = None
        if time.monotonic() - self._asked > ASK:
            known, self._asked = _queued(), time.monotonic()
        ended = []
        for number, (job, step) in list(self._jobs.items()):
            if job.paths.result_pickle.exists():
                ended.append((step, _outcome(job)))
            elif known is not None and number not in known:
                time.sleep(POLL)  # a result may take a moment to be seen through a network's file system
                ended.append((step, _outcome(job)))
            else:
                continue
            del self._jobs[number]
        return ended

    def stop(self) -> list[str]:
        """Interrupt the running jobs, cancel the waiting ones, and wait until all have ended."""
        numbers = list(self._jobs)
        _call("scancel", "--state=PENDING", *numbers)
        _call("scancel", "--signal=INT", *numbers)
        end = time.monotonic() + PATIENCE
        while (queued := _queued()) and not queued.isdisjoint(numbers) and time.monotonic() < end:
            time.sleep(POLL)
        _call("scancel", *numbers)
        saved = [
            (step, _outcome(job).reason if job.paths.result_pickle.exists() else "")
            for job, step in self._jobs.values()
        ]
        return [reason or f"{step.key} was stopped" for step, reason in saved]

    def close(self) -> None:
        """Cancel the jobs that are left, after an error."""
        if self._jobs:
            _call("scancel", *self._jobs)


class _Task:
    """What a job of Slurm runs."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform

    def __call__(self, step: Step) -> Outcome:
        """Run a step; Slurm's SIGINT, which ``Slurm.stop`` sends, ends it in order."""
        with listening():
            try:
                return attempt(self._perform, step)
            except Stopped as stop:
                return Outcome(reason=stop.saved, stopped=True)

    def checkpoint(self, step: Step) -> DelayedSubmission:
        """Send the step again; submitit calls this when the job's time runs out."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, step)


def _outcome(job: Job[Outcome]) -> Outcome:
    """Read the result of a job that has ended."""
    if not job.paths.result_pickle.exists():
        return Outcome(
            reason=f"its job {job.job_id} ended without a result (killed, or out of memory?): see {job.paths.stderr}"
        )
    try:
        return job.result()
    except Exception as error:  # of submitit's: the job broke outside of the step
        return Outcome(reason=f"its job {job.job_id} failed: {error_message(error, 400)}")


def _queued() -> set[str] | None:
    """Ask Slurm for the jobs of this user that have not ended; None if it does not answer."""
    answer = _call("squeue", "--me", "--noheader", "--format=%A")
    return None if answer is None else set(answer.split())


def _call(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None

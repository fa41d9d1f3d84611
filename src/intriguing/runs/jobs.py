"""Run the job of a stage in its run folder: skip a finished run, else open the folder and record how the run ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, Self

from intriguing.runs.folder import RunFolder, open_run
from intriguing.runs.guard import run_folder, run_status
from intriguing.runs.records import read_run

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoggerSettings:
    """The settings of ``conf/logger``: whether W&B records a run, and as what; None leaves W&B's variables to decide.

    Attributes:
        wandb: whether W&B records the run beside ``metrics.csv``.
        name: title in W&B.
        entity: user or team.
        project: W&B project.
        mode: ``offline``, ``online`` or ``disabled``.
        group: W&B group; None takes the study.
    """

    wandb: bool = False
    name: str | None = None
    entity: str | None = None
    project: str | None = None
    mode: str | None = None
    group: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Take the settings from the ``logger`` part of a config.

        Raises:
            UserError: a setting that nothing reads.
        """
        from intriguing.validation import refuse_unknown  # imports torch, which --help must not wait for

        refuse_unknown("logger", config, (field.name for field in fields(cls)))
        return cls(**config)


class Job(Protocol):
    """The part of a job that its run folder and W&B need."""

    @property
    def runs(self) -> str:
        """Folder of all runs."""
        ...

    @property
    def name(self) -> str:
        """Name of the run folder."""
        ...

    @property
    def label(self) -> str:
        """Name in tables."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """The config without what cannot change the result."""
        ...

    @property
    def study(self) -> str | None:
        """Name of the study, or None."""
        ...

    @property
    def tags(self) -> tuple[str, ...]:
        """Free words."""
        ...

    @property
    def command(self) -> str:
        """The command line that makes the job."""
        ...

    @property
    def logger(self) -> LoggerSettings:
        """Whether and as what W&B records the run."""
        ...

    @property
    def files(self) -> Mapping[str, str]:
        """Further files of the run folder, text by name."""
        ...


def finished_folder(job: Job, stage: str) -> Path | None:
    """Find the folder of a job that is finished, and verify its artifacts. Writes nothing and takes no lock.

    Returns:
        The run folder; None while there is work to do.

    Raises:
        UserError: the folder holds another run, or an artifact was changed since its run wrote it.
    """
    folder = run_folder(job.runs, stage, job.name)
    if run_status(job.runs, stage, job.name, job.identity) != "finished":
        return None
    read_run(folder).verify_all()
    log.info("%s is finished: skipped", folder)
    return folder


def run_of(job: Job, stage: str, *, writer: bool = True) -> RunFolder:
    """Open the run folder of a job; as a context manager it records how the run ends.

    ``run.finished`` is True where another process has finished the run since `finished_folder` looked.

    Args:
        job: the job.
        stage: ``train``, ``attack`` or ``analyze``.
        writer: False in the further processes of a distributed run, which write nothing.

    Raises:
        UserError: the folder holds another run, is in use, or cannot be written.
    """
    return open_run(
        Path(job.runs),
        stage,
        job.name,
        job.identity,
        label=job.label,
        study=job.study,
        tags=list(job.tags),
        command=job.command,
        writer=writer,
        files=job.files,
    )

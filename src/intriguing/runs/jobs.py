"""Open the run folder of a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from intriguing.runs.folder import RunFolder, open_run


class Job(Protocol):
    """The part of a job that tracking reads."""

    @property
    def runs(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...
    @property
    def study(self) -> str | None: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def command(self) -> str: ...
    @property
    def logger(self) -> Mapping[str, Any]: ...


def open_job(job: Job, stage: str, *, label: str, writer: bool = True) -> RunFolder:
    """The run folder of a job, see `open_run`."""
    return open_run(
        Path(job.runs),
        stage,
        job.name,
        job.identity,
        label=label,
        study=job.study,
        tags=list(job.tags),
        command=job.command,
        writer=writer,
    )

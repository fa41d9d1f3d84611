"""What the three stages do alike: open the run folder of a job, and its W&B run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from intriguing.errors import UserError
from intriguing.tracking.folder import RunFolder, open_run
from intriguing.tracking.wandb_run import WandbRun, start_wandb


def is_first_process() -> bool:
    """Whether this is the process of a distributed run that writes and speaks (the only one, of an ordinary run)."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only  # seconds, and not everyone who tracks needs it

    return getattr(rank_zero_only, "rank", 0) == 0


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


def start_job(job: Job, stage: str, *, record: bool = True) -> WandbRun:
    """The W&B run of a job, see `start_wandb`; a silent one where the job wants none or `record` is False."""
    logger = job.logger
    return start_wandb(
        folder=Path(job.runs) / stage / job.name,
        name=job.name,
        title=logger.get("name"),
        group=logger.get("group") or job.study,
        job_type=stage,
        config=job.identity,
        tags=job.tags,
        mode=logger.get("mode") if logger["wandb"] and record else "disabled",
        project=logger.get("project"),
        entity=logger.get("entity"),
    )


def check_run_id(logger: Mapping[str, Any], num_runs: int) -> None:
    """Refuse several runs that would share one W&B run.

    Args:
        logger: the logger's settings.
        num_runs: how many runs a command makes.

    Raises:
        UserError: WANDB_RUN_ID is set, and W&B is not switched off.
    """
    run_id = os.environ.get("WANDB_RUN_ID")
    disabled = (logger.get("mode") or os.environ.get("WANDB_MODE")) == "disabled" or not logger["wandb"]
    if run_id and num_runs > 1 and not disabled:
        raise UserError(
            f"WANDB_RUN_ID={run_id} would be shared by several runs; unset it, or switch W&B off by logger.wandb=false"
        )

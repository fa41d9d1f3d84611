"""Start the W&B run of a job."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from intriguing.errors import UserError
from intriguing.runs.jobs import Job
from intriguing.tracking.wandb_run import WandbRun, start_wandb


def start_job(job: Job, stage: str, *, record: bool = True) -> WandbRun:
    """Start the W&B run of a job, see ``start_wandb``; a silent one if the job wants none or ``record`` is False."""
    logger = job.logger
    return start_wandb(
        folder=Path(job.runs) / stage / job.name,
        name=job.name,
        title=logger.name,
        group=logger.group or job.study,
        job_type=stage,
        config=job.identity,
        tags=job.tags,
        mode=logger.mode if logger.wandb and record else "disabled",
        project=logger.project,
        entity=logger.entity,
    )


def check_run_id(logger: Mapping[str, Any], num_runs: int) -> None:
    """Refuse several runs that would share one W&B run.

    Args:
        logger: Settings of the logger.
        num_runs: Number of runs that a command makes.

    Raises:
        UserError: WANDB_RUN_ID is set, and W&B is not switched off.
    """
    run_id = os.environ.get("WANDB_RUN_ID")
    disabled = (logger.get("mode") or os.environ.get("WANDB_MODE")) == "disabled" or not logger["wandb"]
    if run_id and num_runs > 1 and not disabled:
        raise UserError(
            f"WANDB_RUN_ID={run_id} would be shared by several runs; unset it, or switch W&B off by logger.wandb=false"
        )

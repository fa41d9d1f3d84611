"""Train one network, or sweep over many with -m."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from intriguing.cli import main as entry
from intriguing.cli.config import command, objective, plain, task_overrides, training_job
from intriguing.cli.hydra_files import hydra_files
from intriguing.cli.overrides import name_extras
from intriguing.commands import CONF
from intriguing.storage.ranks import is_first_process


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
@entry.task
def main(cfg: DictConfig) -> float | None:
    """Train the network of a config; return the error that a sweeper minimises."""
    config = plain(cfg)
    overrides = task_overrides()

    from intriguing import training
    from intriguing.cli import progress, sweep

    files = hydra_files(cfg)
    job = training_job(config, name_extras(overrides), command("train", overrides), files)
    live = job.trainer.progress_bar and sweep.is_alone() and is_first_process()
    with progress.training(job.name, sweep=sweep.place(), live=live) as report:
        folder = training.fit(job, progress=report)
    sweep.made(folder)
    if not is_first_process():
        return None
    print(progress.run_line(folder))
    return objective(folder)


def run() -> None:
    """Run the command ``intriguing-train``, or ``python train.py``."""
    entry.run(main)

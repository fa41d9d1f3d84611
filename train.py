"""Train one network, or sweep over many with -m. README.md shows the command line by example."""

import hydra
from omegaconf import DictConfig

from intriguing import doors


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@doors.task
def main(cfg: DictConfig) -> float | None:
    config = doors.plain(cfg)
    overrides = doors.task_overrides()

    from intriguing import (
        console,
        sweep,
        tracking,
        training,
    )  # torch and lightning take seconds: --help must not wait for them

    job = doors.training_job(config, doors.name_extras(overrides), doors.command("train.py", overrides))
    live = bool(job.trainer["enable_progress_bar"]) and sweep.is_alone() and tracking.is_first_process()
    with console.training(job.name, sweep=sweep.place(), live=live) as tell:
        folder = training.fit(job, progress=tell)
    if not tracking.is_first_process():
        return None
    print(console.run_line(folder))
    return doors.objective(folder)


if __name__ == "__main__":
    doors.run(main)

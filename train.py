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
        tracking,
        training,
    )  # torch and lightning take seconds: --help must not wait for them

    job = doors.training_job(config, doors.name_extras(overrides), doors.command("train.py", overrides))
    folder = training.fit(job)
    if not tracking.is_first_process():
        return None
    print(console.run_line(folder))
    return doors.objective(folder)


if __name__ == "__main__":
    doors.run(main)

"""Attack trained networks: any number of checkpoints in, one adversarial set each out. README.md shows examples."""

import hydra
from omegaconf import DictConfig

from intriguing import doors


@hydra.main(version_base="1.3", config_path="conf", config_name="attack")
@doors.task
def main(cfg: DictConfig) -> None:
    config = doors.plain(cfg)
    overrides = doors.task_overrides()

    from intriguing import attacking, console, tracking  # torch takes seconds: --help must not wait for it

    jobs = attacking.AttackJob.from_config(
        config, extras=doors.name_extras(overrides), command=doors.command("attack.py", overrides)
    )
    with console.progress("attack", len(jobs)) as advance:
        for job in jobs:
            folder = attacking.craft(job, progress=advance.part)
            if tracking.is_first_process():
                advance(console.run_line(folder))


if __name__ == "__main__":
    doors.run(main)

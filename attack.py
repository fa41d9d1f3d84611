"""Attack trained networks: any number of checkpoints in, one adversarial set each out. README.md shows examples."""

import hydra
from omegaconf import DictConfig

from intriguing import doors


@hydra.main(version_base="1.3", config_path="conf", config_name="attack")
@doors.task
def main(cfg: DictConfig) -> None:
    config = doors.plain(cfg)
    overrides = doors.task_overrides()

    from intriguing import attacking, console, data, tracking  # torch takes seconds: --help must not wait for it

    data.check_typed(overrides)
    jobs = attacking.AttackJob.from_config(
        config, extras=doors.name_extras(overrides), command=doors.command("attack.py", overrides)
    )
    tracking.check_run_id(config["logger"], len(jobs) + bool(config["attack"].get("amplify")))
    # Processes that are forked must not inherit the thread that draws the bars.
    with console.progress("sets", len(jobs), live=config["trainer"]["devices"] == 1) as advance:
        for job in jobs:
            advance.running([job.name])
            folder = attacking.craft(job, progress=advance.part)
            if tracking.is_first_process():
                advance(console.run_line(folder))


if __name__ == "__main__":
    doors.run(main)

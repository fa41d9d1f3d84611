"""Tables, figures and the page, from finished runs; a study runs what is missing first. README.md shows examples."""

import os

import hydra
from omegaconf import DictConfig

from intriguing import doors


@hydra.main(version_base="1.3", config_path="conf", config_name="analyze")
@doors.task
def main(cfg: DictConfig) -> None:
    config = doors.plain(cfg)
    overrides = doors.task_overrides()

    from intriguing import console, data, reporting, study, tracking  # torch takes seconds: --help must not wait for it

    job = reporting.ReportJob.from_config(config, command=doors.command("analyze.py", overrides))
    if config["study"]:
        steps = doors.study_steps(config, overrides)
        tracking.check_run_id(config["logger"], len(steps) + 1)
        with (
            tracking.keep_others_out(job.runs, "analyze", job.name),
            console.progress(f"study {config['study']['name']}", len(steps)) as advance,
        ):
            folders = study.run(
                steps,
                processes=config["processes"] or os.cpu_count() or 1,
                perform=doors.perform,
                working=advance.running,
                advance=lambda key, made: advance(console.run_line(made[-1])),
            )
        job = job.of(folders)
    else:
        doors.check_without_study(overrides)
        data.check_typed(overrides)
    reporting.report_on(job, measuring=console.measuring)


if __name__ == "__main__":
    doors.run(main)

"""Tables, figures and the page, from finished runs; a study runs what is missing first."""

import sys

import hydra
from omegaconf import DictConfig

from intriguing.cli import main as entry
from intriguing.cli import requires
from intriguing.cli.card import make_card
from intriguing.cli.config import command, plain, task_overrides
from intriguing.cli.hydra_files import hydra_files
from intriguing.cli.study import check_without_study, make_executor, study_steps, with_study_settings
from intriguing.commands import CONF
from intriguing.runs.folder import keep_others_out
from intriguing.tracking.jobs import check_run_id


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="analyze")
@entry.task
def main(cfg: DictConfig) -> None:
    """Run what is missing of a study, then analyse its runs."""
    overrides = task_overrides()
    config = plain(cfg)
    if "card" in config:
        make_card(config, overrides, hydra_files(cfg))
        return
    if lacking := requires.missing(config["study"]):
        config["study"] = requires.without(config["study"], lacking)
        print(f"left out, for they are missing: {requires.sentence(lacking)}", file=sys.stderr)
    config = with_study_settings(config, overrides)

    from intriguing import data
    from intriguing.analysis.job import AnalysisJob
    from intriguing.analysis.run import run_analysis
    from intriguing.cli import factories, progress, scheduler

    job = AnalysisJob.from_config(
        config,
        network_classes=factories.networks(config),
        images=factories.images(config),
        command=command("analyze", overrides),
        files=hydra_files(cfg),
        left_out=requires.sentence(lacking),
    )
    if config["study"]:
        steps = study_steps(config, overrides)
        check_run_id(config["logger"], len(steps) + 1)
        with (
            keep_others_out(job.runs, "analyze", job.name),
            progress.progress(f"study {config['study']['name']}", len(steps)) as advance,
        ):
            folders = scheduler.run(
                steps,
                make_executor(config),
                working=advance.running,
                advance=lambda key, made: advance(progress.run_line(made[-1])),
            )
        configs = [step.config for step in steps]
        images = next((found for config in configs if (found := factories.images(config))), None)
        job = job.of(folders, factories.networks(*configs), images)
    else:
        check_without_study(overrides)
        data.check_typed(overrides)
    run_analysis(job, measuring=progress.measuring)


def run() -> None:
    """Run the command ``intriguing-analyze``, or ``python analyze.py``."""
    entry.run(main)

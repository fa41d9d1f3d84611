"""Attack trained networks: any number of checkpoints in, one adversarial set each out."""

import hydra
from omegaconf import DictConfig

from intriguing.cli import main as entry
from intriguing.cli.config import command, plain, task_overrides
from intriguing.cli.hydra_files import hydra_files
from intriguing.cli.overrides import name_extras
from intriguing.commands import CONF
from intriguing.storage.ranks import is_first_process
from intriguing.tracking.jobs import check_run_id


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="attack")
@entry.task
def main(cfg: DictConfig) -> None:
    """Craft the adversarial set of every checkpoint that a config names."""
    config = plain(cfg)
    overrides = task_overrides()

    from intriguing import attacking, data
    from intriguing.cli import factories, progress, sweep

    data.check_typed(overrides)
    jobs = attacking.AttackJob.from_config(
        config,
        network_classes=factories.networks(config),
        images=factories.images(config),
        function=factories.attack(config),
        extras=name_extras(overrides),
        command=command("attack", overrides),
        files=hydra_files(cfg),
    )
    check_run_id(config["logger"], len(jobs) + bool(config["attack"].get("amplify")))
    # Processes that are forked must not inherit the thread that draws the bars.
    with progress.progress("sets", len(jobs), live=config["trainer"]["devices"] == 1) as advance:
        for job in jobs:
            advance.running([job.name])
            folder = attacking.craft(job, progress=advance.part)
            sweep.made(folder)
            if is_first_process():
                advance(progress.run_line(folder))


def run() -> None:
    """Run the command ``intriguing-attack``, or ``python attack.py``."""
    entry.run(main)

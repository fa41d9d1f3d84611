"""Make the robustness card of ``study=card``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from intriguing.cli import factories, progress
from intriguing.cli import overrides as texts
from intriguing.cli.config import command
from intriguing.cli.targets import located
from intriguing.errors import UserError

_READ = ("card", "study", "data", "model", "runs", "name", "tags", "seed", "threads", "logger", "experiment", "local")


def make_card(config: Mapping[str, Any], overrides: Sequence[str], files: Mapping[str, str]) -> Path:
    """Check the config, open the networks, and make the page.

    Args:
        config: the resolved config of ``analyze.py`` with ``study=card``.
        overrides: as typed.
        files: further files of the run folder, text by name.

    Returns:
        The run folder.

    Raises:
        UserError: a setting that nothing reads here, or see ``analysis.card.run``.
    """
    for text in overrides:
        key = texts.split(text)[1]
        if key.split("@")[0].split(".")[0] not in _READ and not key.startswith("hydra"):
            raise UserError(f"{text} is read by nothing with study=card; leave it out")

    from intriguing.analysis.card.job import CardJob
    from intriguing.analysis.card.networks import names_class
    from intriguing.analysis.card.run import run_card

    card = config["card"]
    found: Any = located("card.model", card["model"]) if names_class(card) else None
    if found is not None and not callable(found):
        raise UserError(f"card.model={card['model']} is a {type(found).__name__}, not a class or a function")
    module: Any = found
    job = CardJob.from_config(
        config,
        module=module,
        network_classes=factories.networks(config),
        images=factories.images(config),
        command=command("analyze", overrides),
        files=files,
    )
    return run_card(job, measuring=progress.measuring)

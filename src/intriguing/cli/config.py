"""Resolve a Hydra config to plain values, and make the checked job of a training of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from intriguing.cli import overrides as texts
from intriguing.commands import CONF
from intriguing.errors import UserError
from intriguing.runs.provenance import relative_path

if TYPE_CHECKING:
    from intriguing.training import TrainingJob


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Resolve a config to plain values, and refuse every ``???`` before any work.

    Relative paths start from the folder in which the command was started, also if Hydra has changed the working folder.
    Tags become a list of texts.

    Raises:
        UserError: A mandatory value is missing, a setting was deleted, a path or a tag is not one, or a setting of W&B
            was typed without W&B.
    """
    texts.check(task_overrides())
    try:
        container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} has no value; give {error.full_key}=...") from error
    except InterpolationResolutionError as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(container, dict)
    config = {str(key): value for key, value in container.items()}
    _check_kinds(config)
    _check_logger(config)
    config["tags"] = _tags(config["tags"])
    start = started_in()
    for name in (*_PATHS, *_WORDS_OR_PATHS):
        *sections, key = name.split(".")
        section: Any = config
        for one in sections:
            section = section.get(one) if isinstance(section, dict) else None
        if isinstance(section, dict) and section.get(key) is not None:
            section[key] = _placed(name, section[key], start, always=name in _PATHS)
    if isinstance(config.get("data"), dict) and config["data"].get("folder"):
        config["data"]["folder"] = _images_in(config["data"], start)
    return config


_PATHS = (
    "runs",
    "data.root",
    "checkpoints",
    "networks",
    "sets",
    "study.results",
    "settings.reference",
    "ckpt_path",
    "card.checkpoint",
    "card.reference",
    "card.compare",
)
_WORDS_OR_PATHS = (
    "model.settings.weights",
    "model.weights",
    "model.path",
    "card.weights",
    "card.model",
)  # paths only if they name a file


def _placed(name: str, value: Any, start: Path, *, always: bool) -> Any:
    """Write a path without ``~``, and as an absolute one if Hydra has changed the working folder.

    ``always`` is False for texts that may be words, or relative to another folder: they are paths if there is a file.
    """
    if isinstance(value, list):
        return [_placed(name, one, start, always=always) for one in value]
    text = os.path.expanduser(str(value))
    if text.startswith("~") and always:
        raise UserError(f"{name}={value}: the home folder of {text.split('/')[0]} is not known; give the path in full")
    if text.startswith("wandb:") or start == Path.cwd() or not (always or (start / text).is_file()):
        return text
    return str(start / text)


def _images_in(data: Mapping[str, Any], start: Path) -> str:
    """Write the path of a folder of images as it was given, and as an absolute one if Hydra has changed the folder.

    Raises:
        UserError: Hydra has changed the working folder, and neither place holds images: no other code knows the first.
    """
    folder = os.path.expanduser(str(data["folder"]))
    if start == Path.cwd() or os.path.isabs(folder):
        return folder
    from intriguing.data.folders import located, not_found  # imports torch, which --help must not wait for

    root = data.get("root") or "data"
    found = located(folder, root, start)
    if not found.is_dir():
        raise UserError(not_found(folder, root, start))
    return str(found)


_MAPPING = re.compile(
    r"data|split|model(\.settings|\.recipe)?|optimizer|scheduler|weight_decay|spectral_penalty|trainer|logger|launcher"
    r"|debug|attack|settings(\.(?!reference)\w+)?"
)
_KINDS = {
    "model.label": (str | None, "a text or null"),
    "runs": (str, "a folder"),
}


def _check_kinds(config: dict[str, Any]) -> None:
    """Check that sections are mappings, and the values that no stage checks itself."""
    for name, value in _sections(config):
        kind, words = (dict, "a mapping of settings") if _MAPPING.fullmatch(name) else _KINDS.get(name, (object, ""))
        if not isinstance(value, kind):
            raise UserError(f"{name} must be {words}, got {value!r}")


def _sections(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict) and prefix.count(".") < 2:
            yield from _sections(value, f"{prefix}{key}.")


def _check_logger(config: dict[str, Any]) -> None:
    """Refuse a setting of W&B that was typed where W&B is off; config files may set it for the runs with W&B."""
    logger = config["logger"]
    if logger.get("wandb", True):
        return
    read = ("wandb", "mode") if "checkpoints" in config else ("wandb",)  # checkpoints may be fetched from W&B
    for text in task_overrides():
        section, _, key = texts.split(text)[1].partition(".")
        if section == "logger" and key in logger.keys() - set(read) and logger[key] is not None:
            raise UserError(
                f"logger.{key} is read by nothing without W&B (logger=csv, logger.wandb=false); leave it out, or give "
                "logger=default"
            )


def _tags(value: Any) -> list[str]:
    values = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) for one in values):
        raise UserError(f"tags must be a word or a list of words, such as tags=[paper,mnist], got {value!r}")
    return [str(one) for one in values if one != ""]


def started_in() -> Path:
    """Return the folder in which the command was started."""
    return Path(HydraConfig.get().runtime.cwd) if HydraConfig.initialized() else Path.cwd()


def task_overrides() -> list[str]:
    """Return the overrides of this job, as typed or as the sweep made them; none outside of an entry point."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def command(stage: str, overrides: Sequence[str], *, is_step: bool = False) -> str:
    """Write the command line that makes this job alone, for the record.

    Args:
        stage: ``train``, ``attack`` or ``analyze``.
        overrides: As typed.
        is_step: Whether the job is a step of a study, which starts from ``stage``'s own config whatever
            ``--config-name`` names.
    """
    return texts.command(stage, overrides, started_in(), _of_config_files(stage, is_step=is_step))


def _of_config_files(stage: str, *, is_step: bool) -> list[str]:
    """List what was typed to find config files: without it the recorded command composes another config."""
    if not HydraConfig.initialized():
        return []
    hydra, start = HydraConfig.get(), started_in()
    providers = {"command-line": "--config-dir", "main": "--config-path"}
    found = []
    for source in hydra.runtime.config_sources:
        option = providers.get(source.provider)
        if option and (option == "--config-dir" or not CONF.samefile(source.path)):
            found += [option, relative_path(source.path, start)]
    name = hydra.job.config_name
    if name is not None and name != stage and not is_step:
        found += ["--config-name", name]
    return [*found, *(text for text in hydra.overrides.hydra if texts.split(text)[1] == "hydra.searchpath")]


def training_job(
    config: dict[str, Any], extras: Sequence[str] = (), command: str = "", files: Mapping[str, str] | None = None
) -> TrainingJob:
    """Make the checked job of a resolved ``train`` config, with its optimiser, scheduler and callbacks built.

    Args:
        config: plain values.
        extras: parts of the name for overrides that nothing else in it shows.
        command: the command line that makes this job.
        files: further files of the run folder, text by name.

    Raises:
        UserError: a value that cannot be right, or a class that cannot be built.
    """
    from intriguing.cli import factories
    from intriguing.training import TrainingJob

    _check_sweep(config)
    return TrainingJob.from_config(
        config,
        optimizer=factories.optimizer(config),
        scheduler=factories.scheduler(config),
        module=factories.network(config),
        callbacks=factories.callbacks(config),
        images=factories.images(config),
        extras=extras,
        command=command,
        files=files,
    )


def objective(folder: Path) -> float | None:
    """Return the share of wrong answers on the images set apart, which a sweeper minimises; None without images."""
    from intriguing.runs.records import read_run

    wrong, images = read_run(folder).result.get("errors", {}).get("val", (0, 0))
    return wrong / images if images else None


def _check_sweep(config: dict[str, Any]) -> None:
    """Check the settings that a job of a sweep cannot have."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    if "BasicSweeper" not in HydraConfig.get().sweeper["_target_"] and not config["data"]["validation"]:
        raise UserError("a sweeper that chooses needs images set apart to choose by: data.validation=10000 or the like")
    # Lightning starts further processes by the command line, and the line of a sweep is not that of its job.
    trainer, started = config["trainer"], {"SLURM_NTASKS", "LOCAL_RANK"} & set(os.environ)  # by srun or torchrun
    if not started and (trainer["devices"] not in (1, "1", "auto") or trainer["num_nodes"] != 1):
        raise UserError(
            f"trainer.devices={trainer['devices']} in a sweep needs hydra/launcher=slurm with "
            f"hydra.launcher.tasks_per_node={trainer['devices']}; elsewhere run the jobs one by one, without -m"
        )

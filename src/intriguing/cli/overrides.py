"""Write Hydra overrides from values, order, check and record them, and make names of them."""

from __future__ import annotations

import argparse
import fnmatch
import re
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser  # the parser that hydra.main uses; no public name has it
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig

from intriguing.commands import command_name
from intriguing.errors import UserError
from intriguing.runs.provenance import relative_path, without_absolute_paths

# Entries of open mappings, which ~key may delete. All other keys are settings that a stage reads.
_DELETABLE = re.compile(
    r"(callbacks|optimizer|scheduler|attack\.settings|hydra)\..+|study\.train\.networks\.[^.]+|trainer\.(precision|deterministic)"
    r"|model\.settings\..+"
)
_UNSET = ("network", "experiment", "local", "study")  # groups that need no option: null unsets them
_OF_TRAINING = (
    *("network", "model", "split", "optimizer", "scheduler", "weight_decay", "spectral_penalty", "callbacks", "debug"),
    *("keep", "test_curve", "resume"),
)
_OF_ATTACKS = ("attack", "subset", "limit", "shard", "checkpoints")
_OWN_ARGUMENTS = ("model", "data", "attack")  # groups whose option module names a class of the user's
_NONE = ("callbacks", "debug", "weight_decay", "spectral_penalty")  # groups whose option none null stands for
_ATTACK_TRAINER = ("accelerator", "devices", "num_nodes")  # settings of the trainer that an attack reads


def override(key: str, value: Any) -> str:
    """Write a setting as the override that Hydra reads as exactly this value.

    Args:
        key: Name of the setting, for example ``data.root``.
        value: Text of any letters, number, bool, None, or a list of them.

    Raises:
        UserError: The text is ``???``, which Hydra reads as a missing value.
    """
    if value == "???":
        raise UserError(f"{key}=??? cannot be given: to Hydra, ??? is a value that is missing")
    return f"{key}={_written(value)}"


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str):
        return repr(value)
    if re.fullmatch(r"[\w./+-]+", value, re.ASCII):
        with_key = parse(f"key={value}")
        if with_key is not None and with_key.value() == value:
            return value
    # ${ begins an interpolation, and backslashes before it escape it or each other
    escaped = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", value)
    return QuotedString(escaped, Quote.double).with_quotes()


def parse(text: str) -> Override | None:
    """Parse one override; return None if it cannot be parsed."""
    try:
        return _parser().parse_override(text)
    except HydraException:
        return None


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def split(text: str) -> tuple[str, str, str]:
    """Split an override into its prefix (``+``, ``++``, ``~`` or nothing), its key and its value."""
    prefix, key, value = re.fullmatch(r"([+~]*)([^=]*)=?(.*)", text, re.DOTALL).groups()  # pyright: ignore
    return prefix, key, value


def arranged(argv: Sequence[str]) -> list[str]:
    """Order a command line as Hydra reads it: options first, then all overrides.

    Raises:
        UserError: An option that Hydra does not have; argparse would print its usage over many lines. A setting of
            single runs beside a study.
    """

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; settings are given as name=value, --help lists the options")

    parser: argparse.ArgumentParser = get_args_parser()
    parser.error = refuse
    overrides: list[str] = parser.parse_intermixed_args(list(argv[1:])).overrides
    options, left = [], list(overrides)
    for item in argv[1:]:
        if left and item == left[0]:
            left.pop(0)
        elif item != "--":
            options.append(item)
    if Path(argv[0]).stem.endswith("analyze"):
        check_for_study(overrides)
    return [argv[0], *options, *accepted(overrides)]


def check_for_study(overrides: Sequence[str]) -> None:
    """Refuse a setting of single runs beside ``study=``: its networks and attacks are the study's own.

    Raises:
        UserError: There is one; the line says what a study takes, and where the setting would stand.
    """
    study = next((value for prefix, key, value in map(split, overrides) if key == "study" and value != "null"), None)
    for text in overrides if study else ():
        _, key, value = split(text)
        group = key.split(".")[0]
        if key == "model._target_" or (key, value) == ("model", "module") or group not in (*_OF_TRAINING, *_OF_ATTACKS):
            continue
        place = f"study.train.all=\"[...,'{text}']\"" if group in _OF_TRAINING else "study.attack"
        raise UserError(
            f"{text} is a setting of single runs, and study={study} has networks and attacks of its own: give it in "
            f"{place}; beside a study, data=... data.*=... and trainer.*=... go to all of its steps"
        )


def accepted(overrides: Sequence[str]) -> list[str]:
    """Write overrides in the form that Hydra accepts.

    ``callbacks={name: {...}}`` adds to the configured callbacks; ``null`` and ``~`` remove the option of a group that
    needs none. With ``data=module`` and the like the group's keys are arguments of the user's class, so they may be
    new.
    """
    found: list[str] = []
    own = [f"{group}." for group in _OWN_ARGUMENTS if f"{group}=module" in overrides]
    for text in overrides:
        prefix, key, value = split(text)
        if not prefix and key.startswith(tuple(own)):
            text = f"++{text}"
        if (key, prefix) == ("callbacks", "") and value.lstrip().startswith("{"):
            found.append(f"++{text}")
        elif key in _UNSET and (prefix == "~" or (value == "null" and not prefix)):
            found = [one for one in found if split(one)[1] != key]
        elif value == "null" and not prefix and key in _NONE:
            found.append(f"{key}=none")
        else:
            found.append(text)
    return found


def for_stage(text: str, stage: str, config: dict[str, Any], network: dict[str, Any] | None = None) -> str | None:
    """Write an override of ``data`` or ``trainer`` that was given with a study for one of its steps.

    Args:
        text: The override.
        stage: ``train`` or ``attack``.
        config: The step's own config.
        network: The training config of an attack's network.

    Returns:
        The override; None if the step does not read the setting.
    """
    prefix, key, value = split(text)
    group, *parts = key.split(".")
    section: Any = config.get(group)
    for part in parts:
        if not isinstance(section, dict) or part not in section:
            new = stage == "train" and group == "trainer" and "+" in prefix  # an option of Lightning's Trainer
            return text if new else None
        section = section[part]
    if stage == "attack" and group == "trainer" and parts and parts[0] not in _ATTACK_TRAINER:
        return None
    if network is not None and group == "data" and (not parts or for_stage(text, "train", network) is None):
        return None  # the checkpoint names the images; their place matters only if the training read it
    return text if "~" in prefix else f"{key}={value}"


def check(overrides: Sequence[str]) -> None:
    """Refuse the deletion (``~``) of a setting that a stage reads.

    Raises:
        UserError: There is one.
    """
    for text in overrides:
        prefix, key, _ = split(text)
        if "~" in prefix and not _DELETABLE.fullmatch(key):
            raise UserError(
                f"{text}: {key} cannot be deleted; give {key} a value instead (~ is for entries of callbacks, "
                "model.settings, attack.settings and study.train.networks)"
            )


def command(stage: str, overrides: Sequence[str], folder: Path | None = None, config_files: Sequence[str] = ()) -> str:
    """Write the command line that makes one job alone, quoted for a shell.

    Args:
        stage: ``train``, ``attack`` or ``analyze``.
        overrides: As typed.
        folder: Paths below it are written relative to it, others by their last part; None: the working folder.
        config_files: ``--config-dir`` and the like, with their values, before the overrides.
    """
    given = (_recorded(text, folder) for text in (*config_files, *overrides))
    return shlex.join([*command_name(stage).split(), *given])


def _recorded(text: str, folder: Path | None) -> str:
    found = None if "~" in split(text)[0] else parse(text)
    value = None if found is None or found.is_sweep_override() else plain_value(found.value())
    if isinstance(value, str) and "${" not in value:
        shown = relative_path(value, folder)
        return text if shown == value else override("".join(split(text)[:2]), shown)
    return without_absolute_paths(text, folder)


def plain_value(value: Any) -> Any:
    """Return the value of a parsed override without Hydra's types: quoted texts become texts, in lists too."""
    if isinstance(value, list):
        return [plain_value(one) for one in value]
    return value.text if isinstance(value, QuotedString) else value


def name_extras(overrides: Sequence[str], hydra: HydraConf | DictConfig | None = None) -> list[str]:
    """Write the parts of a run's name for the overrides that its other parts do not show, for example ``max_epochs5``.

    Args:
        overrides: As typed.
        hydra: Hydra's own config of the job, whose ``job.config.override_dirname.exclude_keys`` lists patterns of the
            keys without a part (conf/base.yaml); None: of the running job.
    """
    hydra = HydraConfig.get() if hydra is None else hydra
    excluded, groups = hydra.job.config.override_dirname.exclude_keys, hydra.runtime.choices
    parts = []
    for text in overrides:
        _, key, value = split(text)
        if any(fnmatch.fnmatchcase(key, pattern) for pattern in excluded):
            continue
        short = "" if key in groups else key.split(".")[-1]
        if short or value not in ("none", "paper", "null"):
            parts.append(f"{short}{value}")
    return parts

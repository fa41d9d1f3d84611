"""Hydra overrides as texts: written from values, put in order, checked, recorded, and made into names."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser  # the parser that hydra.main uses; no public name has it
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from intriguing.errors import UserError
from intriguing.runs.provenance import relative_path, without_absolute_paths

# What may be deleted by ~key: entries of open mappings. Everything else is a setting that a stage reads.
_DELETABLE = re.compile(
    r"(callbacks|optimizer|scheduler|attack\.settings|hydra)\..+|study\.train\.networks\.[^.]+|trainer\.(precision|deterministic)"
    r"|model\.settings\..+"
)
_UNSET = ("network", "experiment", "study")  # groups of which no option is needed: null unsets them
_NONE = ("callbacks", "debug", "weight_decay", "spectral_penalty")  # groups in which null is the option none
_ATTACK_TRAINER = ("accelerator", "devices", "num_nodes")  # what an attack reads of the trainer's settings
_UNSET = ("network", "experiment", "local", "study")  # groups that need no option

# Overrides that do not change the result, or that the name already shows.
_NOT_IN_NAME = (
    "network", "model", "weight_decay.value", "split", "data", "seed", "runs", "name", "study", "tags", "threads",
    "resume", "data.root", "data.download", "data.folder", "data.workers", "debug", "trainer", "checkpoints", "attack",
    "attack.targets",
    "attack.amplify", "attack.amplify_by", "attack.stddev", "subset", "limit", "shard", "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes", "trainer.strategy", "trainer.enable_progress_bar", "test_curve", "spectral_penalty",
    "spectral_penalty.kind", "spectral_penalty.value",
)  # fmt: skip
_GROUPS_BY_VALUE = ("callbacks", "optimizer", "scheduler", "weight_decay", "experiment")


def override(key: str, value: Any) -> str:
    """Write a setting as the override that gives it this very value, whatever letters are in it.

    Args:
        key: name of the setting, for example ``data.root``.
        value: text, number, bool, None, or a list of them.

    Raises:
        UserError: the text ``???``, which Hydra reads as a value that is missing.
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
    """Parse one override; None where it cannot be."""
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
    """Put a command line into the order that Hydra reads: options first, then all overrides.

    Raises:
        UserError: an option that Hydra does not have, where argparse would print its usage over many lines.
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
    return [argv[0], *options, *accepted(overrides)]


def accepted(overrides: Sequence[str]) -> list[str]:
    """Write overrides as Hydra takes them.

    ``callbacks={name: {...}}`` adds to the callbacks that are there; ``null`` and ``~`` take
    back the option of a group that may be without one.
    """
    found: list[str] = []
    for text in overrides:
        prefix, key, value = split(text)
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
    """Write an override of ``data`` or ``trainer`` that came with a study as a step of it takes it.

    Args:
        text: the override.
        stage: ``train`` or ``attack``.
        config: the step's own config.
        network: of an attack, the config with which its network is trained.

    Returns:
        The override; None where the step does not read such a setting.
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
        return None  # the checkpoint says which images, and where they are matters only if the training read that
    return text if "~" in prefix else f"{key}={value}"


def check(overrides: Sequence[str]) -> None:
    """Refuse the deletion of a setting that a stage reads.

    Raises:
        UserError: a deletion by ``~``.
    """
    for text in overrides:
        prefix, key, _ = split(text)
        if "~" in prefix and not _DELETABLE.fullmatch(key):
            raise UserError(
                f"{text}: {key} cannot be deleted; give {key} a value instead (~ is for entries of callbacks, "
                "model.settings, attack.settings and study.train.networks)"
            )


def command(script: str, overrides: Sequence[str], folder: Path | None = None) -> str:
    """Write the command line that makes one job alone, quoted for a shell.

    Args:
        script: the entry point.
        overrides: as typed.
        folder: paths below it are written relative to it, of others only the last part; None: the working folder.
    """
    return shlex.join(["python", script, *(_recorded(text, folder) for text in overrides)])


def _recorded(text: str, folder: Path | None) -> str:
    found = None if "~" in split(text)[0] else parse(text)
    value = None if found is None or found.is_sweep_override() else _plain(found.value())
    if isinstance(value, str) and "${" not in value:
        shown = relative_path(value, folder)
        return text if shown == value else override("".join(split(text)[:2]), shown)
    return without_absolute_paths(text, folder)


def _plain(value: Any) -> Any:
    return value.text if isinstance(value, QuotedString) else value


def name_extras(overrides: Sequence[str]) -> list[str]:
    """Parts of a run's name for the overrides that its other parts do not show, for example ``max_epochs5``."""
    parts = []
    for text in overrides:
        _, key, value = split(text)
        if key in _NOT_IN_NAME or key.split(".")[0] in ("logger", "hydra"):
            continue
        short = "" if key in _GROUPS_BY_VALUE else key.split(".")[-1]
        if short or value not in ("none", "paper", "null"):
            parts.append(f"{short}{value}")
    return parts

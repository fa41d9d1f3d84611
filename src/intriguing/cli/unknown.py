"""Say which name of a command line no config has, with the nearest one that there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from intriguing.cli import overrides as texts
from intriguing.cli.help import for_another_stage
from intriguing.cli.targets import arguments, located
from intriguing.commands import CONF
from intriguing.errors import UserError, did_you_mean

_ABSENT = object()
_OPEN = ("trainer", "optimizer", "scheduler")  # whose class takes more arguments than the config has


def unknown(config_name: str, stage: str, overrides: Sequence[str]) -> str | None:
    """Look for the override that Hydra refuses for its name; Hydra must know where the configs lie.

    Args:
        config_name: The config that is composed.
        stage: ``train``, ``attack`` or ``analyze``.
        overrides: As typed, those of a sweep too.

    Returns:
        One line, or None where all names are known.
    """
    loader = GlobalHydra.instance().config_loader()
    groups, settings = [], []
    elsewhere = any(
        texts.split(text)[1] == "hydra.searchpath" for text in overrides
    )  # further options, not listed here
    for text in overrides:
        prefix, key, _ = texts.split(text)
        group, value = key.partition("@")[0], _first_value(text)
        if not loader.get_group_options(group):
            (groups if prefix or key.startswith("hydra.") else settings).append(text)
            continue
        known = loader.get_group_options(group)
        options = [one for one in known if not for_another_stage(one, stage)]
        if "~" not in prefix and not elsewhere and isinstance(value, str) and value not in known:
            near = did_you_mean(value, options) or ";"
            return f"{text}: {group} has no option {value}{near} it has {', '.join(options)}"
        groups.append(f"{prefix}{key}={value}" if isinstance(value, str) else text)
    try:
        composed = compose(config_name, overrides=texts.accepted(groups), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        return None  # something else is wrong, which Hydra's own message says
    config = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(config, dict)
    top = [name for name in loader.get_group_options("", ObjectType.GROUP) if name != "hydra"]
    known = {**dict.fromkeys(top), **config}
    return next((said for text in settings if (said := _missing(text, known))), None)


def _first_value(text: str) -> Any:
    """Return the value of an override; of a sweep the first."""
    parsed = texts.parse(text)
    if parsed is None:
        return None
    if parsed.is_sweep_override() and parsed.is_discrete_sweep():
        return next(iter(parsed.sweep_string_iterator()), None)
    return None if parsed.is_sweep_override() else texts.plain_value(parsed.value())


def _missing(text: str, config: Mapping[str, Any]) -> str | None:
    """Write what is wrong with a setting that a config does not have; None if it has it."""
    key = texts.split(text)[1]
    section: Any = config
    parts = key.split(".")
    for place, part in enumerate(parts):
        if not isinstance(section, Mapping) or part in section:
            if not isinstance(section, Mapping):
                return None
            section = section[part]
            continue
        above, below = ".".join(parts[:place]), ".".join(parts[place + 1 :])
        start = f"{above}." if above else ""
        more = _arguments(above, section) if above in _OPEN and not below else []
        if part in more:
            return f"{key} is not in the config; +{text} adds it"
        if takers := _options_with(parts):
            return f"{key} is read by nothing here; it is a setting of {' and '.join(takers)}"
        names = [str(name) for name in section]
        near = did_you_mean(part, [*names, *more], start)
        if not near:
            places = [
                one for one in _keys(config) if one.rpartition(".")[2] == parts[-1] and not one.startswith("hydra.")
            ]
            near = (
                f"; did you mean {min(places, key=lambda one: one.count('.'))}?"
                if places
                else f"; {above} has {', '.join(names)}"
                if above
                else ""
            )
        elif below:
            near = f"{near[:-1]}.{below}?"
        return f"{key} is read by nothing{near}"
    return None


def _options_with(parts: Sequence[str]) -> list[str]:
    """List the options of a setting's group whose file has the setting: ``attack=nearest``."""
    group, *path = parts
    found = []
    for file in sorted((CONF / group).glob("*.yaml")) if path else ():
        section: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        for part in path:
            section = section.get(part, _ABSENT) if isinstance(section, Mapping) else _ABSENT
        if section is not _ABSENT:
            found.append(f"{group}={file.stem}")
    return found


def _arguments(section: str, given: Mapping[str, Any]) -> list[str]:
    """List the arguments of the class that takes a section's settings; none if it cannot be found."""
    target = "lightning.Trainer" if section == "trainer" else given.get("_target_")
    try:
        return [] if not isinstance(target, str) else arguments(located(section, target)) or []
    except UserError:
        return []


def _keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")

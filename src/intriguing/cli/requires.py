"""Leave out of a study what needs a file, a folder or a package that is not there, and say so.

``study.requires`` maps the name of a network of the study, or a setting of a section (``settings.units.lpips``), to
what it needs: ``{file: ...}``, ``{folder: ...}`` or ``{package: ...}`` (the name by which Python imports it).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from intriguing.errors import UserError, did_you_mean, shown

_IS_THERE: Mapping[str, Callable[[str], bool]] = {
    "file": lambda name: Path(name).expanduser().is_file(),
    "folder": lambda name: Path(name).expanduser().is_dir(),
    "package": lambda name: find_spec(name) is not None,
}
_SETTING = "settings."


def missing(study: Mapping[str, Any] | None) -> dict[str, str]:
    """Find what a study must do without.

    Args:
        study: Its config; None without a study.

    Returns:
        By network or setting, what is missing: "no file data/imagenet/squeezenet1_0.pth".

    Raises:
        UserError: ``study.requires`` is of another form, or names no network of the study.
    """
    needs = (study or {}).get("requires") or {}
    if study is None or not needs:
        return {}
    if not isinstance(needs, Mapping):
        raise UserError(f"study.requires must be a mapping of networks, got {needs!r}")
    networks = list((study.get("train") or {}).get("networks") or ())
    found = {}
    for name, need in needs.items():
        if not str(name).startswith(_SETTING) and name not in networks:
            near = did_you_mean(str(name), networks) or f"; there are {', '.join(networks)}"
            raise UserError(f"study.requires names {shown(name)}, which is no network of the study{near}")
        if not isinstance(need, Mapping) or len(need) != 1 or not set(need) <= set(_IS_THERE):
            raise UserError(
                f"study.requires.{name} must be one of {{{': ...}, {'.join(_IS_THERE)}: ...}}, got {need!r}"
            )
        ((kind, what),) = need.items()
        if not isinstance(what, str) or not what:
            raise UserError(f"study.requires.{name}.{kind} must be a text, got {what!r}")
        if not _IS_THERE[kind](what):
            found[str(name)] = f"no {kind} {what}"
    return found


def without(study: Mapping[str, Any], lacking: Mapping[str, str]) -> dict[str, Any]:
    """Return a study's config without what is missing: its networks, their attacks, and settings, which become null.

    Args:
        study: Its config.
        lacking: See ``missing``.

    Raises:
        UserError: No network is left.
    """
    train = dict(study["train"])
    every = train["networks"]
    train["networks"] = {name: own for name, own in every.items() if name not in lacking}
    if not train["networks"]:
        raise UserError(f"no network of study={study['name']} can be had: {sentence(lacking)}")
    if "once" in train:
        train["once"] = [name for name in train["once"] if name not in lacking]
    attacks = [one for one in study["attack"] if _fits(one, train["networks"]) or not _fits(one, every)]
    settings = {section: dict(values) for section, values in (study.get("settings") or {}).items()}
    for name in lacking:
        section, _, key = name.removeprefix(_SETTING).partition(".")
        if name.startswith(_SETTING) and key in settings.get(section, {}):
            settings[section][key] = None
    changed = {"train": train, "attack": attacks} | ({"settings": settings} if "settings" in study else {})
    return {**study, **changed}


def sentence(lacking: Mapping[str, str]) -> str:
    """Say what was left out and why: "squeezenet1_0 (no file ...)"."""
    return ", ".join(f"{name.removeprefix(_SETTING)} ({why})" for name, why in lacking.items())


def _fits(entry: Any, networks: Mapping[str, Any]) -> bool:
    """Return whether an entry of ``study.attack`` names one of the networks, or noise; malformed ones fit none."""
    patterns = entry.get("networks") if isinstance(entry, dict) else ()
    return patterns is None or any(fnmatch.fnmatchcase(name, str(one)) for name in networks for one in patterns or ())

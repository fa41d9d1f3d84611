"""Decide by reading alone whether a run may use a folder, before anything is written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from intriguing.errors import UserError
from intriguing.runs.identity import differences, identity_sha256, load_config, plain
from intriguing.runs.names import is_slug
from intriguing.runs.records import CONFIG, RUN, STAGES, load_info
from intriguing.storage.files import inside, reason

ELSEWHERE = "give the run another name, or remove the folder"
RunStatus = Literal["new", "unfinished", "finished"]
log = logging.getLogger(__name__)


def run_status(root: Path | str, stage: str, name: str, identity: Mapping[str, Any]) -> RunStatus:
    """Return how far the run that ``identity`` describes came in ``root/stage/name``; read only, without a lock.

    Raises:
        UserError: The folder holds another identity or foreign files.
    """
    return guard(run_folder(root, stage, name), plain(dict(identity)))


def run_folder(root: Path | str, stage: str, name: str) -> Path:
    """Return ``root/stage/name`` after a check of the stage and the name.

    Raises:
        ValueError: There is no such stage.
        UserError: The name is not one safe part of a path.
    """
    if stage not in STAGES:
        raise ValueError(f"expected a stage of {', '.join(STAGES)}, got {stage!r}")
    if not is_slug(name):
        raise UserError(f"run name {name!r} cannot be a folder; letters, digits and . _ + = - can, at most 100")
    return Path(root) / stage / name


def guard(folder: Path, identity: dict[str, Any]) -> RunStatus:
    """Check that a run of this identity may use the folder, and return how far it came there.

    An unreadable ``run.json`` counts as unfinished if ``config.yaml`` is this identity; a finished run whose artifact
    is missing is unfinished. Hidden entries (``.hydra/``, the lock) and log files may be there before the run.

    Raises:
        UserError: The folder holds another identity (the message names the keys that differ), foreign files, or files
            too damaged to decide.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return "new"
    except OSError as error:
        raise UserError(f"{folder} cannot be a run folder: {reason(error)}") from error
    info, damage = load_or_error(load_info, folder / RUN)
    config, config_damage = load_or_error(load_config, folder / CONFIG)
    wanted = identity_sha256(identity)
    if config is not None and identity_sha256(config) != wanted:
        raise UserError(f"{folder} holds another config: {'; '.join(differences(config, identity))}; {ELSEWHERE}")
    if info is None:
        if config is not None:
            return "unfinished"
        if damage or config_damage:
            raise UserError(f"{damage or config_damage}; {ELSEWHERE}")
        foreign = [name for name in names if not name.startswith(".") and not name.endswith(".log")]
        if foreign:
            raise UserError(f"{folder} holds {foreign[0]!r} but no {CONFIG}: not a run's folder; {ELSEWHERE}")
        return "new"
    _check_hash(folder, info, config, wanted)
    if info["state"] != "finished":
        return "unfinished"
    gone = [name for name in info["artifacts"] if not inside(folder, name).is_file()]
    if gone:
        log.warning("%s was finished, but %s is gone: it runs again", folder, gone[0])
        return "unfinished"
    return "finished"


def _check_hash(folder: Path, info: dict[str, Any], config: dict[str, Any] | None, wanted: str) -> None:
    """Check the record's hash of the identity, which replaces a lost config.yaml and reveals an edited one."""
    recorded = info.get("identity_sha256")
    if config is None and recorded is None:
        raise UserError(f"{folder} holds no readable {CONFIG}; {ELSEWHERE}")
    if recorded not in (None, wanted):
        what = f"another config ({CONFIG} is unreadable)" if config is None else f"a {CONFIG} changed after the run"
        raise UserError(f"{folder} holds {what}; {ELSEWHERE}")


def load_or_error(
    load: Callable[[Path], dict[str, Any]], path: Path
) -> tuple[dict[str, Any], None] | tuple[None, str | None]:
    """Load a file and return its content without an error, or no content and the reason.

    Returns:
        ``(content, None)``; ``(None, None)`` if the file is absent; ``(None, message)`` if it is unreadable.
    """
    try:
        return load(path), None
    except FileNotFoundError:
        return None, None
    except UserError as error:
        return None, str(error)

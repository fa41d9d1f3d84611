"""Who may use a run folder: decided by reading only, before anything is written."""

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
Standing = Literal["new", "unfinished", "finished"]
log = logging.getLogger(__name__)


def standing(root: Path | str, stage: str, name: str, identity: Mapping[str, Any]) -> Standing:
    """How far the run that `identity` describes came in `root/stage/name`. Reads only, takes no lock.

    Raises:
        UserError: as `open_run`: the folder holds another identity or something else.
    """
    return guard(run_folder(root, stage, name), plain(dict(identity)))


def run_folder(root: Path | str, stage: str, name: str) -> Path:
    """`root/stage/name`, for a stage and a name that can be one.

    Raises:
        ValueError: no such stage.
        UserError: a name that is not one safe part of a path.
    """
    if stage not in STAGES:
        raise ValueError(f"expected a stage of {', '.join(STAGES)}, got {stage!r}")
    if not is_slug(name):
        raise UserError(f"run name {name!r} cannot be a folder; letters, digits and . _ + = - can, at most 100")
    return Path(root) / stage / name


def guard(folder: Path, identity: dict[str, Any]) -> Standing:
    """May a run of this identity use the folder, and how far did it come there?

    A run.json that cannot be read counts as unfinished, provided config.yaml is this identity; a finished run whose
    artifact is gone is unfinished again.

    Raises:
        UserError: another identity (the keys that differ, old and new), a foreign folder, or damage beyond telling.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return "new"
    except OSError as error:
        raise UserError(f"{folder} cannot be a run folder: {reason(error)}") from error
    info, damage = tolerant(load_info, folder / RUN)
    config, config_damage = tolerant(load_config, folder / CONFIG)
    wanted = identity_sha256(identity)
    if config is not None and identity_sha256(config) != wanted:
        raise UserError(f"{folder} holds another config: {'; '.join(differences(config, identity))}; {ELSEWHERE}")
    if info is None:
        if config is not None:
            return "unfinished"
        if damage or config_damage:
            raise UserError(f"{damage or config_damage}; {ELSEWHERE}")
        # log files of the door and hidden things may come before the run; anything else is not ours to write among
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
    """The record's hash of the identity: what stands in for a lost config.yaml, and what an edited one cannot fake."""
    recorded = info.get("identity_sha256")
    if config is None and recorded is None:
        raise UserError(f"{folder} holds no readable {CONFIG}; {ELSEWHERE}")
    if recorded not in (None, wanted):
        what = f"another config ({CONFIG} is unreadable)" if config is None else f"a {CONFIG} changed after the run"
        raise UserError(f"{folder} holds {what}; {ELSEWHERE}")


def tolerant(
    load: Callable[[Path], dict[str, Any]], path: Path
) -> tuple[dict[str, Any], None] | tuple[None, str | None]:
    """(content, None), (None, None) when absent, (None, what is wrong) when unreadable."""
    try:
        return load(path), None
    except FileNotFoundError:
        return None, None
    except UserError as error:
        return None, str(error)

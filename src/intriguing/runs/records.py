"""Read run folders: one, or all that a pattern matches."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from intriguing.commands import command_name
from intriguing.errors import UserError, plural, shown
from intriguing.runs.identity import canonical, identity_sha256, load_config
from intriguing.runs.names import is_slug, natural_key
from intriguing.storage.files import check_recorded, file_sha256, inside, reason, strict_json

CONFIG, RUN = "config.yaml", "run.json"
STAGES = ("train", "attack", "analyze")
STATES = ("running", "finished", "failed", "interrupted")
MAX_BYTES = 1 << 24
_A = {"train": "a train", "attack": "an attack", "analyze": "an analyze"}
_TEXT, _NUMBER = str | None, int | float | None
KINDS = {  # of the values that other modules read
    **dict.fromkeys(("stage", "name", "label", "study", "command", "commit", "started", "identity_sha256"), _TEXT),
    "seconds": _NUMBER,
}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of a run folder.

    Attributes:
        stage: train, attack or analyze.
        name: name of the run.
        folder: the run folder.
        config: the run's identity (config.yaml).
        info: all of run.json; {} for a run that was stopped before it wrote one.
        picked: the file in the folder that a pattern matched, else None.
    """

    stage: str
    name: str
    folder: Path
    config: dict[str, Any]
    info: dict[str, Any] = field(default_factory=dict)
    picked: Path | None = None

    @classmethod
    def in_memory(
        cls, stage: str, name: str, *, config: Mapping[str, Any] | None = None, result: Mapping[str, Any] | None = None
    ) -> RunRecord:
        """Make the record of a run that has no folder."""
        return cls(
            stage=stage, name=name, folder=Path(), config=dict(config or {}), info={"result": dict(result or {})}
        )

    @property
    def identity(self) -> dict[str, Any]:
        """The run's identity."""
        return self.config

    @property
    def state(self) -> str:
        """One of running (or killed), finished, failed, interrupted."""
        return self.info.get("state", "interrupted")

    @property
    def label(self) -> str:
        """Name in tables; the run's name where it has none."""
        return self.info.get("label") or self.name

    @property
    def result(self) -> dict[str, Any]:
        """Result that the run recorded; {} before it is finished."""
        return self.info.get("result", {})

    @property
    def artifacts(self) -> dict[str, str]:
        """File name to sha256."""
        return self.info.get("artifacts", {})

    def path(self, file: str) -> Path:
        """Return the path of an artifact.

        Raises:
            UserError: the run recorded no such artifact.
        """
        path = inside(self.folder, file)
        if file not in self.artifacts:
            known = ", ".join(self.artifacts) or "none"
            raise UserError(f"{path} is not an artifact of its run; recorded: {known}")
        return path

    def verify(self, file: str) -> Path:
        """Return the path of an artifact after a check of its bytes.

        Raises:
            UserError: no such artifact, missing, or a byte differs from what the run wrote.
        """
        path = self.path(file)
        check_recorded(path, file_sha256(path), self.artifacts[file])
        return path

    def verify_all(self) -> None:
        """Verify every artifact.

        Raises:
            UserError: see `verify`.
        """
        for file in self.artifacts:
            self.verify(file)


def with_checksum(info: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a run.json with a checksum over everything else in it."""
    content = {key: value for key, value in info.items() if key != "checksum"}
    return content | {"checksum": hashlib.sha256(canonical(content).encode()).hexdigest()}


def load_info(path: Path) -> dict[str, Any]:
    """Read a run.json and check its form, its state, and its checksum where it has one.

    Raises:
        FileNotFoundError: there is none.
        UserError: it cannot be read or is damaged.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES} bytes: no record of a run")
        info = strict_json(content)
        expected = with_checksum(info) if isinstance(info, dict) else None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable JSON: damaged, or not written by this project") from error
    if expected is None or info.get("state") not in STATES:
        raise UserError(f"{path} is no record of a run: expected a state of {', '.join(STATES)}")
    if not isinstance(info.setdefault("artifacts", {}), dict) or not isinstance(info.setdefault("result", {}), dict):
        raise UserError(f"{path} is no record of a run: expected mappings as artifacts and result")
    if wrong := [key for key, kinds in KINDS.items() if not isinstance(info.get(key), kinds)]:
        raise UserError(f"{path} is no record of a run: its {wrong[0]} is {shown(info[wrong[0]])}")
    if info.get("stage") not in (None, *STAGES) or ("name" in info and not is_slug(info["name"])):
        raise UserError(f"{path} is no record of a run: its stage or name is none")
    if not isinstance(info["result"].get("seconds"), _NUMBER):
        raise UserError(f"{path} is no record of a run: its result's seconds are {shown(info['result']['seconds'])}")
    for name, digest in info["artifacts"].items():
        if not isinstance(digest, str):
            raise UserError(f"{path} is no record of a run: {shown(name)} has no sha256")
    if "checksum" in info and info["checksum"] != expected["checksum"]:
        raise UserError(f"{path} was changed or damaged since it was written (checksum differs)")
    return info


def read_run(folder: Path | str) -> RunRecord:
    """Read the record of one run folder, in any state.

    Raises:
        UserError: not a run folder, or its config.yaml or run.json is damaged.
    """
    folder = Path(folder)
    try:
        config = load_config(folder / CONFIG)
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no run folder: it has no {CONFIG}; runs are in runs/<stage>/<name>") from error
    try:
        info = load_info(folder / RUN)
    except FileNotFoundError:  # stopped between the two files
        info = {}
    if info.get("identity_sha256", wanted := identity_sha256(config)) != wanted:
        raise UserError(f"{folder / CONFIG} was changed after the run; make the run again under another name")
    whole = folder.resolve()
    stage, name = info.get("stage", whole.parent.name), info.get("name", whole.name)
    return RunRecord(stage=stage, name=name, folder=folder, config=config, info=info)


def find_runs(pattern: str | Path, *, stage: str, finished: bool = True) -> list[RunRecord]:
    """Find the runs of a stage that a pattern matches, in natural order (fc10 before fc100).

    Args:
        pattern: A run folder, a file in one, or a glob of either (`runs/train/*/model.ckpt`).
        stage: train, attack or analyze; runs of other stages are passed over.
        finished: Pass over runs that are not finished.

    Returns:
        One record a folder; `.picked` is the file when the pattern named one there.

    Raises:
        UserError: nothing is left, or a record is damaged.
    """
    if stage not in STAGES:
        raise ValueError(f"expected a stage of {', '.join(STAGES)}, got {stage!r}")
    text = str(Path(pattern).expanduser())
    matches = [text] if Path(text).exists() else glob.glob(text, recursive=True)
    right = f"runs/{stage}/*"
    if not matches:
        raise UserError(
            f"nothing matches {str(pattern)!r}; expected {_A[stage]} run, a file in it, or a glob such as {right}"
        )
    picked: dict[Path, list[Path]] = {}
    for match in map(Path, matches):
        folder = run_folder_of(match)
        if folder is not None:
            picked.setdefault(folder, []).extend([match] if match.is_file() else [])
    records = [
        replace(read_run(folder), picked=files[0] if len(files) == 1 else None) for folder, files in picked.items()
    ]
    wanted = [record for record in records if record.stage == stage]
    if not wanted:
        others = sorted({record.stage for record in records})
        what = f"only {' and '.join(others)} runs" if others else "no run folder"
        raise UserError(f"{str(pattern)!r} matches {what}; expected {_A[stage]} run, e.g. {right}")
    if finished:
        done = [record for record in wanted if record.state == "finished"]
        if not done:
            raise UserError(
                f"{str(pattern)!r} matches {plural(len(wanted), f'{stage} run')}, none finished "
                f"({wanted[0].name} is {wanted[0].state}); run {command_name(stage)} again to go on"
            )
        wanted = done
    return sorted(wanted, key=lambda record: natural_key(str(record.folder)))


def run_folder_of(path: Path) -> Path | None:
    """Find the run folder that a path is or lies in, at most two folders down (checkpoints/last.ckpt), else None."""
    for candidate in (path, path.parent, path.parent.parent):
        if (candidate / CONFIG).is_file() or (candidate / RUN).is_file():
            return candidate
    return None

"""A run's folder: who may write in it, what it holds, and how far it came.

runs/<stage>/<name>/ holds config.yaml (the identity: whatever would change the result) and run.json (state, provenance,
sha256 of every artifact, result). Both are whole or absent at any moment, so a killed run can go on where it stopped.
"""

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from intriguing.errors import UserError
from intriguing.runs.guard import Standing, guard, run_folder, tolerant
from intriguing.runs.identity import dump_config, identity_sha256, load_config, plain
from intriguing.runs.provenance import provenance
from intriguing.runs.records import CONFIG, RUN, load_info, seal
from intriguing.storage.files import file_sha256, inside, make_folder, reason, remove_leftovers, write_atomic

LOCK = ".lock"


def open_run(
    root: Path | str,
    stage: str,
    name: str,
    identity: Mapping[str, Any],
    *,
    label: str | None = None,
    study: str | None = None,
    tags: Sequence[str] = (),
    command: str | None = None,
    writer: bool = True,
) -> "RunFolder":
    """Open `root/stage/name` for the run that `identity` describes; use it as a context manager.

    A new folder is made (parents too); an unfinished one with the same identity is resumed; a finished one with the
    same identity is only reported (`.finished`), nothing is locked or written. Nothing at all is written before the
    guard has passed. While open, an exclusive lock keeps other processes out; it goes when the process does.

    Args:
        root: The folder of all runs.
        stage: train, attack or analyze.
        name: The run's name, one part of a path.
        identity: Plain, resolved config. Compared by value: key order and 1e-4 against 0.0001 do not matter.
        label: The name in tables, e.g. `FC10(1e-2)`.
        study: The study it belongs to.
        tags: Free words.
        command: The command as typed; default: this process's.
        writer: False in the other processes of a distributed run, which share the folder: no lock, nothing written.

    Raises:
        UserError: the folder holds another identity or something else, is in use, or cannot be written.
    """
    config = plain(dict(identity))
    folder = run_folder(root, stage, name)
    run = RunFolder(folder, stage, name, config, guard(folder, config))
    if not writer or (run.finished and (folder / CONFIG).is_file()):
        return run
    run._open({"label": label, "study": study, "tags": list(tags), "command": command})
    return run


class RunFolder:
    """An open run folder; made by `open_run`.

    Leaving the `with` block records the state: finished when `finish` was called, interrupted on Ctrl-C and SystemExit
    (SIGTERM as Lightning raises it) or when `finish` was not called, failed (with the reason) on any other exception.

    Attributes:
        folder, stage, name, identity: What it was opened with.
        finished: Nothing to do: the result is there.
        resumed: An earlier attempt left this folder unfinished.
        result: What `finish` recorded, {} before.
    """

    def __init__(self, folder: Path, stage: str, name: str, identity: dict[str, Any], standing: Standing) -> None:
        self.folder, self.stage, self.name, self.identity = folder, stage, name, identity
        self.resumed = standing == "unfinished"
        self.finished = standing == "finished"
        self._info: dict[str, Any] = load_info(folder / RUN) if self.finished else {}
        self._lock: int | None = None
        self._began = time.monotonic()
        self._seconds_before = 0.0

    @property
    def result(self) -> dict[str, Any]:
        return self._info.get("result", {})

    def path(self, file: str) -> Path:
        """Where a file of this run belongs (its parent is made when the folder is open for writing).

        Raises:
            UserError: the name leads outside the folder.
        """
        path = inside(self.folder, file)
        if self._lock is not None:
            make_folder(path.parent)
        return path

    def finish(self, result: Mapping[str, Any], artifacts: Sequence[str] = ()) -> None:
        """Record the result and the sha256 of every artifact: from here on the run is finished.

        Args:
            result: Plain values (JSON).
            artifacts: Names of files in the folder.

        Raises:
            TypeError: the result is not plain.
            ValueError: a number in it is not finite, which JSON has no word for.
            UserError: an artifact is missing or outside, or run.json cannot be written.
            RuntimeError: the folder is not open for writing.
        """
        if self._lock is None:
            raise RuntimeError(f"run folder {self.folder} is not open for writing")
        outcome = plain(dict(result), "result")
        fingerprints = {name: file_sha256(inside(self.folder, name)) for name in artifacts}
        self._write(state="finished", result=outcome, artifacts=fingerprints)
        self.finished = True

    def close(self) -> None:
        """Give the lock back. Safe to call twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._lock is not None and not self.finished:
                # the reason that brought us here matters more than a state that cannot be written (a full disk)
                with contextlib.suppress(UserError):
                    self._record_end(error)
        finally:
            self.close()

    def _record_end(self, error: BaseException | None) -> None:
        if error is None or isinstance(error, KeyboardInterrupt | SystemExit):
            self._write(state="interrupted")
        else:
            line = " ".join(f"{type(error).__name__}: {error}".split())
            self._write(state="failed", error=line[:500])

    def _open(self, about: dict[str, Any]) -> None:
        make_folder(self.folder)
        self._lock = take_lock(self.folder)
        try:
            # what was read before the lock may have changed since: the guard decides once more, now alone
            standing = guard(self.folder, self.identity)
            self.resumed, self.finished = standing == "unfinished", standing == "finished"
            remove_leftovers(self.folder)
            earlier, _ = tolerant(load_info, self.folder / RUN)
            config, _ = tolerant(load_config, self.folder / CONFIG)
            if config is None:
                write_atomic(self.folder / CONFIG, dump_config(self.identity))
            if self.finished:
                self._info = earlier or {}
                self.close()
                return
            self._start(about, earlier or {})
        except BaseException:
            self.close()
            raise

    def _start(self, about: dict[str, Any], earlier: dict[str, Any]) -> None:
        origin = provenance()
        self._seconds_before = earlier.get("seconds") or 0.0
        self._info = {"stage": self.stage, "name": self.name, "state": "running"}
        self._info |= {"identity_sha256": identity_sha256(self.identity)} | about
        self._info["command"] = about["command"] if about["command"] is not None else origin["command"]
        self._info |= {key: origin[key] for key in ("commit", "dirty", "versions", "python", "platform", "cpus")}
        self._info |= {"started": earlier.get("started") or origin["utc"], "seconds": self._seconds_before}
        self._info |= {"artifacts": {}, "result": {}}
        self._write(state="running")

    def _write(self, **changes: Any) -> None:
        seconds = round(self._seconds_before + time.monotonic() - self._began, 3)
        info = self._info | changes | {"seconds": seconds}
        write_atomic(self.folder / RUN, json.dumps(seal(info), indent=1, allow_nan=False) + "\n")
        self._info = info


@contextlib.contextmanager
def keep_others_out(root: Path | str, stage: str, name: str) -> Iterator[None]:
    """Hold a run that does not have its folder open yet, because what it needs is made first.

    Raises:
        UserError: another process has it, or the folder of its stage cannot be written.
    """
    folder = run_folder(root, stage, name)
    make_folder(folder.parent)
    lock = take_lock(folder, folder.parent / f".{name}{LOCK}")
    try:
        yield
    finally:
        os.close(lock)


def take_lock(folder: Path, file: Path | None = None) -> int:
    """An exclusive lock on the folder, held as long as the descriptor is open (so never longer than the process).

    Args:
        folder: What is locked.
        file: The lock file, which is made; None: `.lock` in the folder.

    Raises:
        UserError: another process has it, or the folder cannot be written.
    """
    try:
        descriptor = os.open(file or folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {reason(error)}; give a folder that can be written") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise UserError(
                f"{folder} is in use by another process; wait for it, or give the run another name"
            ) from error
        raise UserError(f"cannot lock {folder}: {reason(error)}; use a file system with locks") from error
    return descriptor

"""Open a run folder: lock it, guard it, and record how far the run came.

``runs/<stage>/<name>/`` holds ``config.yaml`` (the identity: every setting that changes the result) and ``run.json``
(state, provenance, sha256 of every artifact, result). Each file is whole or absent at any moment, so a killed run
resumes where it stopped.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from intriguing.errors import UserError, error_summary
from intriguing.runs.guard import RunStatus, guard, load_or_error, run_folder
from intriguing.runs.identity import dump_config, identity_sha256, load_config, plain
from intriguing.runs.provenance import ORIGIN, provenance
from intriguing.runs.records import CONFIG, RUN, load_info, with_checksum
from intriguing.storage.files import file_sha256, inside, make_folder, reason, remove_leftovers, write_atomic

if TYPE_CHECKING:
    from types import TracebackType

    from filelock import BaseFileLock

log = logging.getLogger(__name__)
LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # what NFS and the like answer


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
    files: Mapping[str, str] | None = None,
    writer: bool = True,
) -> RunFolder:
    """Open ``root/stage/name`` for the run that ``identity`` describes, as a context manager.

    A new folder is made with its parents; an unfinished one with an equal identity is resumed; a finished one with an
    equal identity is reported (``.finished``) and neither locked nor written. Nothing is written before the guard has
    passed. An exclusive lock keeps other processes out until the folder is closed or the process ends.

    Args:
        root: The folder of all runs.
        stage: ``train``, ``attack`` or ``analyze``.
        name: The run's name, one part of a path.
        identity: Plain, resolved config. Compared by value: neither key order nor ``1e-4`` against ``0.0001`` matters.
        label: The name in tables, e.g. ``FC10(1e-2)``.
        study: The study that the run belongs to.
        tags: Free words.
        command: The command as typed; None: this process's.
        files: Further texts by file name, written beside ``config.yaml`` (Hydra's own record of the config).
        writer: False in the other processes of a distributed run, which share the folder: no lock, nothing written.

    Returns:
        The open folder.

    Raises:
        UserError: The folder holds another identity or foreign files, is in use, or cannot be written.
    """
    config = plain(dict(identity))
    folder = run_folder(root, stage, name)
    run = RunFolder(folder, stage, name, config, guard(folder, config))
    if not writer or (run.finished and (folder / CONFIG).is_file()):
        return run
    run._open({"label": label, "study": study, "tags": list(tags), "command": command}, files or {})
    return run


class RunFolder:
    """Record the run in an open folder; made by ``open_run``.

    Leaving the ``with`` block records the state: finished if ``finish`` was called, interrupted on Ctrl-C and
    SystemExit or if ``finish`` was not called, failed (with the reason) on any other exception.

    Attributes:
        folder, stage, name, identity: The arguments of ``open_run``.
        finished: Whether the result is recorded already.
        resumed: Whether an earlier attempt left this folder unfinished.
    """

    def __init__(self, folder: Path, stage: str, name: str, identity: dict[str, Any], status: RunStatus) -> None:
        self.folder, self.stage, self.name, self.identity = folder, stage, name, identity
        self.resumed = status == "unfinished"
        self.finished = status == "finished"
        self._info: dict[str, Any] = load_info(folder / RUN) if self.finished else {}
        self._lock: BaseFileLock | None = None
        self._log: logging.Handler | None = None
        self._began = time.monotonic()
        self._seconds_before = 0.0

    @property
    def result(self) -> dict[str, Any]:
        """The result that ``finish`` recorded; empty before."""
        return self._info.get("result", {})

    def path(self, file: str) -> Path:
        """Return the path of a file of this run; make its parent if the folder is open for writing.

        Raises:
            UserError: The name leads outside the folder.
        """
        path = inside(self.folder, file)
        if self._lock is not None:
            make_folder(path.parent)
        return path

    def finish(self, result: Mapping[str, Any], artifacts: Sequence[str] = ()) -> None:
        """Record the result and the sha256 of every artifact, which finishes the run.

        Args:
            result: Plain values (JSON).
            artifacts: Names of files in the folder.

        Raises:
            TypeError: The result is not plain.
            ValueError: A number in the result is not finite, which JSON cannot write.
            UserError: An artifact is missing or outside the folder, or ``run.json`` cannot be written.
            RuntimeError: The folder is not open for writing.
        """
        if self._lock is None:
            raise RuntimeError(f"run folder {self.folder} is not open for writing")
        outcome = plain(dict(result), "result")
        fingerprints = {name: file_sha256(inside(self.folder, name)) for name in artifacts}
        self._write(state="finished", result=outcome, artifacts=fingerprints)
        self.finished = True

    def close(self) -> None:
        """Close the log file and release the lock; a second call does nothing."""
        if self._log is not None:
            logging.getLogger().removeHandler(self._log)
            self._log.close()
            self._log = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._lock is not None and not self.finished:
                # The error that ended the block matters more than a state that cannot be written (a full disk).
                with contextlib.suppress(UserError):
                    self._record_end(error)
        finally:
            self.close()

    def _record_end(self, error: BaseException | None) -> None:
        if error is None or isinstance(error, KeyboardInterrupt | SystemExit):
            self._write(state="interrupted")
        else:
            self._write(state="failed", error=error_summary(error, 500))

    def _open(self, about: dict[str, Any], files: Mapping[str, str]) -> None:
        make_folder(self.folder)
        self._lock = take_lock(self.folder)
        try:
            # Another process may have changed the folder before the lock was taken, so the guard decides once more.
            status = guard(self.folder, self.identity)
            self.resumed, self.finished = status == "unfinished", status == "finished"
            remove_leftovers(self.folder)
            earlier, _ = load_or_error(load_info, self.folder / RUN)
            config, _ = load_or_error(load_config, self.folder / CONFIG)
            if config is None:
                write_atomic(self.folder / CONFIG, dump_config(self.identity))
            if self.finished:
                self._info = earlier or {}
                self.close()
                return
            for name, text in files.items():
                write_atomic(self.path(name), text)
            self._log = _LogFile(self.folder / f"{self.stage}.log")
            logging.getLogger().addHandler(self._log)
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
        self._info |= {key: origin[key] for key in ORIGIN}
        self._info |= {"started": earlier.get("started") or origin["utc"], "seconds": self._seconds_before}
        self._info |= {"artifacts": {}, "result": {}}
        self._write(state="running")

    def _write(self, **changes: Any) -> None:
        seconds = round(self._seconds_before + time.monotonic() - self._began, 3)
        info = self._info | changes | {"seconds": seconds}
        write_atomic(self.folder / RUN, json.dumps(with_checksum(info), indent=1, allow_nan=False) + "\n")
        self._info = info
        if self._log is not None:  # alone: the console has lines of its own
            message = f"{info['state']}: {info.get('error') or info['command']}"
            self._log.handle(log.makeRecord(log.name, logging.INFO, __file__, 0, message, (), None))


class _LogFile(logging.FileHandler):
    """The log of a run, which a full disk does not stop."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)  # the file is made by the first message
        self.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the record."""


@contextlib.contextmanager
def keep_others_out(root: Path | str, stage: str, name: str) -> Iterator[None]:
    """Lock a run before its folder is opened, while the runs that it needs are made.

    Raises:
        UserError: Another process holds the lock, or the folder of the stage cannot be written.
    """
    folder = run_folder(root, stage, name)
    make_folder(folder.parent)
    lock = take_lock(folder, folder.parent / f".{name}{LOCK}")
    try:
        yield
    finally:
        lock.release()


def take_lock(folder: Path, file: Path | None = None) -> BaseFileLock:
    """Take the exclusive lock of a folder without waiting; the system releases it when the process ends.

    Args:
        folder: The folder, for messages.
        file: The lock file, which is made and stays; None: ``.lock`` in the folder.

    Returns:
        The lock; ``release`` gives it back.

    Raises:
        UserError: Another process holds the lock, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file or folder / LOCK, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{folder} is in use by another process; wait for it, or give the run another name") from error
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise UserError(f"cannot lock {folder}: {reason(error)}; use a file system with locks") from error
        raise UserError(f"cannot write in {folder}: {reason(error)}; give a folder that can be written") from error
    return lock

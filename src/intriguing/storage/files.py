"""Write files that are whole or absent, and take their fingerprints."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from intriguing.errors import UserError


def file_sha256(path: Path | str) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits, in bounded memory.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path whose file replaces ``path`` at the end, so that ``path`` is whole at any moment.

    The bytes go to a hidden neighbour on the same file system, are synced, and take the name in one step.
    ``remove_leftovers`` removes the neighbour that a killed process leaves.

    Raises:
        UserError: The folder is missing or not writable, or the disk is full; the old file stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            yield temporary
            with open(temporary, "r+b") as file:  # Windows syncs only files that are open for writing
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {reason(error)}; give a folder that can be written, with space"
        ) from error


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Write a file that is whole at any moment.

    Raises:
        UserError: See ``replacing``.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def check_recorded(path: Path, sha256: str, recorded: str | None) -> None:
    """Raise UserError unless the digest of a file is the one that its run recorded; None: no run did."""
    if recorded not in (None, sha256):
        raise UserError(
            f"{path} was changed or damaged since its run wrote it (sha256 differs); remove it, and the command of "
            "its run makes it again"
        )


def make_folder(folder: Path) -> None:
    """Make a folder and its parents.

    Raises:
        UserError: The folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {reason(error)}; give a folder that can be written") from error


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename in it survives a power cut, on file systems that allow it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left below a folder; call it under the folder's lock."""
    for path in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def inside(folder: Path, file: str) -> Path:
    """Return ``folder / file`` if that stays inside the folder after links are followed.

    Raises:
        UserError: The name leads outside (absolute, ``..``, or a link).
    """
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{file!r} leads outside the run folder {folder}; name a file inside it")
    return path


def reason(error: OSError) -> str:
    """Return the system's words for an error, without the path."""
    return error.strerror or type(error).__name__


def strict_json(text: bytes | str) -> Any:
    """Parse JSON in which every number is finite and no mapping has a key twice.

    Raises:
        ValueError: The text is something else.
        RecursionError: It is nested too deep.
    """
    return json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_once)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key occurs twice")
    return found

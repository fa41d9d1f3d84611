"""Files that are whole or absent, and their fingerprints."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from intriguing.errors import UserError

CHUNK = 1 << 20


def file_sha256(path: Path | str) -> str:
    """The sha256 of a file's bytes as 64 hexadecimal digits, in bounded memory.

    Raises:
        UserError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yields where to write a file, so that, whatever happens, its name holds the old content or the whole new one.

    The bytes go to a hidden neighbour (the same file system), are synced, and take the name in one step. What a killed
    process leaves of it is removed by `remove_leftovers`.

    Raises:
        UserError: the folder is missing or not writable, or the disk is full; what stood there stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            yield temporary
            with open(temporary, "rb") as file:
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
    """Write a file, see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {reason(error)}; give a folder that can be written") from error


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut, where the file system lets us ask for it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in the folder and below (call it under its lock)."""
    for path in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def inside(folder: Path, file: str) -> Path:
    """`folder / file`, when that stays inside the folder, links followed.

    Raises:
        UserError: the name leads outside (absolute, `..`, or a link).
    """
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{file!r} leads outside the run folder {folder}; name a file inside it")
    return path


def reason(error: OSError) -> str:
    """What went wrong, without the path (the message has it already)."""
    return error.strerror or type(error).__name__


def strict_json(text: bytes | str) -> Any:
    """The value of a JSON text in which every number is finite and no mapping has a key twice.

    Raises:
        ValueError: anything else. RecursionError: nested too deep.
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

"""Write and read safetensors files that carry a sha256 over every byte in them.

Reading them runs no code, and no change goes unseen. The header has one entry of JSON text, whose last value is the
digest of the whole file with zeros in the place of that digest. Equal tensors and entries give equal files.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor

from intriguing.commands import command_name
from intriguing.errors import UserError, error_message
from intriguing.storage.files import check_recorded, replacing, strict_json

MAX_HEADER = 1 << 20  # ours are a few kB
_ZEROS = "0" * 64


def save(tensors: dict[str, Tensor], path: Path | str, key: str, entry: dict[str, Any]) -> None:
    """Write tensors and an entry that describes them; the file is whole at any moment.

    Args:
        tensors: By name, on the CPU, contiguous.
        path: The file.
        key: The name of the header's entry, which says what kind of file it is.
        entry: Plain JSON values; ``sha256`` is added.

    Raises:
        UserError: The folder is missing or not writable, or the disk is full.
    """
    with replacing(path) as temporary:
        try:
            save_file(_separate(tensors), temporary, metadata={key: _text(entry)})
        except SafetensorError as error:
            raise OSError(0, error_message(error)) from error
        _write_digest(temporary)


def load(
    path: Path | str,
    key: str,
    check: Callable[[dict[str, Any], Path], None],
    *,
    what: str,
    recorded: str | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file that ``save`` wrote, and check every byte without running code from it.

    Args:
        path: The file.
        key: See ``save``.
        check: Raises UserError if the entry has another format, before more is read.
        what: The kind of file, for messages.
        recorded: The sha256 of the file that its run recorded; None if no run did.

    Returns:
        The entry, and the tensors by name.

    Raises:
        UserError: The file is missing, empty, truncated, changed, or of another kind.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no file; expected an {what}")
        with open(path, "rb") as file:
            header = _read_header(file, path, what)
            entry = _entry(header, path, key, what)
            check(entry, path)
            digest, place = _find_digest(header, path, what)
            file.seek(0)
            content = file.read()  # the bytes that are checked are those that are loaded
        if recorded is not None:
            check_recorded(path, hashlib.sha256(content).hexdigest(), recorded)
        if _digest(content, place) != digest:
            raise UserError(f"{path} was changed or damaged since it was written (sha256 differs); {_again()}")
        tensors = load_tensors(content)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; expected an {what} that {command_name('attack')} wrote") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or type(error).__name__}") from error
    except (SafetensorError, KeyError, AttributeError, ValueError, RuntimeError, OverflowError, TypeError) as error:
        raise UserError(f"{path} is damaged or no {what} ({error_message(error)}); {_again()}") from error
    return entry, tensors


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory, which safetensors refuses: inputs may be adv_inputs if no attack succeeded."""
    seen: set[int] = set()
    separate = {}
    for name, value in tensors.items():
        memory = value.untyped_storage().data_ptr()
        separate[name] = value.clone() if memory in seen else value
        seen.add(memory)
    return separate


def _text(entry: dict[str, Any]) -> str:
    # The digest comes last, so that it is found from the end for any entry.
    body = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    return f'{body[:-1]}{"," if entry else ""}"sha256":"{_ZEROS}"}}'


def _write_digest(path: Path) -> None:
    """Write the file's digest into its place in the header, and sync the file."""
    with open(path, "r+b") as file:
        _, place = _find_digest(_read_header(file, path, ""), path, "")
        with mmap.mmap(file.fileno(), 0) as content:
            digest = _digest(content, place)
        file.seek(place)
        file.write(digest.encode())
        file.flush()
        os.fsync(file.fileno())


def _again() -> str:
    return f"run {command_name('attack')} again"


def _read_header(file: BinaryIO, path: Path, what: str) -> bytes:
    """Read the header's JSON bytes, from byte 8 on, after their little-endian length (the safetensors format)."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    if len(start) < 8:
        seen = "is empty" if size == 0 else f"has only {size} bytes"
        raise UserError(f"{path} {seen}: no {what}; {_again()}")
    (length,) = struct.unpack("<Q", start)
    if length > size - 8:
        raise UserError(f"{path} is truncated or no {what}: its header claims more than its {size} bytes")
    if length > MAX_HEADER:
        raise UserError(f"{path} is no {what}: expected a header of at most {MAX_HEADER} bytes, got {length}")
    return file.read(length)


def _entry(header: bytes, path: Path, key: str, what: str) -> dict[str, Any]:
    try:
        entry = strict_json(strict_json(header)["__metadata__"][key])
        if not isinstance(entry, dict):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no {what} of this project, or damaged; {_again()}") from error
    return entry


def _find_digest(header: bytes, path: Path, what: str) -> tuple[str, int]:
    """Find the last digest in the header, and its offset in the file."""
    found = list(re.finditer(rb'\\"sha256\\":\\"([0-9a-f]{64})\\"\}"', header))
    if not found:
        raise UserError(f"{path} carries no sha256: damaged, or no {what} of this project")
    return found[-1].group(1).decode(), 8 + found[-1].start(1)


def _digest(content: bytes | mmap.mmap, place: int) -> str:
    """Return the sha256 of a file's content with the 64 bytes at ``place`` as zeros."""
    with memoryview(content) as view:
        digest = hashlib.sha256(view[:place])
        digest.update(_ZEROS.encode())
        digest.update(view[place + len(_ZEROS) :])
    return digest.hexdigest()

"""Safetensors files with a sha256 over every byte in them: what cannot execute anything when read, nor change unseen.

The header has one entry of JSON text, whose last value is the digest of the whole file with that digest itself written
as zeros. One entry has one order, so equal tensors and texts give equal files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from intriguing.errors import UserError, shown
from intriguing.storage.files import replacing, strict_json

MAX_HEADER = 1 << 20  # what is told beside the tensors is a few kB
CHUNK = 1 << 20
UNSEALED = "0" * 64


def save(tensors: dict[str, Tensor], path: Path | str, key: str, entry: dict[str, Any]) -> None:
    """Write tensors and what is told of them; the name holds the old content or the whole new one at any moment.

    Args:
        tensors: on the CPU, contiguous.
        path: the file.
        key: the name of the header's entry, which says what kind of file it is.
        entry: plain JSON values; ``sha256`` is added.

    Raises:
        UserError: the folder is missing or not writable, or the disk is full.
    """
    with replacing(path) as temporary:
        try:
            save_file(_separate(tensors), temporary, metadata={key: _text(entry)})
        except SafetensorError as error:
            raise OSError(0, " ".join(str(error).split())) from error
        _seal(temporary)


def load(
    path: Path | str, key: str, check: Callable[[dict[str, Any], Path], None], *, what: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file of `save` and check every byte of it. Runs nothing that is in it.

    Args:
        path: the file.
        key: see `save`.
        check: raises UserError if the entry is one of another format, before more is read.
        what: the kind of file, for messages.

    Raises:
        UserError: missing, empty, truncated, changed, or of another kind.
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
            if _digest(file, place) != digest:
                raise UserError(
                    f"{path} was changed or damaged since it was written (sha256 differs); run attack.py again"
                )
        tensors = {name: value.clone() for name, value in load_file(path).items()}  # off the file's pages
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; expected an {what} that attack.py wrote") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or type(error).__name__}") from error
    except (SafetensorError, KeyError, AttributeError, ValueError, RuntimeError, OverflowError, TypeError) as error:
        why = shown(" ".join(str(error).split()), 200)
        raise UserError(f"{path} is damaged or no {what} ({why}); run attack.py again") from error
    return entry, tensors


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without shared memory (safetensors refuses it): inputs may be adv_inputs where nothing was found."""
    seen: set[int] = set()
    separate = {}
    for name, value in tensors.items():
        memory = value.untyped_storage().data_ptr()
        separate[name] = value.clone() if memory in seen else value
        seen.add(memory)
    return separate


def _text(entry: dict[str, Any]) -> str:
    # the digest comes last, so that it is found from the end whatever the entry holds
    body = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    return f'{body[:-1]}{"," if entry else ""}"sha256":"{UNSEALED}"}}'


def _seal(path: Path) -> None:
    """Put the file's digest in the place that its header keeps for it, and the file on the disk."""
    with open(path, "r+b") as file:
        _, place = _find_digest(_read_header(file, path, ""), path, "")
        file.seek(0)
        digest = _digest(file, place)
        file.seek(place)
        file.write(digest.encode())
        file.flush()
        os.fsync(file.fileno())


def _read_header(file: BinaryIO, path: Path, what: str) -> bytes:
    """The header's JSON bytes: at 8, after a little-endian length (the safetensors format)."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    if len(start) < 8:
        seen = "is empty" if size == 0 else f"has only {size} bytes"
        raise UserError(f"{path} {seen}: no {what}; run attack.py again")
    (length,) = struct.unpack("<Q", start)
    if length > size - 8:
        raise UserError(f"{path} is truncated or no {what}: its header asks for more than its {size} bytes")
    if length > MAX_HEADER:
        raise UserError(f"{path} is no {what}: expected a header of at most {MAX_HEADER} bytes, got {length}")
    return file.read(length)


def _entry(header: bytes, path: Path, key: str, what: str) -> dict[str, Any]:
    try:
        entry = strict_json(strict_json(header)["__metadata__"][key])
        if not isinstance(entry, dict):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no {what} of this project, or damaged; expected one of attack.py") from error
    return entry


def _find_digest(header: bytes, path: Path, what: str) -> tuple[str, int]:
    """(digest, its offset in the file): the last one in the header."""
    found = list(re.finditer(rb'\\"sha256\\":\\"([0-9a-f]{64})\\"\}"', header))
    if not found:
        raise UserError(f"{path} carries no sha256: damaged, or no {what} of this project")
    return found[-1].group(1).decode(), 8 + found[-1].start(1)


def _digest(file: BinaryIO, place: int) -> str:
    """sha256 of the file from its start, with the 64 bytes at `place` as zeros."""
    digest = hashlib.sha256(file.read(place))
    file.read(len(UNSEALED))
    digest.update(UNSEALED.encode())
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()

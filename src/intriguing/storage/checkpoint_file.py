"""Write checkpoints with a sha256 over every byte, and read them back without trusting them.

A checkpoint is a zip archive whose comment holds the sha256 of all bytes before it, so the file can be checked in any
place, and ``torch.load`` reads it like any other. Before torch sees a byte, the digest, the archive's directory and the
names that its pickle imports are checked; afterwards the sizes of the values. So no file makes this process run code,
or allocate more than a few times the size of the file.
"""

from __future__ import annotations

import hashlib
import mmap
import pickle
import pickletools
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from intriguing.commands import command_name
from intriguing.errors import UserError, error_message, shown
from intriguing.storage.files import check_recorded

PREFIX = b"intriguing sha256:"
COMMENT = len(PREFIX) + 64  # its bytes
END = 22  # bytes of a zip archive's end record; its last two are the length of the comment
MAX_PICKLE = 1 << 23  # bytes of a checkpoint that are not tensors; ours have below 100 kB
MAX_VALUES = 1_000_000
MAX_DEPTH = 100
NAMES = {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.Size"}
# harmless types that the state of a callback may hold besides
NAMES |= {"__builtin__.set", "_codecs.encode", "torch.device", "torch.float32", "torch.float64", "torch.int64"}
STORAGES = {
    f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Byte", "Bool")
}
PLAIN = (str, bytes, int, float, bool, type(None), torch.device, torch.dtype)


def write(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    """Write a checkpoint and its digest into a new file that is open for writing and reading."""
    torch.save(checkpoint, file)
    add_digest(file)


def add_digest(file: BinaryIO) -> None:
    """Append the comment with its sha256 to a zip archive without one, open for writing and reading."""
    file.seek(-2, 2)
    file.write(struct.pack("<H", COMMENT) + PREFIX)
    file.flush()
    file.write(_digest(file, file.tell()).hexdigest().encode())


def read(path: Path) -> dict[str, Any]:
    """Read the content of a checkpoint and check its digest, see ``read_with_sha256``."""
    return read_with_sha256(path)[0]


def read_with_sha256(path: Path, recorded: str | None = None) -> tuple[dict[str, Any], str]:
    """Read the content of a checkpoint and check its digest; the file is opened and hashed once.

    Args:
        path: The file.
        recorded: The sha256 of the file that its run recorded; None if no run did.

    Returns:
        The content, and the sha256 of the whole file.

    Raises:
        UserError: The path is no file, or the file is empty, truncated, changed, of another kind or hostile.
    """
    try:
        with open(path, "rb") as file:
            sha256 = _check_digest(file, path, recorded)
            _check_archive(file, path)
            file.seek(0)
            content = _load(file, path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or type(error).__name__}") from error
    _check_sizes(content, path)
    return content, sha256


def _check_digest(file: BinaryIO, path: Path, recorded: str | None) -> str:
    """Check the digest at the end of a file, and return that of the whole file."""
    size = file.seek(0, 2)
    if size == 0:
        raise UserError(f"{path} is empty, not a checkpoint; train the network again")
    file.seek(0)
    if file.read(4) != b"PK\3\4":
        writer = command_name("train")
        raise UserError(f"{path} is no checkpoint, or damaged: it does not start like one that {writer} writes")
    digest = _digest(file, max(0, size - 64))
    file.seek(-min(size, COMMENT), 2)
    comment = file.read()
    whole = digest.copy()
    whole.update(comment[-64:])
    check_recorded(path, whole.hexdigest(), recorded)
    if size <= END + COMMENT or not comment.startswith(PREFIX):
        raise UserError(f"{path} is truncated or damaged: it does not end in its sha256; train the network again")
    if digest.hexdigest().encode() != comment[len(PREFIX) :]:
        raise UserError(f"{path} was changed or damaged since it was written (sha256 differs); train the network again")
    return whole.hexdigest()


def _digest(file: BinaryIO, length: int) -> hashlib._Hash:
    """Hash the first bytes of a file by sha256; the position stays."""
    if length == 0:
        return hashlib.sha256()
    with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as start:
        return hashlib.sha256(start)


def _check_archive(file: BinaryIO, path: Path) -> None:
    """Check the directory of the archive and the names that its pickle imports, before anything is unpacked."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if len(set(names)) < len(names):
                raise ValueError("two of its entries have one name")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("an entry is compressed, which torch never does")
            if sum(entry.file_size for entry in entries) > file.seek(0, 2):
                raise ValueError("its entries claim more bytes than the file has")
            wanted = _names(_pickled(archive))
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, struct.error) as error:
        raise UserError(f"{path} is truncated, damaged or no checkpoint at all: {error_message(error)}") from error
    if odd := _odd(wanted):
        raise UserError(
            f"{path} asks for {shown(odd[0])}, which no checkpoint needs; nothing in it was run. Do not use this file"
        )


def odd_names(file: BinaryIO) -> list[str]:
    """Return the sorted names that a checkpoint would import and that ``read`` refuses."""
    with zipfile.ZipFile(file) as archive:
        return _odd(_names(_pickled(archive)))


def _odd(names: set[str]) -> list[str]:
    return sorted(names - NAMES - STORAGES)


def _pickled(archive: zipfile.ZipFile) -> bytes:
    """Read the part of an archive that is not tensors."""
    (pickled,) = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
    if pickled.file_size > MAX_PICKLE:
        raise ValueError(f"its structure has {pickled.file_size} bytes, more than {MAX_PICKLE}")
    return archive.read(pickled)


def _names(pickled: bytes) -> set[str]:
    """List the names that a pickle would import, without running it."""
    names = set()
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name in ("GLOBAL", "INST"):
            names.add(str(argument).replace(" ", "."))
        elif operation.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            names.add(f"a name by {operation.name}")
    return names


def _load(file: BinaryIO, path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about oddities of a file; those that matter are checked here
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is not a checkpoint that loads safely (weights_only=True refused it)") from error
    except Exception as error:  # of any kind, in files that were built by hand
        raise UserError(f"{path} is damaged or no checkpoint at all: {error_message(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is a foreign checkpoint: it holds a {type(content).__name__}")
    return content


def _check_sizes(content: Any, path: Path) -> None:
    """Check that all values are plain, of bounded depth and number, and no tensor is larger than its memory."""
    left, count = [(content, 0)], 1
    while left:
        value, depth = left.pop()
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.nbytes > value.untyped_storage().nbytes():
                raise UserError(
                    f"{path} is no checkpoint: a tensor of shape {shown(tuple(value.shape))} is not all there"
                )
        elif isinstance(value, dict | list | tuple | set):
            count += len(value)
            if count > MAX_VALUES or depth > MAX_DEPTH:
                raise UserError(f"{path} is no checkpoint: it is nested deeper, or has more values, than any has")
            inner = [*value, *value.values()] if isinstance(value, dict) else value
            left += [(item, depth + 1) for item in inner]
        elif not isinstance(value, PLAIN):
            raise UserError(f"{path} is no checkpoint: it holds a value of type {type(value).__name__}")

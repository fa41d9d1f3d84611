"""Checkpoints as files: what torch writes, sealed with a sha256 over every byte, and read back without trusting it.

A checkpoint is a zip archive, and a zip archive may end in a comment: there stands the sha256 of all that comes before,
so the file can be checked wherever it lies, and torch.load elsewhere reads it as any other. Before torch sees a byte,
the digest, the archive's directory and the names that its pickle asks for are checked; afterwards the sizes of what
came out of it. So no file makes this process run anything, or allocate more than a few times the file's own size.
"""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from intriguing.errors import UserError, shown

PREFIX = b"intriguing sha256:"
SEAL = len(PREFIX) + 64  # bytes of the comment
END = 22  # bytes of a zip archive's end record; its last two are the length of the comment
CHUNK = 1 << 20
MAX_PICKLE = 1 << 23  # the part of a checkpoint that is not tensors; ours are below 100 kB
MAX_VALUES = 1_000_000
MAX_DEPTH = 100
NAMES = {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.Size"}
# what the state of a callback may hold besides, and cannot do harm
NAMES |= {"__builtin__.set", "_codecs.encode", "torch.device", "torch.float32", "torch.float64", "torch.int64"}
STORAGES = {
    f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Byte", "Bool")
}
PLAIN = (str, bytes, int, float, bool, type(None), torch.device, torch.dtype)


def write(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    """Write a checkpoint into a new file, open for writing and reading, and seal it."""
    torch.save(checkpoint, file)
    seal(file)


def seal(file: BinaryIO) -> None:
    """Give a zip archive without a comment, open for writing and reading, the comment with its sha256."""
    file.seek(-2, 2)
    file.write(struct.pack("<H", SEAL) + PREFIX)
    file.write(_digest(file, file.tell()))


def read(path: Path) -> dict[str, Any]:
    """Read the content of a checkpoint and check its digest.

    Raises:
        UserError: not a file, empty, truncated, changed, of another kind, or built to do harm.
    """
    try:
        with open(path, "rb") as file:
            _check_digest(file, path)
            _check_archive(file, path)
            file.seek(0)
            content = _load(file, path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or type(error).__name__}") from error
    _check_sizes(content, path)
    return content


def _check_digest(file: BinaryIO, path: Path) -> None:
    size = file.seek(0, 2)
    if size == 0:
        raise UserError(f"{path} is empty, not a checkpoint; train the network again")
    file.seek(0)
    if file.read(4) != b"PK\3\4":
        raise UserError(f"{path} is no checkpoint, or damaged: it does not begin as one of train.py does")
    comment = b""
    if size > END + SEAL:
        file.seek(-SEAL, 2)
        comment = file.read()
    if not comment.startswith(PREFIX):
        raise UserError(f"{path} is truncated or damaged: no sha256 stands at its end; train the network again")
    if _digest(file, size - 64) != comment[len(PREFIX) :]:
        raise UserError(f"{path} was changed or damaged since it was written (sha256 differs); train the network again")


def _digest(file: BinaryIO, length: int) -> bytes:
    """sha256 of the first bytes of a file, as 64 hexadecimal digits; the file is left behind them."""
    file.seek(0)
    digest = hashlib.sha256()
    for start in range(0, length, CHUNK):
        digest.update(file.read(min(CHUNK, length - start)))
    return digest.hexdigest().encode()


def _check_archive(file: BinaryIO, path: Path) -> None:
    """The directory of the archive, and the names that its pickle asks for, before anything is unpacked."""
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
        raise UserError(f"{path} is truncated, damaged or no checkpoint at all: {shown(str(error), 200)}") from error
    if odd := _odd(wanted):
        raise UserError(
            f"{path} asks for {shown(odd[0])}, which no checkpoint needs; nothing of it was run. Do not use this file"
        )


def odd_names(file: BinaryIO) -> list[str]:
    """Return what a checkpoint that was just written would import beside what `read` allows, sorted."""
    with zipfile.ZipFile(file) as archive:
        return _odd(_names(_pickled(archive)))


def _odd(names: set[str]) -> list[str]:
    return sorted(names - NAMES - STORAGES)


def _pickled(archive: zipfile.ZipFile) -> bytes:
    """The part of an archive that is not tensors."""
    (pickled,) = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
    if pickled.file_size > MAX_PICKLE:
        raise ValueError(f"its structure has {pickled.file_size} bytes, more than {MAX_PICKLE}")
    return archive.read(pickled)


def _names(pickled: bytes) -> set[str]:
    """What a pickle would import; found without running it."""
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
            warnings.simplefilter("ignore")  # about a file's oddities; what matters is checked here
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is not a checkpoint that loads safely (weights_only=True refused it)") from error
    except Exception as error:  # whatever a file that was built by hand brings torch to
        why = shown(" ".join(str(error).split()) or type(error).__name__, 200)
        raise UserError(f"{path} is damaged or no checkpoint at all: {why}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is a foreign checkpoint: it holds a {type(content).__name__}")
    return content


def _check_sizes(content: Any, path: Path) -> None:
    """Everything inside is plain, of bounded depth and number, and no tensor is larger than its own memory."""
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

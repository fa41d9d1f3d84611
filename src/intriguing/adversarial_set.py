"""The only contract between crafting and analysing: a set of adversarial images, in memory and as one file.

On disk it is a safetensors file, which cannot execute anything when read. Its header carries the metadata and a sha256
over the whole file (with that digest itself written as zeros), so a byte that changed anywhere is found at load.
"""

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from intriguing.errors import UserError
from intriguing.tracking import replacing

FORMAT = 1  # raised when a file of before can no longer be read
KEY = "adversarial_set"  # the header's one metadata entry: one entry has one order, so equal sets are equal files
MAX_HEADER = 1 << 20  # metadata is a few kB
ROWS = 4096  # rows looked at together: temporaries stay small for any N
CHUNK = 1 << 20
UNSEALED = "0" * 64

DTYPES = {
    "inputs": torch.float32,
    "adv_inputs": torch.float32,
    "labels": torch.int64,
    "targets": torch.int64,
    "indices": torch.int64,
    "success": torch.bool,
    "distortion": torch.float32,
    "c": torch.float32,
    "num_forwards": torch.int64,
    "num_backwards": torch.int64,
}
METADATA = ("source", "data", "attack", "amplify", "clip", "seed", "study", "version")


@dataclass(frozen=True, kw_only=True, eq=False)
class AdversarialSet:
    """N images, what an attack made of them, and where they come from. Checked when made, on the CPU.

    Attributes:
        inputs: (N, C, H, W) float32 originals in [0, 1].
        adv_inputs: (N, C, H, W) float32; equal to inputs where the attack failed. In [0, 1] if `metadata["clip"]`.
        labels: (N,) int64 true classes.
        targets: (N,) int64 classes aimed at; -1 for none.
        indices: (N,) int64, place of the original in the official train or test set.
        success: (N,) bool.
        distortion: (N,) float32, per-pixel RMS of adv_inputs - inputs (section 4.2); inf where the attack failed.
        c: (N,) float32, weight of the distance (section 4.1); inf where the input was in its target class already, nan
            where the attack has none.
        num_forwards: (N,) int64, forward passes spent on the image.
        num_backwards: (N,) int64.
        metadata: Plain values: source (name, label, checkpoint_sha256, split, seed; None for Gaussian noise), data
            (name, subset), attack (name and all its settings), amplify (None, or the per-pixel RMS scaled to), clip,
            seed, study, version.

    Raises:
        TypeError: a value of another type or dtype.
        ValueError: lengths, shapes or values that do not fit together; it says what was expected and what came.
    """

    inputs: Tensor
    adv_inputs: Tensor
    labels: Tensor
    targets: Tensor
    indices: Tensor
    success: Tensor
    distortion: Tensor
    c: Tensor
    num_forwards: Tensor
    num_backwards: Tensor
    metadata: dict[str, Any]

    def __post_init__(self) -> None:
        for name, dtype in DTYPES.items():
            value = getattr(self, name)
            if not isinstance(value, Tensor):
                raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
            if value.dtype != dtype:
                raise TypeError(f"{name}: expected {dtype}, got {value.dtype}")
            object.__setattr__(self, name, value.detach().cpu().contiguous())
        object.__setattr__(self, "metadata", _plain_metadata(self.metadata))
        _check_shapes(self)
        _check_values(self)
        _check_images(self)

    def __len__(self) -> int:
        return len(self.inputs)

    def save(self, path: Path | str) -> None:
        """Write the set to one file; its name holds the old content or the whole new one at any moment.

        Equal sets give equal files.

        Raises:
            UserError: the folder is missing or not writable, or the disk is full.
        """
        with replacing(path) as temporary:
            try:
                save_file(_separate(self._tensors()), temporary, metadata={KEY: _header(self.metadata, UNSEALED)})
            except SafetensorError as error:
                raise OSError(0, " ".join(str(error).split())) from error
            _seal(temporary)

    @classmethod
    def load(cls, path: Path | str) -> "AdversarialSet":
        """Read a set and check every byte of it. Runs nothing that is in the file.

        Raises:
            UserError: missing, empty, truncated, changed, of another kind or of another version of the project.
        """
        path = Path(path)
        try:
            metadata = _verified_metadata(path)
            tensors = {name: value.clone() for name, value in load_file(path).items()}  # off the file's pages
        except FileNotFoundError as error:
            raise UserError(f"{path} does not exist; expected an adversarial set that attack.py wrote") from error
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or type(error).__name__}") from error
        except (SafetensorError, KeyError, AttributeError, ValueError, RuntimeError) as error:
            what = " ".join(str(error).split())[:200]
            raise UserError(f"{path} is damaged or no adversarial set ({what}); run attack.py again") from error
        if set(tensors) != set(DTYPES):
            odd = ", ".join(sorted(set(tensors) ^ set(DTYPES)))
            raise UserError(f"{path} is no adversarial set: its tensors differ in {odd}")
        try:
            return cls(**tensors, metadata=metadata)
        except (TypeError, ValueError) as error:
            raise UserError(f"{path} is no valid adversarial set: {error}") from error

    def _tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "metadata"}


def _plain_metadata(metadata: Any) -> dict[str, Any]:
    """A copy as JSON gives it back, so that what is saved is what is loaded."""
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata: expected a dict, got {type(metadata).__name__}")
    missing = [key for key in METADATA if key not in metadata]
    if missing:
        raise ValueError(f"metadata: expected {', '.join(METADATA)}; missing: {', '.join(missing)}")
    try:
        text = json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"metadata: expected plain JSON values ({error})") from error
    if 2 * len(text) > MAX_HEADER:
        raise ValueError(f"metadata: expected at most {MAX_HEADER // 2} characters of JSON, got {len(text)}")
    plain = json.loads(text)
    for key in ("data", "attack"):
        if not isinstance(plain[key], dict) or not isinstance(plain[key].get("name"), str):
            raise ValueError(f"metadata: expected {key} as a mapping with a name, got {plain[key]!r}")
    if not isinstance(plain["clip"], bool):
        raise TypeError(f"metadata: expected clip as a bool, got {plain['clip']!r}")
    if plain["source"] is not None and not isinstance(plain["source"], dict):
        raise TypeError(f"metadata: expected source as a mapping or None, got {plain['source']!r}")
    return plain


def _check_shapes(item: AdversarialSet) -> None:
    shape = item.inputs.shape
    if len(shape) != 4 or 0 in shape[1:]:
        raise ValueError(f"inputs: expected shape (N, C, H, W), got {tuple(shape)}")
    if item.adv_inputs.shape != shape:
        raise ValueError(f"adv_inputs: expected the shape of inputs {tuple(shape)}, got {tuple(item.adv_inputs.shape)}")
    for name in DTYPES:
        value = getattr(item, name)
        if name not in ("inputs", "adv_inputs") and value.shape != shape[:1]:
            raise ValueError(f"{name}: expected shape ({shape[0]},), got {tuple(value.shape)}")


def _check_values(item: AdversarialSet) -> None:
    least = {"labels": 0, "targets": -1, "indices": 0, "num_forwards": 0, "num_backwards": 0}
    for name, bound in least.items():
        value = getattr(item, name)
        if len(value) and int(value.min()) < bound:
            raise ValueError(f"{name}: expected values of at least {bound}, got {int(value.min())}")
    wrong = torch.isfinite(item.distortion) != item.success
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"distortion: expected finite exactly where success, got {float(item.distortion[row])} "
            f"with success {bool(item.success[row])} in row {row}"
        )
    if bool((torch.isnan(item.distortion) | (item.distortion < 0)).any()):
        raise ValueError(
            "distortion: expected values of at least 0 (inf where the attack failed), got a negative or nan"
        )
    if bool((item.c < 0).any()):
        raise ValueError("c: expected values of at least 0 (inf: already there, nan: none), got a negative one")


def _check_images(item: AdversarialSet) -> None:
    """Ranges, and that each row's distortion is the one its images have."""
    pixels = math.prod(item.inputs.shape[1:])
    for rows in _blocks(len(item)):
        inputs, adv_inputs, success = item.inputs[rows], item.adv_inputs[rows], item.success[rows]
        _check_range("inputs", inputs, boxed=True)
        _check_range("adv_inputs", adv_inputs, boxed=item.metadata["clip"])
        if not torch.equal(adv_inputs[~success], inputs[~success]):
            raise ValueError("adv_inputs: expected the inputs in rows that failed, got other images")
        measured = (adv_inputs - inputs).flatten(1).double().square().sum(1).div(pixels).sqrt()[success]
        stated = item.distortion[rows][success].double()
        wrong = (measured - stated).abs() > 1e-6 + 1e-3 * measured  # float32 pixels near 1 are 6e-8 apart
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"distortion: expected the RMS of adv_inputs - inputs, {float(measured[row]):.6g}, "
                f"got {float(stated[row]):.6g} in row {rows.start + int(success.nonzero()[row])}"
            )


def _check_range(name: str, images: Tensor, *, boxed: bool) -> None:
    least, most = (float(bound) for bound in torch.aminmax(images))
    if not (math.isfinite(least) and math.isfinite(most)):  # aminmax hands nan on
        raise ValueError(f"{name}: expected finite pixels, got nan or inf")
    if boxed and (least < 0 or most > 1):
        raise ValueError(f"{name}: expected pixels in [0, 1], got [{least:.6g}, {most:.6g}]")


def _blocks(length: int) -> Iterator[slice]:
    return (slice(start, min(start + ROWS, length)) for start in range(0, length, ROWS))


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without shared memory (safetensors refuses it): inputs may be adv_inputs where nothing was found."""
    seen: set[int] = set()
    separate = {}
    for name, value in tensors.items():
        memory = value.untyped_storage().data_ptr()
        separate[name] = value.clone() if memory in seen else value
        seen.add(memory)
    return separate


def _header(metadata: dict[str, Any], digest: str) -> str:
    # the digest comes last, so that it is found from the end whatever the metadata holds
    body = json.dumps({"format": FORMAT, "metadata": metadata}, sort_keys=True, separators=(",", ":"))
    return f'{body[:-1]},"sha256":"{digest}"}}'


def _seal(path: Path) -> None:
    """Put the file's digest in the place that its header keeps for it, and the file on the disk."""
    with open(path, "r+b") as file:
        _, place = _find_digest(_read_header(file, path), path)
        file.seek(0)
        sealed = _digest(file, place)
        file.seek(place)
        file.write(sealed.encode())
        file.flush()
        os.fsync(file.fileno())


def _verified_metadata(path: Path) -> Any:
    """The metadata of a file of which every byte is as it was written. Reads the header and streams the rest."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file; expected an adversarial set (set.safetensors)")
    with open(path, "rb") as file:
        header = _read_header(file, path)
        entry = _entry(header, path)
        digest, place = _find_digest(header, path)
        file.seek(0)
        if _digest(file, place) != digest:
            raise UserError(f"{path} was changed or damaged since it was written (sha256 differs); run attack.py again")
    return entry.get("metadata")


def _read_header(file: Any, path: Path) -> bytes:
    """The header's JSON bytes: at 8, after a little-endian length (the safetensors format)."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    if len(start) < 8:
        what = "is empty" if size == 0 else f"has only {size} bytes"
        raise UserError(f"{path} {what}: no adversarial set; run attack.py again")
    (length,) = struct.unpack("<Q", start)
    if length > size - 8:
        raise UserError(f"{path} is truncated or no adversarial set: its header asks for more than its {size} bytes")
    if length > MAX_HEADER:
        raise UserError(f"{path} is no adversarial set: expected a header of at most {MAX_HEADER} bytes, got {length}")
    return file.read(length)


def _entry(header: bytes, path: Path) -> dict[str, Any]:
    try:
        entry = json.loads(json.loads(header)["__metadata__"][KEY])
        version = entry["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is no adversarial set of this project, or damaged; expected one of attack.py"
        ) from error
    if version != FORMAT:
        by = entry["metadata"].get("version") if isinstance(entry.get("metadata"), dict) else None
        raise UserError(
            f"{path} was written by another version of the project ({by}, format {version}); "
            f"this one reads format {FORMAT}: run attack.py again"
        )
    return entry


def _find_digest(header: bytes, path: Path) -> tuple[str, int]:
    """(digest, its offset in the file): the last one in the header."""
    found = list(re.finditer(rb'\\"sha256\\":\\"([0-9a-f]{64})\\"\}"', header))
    if not found:
        raise UserError(f"{path} carries no sha256: damaged, or no adversarial set of this project")
    return found[-1].group(1).decode(), 8 + found[-1].start(1)


def _digest(file: Any, place: int) -> str:
    """sha256 of the file from its start, with the 64 bytes at `place` as zeros."""
    digest = hashlib.sha256(file.read(place))
    file.read(len(UNSEALED))
    digest.update(UNSEALED.encode())
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()

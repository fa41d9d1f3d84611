"""Adversarial sets, in memory and as one file: the contract between crafting and analysing.

On disk a set is a safetensors file, which cannot run code when it is read, with a sha256 over every byte
(`intriguing.storage.safetensors_file`), so a byte that changed anywhere is found at load.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from intriguing import __version__
from intriguing.attacks import AttackResult
from intriguing.commands import command_name
from intriguing.errors import UserError, shown
from intriguing.storage import safetensors_file
from intriguing.storage.safetensors_file import MAX_HEADER

FORMAT = 1  # raised when a file of before can no longer be read
KEY = "adversarial_set"  # the header's one metadata entry: one entry has one order, so equal sets are equal files
ROWS = 4096  # rows looked at together: temporaries stay small for any N

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
OPTIONAL = {"unrounded_distortion": torch.float32}
KINDS = {"amplify": int | float | None, "clip": bool, "seed": int | None, "study": str | None, "version": str}
SOURCE = {"name": str, "label": str, "split": str, "seed": int}
_DEFAULTS: dict[str, Any] = {
    "source": None,
    "data": {"name": "images"},
    "attack": {"name": "attack"},
    "amplify": None,
    "seed": None,
    "study": None,
}
METADATA = ("source", "data", "attack", "amplify", "clip", "seed", "study", "version")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AdversarialSet:
    """N images, their adversarial versions and their origin, on the CPU; checked when it is made.

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
        num_forwards: (N,) int64, forward passes spent on the image; -1 where they were not counted.
        num_backwards: (N,) int64, backward passes.
        unrounded_distortion: (N,) float32, distortion of the example before it was moved to the grid of ``levels``;
            inf where there was none. None for attacks without a grid.
        metadata: Plain values: source (name, label, checkpoint_sha256, split, seed; None for Gaussian noise), data
            (name, subset; of images in folders also classes, in the order of the labels, and files, a digest), attack
            (name and all its settings), amplify (None, or the per-pixel RMS scaled to), clip, seed, study, version.

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
    unrounded_distortion: Tensor | None = None

    def __post_init__(self) -> None:
        for name, dtype in (DTYPES | OPTIONAL).items():
            value = getattr(self, name)
            if value is None and name in OPTIONAL:
                continue
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

    def __repr__(self) -> str:
        source, found = self.metadata["source"], self.distortion[self.success].double()
        made = str(self.metadata["attack"]["name"]) + (f" of {source['label']}" if source and "label" in source else "")
        size = f", mean distortion {float(found.mean()):.4g}" if len(found) else ""
        shape = tuple(self.inputs.shape[1:])
        return f"AdversarialSet({made}: {len(found)} of {len(self)} images of shape {shape} succeeded{size})"

    @classmethod
    def from_result(
        cls,
        result: AttackResult,
        inputs: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        metadata: dict[str, Any] | None = None,
        indices: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> AdversarialSet:
        """Make the set of any attack's result; images and distances become float32.

        Args:
            result: the result; its ``c`` becomes nan where the attack has none.
            inputs: (N, C, H, W) originals in [0, 1]; None: those that the result holds.
            labels: (N,) true classes; None: those that the result holds.
            metadata: see the class; what is missing is filled in: no source, data named "images", an attack named
                "attack", and whether the images lie in [0, 1].
            indices: (N,) places of the originals in their data set; None: 0 to N-1.
            targets: (N,) classes aimed at; None: those that the result holds, or -1 for each.

        Raises:
            TypeError, ValueError: see the class; or the result holds no inputs or no labels and none are given.

        Example:
            >>> import torch
            >>> from intriguing.attacks import nearest
            >>> def network(images):  # class 1 where the first pixel is above 0.5
            ...     first = images.flatten(1)[:, 0]
            ...     return torch.stack([0.5 - first, first - 0.5], dim=1)
            >>> result = nearest(network, torch.full((2, 1, 2, 2), 0.2), labels=torch.tensor([0, 0]))
            >>> len(AdversarialSet.from_result(result))
            2
        """
        inputs, labels = result.inputs if inputs is None else inputs, result.labels if labels is None else labels
        targets = result.targets if targets is None else targets
        for name, value in (("inputs", inputs), ("labels", labels)):
            if value is None:
                raise ValueError(f"{name}: the result does not hold them; give {name}=")
        assert inputs is not None and labels is not None
        adv_inputs = result.adv_inputs.detach().float()
        boxed = len(adv_inputs) == 0 or bool(((adv_inputs >= 0) & (adv_inputs <= 1)).all())
        c = torch.full_like(result.distortion, torch.nan) if result.c is None else result.c
        return cls(
            inputs=inputs.float(),
            adv_inputs=adv_inputs,
            labels=labels.long(),
            targets=torch.full_like(labels, -1, dtype=torch.int64) if targets is None else targets.long(),
            indices=torch.arange(len(inputs)) if indices is None else indices,
            success=result.success,
            distortion=result.distortion.float(),
            c=c.float(),
            num_forwards=result.num_forwards,
            num_backwards=result.num_backwards,
            unrounded_distortion=None if result.unrounded_distortion is None else result.unrounded_distortion.float(),
            metadata=_DEFAULTS | {"clip": boxed, "version": __version__} | (metadata or {}),
        )

    def save(self, path: Path | str) -> None:
        """Write the set to one file, which holds the old content or the whole new one at any moment.

        Equal sets give equal files.

        Raises:
            UserError: the folder is missing or not writable, or the disk is full.
        """
        safetensors_file.save(self._tensors(), path, KEY, {"format": FORMAT, "metadata": self.metadata})

    @classmethod
    def load(cls, path: Path | str, *, sha256: str | None = None) -> AdversarialSet:
        """Read a set in one pass over its file, and check every byte. Nothing in the file is run.

        Args:
            path: the file.
            sha256: digest of the file that its run recorded; None if no run did.

        Raises:
            UserError: missing, empty, truncated, changed, of another kind or of another version of the project.
        """
        entry, tensors = safetensors_file.load(path, KEY, _check_format, what="adversarial set", recorded=sha256)
        metadata: Any = entry.get("metadata")
        if odd := (set(tensors) - set(OPTIONAL)) ^ set(DTYPES):
            odd = ", ".join(sorted(odd))
            raise UserError(f"{path} is no adversarial set: its tensors differ in {shown(odd)}")
        try:
            return cls(**tensors, metadata=metadata)
        except (TypeError, ValueError) as error:
            raise UserError(f"{path} is no valid adversarial set: {error}") from error

    def _tensors(self) -> dict[str, Tensor]:
        columns = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "metadata"}
        return {name: column for name, column in columns.items() if column is not None}


def _check_format(entry: dict[str, Any], path: Path) -> None:
    if (written := entry.get("format")) != FORMAT:
        metadata = entry.get("metadata")
        by = metadata.get("version") if isinstance(metadata, dict) else None
        raise UserError(
            f"{path} was written in format {shown(written)} (version {shown(by)} of the project); this version, "
            f"{__version__}, reads format {FORMAT}: run {command_name('attack')} again, or read it with the version "
            "that wrote it"
        )


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
    source = plain["source"]
    if source is not None and not isinstance(source, dict):
        raise TypeError(f"metadata: expected source as a mapping or None, got {shown(source)}")
    kinds = [(plain, key, kind) for key, kind in KINDS.items()]
    kinds += [(source, key, kind) for key, kind in SOURCE.items() if source and key in source]
    for mapping, key, kind in kinds:
        if not isinstance(mapping[key], kind):
            raise TypeError(f"metadata: expected {key} as {kind}, got {shown(mapping[key])}")
    return plain


def _check_shapes(item: AdversarialSet) -> None:
    shape = item.inputs.shape
    if len(shape) != 4 or 0 in shape[1:]:
        raise ValueError(f"inputs: expected shape (N, C, H, W), got {tuple(shape)}")
    if item.adv_inputs.shape != shape:
        raise ValueError(f"adv_inputs: expected the shape of inputs {tuple(shape)}, got {tuple(item.adv_inputs.shape)}")
    for name in DTYPES | OPTIONAL:
        value = getattr(item, name)
        if name not in ("inputs", "adv_inputs") and value is not None and value.shape != shape[:1]:
            raise ValueError(f"{name}: expected shape ({shape[0]},), got {tuple(value.shape)}")


def _check_values(item: AdversarialSet) -> None:
    least = {"labels": 0, "targets": -1, "indices": 0, "num_forwards": -1, "num_backwards": -1}
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
    for name, size in (("distortion", item.distortion), ("unrounded_distortion", item.unrounded_distortion)):
        if size is not None and not bool((size >= 0).all()):  # a comparison with nan is false
            raise ValueError(
                f"{name}: expected values of at least 0 (inf where the attack failed), got a negative or nan"
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
        measured = (adv_inputs.double() - inputs.double()).flatten(1).square().sum(1).div(pixels).sqrt()[success]
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

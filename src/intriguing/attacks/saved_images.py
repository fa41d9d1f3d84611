"""Write adversarial examples as PNG files, and judge the rounded images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from intriguing.attacks.levels import to_grid
from intriguing.errors import UserError
from intriguing.metrics import distortion
from intriguing.nn import evaluating, pick_output
from intriguing.storage.files import make_folder
from intriguing.storage.png_file import save_png

if TYPE_CHECKING:
    from intriguing.attacks.network import Model
    from intriguing.attacks.result import AttackResult

_BATCH = 256


@dataclass(frozen=True)
class SavedImages:
    """Describe adversarial examples that were saved as PNG files.

    Attributes:
        folder: where the files are.
        bits: bits per channel.
        num_saved: number of files.
        num_adversarial: how many of the rounded images are adversarial; None if no model judged them.
        mean_distortion: mean distortion of the examples before the rounding; None if none was saved.
        mean_distortion_saved: mean distortion of the rounded images; None if the result does not hold its inputs.
    """

    folder: Path
    bits: int
    num_saved: int
    num_adversarial: int | None
    mean_distortion: float | None
    mean_distortion_saved: float | None

    def __str__(self) -> str:
        text = f"{self.num_saved} images saved with {self.bits} bits in {self.folder}"
        if self.num_adversarial is not None:
            text += f", {self.num_adversarial} of them still adversarial"
        if self.mean_distortion is not None and self.mean_distortion_saved is not None:
            text += f"; mean distortion {self.mean_distortion:.4g} before and {self.mean_distortion_saved:.4g} after"
        return text


def save_images(result: AttackResult, folder: Path | str, *, bits: int, model: Model | None) -> SavedImages:
    """Write the successful examples of a result; see `AttackResult.save_images`."""
    if bits not in (8, 16):
        raise ValueError(f"expected bits as 8 or 16, got {bits!r}")
    rows = result.success.nonzero().squeeze(1)
    levels, folder = 2**bits, Path(folder)
    images = result.adv_inputs.detach()[rows]
    # in double precision, so that 16 bits are exact for images in half precision too
    rounded = to_grid(images.double(), levels)
    pixels = _as_pixels(rounded, levels)
    adversarial = None if model is None else _judge(result, rows, rounded.to(images.dtype), model)
    files = [folder / f"{row:06d}.png" for row in rows.tolist()]
    if there := next((file for file in files if file.exists()), None):
        raise UserError(f"{there} exists already; give another folder")
    make_folder(folder)
    for file, image in zip(files, pixels, strict=True):
        save_png(image, file)
    after = None
    if result.inputs is not None and len(rows):
        after = float(distortion(result.inputs[rows].double(), rounded).mean())
    return SavedImages(
        folder=folder,
        bits=bits,
        num_saved=len(files),
        num_adversarial=None if adversarial is None else int(adversarial.sum()),
        mean_distortion=float(result.distortion[rows].double().mean()) if len(rows) else None,
        mean_distortion_saved=after,
    )


def _as_pixels(rounded: Tensor, levels: int) -> np.ndarray:
    """Turn images on the grid into whole numbers (N, H, W, C)."""
    if rounded.dim() == 3:
        rounded = rounded[:, None]
    if rounded.dim() != 4 or rounded.shape[1] not in (1, 3):
        raise ValueError(f"expected images (N, H, W) or (N, 1 or 3, H, W) for PNG files, got {tuple(rounded.shape)}")
    if len(rounded) and (float(rounded.min()) < 0 or float(rounded.max()) > 1):
        raise ValueError("expected images in [0, 1] for PNG files, got values outside; clamp them first")
    whole = (rounded * (levels - 1)).round().movedim(1, 3).cpu().numpy()
    return whole.astype(np.uint8 if levels == 256 else np.uint16)


def _judge(result: AttackResult, rows: Tensor, images: Tensor, model: Model) -> Tensor:
    """Return whether images (M, ...), the rows of a result, are adversarial: (M,) bool."""
    classes = result.labels if result.targets is None else result.targets
    if classes is None:
        raise ValueError("expected a result with labels or targets to judge the images by; leave model out")
    found = []
    with evaluating(model), torch.no_grad():
        for part, wanted in zip(images.split(_BATCH), classes[rows].split(_BATCH), strict=True):
            answers = pick_output(model(part)).argmax(dim=1)
            found.append(answers != wanted if result.targets is None else answers == wanted)
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.bool)

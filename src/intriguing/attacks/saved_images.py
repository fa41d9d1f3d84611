"""Write adversarial examples as PNG files, and judge the rounded images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from intriguing.attacks.levels import to_grid
from intriguing.errors import UserError
from intriguing.metrics import distortion
from intriguing.storage.files import make_folder
from intriguing.storage.png_file import save_png


@dataclass(frozen=True)
class SavedImages:
    """Describe adversarial examples that were saved as PNG files.

    Attributes:
        folder: where the files are.
        bits: bits per channel.
        num_saved: number of files.
        num_adversarial: how many of the rounded images are adversarial; None if no model judged them.
        mean_distortion: mean distortion of the examples before the rounding; None if none was saved, or the
            unperturbed images are not known.
        mean_distortion_saved: mean distortion of the rounded images.
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


def save_images(
    images: Tensor,
    names: Sequence[int],
    folder: Path,
    *,
    bits: int,
    inputs: Tensor | None,
    judge: Callable[[Tensor], Tensor] | None,
) -> SavedImages:
    """Write images as PNG files; see `AttackResult.save_images`.

    Args:
        images: (M, ...) in [0, 1].
        names: M numbers, which name the files.
        folder: made if it is missing.
        bits: 8 or 16.
        inputs: (M, ...), the unperturbed images; None if they are not known.
        judge: returns whether images (M, ...) are adversarial, (M,) bool; None does not judge them.
    """
    if bits not in (8, 16):
        raise ValueError(f"expected bits as 8 or 16, got {bits!r}")
    levels = 2**bits
    # in double precision, so that 16 bits are exact for images in half precision too
    rounded = to_grid(images.double(), levels)
    pixels = _as_pixels(rounded, levels)
    adversarial = None if judge is None else judge(rounded.to(images.dtype))
    files = [folder / f"{name:06d}.png" for name in names]
    if there := next((file for file in files if file.exists()), None):
        raise UserError(f"{there} exists already; give another folder")
    make_folder(folder)
    for file, image in zip(files, pixels, strict=True):
        save_png(image, file)
    before = after = None
    if inputs is not None and len(images):
        before, after = (float(distortion(inputs.double(), one.double()).mean()) for one in (images, rounded))
    return SavedImages(
        folder=folder,
        bits=bits,
        num_saved=len(files),
        num_adversarial=None if adversarial is None else int(adversarial.sum()),
        mean_distortion=before,
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

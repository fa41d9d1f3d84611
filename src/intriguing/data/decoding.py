"""Decode image files of any type to pixels in [0, 1].

Every image becomes upright as its EXIF entry says; of an animation or a file of several pages the first image is read.
Black and white are those of the file's type, never those of the image: 0 and 255 in 8 bits, 0 and 65535 in 16 bits and
in whole numbers of 32 bits, 0 and 4095 in 12 bits, 0 and 1 in floating point. An image with values beyond them is
refused by name. Transparent parts show ``BACKGROUND``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageOps

from intriguing.errors import UserError, error_message

GREY_MODES = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"))  # types without colour
BACKGROUND = (255, 255, 255)  # red, green, blue behind transparent pixels: white, as a page shows them


def decode(file: str) -> Image.Image:
    """Read one image file, upright and without transparency.

    Returns:
        An image of mode L (one channel) or RGB; for an image of more than 8 bits of mode F, one channel in [0, 1].

    Raises:
        UserError: The file is no image, is damaged, or has pixels outside the range of its type.
    """
    try:
        with Image.open(file) as image:
            tags = getattr(image, "tag_v2", {})
            deep = {"bits": tags.get(258), "white_is_zero": tags.get(262) == 0}  # BitsPerSample, Photometric of a TIFF
            ImageOps.exif_transpose(image, in_place=True)
            return grey_or_rgb(image, file, **deep)
    except UserError:
        raise
    except Exception as error:  # decoders of damaged files raise errors of many kinds
        why = error_message(error)
        raise UserError(f"{file} is not an image that can be read: delete it or replace it ({why})") from error


def grey_or_rgb(image: Image.Image, file: str, *, bits: Any = None, white_is_zero: bool = False) -> Image.Image:
    """Convert an image to one channel where its type has no colour, to three otherwise; transparent parts show white.

    Args:
        image: Of any mode.
        file: The image in words, for messages.
        bits: BitsPerSample of a TIFF.
        white_is_zero: Whether a TIFF of more than 8 bits stores white as 0.

    Returns:
        An image of mode L or RGB; of more than 8 bits of mode F, in [0, 1].

    Raises:
        UserError: Pixels outside the range of the type.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _unit_range(image, file, bits=bits, white_is_zero=white_is_zero)
    if not image.has_transparency_data:
        return image.convert("L" if image.mode in GREY_MODES else "RGB")
    above = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", above.size, (*BACKGROUND, 255)), above)
    return flat.convert("L" if image.mode in GREY_MODES else "RGB")


def _unit_range(image: Image.Image, file: str, *, bits: Any, white_is_zero: bool) -> Image.Image:
    """Divide an image of more than 8 bits and one channel by the white of its type."""
    stored = np.asarray(image)
    kind, white = ("floating point", 1) if image.mode == "F" else ("whole numbers", 4095 if bits == (12,) else 65535)
    low, high = float(stored.min()), float(stored.max())
    if not (low >= 0 and high <= white):  # also where they are nan
        raise UserError(
            f"{file} has pixels from {low:g} to {high:g}, but an image in {kind} is read from 0 (black) to {white} "
            "(white): scale its pixels, or store it in 8 bits"
        )
    pixels = stored.astype(np.float32) / np.float32(white)
    if white_is_zero:
        pixels = 1 - pixels
    if isinstance(clear := image.info.get("transparency"), int):  # the one grey that a PNG file says is transparent
        pixels[stored == clear] = BACKGROUND[0] / 255
    return Image.fromarray(pixels)

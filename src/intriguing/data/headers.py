"""Read the sizes and types of image files from their headers, without decoding a pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image

from intriguing.data.announcing import announced
from intriguing.data.decoding import GREY_MODES
from intriguing.errors import UserError, error_message

SHOWN = 4  # sizes in a message
_ORIENTATION = 0x0112  # EXIF's entry; from 5 on height and width change places
_SIDEWAYS = 5


@lru_cache(maxsize=8)
def size_of(files: Sequence[str], folder: str) -> tuple[int, int]:
    """Return the height and width that all images have, upright as EXIF says.

    Args:
        files: Their paths.
        folder: Where they lie, for messages.

    Raises:
        UserError: They have several, or a file is no image.
    """
    sizes = Counter(_size(file) for file in announced(files, f"reading the sizes of images in {folder}", len(files)))
    if len(sizes) > 1:
        common = [f"{width}x{height} ({count:,})" for (height, width), count in sizes.most_common(SHOWN)]
        more = f" and {len(sizes) - SHOWN} more" if len(sizes) > SHOWN else ""
        raise UserError(
            f"{folder} holds images of several sizes, {', '.join(common)}{more}: give data.size=64 or the like, the "
            "height and width to which all are scaled and cropped"
        )
    return next(iter(sizes))


@lru_cache(maxsize=8)
def channels_of(files: Sequence[str], folder: str) -> int:
    """Return 1 where no file has colour or transparency by its type, else 3; arguments as for `size_of`.

    It ends at the first file of colour.
    """
    for file in announced(files, f"reading the types of images in {folder}", len(files)):
        with _opened(file) as image:
            if image.mode not in GREY_MODES:
                return 3
    return 1


def _size(file: str) -> tuple[int, int]:
    with _opened(file) as image:
        width, height = image.size
        sideways = image.getexif().get(_ORIENTATION, 1) >= _SIDEWAYS
    return (width, height) if sideways else (height, width)


def _opened(file: str) -> Image.Image:
    try:
        return Image.open(file)
    except Exception as error:  # decoders of damaged files raise errors of many kinds
        why = error_message(error)
        raise UserError(f"{file} is not an image that can be read: delete it or replace it ({why})") from error

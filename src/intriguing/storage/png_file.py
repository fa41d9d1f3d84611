"""Write PNG files with 8 or 16 bits per channel, without loss.

Pillow and torchvision write colour images with 8 bits only.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from intriguing.storage.files import write_atomic

_COLOUR_TYPE = {1: 0, 3: 2}  # greyscale, RGB


def save_png(pixels: np.ndarray, path: Path | str) -> None:
    """Write one image.

    Args:
        pixels: (H, W, C) of dtype uint8 or uint16, with 1 or 3 channels.
        path: the file, which is whole at any moment.

    Raises:
        ValueError: the shape or the dtype is another one.
        UserError: the folder is missing or not writable, or the disk is full.

    Source: PNG specification, third edition (W3C, 2025), sections 5, 7.2 and 11.2.
    """
    if pixels.ndim != 3 or pixels.shape[2] not in _COLOUR_TYPE or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected pixels (H, W, 1 or 3) as uint8 or uint16, got {pixels.shape}, {pixels.dtype}")
    height, width, channels = pixels.shape
    depth = 8 * pixels.dtype.itemsize
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    length = len(rows) // height
    lines = b"".join(b"\0" + rows[start : start + length] for start in range(0, len(rows), length))  # 0: no filter
    header = struct.pack(">IIBBBBB", width, height, depth, _COLOUR_TYPE[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    write_atomic(path, b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

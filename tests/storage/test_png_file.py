"""PNG files hold exactly the numbers that were written."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from intriguing.storage.png_file import save_png


def decoded(path: Path) -> np.ndarray:
    """Read an unfiltered PNG of one chunk by the specification, with 8 or 16 bits: (H, W, C)."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, {}
    while place < len(content):
        (length,), kind = struct.unpack(">I", content[place : place + 4]), content[place + 4 : place + 8]
        chunks[kind] = content[place + 8 : place + 8 + length]
        place += 12 + length
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [0, 0, 0] and chunks[b"IEND"] == b""
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    channels = {0: 1, 2: 3}[colour]
    return rows[:, 1:].copy().view(">u2" if depth == 16 else "u1").reshape(height, width, channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_file_holds_the_pixels(tmp_path: Path, channels: int, dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(np.iinfo(dtype).max + 1, size=(5, 7, channels)).astype(dtype)
    pixels[0, 0], pixels[0, 1] = 0, np.iinfo(dtype).max
    save_png(pixels, tmp_path / "image.png")
    np.testing.assert_array_equal(decoded(tmp_path / "image.png"), pixels)
    with Image.open(tmp_path / "image.png") as image:  # another reader, which has 8 bits only for colour
        image.load()
        read = np.asarray(image)
    expected = pixels.squeeze() if dtype is np.uint8 or channels == 1 else pixels >> 8
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("pixels", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 1))])
def test_other_pixels_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected pixels"):
        save_png(pixels, tmp_path / "image.png")
    assert not [*tmp_path.iterdir()]

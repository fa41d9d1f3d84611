"""The sizes and channels of images in folders: their own where all are alike, asked for where they are not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from intriguing.checkpoints import load_model
from intriguing.data import announcing, open_images
from intriguing.data.folders import image_folder
from intriguing.errors import UserError


def paint(root: Path, sizes: list[tuple[int, int]], mode: str = "RGB", part: str = "train") -> Path:
    """One image of each size, width before height, in each of two classes."""
    for name, level in (("dark", 20), ("light", 200)):
        (root / part / name).mkdir(parents=True, exist_ok=True)
        for number, size in enumerate(sizes):
            Image.new(mode, size, level if mode == "L" else (level, 5 * number, 9)).save(
                root / part / name / f"{number}.png"
            )
    return root


def test_images_of_one_size_keep_it_pixel_by_pixel(tmp_path: Path) -> None:
    paint(tmp_path, [(7, 5)] * 3), paint(tmp_path, [(7, 5)], part="test")
    noise = torch.randint(0, 256, (5, 7, 3), dtype=torch.uint8)
    Image.fromarray(noise.numpy()).save(tmp_path / "train" / "dark" / "0.png")
    data = open_images(name="image_folder", folder=str(tmp_path))
    assert data.input_shape == (3, 5, 7) and data.description["size"] == [5, 7]
    assert torch.equal(data.subset("train").take().images[0] * 255, noise.permute(2, 0, 1).float())
    again = open_images(**data.description | {"split": "full"})
    assert again.input_shape == (3, 5, 7)


def test_images_that_lie_on_their_side_count_as_they_are_shown(tmp_path: Path) -> None:
    paint(tmp_path, [(7, 5)])
    turned = Image.new("RGB", (5, 7))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "train" / "dark" / "0.jpg", exif=turned.getexif())
    assert image_folder(tmp_path).input_shape == (3, 5, 7)


def test_images_of_several_sizes_want_one(tmp_path: Path) -> None:
    paint(tmp_path, [(6, 6), (6, 6), (8, 6)]), paint(tmp_path, [(6, 6)], part="test")
    with pytest.raises(UserError, match=r"several sizes, 6x6 \(6\), 8x6 \(2\): give data\.size=64 or the like"):
        image_folder(tmp_path)
    assert image_folder(tmp_path, size=4).input_shape == (3, 4, 4)
    folders = image_folder(tmp_path, size=[4, 6])
    assert folders.select("full", torch.arange(6)).take().images.shape == (6, 3, 4, 6)
    with pytest.raises(UserError, match=r"data\.resize at least as much, got \[4, 6\] and 5"):
        image_folder(tmp_path, size=[4, 6], resize=5)


def test_a_resize_below_the_own_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.resize=4 is less than the images' own size, \[6, 6\]"):
        image_folder(paint(tmp_path, [(6, 6)]), resize=4)


def test_files_without_colour_have_one_channel(tmp_path: Path) -> None:
    paint(tmp_path / "grey", [(4, 4)] * 2, "L"), paint(tmp_path / "mixed", [(4, 4)] * 2, "L")
    paint(tmp_path / "mixed", [(4, 4)], part="test")
    assert image_folder(tmp_path / "grey").input_shape == (1, 4, 4)
    grey = image_folder(tmp_path / "grey", channels=3).select("full", torch.arange(4)).take().images
    assert grey.shape == (4, 3, 4, 4) and torch.equal(grey[:, 0], grey[:, 2])
    assert image_folder(tmp_path / "mixed").input_shape == (3, 4, 4)
    one = image_folder(tmp_path / "mixed", channels=1).select("test", torch.arange(2)).take().images
    assert one.shape == (2, 1, 4, 4)
    expected = round(0.299 * 200 + 0.114 * 9) / 255  # ITU-R 601, as PIL rounds it
    assert float(one[1, 0, 0, 0]) == pytest.approx(expected, abs=1 / 255)


def test_a_network_keeps_the_channels_it_was_trained_on(tmp_path: Path, run_script: Callable[..., tuple]) -> None:
    folder = paint(paint(tmp_path / "grey", [(6, 8)] * 4, "L"), [(6, 8)], "L", "test")
    given = ["data=image_folder", f"data.folder={folder}", "model=fc10", "trainer.max_epochs=1", "logger=csv"]
    for name, more in (("grey", []), ("colour", ["data.channels=3"])):
        status, _, err = run_script("train.py", *given, *more, f"name={name}")
        assert status == 0, err
    shapes = {
        name: load_model(tmp_path / "runs" / "train" / name / "model.ckpt").input_shape for name in ("grey", "colour")
    }
    assert shapes == {"grey": (1, 8, 6), "colour": (3, 8, 6)}
    attack = [f"checkpoints={tmp_path}/runs/train/colour", "limit=2", "logger=csv"]
    status, _, err = run_script("attack.py", *attack, "data.channels=1")
    assert status == 1 and "trained on images of data.channels=3, so data.channels=1 cannot be" in err
    status, _, err = run_script("attack.py", *attack)
    assert status == 0, err
    (folder / "test" / "dark" / "9.png").write_bytes((folder / "test" / "dark" / "0.png").read_bytes())
    Image.new("L", (9, 9)).save(folder / "train" / "dark" / "9.png")
    status, _, err = run_script("train.py", *given, "name=other")
    assert status == 1 and "several sizes, 6x8 (11), 9x9 (1): give data.size=" in err


def test_a_long_pass_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(announcing.time, "monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO):
        assert list(announcing.announced("abcdefgh", "reading", 8)) == list("abcdefgh")
    assert [record.message for record in caplog.records] == ["reading: 3 of 8", "reading: 6 of 8"]

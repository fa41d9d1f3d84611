"""Image files as users have them: what their pixels become, which files are read, and which are refused by name."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from intriguing.data import open_images, settings
from intriguing.data.decoding import BACKGROUND
from intriguing.data.folders import image_folder
from intriguing.errors import UserError

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
LEFT_WHITE = np.zeros((8, 8, 3), np.uint8)
LEFT_WHITE[:, :4] = 255


def read(folder: Path, size: int = 8) -> Tensor:
    """The one image below ``folder/test``."""
    return image_folder(folder, size=size, channels=3).select("test", torch.arange(1)).read(torch.arange(1))[0][0]


def place(folder: Path, name: str) -> Path:
    """Where an image of that name goes; the folder is made."""
    file = folder / "test" / "a" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a.png", (RAMP * 255).round().astype(np.uint8)),
        ("a.png", (RAMP * 65535).astype(np.uint16)),
        ("a.tif", (RAMP * 65535).astype(np.uint16)),
        ("a.TIFF", (RAMP * 65535).astype(">u2")),
        ("a.pgm", (RAMP * 65535).astype(np.uint16)),
        ("a.jp2", (RAMP * 65535).astype(np.uint16)),
        ("a.tif", (RAMP * 65535).astype(np.int32)),
        ("a.tif", RAMP.astype(np.float32)),
    ],
)
def test_black_and_white_are_those_of_the_type(tmp_path: Path, name: str, stored: np.ndarray) -> None:
    Image.fromarray(stored).save(place(tmp_path, name))
    image = read(tmp_path)
    assert image.dtype == torch.float32 and image.shape == (3, 8, 8)
    assert torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])
    scale = 1 if stored.dtype.kind == "f" else 255 if stored.dtype == np.uint8 else 65535
    expected = torch.from_numpy(stored.astype(np.float64) / scale)
    torch.testing.assert_close(image[0].double(), expected, atol=1e-6, rtol=0)


def test_sixteen_bits_are_resized_and_cropped_like_eight(tmp_path: Path) -> None:
    shape = np.random.default_rng(0).integers(0, 256, (40, 24))
    images = []
    for name, stored in (("eight", shape.astype(np.uint8)), ("sixteen", (shape * 257).astype(np.uint16))):
        Image.fromarray(stored).save(place(tmp_path / name, "a.png"))
        images.append(read(tmp_path / name, size=10))
    torch.testing.assert_close(images[0], images[1], atol=1 / 255, rtol=0)  # eight bits are rounded after resizing


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (RAMP.astype(np.float32) * 255, r"pixels from 0 to 255, but .* floating point .* 0 \(black\) to 1 \(white\)"),
        (RAMP.astype(np.float32) - 0.5, r"pixels from -0\.5 to 0\.5"),
        (np.full((8, 8), np.nan, np.float32), r"pixels from nan to nan"),
        ((RAMP * 1e6).astype(np.int32), r"pixels from 0 to 1e\+06, but .* whole numbers .* 65535 \(white\)"),
        (-(RAMP * 9).astype(np.int32), r"pixels from -9 to 0"),
    ],
)
def test_pixels_outside_the_range_of_their_type_are_refused_by_name(
    tmp_path: Path, stored: np.ndarray, words: str
) -> None:
    Image.fromarray(stored).save(place(tmp_path, "deep.tif"))
    with pytest.raises(UserError, match=rf"test/a/deep\.tif has {words}"):
        read(tmp_path)


def test_a_tiff_file_whose_zero_is_white_is_not_read_as_its_negative(tmp_path: Path) -> None:
    stored = (RAMP * 65535).astype(np.uint16)
    Image.fromarray(stored).save(place(tmp_path, "a.tif"), tiffinfo={262: 0})
    torch.testing.assert_close(read(tmp_path)[0].double(), torch.from_numpy(1 - stored / 65535), atol=1e-6, rtol=0)


def _palette() -> Image.Image:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (4, 0, 8, 8))
    return image


# image, how it is saved, the colour of its left half and of its right half
COLOURS: dict[str, tuple[Callable[[], Image.Image], str, dict, tuple, tuple]] = {
    "one bit": (lambda: Image.fromarray(LEFT_WHITE[..., 0] > 0), "a.png", {}, (255,) * 3, (0,) * 3),
    "grey": (lambda: Image.fromarray(LEFT_WHITE[..., 0]), "a.jpg", {}, (255,) * 3, (0,) * 3),
    "palette": (_palette, "a.png", {}, (10, 20, 30), (200, 100, 50)),
    "a transparent colour of a palette": (_palette, "a.png", {"transparency": 1}, (10, 20, 30), BACKGROUND),
    "a palette of opacities": (_palette, "a.png", {"transparency": bytes([255, 0])}, (10, 20, 30), BACKGROUND),
    "a transparent colour": (
        lambda: Image.fromarray(LEFT_WHITE // 2),
        *("a.png", {"transparency": (0, 0, 0)}, (127,) * 3, BACKGROUND),
    ),
    "a transparent grey": (
        lambda: Image.fromarray(LEFT_WHITE[..., 0] // 2),
        *("a.png", {"transparency": 127}, BACKGROUND, (0,) * 3),
    ),
    "grey with opacity": (
        lambda: Image.merge("LA", [Image.new("L", (8, 8), 60), Image.fromarray(LEFT_WHITE[..., 0])]),
        *("a.png", {}, (60,) * 3, BACKGROUND),
    ),
    "colour with opacity": (
        lambda: Image.merge(
            "RGBA", [*Image.new("RGB", (8, 8), (9, 8, 7)).split(), Image.fromarray(LEFT_WHITE[..., 0])]
        ),
        *("a.webp", {"lossless": True, "exact": True}, (9, 8, 7), BACKGROUND),
    ),
    "half opaque": (lambda: Image.new("RGBA", (8, 8), (0, 0, 0, 51)), "a.png", {}, (204,) * 3, (204,) * 3),
    "inks": (lambda: Image.fromarray(LEFT_WHITE).convert("CMYK"), "a.jpg", {"quality": 100}, (255,) * 3, (0,) * 3),
    "an animation": (
        lambda: Image.fromarray(LEFT_WHITE),
        *("a.gif", {"save_all": True, "append_images": [Image.new("RGB", (8, 8), (255, 0, 0))]}, (255,) * 3, (0,) * 3),
    ),
    "two pages": (
        lambda: Image.fromarray(LEFT_WHITE),
        *("a.tif", {"save_all": True, "append_images": [Image.new("RGB", (8, 8), (255, 0, 0))]}, (255,) * 3, (0,) * 3),
    ),
}


@pytest.mark.parametrize("kind", COLOURS)
def test_every_kind_of_colour_becomes_what_a_page_shows(tmp_path: Path, kind: str) -> None:
    make, name, options, left, right = COLOURS[kind]
    make().save(place(tmp_path, name), **options)
    image = read(tmp_path) * 255
    for half, colour in ((image[:, :, :4], left), (image[:, :, 4:], right)):
        expected = torch.tensor(colour, dtype=torch.float32)[:, None, None].expand_as(half)
        torch.testing.assert_close(half, expected, atol=2 if name.endswith("jpg") else 1e-3, rtol=0)


def test_the_transparent_grey_of_sixteen_bits_shows_the_background(tmp_path: Path) -> None:
    stored = np.full((8, 8), 300, np.uint16)
    stored[:, 4:] = 301  # equal in the upper eight bits
    Image.fromarray(stored).save(place(tmp_path, "a.png"), transparency=301)
    image = read(tmp_path)
    torch.testing.assert_close(image[:, :, :4], torch.full((3, 8, 4), 300 / 65535))
    assert bool((image[:, :, 4:] == 1).all())


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "sixteen.png"])
@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, lambda up: up),
        (2, lambda up: up[:, ::-1]),
        (3, lambda up: up[::-1, ::-1]),
        (4, lambda up: up[::-1]),
        (5, lambda up: up.swapaxes(0, 1)),
        (6, lambda up: up[::-1].swapaxes(0, 1)),
        (7, lambda up: up[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda up: up.swapaxes(0, 1)[::-1]),
    ],
)
def test_images_are_upright_as_their_exif_entry_says(
    tmp_path: Path, name: str, orientation: int, seen: Callable[[np.ndarray], np.ndarray]
) -> None:
    stored = np.zeros((16, 16), np.uint8)
    stored[:8, :8], stored[:8, 8:] = 255, 120  # every turn and reflection is another picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray((stored * np.uint16(257)) if name == "sixteen.png" else np.stack([stored] * 3, 2))
    image.save(place(tmp_path, name), exif=exif, **({"lossless": True} if name == "a.webp" else {}))
    expected = torch.from_numpy(np.ascontiguousarray(seen(stored))).float() / 255
    torch.testing.assert_close(read(tmp_path, size=16)[0], expected, atol=0.06, rtol=0)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.tif", "a.webp", "a.bmp", "a.jp2"])
@pytest.mark.parametrize("harm", ["cut", "empty", "text", "flipped"])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, name: str, harm: str) -> None:
    file = place(tmp_path, name)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    content = bytearray(file.read_bytes())
    content[: min(40, len(content))] = bytes(byte ^ 255 for byte in content[:40]) if harm == "flipped" else content[:40]
    file.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"no image"}.get(harm, content))
    with pytest.raises(UserError, match=rf"test/a/{name} is not an image that can be read") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


# -- which files and folders are read ----------------------------------------------------------------------------------


def paint(root: Path, *files: str) -> Path:
    for i, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(root / file, format="png")
    return root


def test_what_is_no_image_is_passed_over_counted_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paint(tmp_path, "train/a/1.PNG", "train/b/1.Jpeg", "train/b/deep/er/2.webp", "train/loose.png", "test/a/1.png")
    paint(tmp_path, "test/b/1.png", "test/b/._1.png", "train/a/.hidden/2.png", "train/.ipynb_checkpoints/1.png")
    paint(tmp_path, "train/__MACOSX/1.png")
    for clutter in ("train/.DS_Store", "train/a/Thumbs.db", "test/desktop.ini", "train/a/notes.txt", "train/b/x.heic"):
        (tmp_path / clutter).write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            folders = image_folder(tmp_path, size=4)
    assert folders.classes == ("a", "b") and folders.description["counts"] == {"train": [1, 2], "test": [1, 1]}
    (said,) = [record.getMessage() for record in caplog.records]
    assert "3 files passed over" in said and "train/loose.png" in said and ".png" in said


def test_files_come_in_torchvisions_order(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    names = ["b/2.png", "b/10.png", "a/z/1.png", "a/z-/1.png", "a/z/y/1.png", "a/q.png", "B/1.png"]
    folders = image_folder(paint(tmp_path, *(f"test/{name}" for name in names)), size=4)
    theirs = ImageFolder(str(tmp_path / "test"))
    assert list(folders.classes) == theirs.classes
    assert list(zip(folders.parts["test"].files, folders.labels["test"].tolist(), strict=True)) == theirs.samples


def test_links_are_followed_unless_they_lead_nowhere_or_back(tmp_path: Path) -> None:
    elsewhere = paint(tmp_path / "elsewhere", "1.png", "2.png")
    root = paint(tmp_path / "root", "test/a/1.png")
    (root / "test" / "b").symlink_to(elsewhere, target_is_directory=True)
    (root / "test" / "a" / "2.png").symlink_to(elsewhere / "2.png")
    assert image_folder(root, size=4).description["counts"]["test"] == [2, 2]
    (root / "test" / "a" / "back").symlink_to(root / "test")
    with pytest.raises(UserError, match="a/back is a link that leads back"):
        image_folder(root, size=4)
    (root / "test" / "a" / "back").unlink()
    (root / "test" / "a" / "gone.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(UserError, match=r"a/gone\.png is a link to a file that is not there"):
        image_folder(root, size=4)


def test_names_of_classes_in_any_script_and_either_form(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("猫", "собака", "é", "x y")
    decomposed = [unicodedata.normalize("NFD", name) for name in names]
    for part, written in (("train", names), ("test", decomposed)):
        paint(tmp_path, *(f"{part}/{name}/1.png" for name in written))
    folders = image_folder(tmp_path, size=4)
    assert folders.classes == tuple(sorted(names))
    assert folders.parts["full"].digest == folders.parts["test"].digest  # however the disk stores letters
    paint(tmp_path, f"test/{names[2]}/1.png")
    with pytest.raises(UserError, match="two class folders of one name, é"):
        image_folder(tmp_path, size=4)
    with caplog.at_level(logging.WARNING):
        assert len(image_folder(paint(tmp_path / "case", "test/Cat/1.png", "test/cat/1.png"), size=4).classes) == 2
    assert "Cat and cat differ by upper and lower case alone" in caplog.text


def test_a_class_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    paint(tmp_path, "test/a/1.png", "test/caf\udce9/1.png")
    with pytest.raises(UserError, match="name of this class folder is not UTF-8"):
        image_folder(tmp_path, size=4)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["train/a/1.png", "test/a/1.png"], "holds one class, a; a classifier needs two or more"),
        (["train/a/1.png", "train/b/1.txt", "test/a/1.png"], "one folder a class, each with images: b has none"),
        (["train/1.png", "test/a/1.png"], "train must hold one folder a class, each with images: there is no such"),
        (["train/a/1.png", "train/b/1.png", "test/b/1.png", "test/c/1.png"], "same classes, but not both have a, c"),
        (["Train/a/1.png"], "neither train/ nor test/"),
    ],
)
def test_folders_that_are_no_set_of_classes_are_named(tmp_path: Path, files: list[str], words: str) -> None:
    paint(tmp_path, *files)
    with pytest.raises(UserError, match=words):
        open_images(name="image_folder", folder=str(tmp_path), size=4)


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(paint(tmp_path, "pics/test/a/1.png", "pics/test/b/1.png")))
    assert open_images(name="image_folder", folder="~/pics", size=4).num_classes == 2


def test_a_folders_part_of_a_runs_name_keeps_two_folders_apart(tmp_path: Path) -> None:
    assert settings.folder_name(tmp_path, "pics") == "pics"
    cats, dogs = (settings.folder_name(tmp_path, name) for name in ("猫", "犬"))
    assert cats != dogs and cats == settings.folder_name("/", f"{tmp_path}/猫/")
    paint(tmp_path, "pics/test/a/1.png")
    assert settings.folder_name(tmp_path / "pics", ".") == "pics"


# -- the folder that a network was trained on --------------------------------------------------------------------------


@pytest.fixture
def trained_on(tmp_path: Path) -> tuple[Path, dict]:
    """A folder of two classes, and what a checkpoint says of it."""
    folder = paint(tmp_path / "pics", *(f"{p}/{c}/{i}.png" for p in ("train", "test") for c in "ab" for i in range(3)))
    return folder, open_images(name="image_folder", folder=str(folder), size=4).description


def test_a_folder_that_moved_is_the_same_one(tmp_path: Path, trained_on: tuple[Path, dict]) -> None:
    folder, own = trained_on
    before = open_images(**own).subset("train").read(torch.arange(6))
    moved = folder.rename(tmp_path / "moved")
    after = open_images(**own | {"folder": str(moved)}).subset("train").read(torch.arange(6))
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: [one.rename(one.with_name("c")) for one in root.glob("*/a")], "it lacks a and has c besides"),
        (lambda root: paint(root, "train/c/1.png", "test/c/1.png"), "it has c besides"),
        (lambda root: [one.rename(root / f"{i}") for i, one in enumerate(root.glob("*/a"))], "it lacks a;"),
    ],
)
def test_other_classes_than_the_networks_are_refused(
    trained_on: tuple[Path, dict], change: Callable[[Path], object], words: str
) -> None:
    folder, own = trained_on
    change(folder)
    with pytest.raises(UserError, match=f"does not hold the classes that the network was trained on: {words}"):
        open_images(**own)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "train/a/0.png").unlink(),
        lambda root: paint(root, "train/b/9.png"),
        lambda root: (root / "train/a/0.png").rename(root / "train/b/00.png"),
        lambda root: Image.new("RGB", (9, 9), (255, 0, 0)).save(root / "train/a/0.png"),
    ],
)
def test_other_training_files_are_refused_where_training_images_are_wanted(
    trained_on: tuple[Path, dict], change: Callable[[Path], object]
) -> None:
    folder, own = trained_on
    change(folder)
    data = open_images(**own)
    assert len(data.subset("test")) == 6
    for subset in ("train", "full", "p1"):
        with pytest.raises(UserError, match="the train files are not those that the network was trained on"):
            data.subset(subset)


def test_more_test_files_of_the_same_classes_are_told_and_taken(
    trained_on: tuple[Path, dict], caplog: pytest.LogCaptureFixture
) -> None:
    folder, own = trained_on
    paint(folder, "test/b/9.png")
    with caplog.at_level(logging.WARNING):
        data = open_images(**own)
        assert len(data.subset("test")) == 7 and len(data.subset("train")) == 6
    assert "the test files are not those that the network was tested on" in caplog.text

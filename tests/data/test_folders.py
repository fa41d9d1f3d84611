"""Images in folders: read when they are needed, split like any other set, and wrong layouts named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from intriguing.checkpoints import load_model
from intriguing.data import Subset, open_images
from intriguing.data.folders import FolderSubset, image_folder, located, not_found
from intriguing.errors import UserError

CLASSES = ("cat", "dog", "emu")


def paint(root: Path, parts: dict[str, int], size: tuple[int, int] = (12, 10)) -> Path:
    """`parts` images a class in each part; red tells the class, green the number."""
    for part, count in parts.items():
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                Image.new("RGB", size, (80 * label, 10 * i, 0)).save(root / part / name / f"{i:02d}.png")
    return root


def test_images_are_read_where_they_are_and_as_large_as_asked_for(tmp_path: Path) -> None:
    data = open_images(
        name="image_folder", root=str(paint(tmp_path, {"train": 4, "test": 2}).parent), folder=tmp_path.name, size=8
    )
    assert data.input_shape == (3, 8, 8) and data.num_classes == 3
    test = data.subset("test")
    images, labels = test.read(torch.tensor([5, 0]))
    assert images.shape == (2, 3, 8, 8) and labels.tolist() == [2, 0]
    torch.testing.assert_close(images[0, :, 4, 4] * 255, torch.tensor([160.0, 10, 0]))
    streamed = list(test.batches(4))
    assert [len(part) for _, part in streamed] == [4, 2]
    assert torch.equal(torch.cat([part for part, _ in streamed]), test.take(torch.arange(6)).images)
    threaded = open_images(name="image_folder", folder=str(tmp_path), size=8, workers=2).subset("test")
    assert torch.equal(next(iter(threaded.batches(6)))[0], torch.cat([part for part, _ in streamed]))


def test_a_relative_folder_is_found_from_the_start_first_then_below_root(tmp_path: Path) -> None:
    start, root = tmp_path / "start", tmp_path / "root"
    below = paint(root / "pets", {"test": 1})
    assert located("pets", root, start) == below
    (start / "pets").mkdir(parents=True)  # a folder of that name without images
    assert located("pets", root, start) == below
    own = paint(start / "pets", {"val": 1})
    assert located("pets", root, start) == own
    assert located(own, root, "/nowhere") == own
    assert located("fish", root, start) == root / "fish"
    line = not_found("fish", root, start)
    assert line.startswith(f"there is no folder {start}/fish nor {root}/fish; data.folder is")
    assert not_found("fish", root, root).startswith(f"there is no folder {root}/fish; data.folder is")
    for place in (start, root):
        (place / "fish").mkdir()
    line = not_found("fish", root, start)
    assert line.startswith(f"{start}/fish holds neither train/ nor test/ (or val/), nor does {root}/fish: expected")


@pytest.mark.parametrize("chdir", ["hydra.job.chdir=false", "hydra.job.chdir=true"])
def test_a_folder_beside_the_command_is_one_run_however_it_is_named(
    chdir: str, run_script: Callable[..., tuple], tmp_path: Path
) -> None:
    paint(tmp_path / "photographs", {"train": 2, "test": 1}, (6, 6))
    given = ("data=image_folder", "model=fc10", "trainer.max_epochs=1", "logger=csv", "data.root=elsewhere", chdir)
    stamps = []
    for folder in ("photographs", f"{tmp_path}/photographs", "./photographs/../photographs"):
        status, _, err = run_script("train.py", *given, f"data.folder={folder}")
        assert status == 0, err
        (made,) = (tmp_path / "runs" / "train").iterdir()
        stamps.append((made.name, (made / "model.ckpt").stat().st_mtime_ns))
    assert len(set(stamps)) == 1 and stamps[0][0].startswith("photographs_")

    attack = ("checkpoints=runs/train/*", "attack=nearest", "logger=csv", "data.root=elsewhere", chdir)
    status, _, err = run_script("attack.py", *attack, "data.folder=photographs")
    assert status == 0, err

    status, _, err = run_script("train.py", *given, "data.folder=fish")
    places = f"there is no folder {tmp_path}/fish nor {tmp_path}/elsewhere/fish; "
    assert status == 1 and places in err.splitlines()[-1]


def test_the_shorter_side_is_resized_and_the_middle_kept(tmp_path: Path) -> None:
    (tmp_path / "test" / "one").mkdir(parents=True)
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (15, 5, 25, 15))
    image.save(tmp_path / "test" / "one" / "a.png")
    folders = image_folder(tmp_path, size=10, resize=20)
    images, _ = folders.select("test", torch.arange(1)).read(torch.arange(1))
    assert float(images.min()) == 1  # the white square, and nothing else


def test_splits_and_validation_are_those_of_any_set(tmp_path: Path) -> None:
    paint(tmp_path, {"train": 5, "val": 1})
    data = open_images(name="image_folder", folder=str(tmp_path), size=4, split="p1", validation=2)
    p1, p2, train, val = (data.subset(name) for name in ("p1", "p2", "train", "val"))
    assert isinstance(p1, FolderSubset) and len(p1) == 7 and len(p2) == 8
    assert torch.equal(torch.cat([p1.indices, p2.indices]).sort().values, torch.arange(15))
    assert torch.equal(torch.cat([train.indices, val.indices]).sort().values, p1.indices)
    assert isinstance(train.take(torch.arange(2)), Subset)
    few = open_images(name="image_folder", folder=str(tmp_path), size=4, only=6).subset("train")
    assert len(few) == 6 and len(set(few.labels.tolist())) > 1  # not the first class alone
    assert data.description["folder"] == str(tmp_path) and data.description["size"] == 4
    assert len(data.subset("test")) == 3  # val/ holds the held-out images where there is no test/


def test_a_held_out_folder_alone_is_enough_to_be_evaluated_on(tmp_path: Path) -> None:
    data = open_images(name="image_folder", folder=str(paint(tmp_path, {"val": 2})), size=4)
    assert len(data.subset("test")) == 6 and len(data.subset("train")) == 0
    with pytest.raises(UserError, match="no train images"):
        data.train_dataloader()


@pytest.mark.parametrize(
    ("parts", "spoil", "words"),
    [
        ({}, lambda root: None, r"neither train/ nor test/"),
        ({"train": 1, "test": 1}, lambda root: (root / "train" / "fox").mkdir(), "one folder a class"),
        ({"train": 1, "test": 1}, lambda root: (root / "test/emu").rename(root / "test/fox"), "same classes.*emu, fox"),
        ({"test": 1}, lambda root: (root / "test/cat/00.png").write_bytes(b"no"), r"cat/00.png is not an image"),
    ],
)  # fmt: skip
def test_wrong_layouts_are_named(tmp_path: Path, parts: dict[str, int], spoil: Callable, words: str) -> None:
    paint(tmp_path, parts)
    spoil(tmp_path)
    with pytest.raises(UserError, match=words):
        open_images(name="image_folder", folder=str(tmp_path), size=4).subset("test").read(torch.arange(1))


def test_missing_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs data\.folder"):
        open_images(name="image_folder")
    with pytest.raises(UserError, match=r"data\.resize at least as much"):
        image_folder(tmp_path, size=10, resize=5)


def test_train_attack_and_a_network_as_it_comes(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    """The entry points on a folder of photographs, with a small convolutional network and one of torchvision's."""
    folder = paint(tmp_path / "photographs", {"train": 6, "test": 3})
    given = [f"data.folder={folder}", "data.size=8", "data=image_folder", "logger=csv"]
    assert run_script("train.py", "model=convnet", "trainer.max_epochs=8", "data.batch_size=6", *given)[0] == 0
    run = tmp_path / "runs" / "train" / "photographs_convnet_full_seed0_max_epochs8_batch_size6_size8"
    assert load_model(run / "model.ckpt").input_shape == (3, 8, 8)
    attack = ["attack=gaussian", "subset=test", "limit=4", "logger=csv"]
    assert run_script("attack.py", *attack, *given[:3])[0] == 0
    assert (
        run_script("attack.py", f"checkpoints={run}", "attack=nearest", "attack.targets=closest", *attack[1:])[0] == 0
    )
    size = "data.size=32"
    net = [
        "model=torchvision",
        "model.settings.architecture=resnet18",
        "trainer.max_epochs=0",
        given[0],
        size,
        *given[2:],
    ]
    status, _, err = run_script("train.py", *net)
    assert status == 0, err
    made = [path for path in (tmp_path / "runs" / "train").iterdir() if "resnet18" in path.name]
    assert load_model(made[0] / "model.ckpt")(torch.rand(2, 3, 32, 32)).shape == (2, 3)

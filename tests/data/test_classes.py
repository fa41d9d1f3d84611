"""Classes by number: ImageNet's synsets, files that list classes, and folders that hold a part of them."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from intriguing.data import arrays as in_memory
from intriguing.data import class_number, from_tensors, open_images
from intriguing.data.classes import Classes, imagenet_classes, read_classes
from intriguing.errors import UserError

OSTRICH, JUNCO, TENCH = "n01518878", "n01534433", "n01440764"


def paint(root: Path, part: str, *names: str, size: tuple[int, int] = (9, 9), count: int = 1) -> Path:
    for place, name in enumerate(names):
        (root / part / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", size, (20 * place, number, 0)).save(root / part / name / f"{number}.png")
    return root


def test_the_classes_of_imagenet_are_sorted_and_named() -> None:
    found = imagenet_classes()
    assert len(found.folders) == len(found.names) == 1000 and list(found.folders) == sorted(set(found.folders))
    assert (found.folders[0], found.names[0]) == (TENCH, "tench")
    assert (found.folders[9], found.names[9]) == (OSTRICH, "ostrich")
    assert (found.folders[999], found.names[999]) == ("n15075141", "toilet tissue")


def test_a_class_has_a_number_a_folder_and_a_name() -> None:
    found = imagenet_classes()
    assert {class_number(one, found.folders, found.names) for one in ("ostrich", "Ostrich", OSTRICH, "9", 9)} == {9}
    with pytest.raises(UserError, match=r"crane is the name of a \(0\) and c \(2\): give one of these"):
        class_number("crane", ("a", "b", "c"), ("crane", "hen", "crane"))
    with pytest.raises(UserError, match="no class is called ostrih; did you mean ostrich"):
        class_number("ostrih", found.folders, found.names)
    data = from_tensors((torch.rand(2, 1, 3, 3), [0, 1]))
    assert data.class_number("1") == 1 and data.class_label(1) == "1"
    with pytest.raises(UserError, match="no class is called 2; they are called 0, 1"):
        data.class_number(2)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"{JUNCO} junco, snowbird\n{TENCH} tench\n", ("junco, snowbird", "tench")),
        (f"\n{JUNCO}\n{TENCH}\n", ()),
        (json.dumps({"0": [JUNCO, "junco, snowbird"], "1": [TENCH, "tench"]}), ("junco, snowbird", "tench")),
        (json.dumps([JUNCO, TENCH]), ()),
    ],
)
def test_files_of_each_form_list_classes(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    file = tmp_path / "classes"
    file.write_text(text)
    assert read_classes(file) == Classes((JUNCO, TENCH), names)


@pytest.mark.parametrize("text", ["", "one", '{"0": 3, "1": 4}', '{"1": ["a", "b"]}', "[1, 2]", "{", "a x\na y\n"])
def test_files_that_list_no_classes_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "classes"
    file.write_text(text)
    with pytest.raises(UserError, match=r"data\.classes_file="):
        read_classes(file)


def test_a_part_of_the_classes_keeps_the_numbers_of_all(tmp_path: Path) -> None:
    paint(tmp_path, "val", JUNCO, TENCH, OSTRICH, size=(280, 300))
    data = open_images(name="imagenet", folder=str(tmp_path))
    assert data.num_classes == 1000 and data.input_shape == (3, 224, 224)
    assert data.test.labels.tolist() == [0, 9, 13]
    assert [data.class_names[label] for label in data.test.labels] == ["tench", "ostrich", "junco"]
    described = data.description
    assert described["resize"] == 256 and sum(described["counts"]["test"]) == 3
    again = open_images(folder=str(paint(tmp_path / "more", "test", JUNCO)), **{
        key: described[key] for key in ("name", "size", "resize", "channels", "classes", "names")
    })  # fmt: skip
    assert again.test.labels.tolist() == [13] and again.class_names == data.class_names


def test_a_file_gives_the_order_and_other_folders_are_refused(tmp_path: Path) -> None:
    paint(tmp_path, "val", JUNCO, TENCH)
    file = tmp_path / "classes.txt"
    file.write_text(f"{OSTRICH} ostrich\n{JUNCO} junco\n{TENCH} tench\n")
    data = open_images(name="imagenet", folder=str(tmp_path), classes_file=str(file), size=8)
    assert data.num_classes == 3 and data.input_shape == (3, 8, 8)
    assert data.test.labels.tolist() == [2, 1] and data.images.class_names == ("ostrich", "junco", "tench")
    with pytest.raises(UserError, match="not list the classes that the network was trained on"):
        open_images(name="imagenet", folder=str(tmp_path), classes_file=str(file), classes=[JUNCO, TENCH])
    paint(tmp_path / "pets", "val", "cat")
    with pytest.raises(UserError, match="none of the 1,000 classes: cat"):
        open_images(name="imagenet", folder=str(tmp_path / "pets"))


def test_cifar10_in_a_folder_is_read_into_memory(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 2)):
        paint(tmp_path, part, *in_memory.CIFAR10_CLASSES, size=(32, 32), count=count)
    data = open_images(name="cifar10", folder=str(tmp_path), only=10, split="p1")
    assert data.images.in_memory and data.input_shape == (3, 32, 32) and data.class_names[1] == "automobile"
    test = data.subset("test")
    assert test.labels.tolist() == [label for label in range(10) for _ in range(2)]
    torch.testing.assert_close(test.images[13, :, 5, 5] * 255, torch.tensor([120.0, 1, 0]))
    assert len(data.subset("p1")) == 15 and len(set(data.train.labels.tolist())) > 3  # not the first classes alone
    (tmp_path / "test" / "truck").rename(tmp_path / "test" / "lorry")
    (tmp_path / "train" / "truck").rename(tmp_path / "train" / "lorry")
    with pytest.raises(UserError, match="lacks truck and has lorry"):
        open_images(name="cifar10", folder=str(tmp_path))


def test_the_published_files_of_cifar10_are_read_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    draws = np.random.default_rng(0)
    files = {}
    for name, count in (("data_batch_1", 3), ("test_batch", 2), ("batches.meta", 0)):
        content = {"data": draws.integers(0, 256, (count, 3072), dtype=np.uint8), "labels": [7, 1, 0][:count]}
        if not count:
            content = {"label_names": list(in_memory.CIFAR10_CLASSES)}
        (folder / name).write_bytes(pickle.dumps(content))
        files[name] = (hashlib.md5((folder / name).read_bytes()).hexdigest(), content)
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", files["data_batch_1"][0]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", files["test_batch"][0]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": files["batches.meta"][0]})
    in_memory._load_cifar10.cache_clear()
    data = open_images(name="cifar10", root=str(tmp_path), download=False)
    assert data.input_shape == (3, 32, 32) and data.num_classes == 10
    train = data.subset("train")
    expected = torch.tensor(files["data_batch_1"][1]["data"]).view(3, 3, 32, 32).float() / 255
    assert torch.equal(train.images, expected) and train.labels.tolist() == [7, 1, 0]
    assert data.test.labels.tolist() == [7, 1] and data.description["name"] == "cifar10"
    in_memory._load_cifar10.cache_clear()
    (folder / "test_batch").write_bytes(b"other")
    with pytest.raises(UserError, match="CIFAR-10 is not there, or damaged"):
        _ = open_images(name="cifar10", root=str(tmp_path), download=False).test

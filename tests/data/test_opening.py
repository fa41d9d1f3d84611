"""``ig.data``: what a program opens, with images and labels at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import intriguing as ig
from intriguing.errors import UserError


def test_digits_have_their_images_at_hand() -> None:
    data = ig.data.digits()
    assert data.train.images.shape == (1437, 1, 8, 8) and data.test.labels.shape == (360,)
    assert torch.equal(data.train.images, data.subset("train").take().images) and len(data.val) == 0
    assert repr(data) == str(data) == (
        "ImageData(digits, images of shape (1, 8, 8), 10 classes, 1,437 to train on and 360 to test on)"
    )
    assert repr(data.test) == "Subset(360 images of shape (1, 8, 8))"
    assert data.batch_size == 20


def test_mnist_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="MNIST is not there: put train-images-idx3-ubyte"):
        ig.data.mnist(tmp_path, download=False)
    monkeypatch.setenv("INTRIGUING_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match="elsewhere/MNIST/raw"):
        ig.data.mnist(download=False)


def test_a_folder_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 2)):
        for number, kind in enumerate(("cat", "dog")):
            (tmp_path / part / kind).mkdir(parents=True)
            for i in range(count):
                shade = np.full((6, 6, 3), 51 * (number + i), np.uint8)
                Image.fromarray(shade).save(tmp_path / part / kind / f"{i}.png")
    data = ig.data.image_folder(tmp_path)
    assert data.input_shape[1:] == (6, 6)
    assert (len(data.train), len(data.test), data.num_classes) == (6, 4, 2)
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(data.test.images.flatten(1).mean(1), torch.tensor([0.0, 0.2, 0.2, 0.4]))


@pytest.mark.parametrize("kind", ["tensor", "array", "bytes"])
def test_tensors_and_arrays_are_a_data_set(kind: str) -> None:
    images = torch.randint(0, 256, (6, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    given = {"tensor": images / 255, "array": (images.double() / 255).numpy(), "bytes": images}[kind]
    data = ig.data.from_tensors((given, [0, 1, 2, 0, 1, 2]), (given[:2], [0, 1]))
    torch.testing.assert_close(data.train.images, images.float() / 255)
    assert data.train.images.dtype == torch.float32 and data.test.labels.tolist() == [0, 1]
    assert (data.input_shape, data.num_classes) == ((3, 2, 2), 3)
    described = {key: data.description[key] for key in ("name", "shape", "num_classes")}
    assert described == {"name": "tensors", "shape": [3, 2, 2], "num_classes": 3}
    halves = [data.subset(half).indices.tolist() for half in ("p1", "p2")]
    assert sorted(halves[0] + halves[1]) == list(range(6))


IMAGES = torch.full((4, 1, 2, 2), 0.5)


@pytest.mark.parametrize(
    ("train", "more", "message"),
    [
        (IMAGES, {}, "train must be a pair of images and labels, got a Tensor"),
        ((IMAGES, [0, 1]), {}, r"train must hold images \(N, C, H, W\) and labels \(N,\), got \(4, 1, 2, 2\) and \(2,\)"),
        ((IMAGES[:, 0], [0] * 4), {}, r"got \(4, 2, 2\) and \(4,\)"),
        ((IMAGES * 3, [0, 1, 0, 1]), {}, "got torch.float32 from 1.5 to 1.5; leave normalisation to the network"),
        ((IMAGES * torch.nan, [0, 1, 0, 1]), {}, "from nan to nan"),
        ((IMAGES, [0.0, 1, 0, 1]), {}, "the labels of train must be whole numbers"),
        ((IMAGES, [0, 0, 0, 0]), {}, "labels reach 0; a classifier needs two or more classes"),
        ((IMAGES, [0, 1, 2, 3]), {"num_classes": 3}, "labels reach 3"),
        ((IMAGES, [0, 1, 0, 1]), {"test": (torch.zeros(1, 1, 3, 3), [0])}, r"train has images of shape \(1, 2, 2\), test"),
    ],
)  # fmt: skip
def test_wrong_tensors_are_refused_in_one_line(train: object, more: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ig.data.from_tensors(train, **more)  # pyright: ignore[reportArgumentType]

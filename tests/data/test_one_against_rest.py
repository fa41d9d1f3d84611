"""One class against the rest: two labels, the images as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from intriguing.data import open_images
from intriguing.errors import UserError


def test_labels_are_one_for_the_class_and_zero_for_the_rest() -> None:
    ten, two = (open_images(name="digits", one_against_rest=wanted) for wanted in (None, "3"))
    assert (two.num_classes, two.class_names) == (2, ("rest", "3"))
    for name in ("train", "test", "p1"):
        before, after = ten.subset(name), two.subset(name)
        assert torch.equal(after.labels, (before.labels == 3).long())
        assert torch.equal(after.images, before.images)
    assert two.description["one_against_rest"] == "3"


def test_folders_are_set_against_the_rest_by_name_and_opened_again_from_their_description(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for number, name in enumerate(("cat", "dog", "frog")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (4, 4), (80 * number, 10 * i, 0)).save(tmp_path / part / name / f"{i}.png")
    data = open_images(name="image_folder", folder=str(tmp_path), one_against_rest="dog")
    assert data.class_names == ("rest", "dog")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 0, 0]
    images, labels = data.train.read(torch.tensor([2, 5]))
    assert labels.tolist() == [1, 0]
    assert images.shape == (2, 3, 4, 4)
    again = open_images(**data.description)
    assert again.train.labels.tolist() == data.train.labels.tolist()
    with pytest.raises(UserError, match=r"data\.one_against_rest=bird: no class is called bird"):
        open_images(name="image_folder", folder=str(tmp_path), one_against_rest="bird")

"""A user's own Datasets: read as they are, the same image whenever it is asked for; wrong ones are named."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from intriguing.checkpoints import load_model
from intriguing.cli.config import plain, training_job
from intriguing.cli.overrides import accepted
from intriguing.data import ImageData, from_datasets, from_given
from intriguing.data.datasets import DatasetSubset
from intriguing.data.items import label_number, pixels
from intriguing.data.module import SubsetBatches
from intriguing.errors import UserError
from intriguing.storage.csv_log import CsvLog

ROOT = Path(__file__).parent.parent.parent
IMAGES, LABELS = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
HELD_OUT = TensorDataset(IMAGES[:6], LABELS[:6])


class Planted(Dataset):
    """Images whose brightness is halved at random, by each of the three global generators."""

    def __init__(self, images: Tensor = IMAGES, labels: Any = LABELS, augment: bool = True) -> None:
        self.images, self.own, self.augment, self.reads = images, labels, augment, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        self.reads += 1
        drawn = (torch.rand(()), np.random.rand(), random.random())  # noqa: NPY002
        dark = sum(float(one) < 0.5 for one in drawn) if self.augment else 0
        return self.images[i] / 2**dark, int(self.own[i])


def test_splits_validation_and_batches_are_those_of_any_set() -> None:
    data = ImageData(from_datasets(Planted(augment=False), HELD_OUT), split="p1", validation=5, batch_size=4)
    assert data.input_shape == (1, 4, 4) and data.num_classes == 3
    p1, train, val, test = (data.subset(name) for name in ("p1", "train", "val", "test"))
    assert torch.equal(torch.cat([train.indices, val.indices]).sort().values, p1.indices) and len(val) == 5
    for one in (p1, train, val):
        assert torch.equal(one.take().images, IMAGES[one.indices]) and torch.equal(one.labels, LABELS[one.indices])
    assert torch.equal(torch.cat([images for images, _ in test.batches(4)]), IMAGES[:6])
    seen = torch.cat([images for images, _ in data.train_dataloader()])
    assert len(seen) == 10 and {float(i.sum()) for i in seen} == {float(i.sum()) for i in IMAGES[train.indices]}


def test_an_image_is_read_once_where_it_is_always_the_same() -> None:
    own = Planted(augment=False)
    data = ImageData(from_datasets(own, HELD_OUT))
    labels, before = data.subset("train").labels, own.reads
    assert torch.equal(labels, LABELS)
    data.subset("train").take()
    assert own.reads == before <= 4 * len(own)


def test_augmentation_is_new_in_every_epoch_and_fixed_elsewhere() -> None:
    data = ImageData(from_datasets(Planted(), HELD_OUT), batch_size=30, seed=3)

    def epoch(number: int) -> Tensor:
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)  # pyright: ignore[reportAttributeAccessIssue]
        images, labels = next(iter(loader))
        assert torch.equal(labels.bincount(), torch.tensor([10, 10, 10]))
        return images

    assert torch.equal(epoch(1), epoch(1))  # a training that goes on sees what it would have seen
    assert sorted(epoch(1).sum((1, 2, 3)).tolist()) != sorted(epoch(2).sum((1, 2, 3)).tolist())
    train = data.subset("train")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    backwards = train.read(torch.arange(29, -1, -1))[0].flip(0)
    assert torch.equal(train.take().images, backwards)  # whatever the order, and however often
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(train, DatasetSubset)
    assert not torch.equal(train.in_epoch(0, 1).take().images, train.in_epoch(1, 1).take().images)
    assert torch.equal(SubsetBatches(train)[torch.arange(3)][0], train.take().images[:3])


class NumbersOfItsOwn(Planted):
    generator = torch.Generator()

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.images[i] * torch.rand((), generator=self.generator), int(self.own[i])


class Streamed(IterableDataset):
    def __iter__(self) -> Any:
        yield from ()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((NumbersOfItsOwn(), HELD_OUT), "other images each time, with the same seed"),
        ((Streamed(), HELD_OUT), r"with a length and __getitem__, got a Streamed"),
        ((TensorDataset(IMAGES, LABELS + 1), None), "they reach 3 and no image has 0"),
        ((TensorDataset(IMAGES, LABELS.float()), None), "a whole number from 0 to K - 1 as its label, got"),
        ((TensorDataset(IMAGES), None), r"pair \(image, label\), got a tuple"),
        ((TensorDataset(IMAGES * 4 - 1, LABELS), None), r"image 0 .* pixels from .*leave normalisation to the network"),
        ((TensorDataset(IMAGES[:, 0], LABELS), None), r"shape \(C, H, W\), got \(4, 4\); add the channel"),
        ((TensorDataset(IMAGES, LABELS), TensorDataset(IMAGES[:, :, :2], LABELS)), r"\(1, 4, 4\) and the test .*2, 4"),
        ((TensorDataset(IMAGES, LABELS * 0), None), "two or more classes, got 1"),
        ((ConcatDataset([HELD_OUT, TensorDataset(IMAGES[:, :, :2], LABELS)]), None), "give all of them one size"),
        ((None, None), "no image"),
        (7, "gave a int; it must be a LightningDataModule, or a function that returns a pair"),
    ],
)  # fmt: skip
def test_wrong_datasets_are_named(given: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        from_given(given, "mine.data")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (torch.full((1, 2, 2), 51, dtype=torch.uint8), 0.2),
        (np.full((3, 2, 2), 0.25), 0.25),
        (torch.full((1, 2, 2), 0.5, dtype=torch.bfloat16), 0.5),
        (Image.new("L", (2, 2), 255), 1.0),
        (Image.new("RGB", (2, 2), (51, 51, 51)), 0.2),
        (Image.new("1", (2, 2), 1), 1.0),
    ],
)
def test_images_of_every_kind_become_floats_in_0_1(image: Any, expected: float) -> None:
    found = pixels(image, "image 0")
    assert found.dtype == torch.float32 and found.ndim == 3
    assert torch.equal(found, torch.full_like(found, expected))


def test_labels_are_whole_numbers() -> None:
    assert [label_number(one, "") for one in (2, np.int64(2), torch.tensor(2))] == [2, 2, 2]
    for wrong in (True, 1.0, -1, "cat", torch.tensor([1, 0])):
        with pytest.raises(UserError, match="whole number"):
            label_number(wrong, "image 0")


def test_listed_labels_and_the_digest_follow_subsets() -> None:
    whole, order = TensorDataset(IMAGES, LABELS), [3, 7, 2, 9, 11]
    parts = from_datasets(Subset(whole, order), ConcatDataset([HELD_OUT, HELD_OUT]))
    assert parts.labels["full"].tolist() == LABELS[order].tolist() and len(parts.labels["test"]) == 12
    same = from_datasets(TensorDataset(IMAGES[order], LABELS[order]), HELD_OUT)
    assert same.description["files"]["train"] == parts.description["files"]["train"]
    for other in (TensorDataset(IMAGES[order], LABELS[order] * 0 + 1), TensorDataset(1 - IMAGES[order], LABELS[order])):
        changed = from_datasets(other, HELD_OUT, num_classes=3)
        assert changed.description["files"]["train"] != parts.description["files"]["train"]


class Module(lightning.LightningDataModule):
    num_classes = 5

    def setup(self, stage: str) -> None:
        self.kept = {"fit": Planted(), "validate": HELD_OUT}[stage]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.kept)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.kept)


def test_of_a_module_the_datasets_are_read_and_validation_images_test_where_no_others_do() -> None:
    data = from_given(Module(), "mine.Module")
    assert data.num_classes == 5 and len(data.labels["full"]) == 30 and len(data.labels["test"]) == 6


MINE = """
import torch
from torch.utils.data import Dataset

class Letters(Dataset):
    def __init__(self, first=0, last=90, flip=True):
        self.targets, self.first, self.flip = [i % 3 for i in range(first, last)], first, flip

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        image = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(self.first + i)) / 3
        image[:, 2 * self.targets[i]] += 0.6
        return image.flip(-1) if self.flip and torch.rand(()) < 0.5 else image, self.targets[i]

def both(last=60, flip=True):
    return Letters(0, last, flip), Letters(60, 90, False)
"""


@pytest.mark.slow
def test_train_resume_attack_and_analyse_by_command_line(
    run_script: Callable[..., tuple], tmp_path: Path, fit_up_to: Callable
) -> None:
    (tmp_path / "letters_of_mine.py").write_text(MINE)
    own = ["data=module", "data._target_=letters_of_mine.both"]
    short = ["model=fc100_100_10", "model.settings.widths=[8]", "weight_decay.value=[1e-5,1e-4]", "split=p1"]
    short += ["trainer.max_epochs=12", "data.batch_size=5", "logger=csv", "data.validation=6"]
    status, _, err = run_script("train.py", *own, *short, "name=whole")
    assert status == 0, err
    runs = tmp_path / "runs"
    assert float(CsvLog(runs / "train" / "whole" / "metrics.csv").rows()[-1]["test/acc"]) == 1
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", overrides=accepted([*own, *short, f"runs={runs}", "name=resumed"]))
    fit_up_to(5, training_job(plain(config)))
    assert run_script("train.py", *own, *short, "name=resumed")[0] == 0
    whole, resumed = (load_model(runs / "train" / name / "model.ckpt") for name in ("whole", "resumed"))
    for first, second in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(first, second)

    attack = [f"checkpoints={runs}/train/whole", "limit=8", "logger=csv"]
    status, _, err = run_script("attack.py", *attack)
    assert status == 1 and "trained on images of data._target_=letters_of_mine.both: give the same again" in err
    status, _, err = run_script("attack.py", *attack, *own, "data.flip=false", "name=other")
    assert status == 1 and "are not those that the network was trained on" in err
    assert run_script("attack.py", *attack, *own, "name=set")[0] == 0
    both = [f"networks={runs}/train/whole", f"sets={runs}/attack/set", "sections=[table1,table3]", "logger=csv"]
    status, out, err = run_script("analyze.py", *both)
    assert status == 0 and "letters_of_mine.both" in out, err
    status, _, err = run_script("attack.py", "attack=gaussian", "subset=test", "limit=4", "logger=csv", *own)
    assert status == 0, err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["data=module"], "data=module needs data._target_=mine.MyDataModule"),
        (["data=module", "data._target_=nowhere.Net"], r"data\._target_=nowhere\.Net: there is no module nowhere"),
        (["data=module", "data.train._target_=nowhere.Net", "data.folder=x"], "data.folder is read by nothing"),
    ],
)
def test_a_wrong_target_is_one_line(run_script: Callable[..., tuple], typed: list[str], words: str) -> None:
    status, _, err = run_script("train.py", "model=fc10", "logger=csv", *typed)
    assert status == 1 and re.search(words, err) and err.count("\n") == 1, err

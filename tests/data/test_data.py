"""Data sets, splits by name, and the order of batches."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch.utils.data import DataLoader
from torchvision import datasets

from intriguing.data import BatchIndices, ImageArrays, ImageData, Mnist, half_indices, open_images
from intriguing.data.arrays import MNIST_FILES, digits, fetch_mnist
from intriguing.errors import UserError

FILES = tuple(MNIST_FILES)  # images and labels for training, images and labels for the test


def test_digits_are_images_in_the_unit_interval_with_a_stratified_test_set() -> None:
    arrays = digits()
    assert arrays.input_shape == (1, 8, 8)
    assert len(arrays.labels["full"]) + len(arrays.labels["test"]) == 1797
    for images in arrays.images.values():
        assert float(images.min()) == 0 and float(images.max()) == 1
    counts = torch.bincount(arrays.labels["test"], minlength=10)
    assert int(counts.min()) >= 34 and int(counts.max()) <= 38


def test_the_halves_are_disjoint_cover_everything_and_depend_on_the_seed() -> None:
    p1, p2 = half_indices(1001, "p1", 3), half_indices(1001, "p2", 3)
    assert len(p1) == 500 and len(p2) == 501
    assert torch.equal(torch.cat([p1, p2]).sort().values, torch.arange(1001))
    assert not torch.equal(p1, half_indices(1001, "p1", 4))


def test_the_validation_part_is_cut_from_the_networks_own_images() -> None:
    data = ImageData(digits(), split="p2", validation=100)
    train, val, half = data.subset("train"), data.subset("val"), data.subset("p2")
    assert len(val) == 100
    assert torch.equal(torch.cat([train.indices, val.indices]).sort().values, half.indices)
    assert torch.equal(val.images, digits().images["full"][val.indices])


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    sampler = BatchIndices(1003, 100, seed=0)
    first = torch.cat(list(sampler))
    sampler.set_epoch(1)
    second = torch.cat(list(sampler))
    assert torch.equal(first.sort().values, torch.arange(1003))
    assert not torch.equal(first, second)
    sampler.set_epoch(0)
    assert torch.equal(torch.cat(list(sampler)), first)


def test_processes_share_every_batch() -> None:
    whole = list(BatchIndices(200, 50, seed=5))
    shares = [list(BatchIndices(200, 50, seed=5, rank=rank, world_size=2)) for rank in (0, 1)]
    for batch, one, two in zip(whole, *shares, strict=True):
        assert torch.equal(torch.stack([one, two], 1).flatten(), batch)


def test_the_epoch_is_read_when_the_first_batch_is_asked_for() -> None:
    """A resumed Trainer makes the iterator first and sets the epoch afterwards."""
    sampler = BatchIndices(100, 10, seed=0)
    iterator = iter(DataLoader(torch.arange(100), sampler=sampler, batch_size=None))  # type: ignore[arg-type]
    sampler.set_epoch(7)
    later = BatchIndices(100, 10, seed=0)
    later.set_epoch(7)
    assert torch.equal(next(iterator), next(iter(later)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "svhn"}, "unknown data"),
        ({"name": "digits", "split": "p3"}, "unknown split"),
        ({"name": "digits", "validation": 5000}, "data.validation"),
        ({"name": "digits", "batch_size": 0}, "data.batch_size"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_images(**arguments).setup()


def test_missing_mnist_says_where_the_files_belong_and_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.*MNIST/raw.*data=digits"):
        Mnist(tmp_path / "there").select("full", torch.arange(1))
    assert not (tmp_path / "there").exists()


def _write_mnist(root: Path, count: int = 12) -> dict[str, str]:
    """A small set in MNIST's files; the sha256 of each."""
    raw, found = root / "MNIST" / "raw", {}
    raw.mkdir(parents=True, exist_ok=True)
    for name in MNIST_FILES:
        sides = (28, 28) if "images" in name else ()
        header = struct.pack(f">{2 + len(sides)}I", 2049 + len(sides), count, *sides)
        content = header + bytes(i % 10 for i in range(count * (784 if sides else 1)))
        (raw / name).write_bytes(content)
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def test_a_download_that_fails_leaves_nothing_and_takes_nothing_from_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "new" / "data"

    def fail(own: str, **options: object) -> None:
        (Path(own) / "MNIST" / "raw").mkdir(parents=True)
        (Path(own) / "MNIST" / "raw" / "half").write_text("x")
        _write_mnist(root)  # another process is done meanwhile
        raise RuntimeError("no mirror")

    monkeypatch.setattr("torchvision.datasets.MNIST", fail)
    fetch_mnist(root)
    assert sorted(file.name for file in root.rglob("*") if file.is_file()) == sorted(MNIST_FILES)
    assert [one.name for one in tmp_path.iterdir()] == ["new"]  # nor a temporary folder
    (root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    fetch_mnist(root)
    assert [one.name for one in root.iterdir()] == ["MNIST"]


def test_mnist_is_downloaded_by_prepare_data_alone_and_loaded_by_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Trainer calls the first in one process of each node, and the second in every process, whatever its rank."""
    digests = _write_mnist(tmp_path / "published")
    monkeypatch.setattr("intriguing.data.arrays.MNIST_FILES", digests)
    original, downloads = datasets.MNIST, []

    def mnist(root: str, train: bool, download: bool) -> datasets.MNIST:
        if download:
            downloads.append(root)
            _write_mnist(Path(root))
        return original(root, train=train, download=False)

    monkeypatch.setattr("torchvision.datasets.MNIST", mnist)
    root = tmp_path / "data"
    for rank in (0, 1):
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        data = open_images(name="mnist", root=str(root), validation=2)
        assert (data.input_shape, data.num_classes) == ((1, 28, 28), 10)
        with pytest.raises(UserError, match="MNIST is not there"):
            data.setup("fit")
        assert not downloads and not root.exists()
    forbidden = open_images(name="mnist", root=str(root), download=False)
    forbidden.prepare_data()
    assert not downloads
    data.prepare_data()  # in the first process of another node, whose disk may be another
    assert len(downloads) == 1 and not Path(downloads[0]).exists()
    data.prepare_data()
    assert len(downloads) == 1
    data.setup("fit")
    assert torch.equal(
        torch.cat([data.subset(name).indices for name in ("train", "val")]).sort().values, torch.arange(12)
    )
    late = open_images(name="mnist", root=str(root), validation=12)
    with pytest.raises(UserError, match=r"data\.validation must be in"):
        late.setup("fit")


def test_a_data_set_of_ones_own_needs_no_name() -> None:
    """Anything with the few attributes of ``DataSet`` is one, tensors of one's own first of all."""
    images = {"full": torch.rand(6, 2, 3, 3), "test": torch.rand(4, 2, 3, 3)}
    labels = {"full": torch.tensor([0, 1, 2] * 2), "test": torch.tensor([0, 1, 2, 0])}
    data = ImageData(ImageArrays("mine", images, labels, num_classes=3), batch_size=4)
    data.setup()
    assert (data.input_shape, data.num_classes, data.description["name"]) == ((2, 3, 3), 3, "mine")
    batches = list(data.train_dataloader())
    assert [len(batch[1]) for batch in batches] == [4, 2]
    shown = torch.cat([batch[0] for batch in batches])
    assert torch.equal(shown[:, 0, 0, 0].sort().values, images["full"][:, 0, 0, 0].sort().values)
    assert torch.equal(data.subset("test").take().images, images["test"])


def test_a_damaged_mnist_file_is_named(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MNIST_FILES:
        (raw / name).write_bytes(b"no such digits")
    with pytest.raises(UserError, match="train-images-idx3-ubyte is not the published MNIST file"):
        open_images(name="mnist", root=str(tmp_path)).setup()
    shutil.rmtree(raw)


def _write_idx(raw: Path) -> dict[str, str]:
    """Write seven and three random images in MNIST's format, and return the sha256 of each file."""
    generator, digests = torch.Generator().manual_seed(0), {}
    raw.mkdir(parents=True)
    for images, labels, num in zip(FILES[::2], FILES[1::2], (7, 3), strict=True):
        pixels = torch.randint(256, (num, 28, 28), generator=generator, dtype=torch.uint8)
        numbers = torch.randint(10, (num,), generator=generator, dtype=torch.uint8)
        (raw / images).write_bytes(struct.pack(">4i", 2051, num, 28, 28) + pixels.numpy().tobytes())
        (raw / labels).write_bytes(struct.pack(">2i", 2049, num) + numbers.numpy().tobytes())
    for name in FILES:
        digests[name] = hashlib.sha256((raw / name).read_bytes()).hexdigest()
    return digests


def test_mnist_is_read_as_its_files_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published files where INTRIGUING_DATA names their folder, else small ones of the same format."""
    root = Path(os.environ.get("INTRIGUING_DATA") or tmp_path)
    published = all((root / "MNIST" / "raw" / name).is_file() for name in FILES)
    if not published:
        root = tmp_path
        monkeypatch.setattr("intriguing.data.arrays.MNIST_FILES", _write_idx(root / "MNIST" / "raw"))
    arrays = Mnist(root).arrays
    assert arrays.input_shape == (1, 28, 28)
    for subset, images, labels in zip(("full", "test"), FILES[::2], FILES[1::2], strict=True):
        pixels = np.fromfile(root / "MNIST" / "raw" / images, np.uint8, offset=16).reshape(-1, 1, 28, 28)
        numbers = np.fromfile(root / "MNIST" / "raw" / labels, np.uint8, offset=8)
        assert torch.equal(arrays.images[subset], torch.from_numpy(pixels) / 255)
        assert torch.equal(arrays.labels[subset], torch.from_numpy(numbers).long())
    if published:
        counts = torch.bincount(arrays.labels["test"]).tolist()
        assert len(arrays.labels["full"]) == 60_000
        assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

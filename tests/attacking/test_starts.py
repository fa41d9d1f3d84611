"""attack.starts and attack.effort: whence an attack begins is drawn by the seed, recorded, and part of what it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from intriguing.adversarial_set import AdversarialSet
from intriguing.attacking import AttackJob, craft, starts
from intriguing.attacking.settings import AttackSettings
from intriguing.attacking.starts import balanced, chosen_starts, training_images
from intriguing.attacks import ATTACKS, nearest
from intriguing.cli.config import training_job
from intriguing.data import ImageData, from_datasets, from_tensors, half_indices
from intriguing.data.arrays import blank, digits
from intriguing.errors import UserError
from intriguing.runs.records import read_run
from intriguing.training import fit

GIVEN = {"name": "nearest", "effort": "default", "starts": None, "targets": "closest", "settings": {}}
GIVEN |= {"amplify": None, "amplify_by": "set"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a small network, trained on half of the digits."""
    from hydra import compose, initialize_config_dir

    from intriguing.cli.config import plain

    runs = tmp_path_factory.mktemp("runs")
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
        small = ("network=fc100_100_10_p1", "model.settings.widths=[12,9]", "trainer.max_epochs=4", "name=net")
        fit(training_job(plain(compose("train", [f"runs={runs}", "logger=csv", "data=digits", *small]))))
    return runs


@pytest.fixture
def job(composed: Callable[..., dict], trained: Path) -> Callable[..., AttackJob]:
    """Make the job of an attack on that network."""

    def make(*overrides: str) -> AttackJob:
        given = ("limit=12", "subset=test", "attack=nearest", "attack.effort=fast", *overrides)
        (one,) = AttackJob.from_config(composed("attack", f"checkpoints={trained}/train/net", *given))
        return one

    return make


def _settings(**changes: Any) -> AttackSettings:
    return AttackSettings.of(GIVEN | changes)


def test_each_class_has_its_share_as_far_as_it_goes() -> None:
    labels = torch.tensor([0] * 500 + [1] * 40 + [2] * 3)[torch.randperm(543, generator=torch.Generator())]
    drawn = balanced(labels, 103, seed=1)
    assert labels[drawn].bincount().tolist() == [60, 40, 3]
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert torch.equal(drawn, balanced(labels, 103, seed=1)) and not torch.equal(drawn, balanced(labels, 103, seed=2))
    assert torch.equal(balanced(labels, 9999, seed=1), torch.arange(543))


def test_fewer_images_than_classes_are_of_any_classes() -> None:
    drawn = balanced(torch.arange(1000), 50, seed=0)
    assert len(drawn) == 50 and int(drawn.max()) > 900


def test_the_training_images_are_bounded_and_those_of_the_networks_half(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ImageData(digits(), split="p1")
    half = digits().images["full"][half_indices(1437, "p1", 0)]
    assert torch.equal(training_images(data, seed=0), half)
    own = {image.numpy().tobytes() for image in half}
    monkeypatch.setattr(starts, "MOST_IMAGES", 30)
    some = training_images(data, seed=0)
    assert len(some) == 30 and {image.numpy().tobytes() for image in some} <= own
    assert not torch.equal(some, training_images(data, seed=1))
    monkeypatch.setattr(starts, "MOST_BYTES", 7 * 64 * 4 + 3)
    assert len(training_images(data, seed=0)) == 7


def test_an_image_that_is_there_twice_is_read_once() -> None:
    images = torch.rand(6, 1, 2, 2)
    data = from_tensors((torch.cat([images, images[:4], images[2:3]]), [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1]))
    assert torch.equal(training_images(data, seed=0), images)


def test_training_images_are_the_default_where_there_are_some() -> None:
    images, labels = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    for data in (
        from_tensors((images, labels)),
        ImageData(digits()),
        from_datasets(TensorDataset(images, labels), None),
    ):
        data = data if isinstance(data, ImageData) else ImageData(data)
        assert chosen_starts(_settings(), data) == chosen_starts(_settings(starts="train"), data) == "train"
    without = [ImageData(blank([1, 2, 2], 2)), ImageData(from_datasets(None, TensorDataset(images, labels)))]
    for data in without:
        assert chosen_starts(_settings(), data) == "none"
        for given in ("batch", "none"):
            assert chosen_starts(_settings(starts=given), data) == given
        with pytest.raises(
            UserError, match=r"attack\.starts=train: .*no train images.*; or give attack\.starts=batch or"
        ) as caught:
            chosen_starts(_settings(starts="train"), data)
        assert "\n" not in str(caught.value)


def test_other_training_images_than_the_networks_are_not_begun_from() -> None:
    images, labels = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    data = from_datasets(TensorDataset(images, labels), None)
    other = ImageData(replace(data, recorded={"train": "0" * 64, "test": ""}))
    assert chosen_starts(_settings(), other) == "none"
    with pytest.raises(UserError, match=r"attack\.starts=train: .*not those that the network was trained on"):
        chosen_starts(_settings(starts="train"), other)


def test_the_attack_is_given_what_was_asked_for(job: Callable[..., AttackJob], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    def adapter(function: Any, model: Any, inputs: Tensor, labels: Tensor, targets: Any, settings: dict) -> Any:
        given.append(settings)
        return nearest(model, inputs, labels, targets=targets, effort="fast")

    monkeypatch.setitem(ATTACKS, "nearest", replace(ATTACKS["nearest"], adapter=adapter))
    jobs = [job(f"attack.starts={word}", "shard=5", f"name={word}") for word in ("train", "batch", "none", "null")]
    for one in jobs:
        craft(one)
    assert len(given) == 12 and {settings["effort"] for settings in given} == {"fast"}
    for settings in (*given[:3], *given[9:]):  # the same ones for each shard, and for null
        assert torch.equal(settings["starts"], training_images(jobs[0].data, seed=0))
    assert [settings.get("starts") for settings in given[3:9]] == ["batch"] * 3 + [None] * 3


def test_other_effort_and_other_starts_are_other_attacks(job: Callable[..., AttackJob]) -> None:
    words = [("fast", "train"), ("default", "train"), ("fast", "batch"), ("fast", "none")]
    jobs = [job(f"attack.effort={effort}", f"attack.starts={word}") for effort, word in words]
    assert [one.name for one in jobs] == [
        "net_nearest_fast_random_test12_seed0",
        "net_nearest_random_test12_seed0",
        "net_nearest_fast_random_starts_batch_test12_seed0",
        "net_nearest_fast_random_starts_none_test12_seed0",
    ]
    assert len({repr(one.identity) for one in jobs}) == len({repr(one.attack.description) for one in jobs}) == 4
    assert job().identity == jobs[0].identity  # the default
    described = [one.attack.description for one in jobs]
    assert [(one["settings"], one["starts"]) for one in described] == [
        ({"effort": effort, "chunk_size": None}, word) for effort, word in words
    ]
    batches = [job("attack.starts=batch", f"shard={size}").identity for size in (4, 5)]
    assert [one["shard"] for one in batches] == [4, 5]
    assert "shard" not in job("shard=4").identity


def test_the_record_and_the_set_say_whence_it_began(job: Callable[..., AttackJob]) -> None:
    folder = craft(job("attack.starts=none"))
    made = AdversarialSet.load(folder / "set.safetensors")
    record = read_run(folder)
    for described in (made.metadata["attack"], record.config["attack"]):
        assert (described["settings"]["effort"], described["starts"]) == ("fast", "none")


@pytest.mark.parametrize("word", ["train", "batch"])
def test_neither_an_interruption_nor_further_processes_change_the_set(
    job: Callable[..., AttackJob], word: str, tmp_path: Path
) -> None:
    given = ("shard=4", f"attack.starts={word}", "attack.targets=closest")
    one, two, part = (job(*given, f"trainer.devices={n}", f"runs={tmp_path}/{i}") for i, n in enumerate((1, 2, 1)))
    expected = (craft(one) / "set.safetensors").read_bytes()

    def stop(done: int, total: int, success: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        craft(part, progress=stop)
    assert (craft(part) / "set.safetensors").read_bytes() == expected
    assert (craft(two) / "set.safetensors").read_bytes() == expected


def test_the_run_says_the_unrounded_distortion_of_a_grid(job: Callable[..., AttackJob]) -> None:
    folder = craft(job("attack.settings.levels=256", "attack.targets=closest", "limit=4"))
    made, result = AdversarialSet.load(folder / "set.safetensors"), read_run(folder).info["result"]
    assert made.unrounded_distortion is not None and bool(made.success.all())
    assert result["mean_unrounded_distortion"] == pytest.approx(float(made.unrounded_distortion.mean()))
    assert result["mean_unrounded_distortion"] != result["mean_distortion"]
    assert torch.equal((made.adv_inputs * 255).round() / 255, made.adv_inputs)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"effort": "thorogh"},
            "expected attack.effort out of fast, default, thorough, got 'thorogh'; did you mean thorough?",
        ),
        ({"effort": None}, "expected attack.effort as one of fast, default, thorough, got None"),
        ({"starts": "training"}, "unknown attack.starts 'training'; known: train, batch, none"),
        ({"starts": True}, "unknown attack.starts True; known: train, batch, none"),
        ({"settings": {"effort": "fast"}}, "attack.settings.effort is read by nothing; give attack.effort"),
        ({"settings": {"starts": "batch"}}, "attack.settings.starts is read by nothing; give attack.starts"),
        ({"name": "lbfgs"}, "attack.effort is read by nothing with attack=lbfgs; it is a setting of attack=nearest"),
        ({"start": "batch"}, "attack.start is read by nothing (did you mean starts?)"),
    ],
)
def test_other_words_are_refused_in_one_line(config: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        AttackSettings.of(GIVEN | config)
    assert "\n" not in str(caught.value)


def test_the_folder_it_begins_from_counts_where_other_images_are_attacked(
    composed: Callable[..., dict], tmp_path: Path
) -> None:
    for part, count in (("train", 4), ("test", 3)):
        for name, grey in (("ant", 40), ("bee", 200)):
            (tmp_path / "pics" / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (4, 4), grey + i).save(tmp_path / "pics" / part / name / f"{i}.png")
    images = ("data=image_folder", f"data.folder={tmp_path}/pics", "data.size=4")
    net = fit(training_job(composed("train", *images, "model=fc10", "trainer.max_epochs=1")))
    attack = (f"checkpoints={net}", "attack=nearest", "attack.effort=fast", "subset=test", "attack.targets=closest")

    def job(*more: str) -> AttackJob:
        return AttackJob.from_config(composed("attack", *attack, *more))[0]

    whole = job()
    craft(whole)
    digest = whole.data.description["files"]
    assert whole.identity["starts"] == {"files": digest["train"]}
    assert whole.identity["data"]["files"] == {"test": digest["test"]}
    assert "starts" not in job("attack.starts=batch").identity
    (tmp_path / "pics/train").rename(tmp_path / "away")
    assert job().attack.starts == "none" and "starts" not in job().identity
    with pytest.raises(UserError, match=r"attack\.starts=train: .*pics has no train/; or give"):
        job("attack.starts=train")

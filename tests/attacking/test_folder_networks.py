"""Networks of images in folders: their classes go with them into attacks, analyses and resumed trainings."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from malformed_cases import forged_checkpoint
from PIL import Image

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis.job import AnalysisJob
from intriguing.analysis.run import run_analysis
from intriguing.attacking import AttackJob, craft
from intriguing.checkpoints import load_model, read_checkpoint
from intriguing.cli.config import plain, training_job
from intriguing.errors import UserError
from intriguing.runs.records import read_run
from intriguing.training import TrainingJob, fit

ROOT = Path(__file__).parents[2]
GREYS = {"ant": 40, "bee": 110, "cow": 180}


def paint(folder: Path, **greys: int) -> Path:
    """Six training and four test images of each class, of a grey of its own."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 4)):
        for name, grey in greys.items():
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = (grey + rng.integers(0, 20, (8, 8, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures and a run folder, with one network trained on them and one set made for it."""
    base = tmp_path_factory.mktemp("folders")
    overrides = [f"runs={base}/runs", "logger=csv", f"data.folder={paint(base / 'pics', **GREYS)}", "data.size=8"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", ["data=image_folder", "model=fc10", "trainer.max_epochs=2", "name=n", *overrides])
        fit(training_job(plain(config)))
        config = compose("attack", [f"checkpoints={base}/runs/train/n", "attack=nearest", "name=s", *overrides[:2]])
        (job,) = AttackJob.from_config(plain(config) | {"subset": "test"})
    craft(job)
    return base


@pytest.fixture
def base(made: Path, tmp_path: Path) -> Path:
    """A copy of the above that a test may spoil. The network still looks for its pictures in the first place."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def attack(composed: Callable[..., dict], base: Path) -> Callable[..., AdversarialSet]:
    def run(*overrides: str) -> AdversarialSet:
        given = [f"checkpoints={base}/runs/train/n", "attack=nearest", "limit=null", *overrides]
        (job,) = AttackJob.from_config(composed("attack", *given))
        return AdversarialSet.load(craft(job) / "set.safetensors")

    return run


@pytest.fixture
def report(composed: Callable[..., dict], base: Path) -> Callable[..., Path]:
    def run(*overrides: str) -> Path:
        given = [f"networks={base}/runs/train/*", f"sets={base}/runs/attack/*", "sections=[table1,transfer]"]
        return run_analysis(AnalysisJob.from_config(composed("analyze", *given, *overrides)))

    return run


def _here(base: Path) -> tuple[str, str]:
    return "data=image_folder", f"data.folder={base}/pics"


def test_the_classes_counts_and_files_are_in_identity_checkpoint_and_set(base: Path) -> None:
    checkpoint = base / "runs/train/n/model.ckpt"
    own = read_checkpoint(checkpoint)["intriguing"]["data"]
    assert own["classes"] == list(GREYS) and own["counts"] == {"train": [6] * 3, "test": [4] * 3}
    identity = read_run(checkpoint.parent).config["data"]
    assert {key: identity[key] for key in ("classes", "counts", "files")} == {
        key: own[key] for key in ("classes", "counts", "files")
    }
    assert "folder" not in identity  # where it lies is no part of what it is
    network = load_model(checkpoint)
    assert network.trained_on == own and network.num_classes == 3
    metadata = AdversarialSet.load(base / "runs/attack/s/set.safetensors").metadata["data"]
    assert metadata["classes"] == own["classes"] and metadata["files"] == {"test": own["files"]["test"]}


@pytest.mark.parametrize("group", [True, False])
def test_a_folder_that_moved_can_be_given_again(
    attack: Callable[..., AdversarialSet], base: Path, made: Path, group: bool
) -> None:
    moved = (base / "pics").rename(base / "elsewhere")
    given = ("data=image_folder",) * group + (f"data.folder={moved}",)
    for subset in ("test", "train"):
        expected, found = (attack(f"subset={subset}", f"name={subset}{len(g)}", *g) for g in ((), given))
        assert torch.equal(expected.inputs, found.inputs) and torch.equal(expected.labels, found.labels)
    again = attack("subset=test", "name=test0", *given)  # the same run: it is finished
    assert torch.equal(again.inputs, attack("subset=test", "name=test0").inputs)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.folder=/nowhere"], "there is no folder /nowhere; data.folder is an absolute path, or one"),
        (["data.size=4"], r"trained on images of data\.size=8, so data\.size=4 cannot be"),
        (["data.resize=9"], r"trained on images of data\.resize=8, so data\.resize=9 cannot be"),
        (["data=mnist"], "was trained on image_folder, so data=mnist cannot be"),
    ],
)
def test_settings_of_images_that_are_not_the_networks_are_refused(
    attack: Callable, report: Callable, overrides: list[str], words: str, tmp_path: Path
) -> None:
    for stage in (attack, report):
        with pytest.raises(UserError, match=words):
            stage(*overrides)
    assert not (tmp_path / "runs").exists()


def test_settings_that_neither_attack_nor_analyze_reads_are_refused(
    run_script: Callable[..., tuple], made: Path
) -> None:
    networks = f"{made}/runs/train/n"
    for script, source in (("attack.py", f"checkpoints={networks}"), ("analyze.py", f"networks={networks}")):
        status, _, err = run_script(script, source, *_here(made), "+data.validation=2", "logger=csv")
        assert status == 1 and err.startswith("error: +data.validation=2 changes nothing here") and err.count("\n") == 1


def _without(name: str) -> Callable[[Path], object]:
    return lambda pics: [shutil.rmtree(one) for one in pics.glob(f"*/{name}")]


def _renamed(name: str, to: str) -> Callable[[Path], object]:
    return lambda pics: [one.rename(one.with_name(to)) for one in list(pics.glob(f"*/{name}"))]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("ant"), "it lacks ant;"),
        (lambda pics: paint(pics, ape=9), "it has ape besides;"),
        (_renamed("bee", "zoo"), "it lacks bee and has zoo besides;"),
    ],
)
def test_a_class_that_went_came_or_was_renamed_is_refused_in_every_stage(
    attack: Callable, report: Callable, composed: Callable, base: Path, change: Callable, words: str
) -> None:
    change(base / "pics")
    for stage in (attack, report):
        for subset in ("test", "train"):
            with pytest.raises(UserError, match=words):
                stage(*_here(base), *([f"subset={subset}"] if stage is attack else []))
    again = composed("train", *_here(base), "data.size=8", "model=fc10", "trainer.max_epochs=2", "name=n")
    with pytest.raises(UserError, match=r"holds another config: .*data\.classes"):
        fit(training_job(again | {"runs": f"{base}/runs"}))


def test_files_that_changed_are_refused_where_they_were_trained_on(
    attack: Callable[..., AdversarialSet], composed: Callable, base: Path
) -> None:
    shutil.copy(base / "pics/test/bee/0.png", base / "pics/test/bee/9.png")
    assert len(attack("subset=test", *_here(base))) == 13  # more test images of the same classes
    shutil.copy(base / "pics/test/bee/0.png", base / "pics/train/bee/9.png")
    with pytest.raises(UserError, match="the train files are not those that the network was trained on"):
        attack("subset=train", *_here(base))


def test_a_training_goes_on_with_the_files_that_it_began_with_alone(
    composed: Callable, tmp_path: Path, fit_up_to: Callable[[int, TrainingJob], None]
) -> None:
    pics = paint(tmp_path / "pics", **GREYS)

    def job(folder: Path, name: str) -> TrainingJob:
        given = ["data=image_folder", f"data.folder={folder}", "data.size=8", "model=fc10", "trainer.max_epochs=4"]
        return training_job(composed("train", *given, f"name={name}"))

    whole = load_model(fit(job(pics, "whole")) / "model.ckpt").state_dict()
    fit_up_to(2, job(pics, "part"))
    (pics / "train/ant/0.png").rename(tmp_path / "away.png")
    with pytest.raises(UserError, match=r"holds another config: data\.counts\.train is \[6,6,6\] there and \[5,6,6\]"):
        fit(job(pics, "part"))
    (tmp_path / "away.png").rename(pics / "train/ant/0.png")
    moved = pics.rename(tmp_path / "moved")
    resumed = load_model(fit(job(moved, "part")) / "model.ckpt").state_dict()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_that_is_missing_is_said_before_the_training(composed: Callable, tmp_path: Path, part: str) -> None:
    pics = paint(tmp_path / "pics", **GREYS)
    shutil.rmtree(pics / part)
    config = composed("train", "data=image_folder", f"data.folder={pics}", "data.size=8", "model=fc10")
    with pytest.raises(UserError, match=f"there are no {part} images: {pics} has no {part}/"):
        fit(training_job(config))
    assert not (tmp_path / "runs").exists()


def test_networks_and_sets_of_two_folders_of_classes_are_not_mixed(
    report: Callable[..., Path], composed: Callable, base: Path
) -> None:
    pics = paint(base / "others", ant=40, bee=110, dog=180)
    config = composed("train", "data=image_folder", f"data.folder={pics}", "data.size=8", "model=fc10", "name=o")
    fit(training_job(config | {"runs": f"{base}/runs", "trainer": config["trainer"] | {"max_epochs": 1}}))
    with pytest.raises(UserError, match=r"do not have the same classes \(cow, dog are in one alone\)"):
        report()


def test_an_analysis_says_where_the_pictures_are_now(report: Callable[..., Path], base: Path, made: Path) -> None:
    assert (report(*_here(base)) / "report.html").is_file()


def test_pictures_that_are_gone_are_said_before_anything_is_measured(
    report: Callable[..., Path], base: Path, made: Path, tmp_path: Path
) -> None:
    (made / "pics").rename(made / "away")
    try:
        with pytest.raises(UserError, match=r"there is no folder .*pics"):
            report("sections=[stability]")
    finally:
        (made / "away").rename(made / "pics")
    assert not (tmp_path / "runs").exists()


def test_noise_of_a_folder_is_named_after_it(composed: Callable, base: Path) -> None:
    (job,) = AttackJob.from_config(composed("attack", "attack=gaussian", "subset=test", *_here(base), "data.size=8"))
    assert job.name.startswith("pics_gaussian0.1_test") and job.identity["data"]["classes"] == list(GREYS)
    assert len(AdversarialSet.load(craft(job) / "set.safetensors")) == 12


def test_names_without_ascii_letters_go_through_every_stage(composed: Callable, tmp_path: Path) -> None:
    pics = paint(tmp_path / "写真", 猫=40, собака=180)
    given = ["data=image_folder", f'data.folder="{pics}"']
    trained = fit(training_job(composed("train", *given, "data.size=8", "model=fc10", "trainer.max_epochs=1")))
    assert trained.name.isascii() and trained.name.endswith("_fc_wd1e-4_full_seed0")
    assert load_model(trained / "model.ckpt").label == "FC2(1e-4)"
    crafted = [f"checkpoints={trained}", "attack=nearest", "subset=test", "limit=4", *given]
    (job,) = AttackJob.from_config(composed("attack", *crafted))
    found = [f"networks={trained}", f"sets={craft(job)}", "sections=[transfer]", *given]
    assert (run_analysis(AnalysisJob.from_config(composed("analyze", *found))) / "report.html").is_file()
    assert load_model(trained / "model.ckpt").trained_on["classes"] == ["собака", "猫"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ["ant", "bee"]}, "its data names 2 classes, its network has 3"),
        ({"classes": ["ant", "ant", "bee"]}, "its data names 2 classes, its network has 3"),
        ({"classes": [1, 2, 3]}, "no names of classes"),
        ({"counts": {"train": [6] * 3, "test": [4] * 2}}, "no counts of images"),
        ({"files": {"train": "x"}}, "no digests"),
    ],
)
def test_a_checkpoint_with_classes_that_are_not_its_networks_is_refused(base: Path, change: dict, words: str) -> None:
    file = base / "runs/train/n/model.ckpt"
    forged_checkpoint(lambda content: content["intriguing"]["data"].update(change), file)(base)
    with pytest.raises(UserError, match=rf"model\.ckpt is no checkpoint that python train\.py wrote: .*{words}"):
        load_model(file)

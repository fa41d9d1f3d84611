"""The wheel holds code and configs, and its three commands work from any folder; the sdist gives an equal wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ("train", "attack", "analyze")
UV = os.environ.get("UV") or shutil.which("uv")
SMALL = ("data=digits", "logger=csv", "trainer.max_epochs=1")

needs_uv = pytest.mark.skipif(UV is None, reason="needs uv, which installs without a network")


def _build(kind: str, project: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment with the wheel and, by a path, the dependencies of this one."""
    assert UV is not None
    env = tmp_path_factory.mktemp("env") / "env"
    subprocess.run([UV, "venv", "-q", "--offline", "--python", sys.executable, env], check=True)
    subprocess.run([UV, "pip", "install", "-q", "--offline", "--no-deps", "--python", env, wheel], check=True)
    scheme = {"base": str(env), "platbase": str(env), "installed_base": str(env)}
    site = Path(sysconfig.get_path("purelib", "venv", scheme))
    # Files of a path in a .pth file are not read for further paths, so this checkout's code is not found by it.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Path(sysconfig.get_path("scripts", "venv", scheme))


def _run(commands: Path, folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(commands / name), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_the_wheel_holds_every_config_and_module(wheel: Path) -> None:
    names = _contents(wheel).keys()
    ours = {file for file in (ROOT / "conf").rglob("*.yaml") if file.parent.name != "local"}
    assert {f"intriguing/conf/{file.relative_to(ROOT / 'conf').as_posix()}" for file in ours} <= names
    code = {file for file in (ROOT / "src").rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert {file.relative_to(ROOT / "src").as_posix() for file in code} <= names
    assert not [name for name in names if name.startswith("intriguing/conf/local/") and name.endswith(".yaml")]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"intriguing"}


def test_the_sdist_gives_an_equal_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(_build("sdist", ROOT, tmp_path / "sdist")) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (project,) = (tmp_path / "unpacked").iterdir()
    assert {f"{stage}.py" for stage in STAGES} <= {file.name for file in project.iterdir()}
    again = _contents(_build("wheel", project, tmp_path / "again"))
    assert again == _contents(wheel)


@needs_uv
def test_commands_are_installed_with_help(commands: Path, tmp_path: Path) -> None:
    assert {f"intriguing-{stage}" for stage in STAGES} <= {file.stem for file in commands.iterdir()}
    done = _run(commands, tmp_path, "intriguing-train", "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage: intriguing-train" in done.stdout and "back_feeding" in done.stdout
    assert not list(tmp_path.iterdir())


@needs_uv
@pytest.mark.slow
def test_an_empty_folder_gets_a_network(commands: Path, tmp_path: Path) -> None:
    done = _run(commands, tmp_path, "intriguing-train", "model=fc10", "name=net", *SMALL)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "runs" / "train" / "net" / "run.json").read_text())
    assert record["command"] == "intriguing-train model=fc10 name=net data=digits logger=csv trainer.max_epochs=1"
    assert record["commit"] is None


MINE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, input_shape, num_classes, width=8):
        super().__init__()
        channels, height, side = input_shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(width * height * side, num_classes),
        )

    def forward(self, images):
        return self.layers(images)


def fgsm(model, inputs, labels, *, eps=0.1):
    inputs = inputs.requires_grad_()
    loss = nn.functional.cross_entropy(model(inputs), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, inputs)
    return (inputs + eps * gradient.sign()).clamp(0, 1).detach()
"""
STUDY = """
name: mine
title: Mine
seeds: [0]
limit: 8
results: null
overrides: [logger=csv]
train:
  all: [data=digits, trainer.max_epochs=1]
  networks: {narrow: [model=fc10], wide: [model=fc100_100_10]}
attack:
  - {networks: ["*"], overrides: [attack=nearest, attack.targets=closest]}
"""


@needs_uv
@pytest.mark.slow
def test_a_network_and_an_attack_of_the_user_go_the_whole_way_installed(commands: Path, tmp_path: Path) -> None:
    """Beside a file of 25 lines: AdamW and one cycle, a sweep, back-feeding, two attacks, the page: 60 s of CPU."""
    (tmp_path / "mine.py").write_text(MINE)
    net = ("model=module", "model._target_=mine.Net", *SMALL)
    runs = ("checkpoints=runs/train/*", "model._target_=mine.Net", "limit=8", "logger=csv")
    for name, *arguments in [
        ("train", *net, "optimizer=adamw", "optimizer.lr=3e-4", "scheduler=one_cycle"),
        ("train", "-m", *net, "model.width=4", "weight_decay.value=1e-5,1e-3"),
        ("train", *net, "callbacks=back_feeding"),
        ("attack", *runs, "attack=nearest", "attack.targets=closest"),
        ("attack", *runs, "attack=module", "attack._target_=mine.fgsm", "attack.eps=0.2"),
        ("analyze", "networks=runs/train/*", "sets=runs/attack/*", "model._target_=mine.Net", "logger=csv"),
    ]:
        done = _run(commands, tmp_path, f"intriguing-{name}", *arguments)
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs" / "train").iterdir())) == 4
    assert len(list((tmp_path / "runs" / "attack").iterdir())) == 8
    page = (tmp_path / "runs" / "analyze" / "analysis" / "report.html").read_text()
    assert "fgsm" in page and "Net(width=4)" in page


@needs_uv
@pytest.mark.slow
def test_everything_that_starts_processes_works_installed(commands: Path, tmp_path: Path) -> None:
    """DDP, a launcher, attacks in two processes, and a study of the user's own in two: 60 s of CPU."""
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    sweep = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "model=fc10", "seed=1,2")
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "mine.yaml").write_text(STUDY)
    for name, *arguments in [
        ("train", "model=fc10", "name=two", *two, *SMALL),
        ("train", *sweep, *SMALL),
        ("attack", "checkpoints=runs/train/two", "limit=8", "shard=4", "logger=csv", "trainer.devices=2"),
        ("analyze", "--config-dir", "conf", "study=mine", "logger=csv", "processes=2"),
    ]:
        done = _run(commands, tmp_path, f"intriguing-{name}", *arguments)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "analyze" / "mine" / "report.html").is_file()
    written = [json.loads(file.read_text())["command"] for file in (tmp_path / "runs").glob("*/*/run.json")]
    assert len(written) == 9
    assert {text.split()[0] for text in written} == {f"intriguing-{stage}" for stage in STAGES}
    done = _run(commands, tmp_path, "intriguing-attack", "checkpoints=none/model.ckpt")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "checkpoints=none/model.ckpt" in done.stderr

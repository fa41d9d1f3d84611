"""A checkpoint from W&B: found, kept, verified; and one line for everything that can be wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intriguing.errors import UserError
from intriguing.tracking.artifact import fetch_checkpoint

NAME = "wandb:me/intriguing/checkpoint-digits_fc10"


@pytest.fixture
def network(run_script: Callable[..., tuple], tmp_path: Path) -> Path:
    run_script("train.py", "model=fc10", "data=digits", "trainer.max_epochs=1", "name=mine", "logger=csv")
    return tmp_path / "runs" / "train" / "mine" / "model.ckpt"


class Artifact:
    """Stands for W&B's: version 3 of a network of ours."""

    type, version, name = "checkpoint", "v3", "checkpoint-digits_fc10:v3"

    def __init__(self, file: Path) -> None:
        self.file, self.downloads = file, 0

    def download(self, root: str, skip_cache: bool) -> None:
        self.downloads += 1
        assert skip_cache
        shutil.copyfile(self.file, Path(root) / self.file.name)


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """What a fake of wandb.Api knows, W&B switched on."""
    (tmp_path / "nothing").write_text("no network")
    known = Artifact(tmp_path / "nothing")

    class Api:
        def __init__(self, timeout: int) -> None: ...

        def artifact(self, name: str) -> Artifact:
            if name not in ("me/intriguing/checkpoint-digits_fc10:latest", "me/intriguing/checkpoint-digits_fc10:v3"):
                raise ValueError(f"artifact {name} not found")
            return known

    monkeypatch.setattr("wandb.Api", Api)
    monkeypatch.setenv("WANDB_MODE", "online")
    return known


def test_attack_takes_a_network_from_wandb(
    artifact: Artifact, network: Path, run_script: Callable[..., tuple], tmp_path: Path
) -> None:
    artifact.file = network
    attack = ("logger=csv", "limit=4", "attack=nearest", "attack.targets=closest")
    status, _, err = run_script("attack.py", f"checkpoints={NAME}:latest", *attack)
    assert status == 0, err
    kept = tmp_path / "runs/artifacts/me/intriguing/v3/digits_fc10/model.ckpt"
    assert kept.read_bytes() == artifact.file.read_bytes()
    (made,) = (tmp_path / "runs" / "attack").iterdir()
    assert made.name.startswith("digits_fc10_nearest_closest_train4")
    assert {path.name for path in kept.parents[2].iterdir()} == {"v3"}, "a part was left"
    # a version that is here is not asked for again, so it can be used with W&B off
    assert fetch_checkpoint(f"{NAME}:v3", tmp_path / "runs", mode="offline") == kept
    assert artifact.downloads == 1


def test_what_is_fetched_is_verified(
    artifact: Artifact, network: Path, run_script: Callable[..., tuple], tmp_path: Path
) -> None:
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    artifact.file = network
    status, _, err = run_script("attack.py", f"checkpoints={NAME}:latest", "logger=csv")
    assert status == 1 and err.count("\n") == 1 and "v3/digits_fc10/model.ckpt was changed or damaged" in err
    assert not (tmp_path / "runs" / "attack").exists()


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("wandb:mine", "names no artifact; expected wandb:entity/project/artifact:alias"),
        ("wandb:me/intriguing/checkpoint-x", "names no artifact"),
        ("wandb:me/intriguing/../x:v0", "names no artifact"),
        ("wandb:me/intriguing/other:v0", "cannot be had from W&B (ValueError: artifact me/intriguing/other:v0 not"),
    ],
)
def test_mistakes(artifact: Artifact, run_script: Callable[..., tuple], reference: str, words: str) -> None:
    status, _, err = run_script("attack.py", f"checkpoints={reference}", "logger=csv")
    assert status == 1 and err.startswith("error: wandb:") and err.count("\n") == 1 and words in err


def test_another_kind_of_artifact(artifact: Artifact, tmp_path: Path) -> None:
    artifact.type = "adversarial_set"
    with pytest.raises(UserError, match="of type adversarial_set; expected one of type checkpoint"):
        fetch_checkpoint(f"{NAME}:latest", tmp_path)
    artifact.type = "checkpoint"
    with pytest.raises(UserError, match=r"holds no model\.ckpt"):
        fetch_checkpoint(f"{NAME}:latest", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.name == "model.ckpt" and "artifacts" in path.parts]


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_switched_off(run_script: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    status, _, err = run_script("attack.py", f"checkpoints={NAME}:latest")
    assert status == 1 and err == (
        f"error: {NAME}:latest has to be fetched, but W&B is {mode}: set WANDB_MODE=online, with an account "
        "(wandb login)\n"
    )


def test_without_an_account(run_script: Callable[..., tuple], monkeypatch: Any, tmp_path: Path) -> None:
    """W&B itself, which finds no key and asks nobody."""
    for key in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    status, _, err = run_script("attack.py", f"checkpoints={NAME}:latest")
    assert status == 1 and err.count("\n") == 1 and "No API key configured" in err

"""Checkpoints by file, folder, glob, list and W&B's name: which are found, in which order, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from intriguing.checkpoints import find_checkpoints
from intriguing.errors import UserError


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """Three runs, one of them with a checkpoint of its best epoch, and one without any."""
    train = tmp_path / "runs" / "train"
    for name in ("fc2", "fc10", "fc100/checkpoints"):
        (train / name).mkdir(parents=True)
    for file in ("fc2/model.ckpt", "fc10/model.ckpt", "fc100/model.ckpt", "fc100/checkpoints/best.ckpt"):
        (train / file).touch()
    (train / "empty").mkdir()
    return train


def _names(train: Path, found: list[Path]) -> list[str]:
    return [str(path.relative_to(train)) for path in found]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        ("fc10", ["fc10/model.ckpt"]),
        ("fc100/checkpoints/best.ckpt", ["fc100/checkpoints/best.ckpt"]),
        ("*", ["fc2/model.ckpt", "fc10/model.ckpt", "fc100/model.ckpt"]),  # 2 before 10 before 100
        ("fc1*/model.ckpt", ["fc10/model.ckpt", "fc100/model.ckpt"]),
        ("**/*.ckpt", ["fc2/model.ckpt", "fc10/model.ckpt", "fc100/checkpoints/best.ckpt", "fc100/model.ckpt"]),
        (["fc100", "fc10", "*"], ["fc100/model.ckpt", "fc10/model.ckpt", "fc2/model.ckpt"]),  # each once
    ],
)
def test_patterns_in_their_order_each_file_once(train: Path, patterns: str | list[str], found: list[str]) -> None:
    asked = [f"{train}/{one}" for one in ([patterns] if isinstance(patterns, str) else patterns)]
    assert sorted(_names(train, find_checkpoints(asked))) == sorted(found)
    assert _names(train, find_checkpoints(asked if isinstance(patterns, list) else asked[0])) == found


def test_a_tilde_is_the_home_folder(train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(train.parent))
    monkeypatch.setenv("USERPROFILE", str(train.parent))
    assert _names(train, find_checkpoints("~/train/fc2")) == ["fc2/model.ckpt"]


def test_artifacts_of_wandb_among_files(train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(reference: str, runs: str, *, mode: str | None) -> Path:
        asked.append((reference, runs, mode))
        return train / "fc10" / "model.ckpt"

    monkeypatch.setattr("intriguing.checkpoints.fetch_checkpoint", fetch)
    found = find_checkpoints([f"{train}/fc2", "wandb:me/p/a:v1", f"{train}/*"], runs="my runs", wandb_mode="online")
    assert _names(train, found) == ["fc2/model.ckpt", "fc10/model.ckpt", "fc100/model.ckpt"]
    assert asked == [("wandb:me/p/a:v1", "my runs", "online")]


@pytest.mark.parametrize("pattern", ["nothing*", "empty", "fc2/last.ckpt"])
def test_a_pattern_without_a_checkpoint_is_named(train: Path, pattern: str) -> None:
    with pytest.raises(UserError, match=rf"checkpoints=.*{pattern.replace('*', '[*]')} matches no checkpoint"):
        find_checkpoints([f"{train}/fc2", f"{train}/{pattern}"])


def test_wandb_that_is_off_is_named(train: Path) -> None:
    with pytest.raises(UserError, match=r"wandb:me/p/a:v1 has to be fetched, but W&B is offline"):
        find_checkpoints("wandb:me/p/a:v1", wandb_mode="offline")

"""Each command goes by the name that its user has; a user's configs come by Hydra's --config-dir."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from intriguing import commands

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("running", ["/checkout/train.py", "/site-packages/pytest/__main__.py", ""])
def test_a_checkout_has_scripts(running: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [running])
    assert commands.command_name("attack") == "python attack.py"


@pytest.mark.parametrize("running", ["/env/bin/intriguing-analyze", "intriguing-train.exe"])
def test_a_command_that_runs_names_its_like(running: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [running, "study=quickstart"])
    assert commands.command_name("attack") == "intriguing-attack"


def test_a_program_without_arguments_gets_a_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [])
    assert commands.command_name("train") == "python train.py"


def test_the_configs_are_found_in_a_checkout() -> None:
    assert ROOT / "conf" == commands.CONF


def test_configs_of_the_user_come_by_their_folder(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "wide.yaml").write_text(
        "# @package _global_\ndefaults: [{override /model: fc10}]\nseed: 7\n"
    )
    status, out, err = run_script("train.py", "--cfg", "job", "--config-dir", "mine", "experiment=wide")
    assert status == 0, err
    assert "seed: 7" in out and "widths: []" in out


def test_a_config_that_would_never_be_read_is_refused(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "fc10.yaml").write_text("name: fc20\n")
    shown = ("--cfg", "job", "--config-dir", "mine")
    status, _, err = run_script("train.py", *shown, "model=fc10")
    assert (status, err) == (
        1,
        "error: mine/model/fc10.yaml is never read, for the project has a config of this name; rename the file\n",
    )
    (tmp_path / "mine" / "model" / "fc10.yaml").rename(tmp_path / "mine" / "model" / "mine.yaml")
    assert run_script("train.py", *shown, "model=fc10")[0] == 0


def test_the_recorded_command_finds_the_users_configs_again(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    folder = tmp_path / "my configs"
    folder.mkdir()
    (folder / "my_train.yaml").write_text("defaults: [train, _self_]\ntrainer: {max_epochs: 0}\nseed: 7\n")
    typed = ("--config-dir", "my configs", "--config-name", "my_train", "model=fc10", "data=digits", "logger=csv")
    status, _, err = run_script("train.py", *typed)
    assert status == 0, err
    (run,) = (tmp_path / "runs" / "train").iterdir()
    recorded = shlex.split(json.loads((run / "run.json").read_text())["command"])
    assert recorded[:2] == ["python", "train.py"] and recorded[2:9] == list(typed)
    before = (run / "run.json").stat().st_mtime_ns
    status, _, err = run_script(*recorded[1:], runs=False)
    assert status == 0 and [run] == list((tmp_path / "runs" / "train").iterdir()), err
    assert (run / "run.json").stat().st_mtime_ns == before

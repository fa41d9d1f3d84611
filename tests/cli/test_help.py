"""``--help`` explains every group and setting of a command, from the configs themselves."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import yaml

from intriguing.cli.help import GROUPS, help_text
from intriguing.commands import CONF


def _keys(value: object) -> list[str]:
    """All keys of a mapping, at any depth."""
    return [key for k, v in value.items() for key in (str(k), *_keys(v))] if isinstance(value, dict) else []


@pytest.mark.parametrize("stage", ["train", "attack", "analyze"])
def test_every_setting_and_its_comment_is_there(stage: str) -> None:
    text = help_text(stage, "What it does.", [])
    assert text.startswith("What it does.\n\nUsage: python ")
    for file in (CONF / f"{stage}.yaml", CONF / "base.yaml"):
        source = file.read_text()
        settings = {k: v for k, v in yaml.safe_load(source).items() if k not in ("defaults", "hydra")}
        for key in _keys(settings):
            assert re.search(rf"\b{re.escape(key)}:", text), key
        after = source.partition("\n\n")[2].partition("\nhydra:")[0]
        for comment in re.findall(r"# .+$", after if file.stem == stage else "", re.MULTILINE):
            assert comment in text
    assert "hydra/" not in text and "override_dirname" not in text


def test_every_group_is_explained() -> None:
    groups = {folder.name for folder in CONF.iterdir() if folder.is_dir()} - {"hydra"}
    assert groups <= set(GROUPS)


def test_the_options_that_are_typed_are_those_whose_settings_are_listed() -> None:
    text = help_text("train", "", ["network=ae400_10", "trainer=gpu", "data=image_folder", "data.folder=x"])
    assert "[ae400_10]" in text and "model=ae400_10" in text and "\n  # Images of your own" not in text
    gpu = text.partition("\ntrainer=gpu\n")[2].partition("\n\n")[0]
    assert "accelerator: gpu" in gpu and "devices: 1" in gpu and "enable_progress_bar: true" in gpu
    assert "channels: null        # 1 (grey) or 3 (colour)" in text
    assert "from_checkpoint" not in text and "from_checkpoint" in help_text("attack", "", [])


def test_the_command_prints_it_and_does_nothing(run_script: Callable[..., tuple]) -> None:
    status, out, err = run_script("attack.py", "--help", "attack=nearest")
    assert (status, err) == (0, "") and "attack=nearest\n" in out
    status, out, err = run_script("attack.py", "--help", "attack=nothing")
    assert status == 1 and err.startswith("error: ") and err.count("\n") == 1

"""Every command and setting that README, docs/, the configs and the messages name is one that there is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from intriguing.cli import overrides
from intriguing.cli.config import plain

ROOT = Path(__file__).parents[2]
ENTRIES = ("train", "attack", "analyze")
EXTRAS = {"joblib": "hydra_joblib_launcher", "optuna": "hydra_optuna_sweeper"}
EXTRAS |= dict.fromkeys(("slurm", "local"), "hydra_submitit_launcher")
OPTIONS = [
    ("train", "data=image_folder", "data.folder=x", "callbacks=back_feeding", "model=torchvision"),
    ("train", "data=digits", "callbacks=early_stopping", "model=convnet", "trainer=ddp"),
    ("train", "data=blank", "data.shape=[1,8,8]", "data.num_classes=2"),
    ("train", "model=alexnet", "debug=overfit"),
    ("train", "model=ae400_10", "debug=profile"),
    ("train", "debug=fast"),
    ("train", "model=module", "model._target_=mine.Net", "data=module", "data._target_=mine.images"),
    ("attack", "attack=lbfgs"),
    ("attack", "attack=nearest"),
    ("attack", "attack=adam_l1"),
    ("attack", "attack=gaussian"),
    ("attack", "attack=module", "attack._target_=mine.fgsm"),
    ("train", "model=file", "model.path=net.pt2"),
    ("analyze", "study=quickstart"),
    ("analyze", "study=quickstart", "launcher=slurm"),
]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _pages() -> Iterator[str]:
    """The commands in the blocks of README and docs/, those over several lines in one."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            yield from block.splitlines() if language in ("", "bash") else []
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE).replace("\n", " ")
        yield from re.findall(r"(?<!`)`((?:uv run (?:train|attack|analyze)\.py|intriguing-\w+) [^`]*)`", prose)


def _comments() -> Iterator[str]:
    """The commands in the comments of the configs; what they do stands two blanks or more behind them."""
    for file in sorted((ROOT / "conf").rglob("*.yaml")):
        for line in re.findall(r"^# +(?:An experiment only overrides: )?(python .*)", file.read_text(), re.MULTILINE):
            yield re.split(r" {2,}", line)[0]
        for line in re.findall(r"^# {3}(hydra\.\S.*)", file.read_text(), re.MULTILINE):
            yield f"python train.py -m hydra/launcher={file.stem} {re.split(r' {2,}', line)[0]}"


def _words(line: str) -> list[str]:
    """The entry point and its arguments."""
    words = [word for word in shlex.split(line, comments=True) if word != "..."]
    names = [word.removesuffix(".py").removeprefix("intriguing-") for word in words]
    start = next(i for i, name in enumerate(names) if name in ENTRIES)
    return [names[start], *words[start + 1 :]]


COMMAND = re.compile(r"\b(train|attack|analyze)\.py|\bintriguing-(train|attack|analyze) ")
LINES = [line for line in (*_pages(), *_comments()) if COMMAND.search(line)]
COMMANDS = {shlex.join(words): words for words in map(_words, LINES)}


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.mark.parametrize("line", sorted(COMMANDS))
def test_a_command_composes(line: str) -> None:
    arguments = overrides.arranged(COMMANDS[line])
    for option, extra in EXTRAS.items():
        if re.search(rf"(launcher=|experiment=){option}", line):
            pytest.importorskip(f"hydra_plugins.{extra}", reason=f"needs the extra for {option}")
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    typed = []
    for one in parser.parse_overrides(get_args_parser().parse_args(arguments[1:]).overrides):
        first = next(one.sweep_string_iterator()) if one.is_sweep_override() else None
        typed.append(one.input_line or "" if first is None else f"{one.get_key_element()}={first}")
    overrides.check(typed)
    assert plain(compose(arguments[0], overrides=typed))["runs"] == "runs"


def test_there_are_as_many_commands_as_are_seen() -> None:
    assert len(COMMANDS) > 60


def _keys(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def test_every_setting_that_is_named_exists() -> None:
    """Of README, docs/, the messages and docstrings: whatever is written as ``section.key=``."""
    known: set[str] = set()
    for entry, *typed in OPTIONS:
        known |= set(_keys(plain(compose(entry, overrides=typed))))
    files = [*PAGES, *(ROOT / "src").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")]
    sections = {key.split(".")[0] for key in known if "." in key}
    named = {
        (key, file.name)
        for file in files
        for key in re.findall(r"(?<![\w./{}])([a-z_]+(?:\.[a-z_]+)+)=(?!=)", file.read_text(encoding="utf-8"))
        if key.split(".")[0] in sections
    }
    own = ("trainer.", "model.settings.", "callbacks.", "optimizer.", "scheduler.")  # and the options of their classes
    # and of a class or function of the user's
    own += ("model.width", "data.train.", "data.test.", "data.noise", "attack.eps", "attack.settings.eps")
    assert len(named) > 20
    assert not [one for one in sorted(named) if one[0] not in known and not one[0].startswith(own)]


def test_the_options_of_the_table_exist() -> None:
    """The table of groups on the page about the command line."""
    text = (ROOT / "docs" / "howto" / "command-line.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/]+)` \| (.*) \|$", text, re.MULTILINE)
    groups = {
        group: set(re.findall(r"(?<!=)`([\w-]+)`", text)) for group, text in rows if (ROOT / "conf" / group).is_dir()
    }
    assert len(groups) >= 10
    for group, options in groups.items():
        there = {file.stem for file in (ROOT / "conf" / group).glob("*.yaml")}
        plugin = {"joblib"} if find_spec("hydra_plugins.hydra_joblib_launcher") else set()
        assert options and options <= there | plugin, (group, options - there)

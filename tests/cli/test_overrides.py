"""Overrides as texts: what is written from a value is read back by Hydra as that value."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from intriguing.cli.overrides import accepted, arranged, check, command, for_stage, name_extras, override
from intriguing.errors import UserError

# Letters that mean something to Hydra, OmegaConf, YAML or a shell come often.
SPECIAL = st.sampled_from("=[](){},'\"%#: $\\~+-./*?&;!|<>@^`\té路0aé")
TEXTS = st.text(SPECIAL | st.characters(exclude_categories=("Cs", "Cc"))).filter(lambda text: text != "???")
VALUES = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | TEXTS


PARSER = OverridesParser.create()


def _read(text: str) -> object:
    """As Hydra does it: parse, put into a config, resolve."""
    parsed = PARSER.parse_override(text)
    config = OmegaConf.create({"a": {"key": None}})
    OmegaConf.update(config, parsed.key_or_group, parsed.value())
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)["a"]["key"]  # pyright: ignore


@given(VALUES | st.lists(VALUES, max_size=3))
@example("")
@example("null")
@example("1e-3")
@example("a\\")
@example("\\${a.key}")
@example("${a.key}\\\\")
@example("/a/b=c[1],(d) {e} 'f' \"g\" %h #i: $j \\k/é")
def test_a_value_comes_back_from_hydras_parser(value: object) -> None:
    read = _read(override("a.key", value))
    assert read == value and type(read) is type(value)


def test_what_hydra_cannot_be_given_is_refused() -> None:
    with pytest.raises(UserError, match=r"runs=\?\?\? cannot be given"):
        override("runs", "???")


@pytest.mark.parametrize(
    "typed",
    [
        ["model.label=it's $HOME", "callbacks.x=a;b", "tags=[a,b]", "name=`x`"],
        ["checkpoints='runs/a=b[1]/*'", 'x="a b"', "~callbacks.x", "callbacks={a: {_target_: b.C}}"],
    ],
)
def test_the_recorded_command_gives_a_shell_what_was_typed(typed: list[str]) -> None:
    recorded = command("train", typed)
    said = subprocess.run(["sh", "-c", f"printf '%s\\n' {recorded}"], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["python", "train.py", *typed]


def test_the_recorded_command_has_no_absolute_path(tmp_path: Path) -> None:
    typed = [f"runs='{tmp_path}/a=b, c'", "data.root=/home/me/my data", "callbacks={x: {dirpath: /home/me/x}}"]
    assert shlex.split(command("train", typed, tmp_path))[2:] == [
        'runs="a=b, c"',
        'data.root=".../my data"',
        "callbacks={x: {dirpath: .../x}}",
    ]


def test_overrides_may_stand_on_both_sides_of_an_option() -> None:
    typed = ["train.py", "model=fc10", "-m", "seed=0,1", "--config-dir", "conf", "data=digits"]
    assert arranged(typed) == ["train.py", "-m", "--config-dir", "conf", "model=fc10", "seed=0,1", "data=digits"]
    with pytest.raises(UserError, match="unrecognized arguments: --seeds=3; settings are given as name=value"):
        arranged(["train.py", "model=fc10", "--seeds=3"])


def test_callbacks_are_taken_as_a_mapping_and_null_takes_a_group_back() -> None:
    mine = "callbacks={mine: {_target_: a.B}}"
    assert accepted(["seed=1", mine]) == ["seed=1", f"++{mine}"]
    assert accepted(["network=fc10_1", "network=null", "callbacks=null"]) == ["callbacks=none"]


@pytest.mark.parametrize("text", ["~data", "~data.root", "~logger.mode", "~model.settings", "~weight_decay.value"])
def test_a_setting_that_a_stage_reads_cannot_be_deleted(text: str) -> None:
    with pytest.raises(UserError, match=rf"^{text}: {text[1:]} cannot be deleted; give {text[1:]} a value instead"):
        check(["seed=1", text])


def test_an_entry_may_be_deleted() -> None:
    check(["~callbacks.back_feeding", "~attack.settings.max_iter", "~trainer.precision", "~hydra.callbacks.sweep"])


@pytest.mark.parametrize(
    ("text", "stage", "taken"),
    [
        ("data.root=/x", "train", "data.root=/x"),
        ("+data.validation=5", "train", "data.validation=5"),
        ("data.typo=5", "train", None),
        ("+data.typo=5", "train", None),
        ("+trainer.gradient_clip_val=1", "train", "+trainer.gradient_clip_val=1"),
        ("trainer.max_epochs=2", "attack", None),
        ("trainer.devices=2", "attack", "trainer.devices=2"),
        ("data=digits", "attack", None),
        ("data.root=/x", "attack", "data.root=/x"),
    ],
)
def test_what_comes_with_a_study_goes_to_the_steps_that_read_it(text: str, stage: str, taken: str | None) -> None:
    network = {"data": {"root": None, "validation": 0}, "trainer": {"max_epochs": None, "devices": 1}}
    own = network if stage == "train" else {"data": {"root": None}, "trainer": {"devices": 1}, "checkpoints": "x"}
    assert for_stage(text, stage, own, None if stage == "train" else network) == taken


def test_names_show_what_nothing_else_in_them_does() -> None:
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
        hydra = compose("train", return_hydra_config=True).hydra
    typed = ["data=digits", "trainer.max_epochs=5", "runs=/a=b", "logger.mode=online", "callbacks=none", "keep=best"]
    assert name_extras([*typed, "logger=csv", "hydra.job.chdir=true"], hydra) == ["max_epochs5", "keepbest"]
    typed = ["callbacks=back_feeding", "weight_decay=literal", "experiment=wide_relu", "weight_decay.value=1e-2"]
    assert name_extras(typed, hydra) == ["back_feeding", "literal", "wide_relu"]


def test_a_network_of_a_study_may_be_left_out() -> None:
    check(["~study.train.networks.ae400_10"])
    with pytest.raises(UserError, match=r"study\.limit cannot be deleted"):
        check(["~study.limit"])

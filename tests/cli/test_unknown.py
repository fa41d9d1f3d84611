"""A name that no config has is answered with the nearest one that there is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TRAIN = ("data=digits", "logger=csv")


@pytest.mark.parametrize(
    ("script", "typed", "said"),
    [
        ("train.py", ("optimizer.lrr=1e-3",), "optimizer.lrr is read by nothing; did you mean optimizer.lr?"),
        ("train.py", ("-m", "optimizer.lrr=1,2"), "optimizer.lrr is read by nothing; did you mean optimizer.lr?"),
        ("train.py", ("optimizr.lr=1",), "optimizr.lr is read by nothing; did you mean optimizer.lr?"),
        ("train.py", ("lr=1",), "lr is read by nothing; did you mean optimizer.lr?"),
        ("train.py", ("optimiser=adamw",), "optimiser is read by nothing; did you mean optimizer?"),
        (
            "train.py",
            ("trainer.max_epoch=3",),
            "trainer.max_epoch is read by nothing; did you mean trainer.max_epochs?",
        ),
        ("train.py", ("trainer.max_steps=3",), "trainer.max_steps is not in the config; +trainer.max_steps=3 adds it"),
        ("train.py", ("split.sede=3",), "split.sede is read by nothing; did you mean split.seed?"),
        ("train.py", ("split.xyz=3",), "split.xyz is read by nothing; split has name, seed"),
        (
            "train.py",
            ("optimizer=adamv",),
            "optimizer=adamv: optimizer has no option adamv; did you mean adam? it has adam, adamw, other, sgd",
        ),
        (
            "attack.py",
            ("attack.settings.level=3",),
            "attack.settings.level is read by nothing; did you mean attack.settings.levels?",
        ),
        (
            "attack.py",
            ("attack=lbfgs", "attack.starts=train"),
            "attack.starts is read by nothing here; it is a setting of attack=nearest",
        ),
        (
            "analyze.py",
            ("settings.robustness_curve.rmss=1",),
            "settings.robustness_curve.rmss is read by nothing; did you mean settings.robustness_curve.rms?",
        ),
        (
            "analyze.py",
            ("study=quickstart", "study.train.all=['optimizer.lrr=3']"),
            "optimizer.lrr is read by nothing; did you mean optimizer.lr?",
        ),
    ],
)
def test_the_nearest_name_is_given(
    run_script: Callable[..., tuple], script: str, typed: tuple[str, ...], said: str
) -> None:
    status, _, err = run_script(script, *typed)
    assert (status, err) == (1, f"error: {said}\n")


def test_a_users_own_configs_have_names_too(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "wide.yaml").write_text("# @package _global_\nseed: 7\n")
    (tmp_path / "mine" / "my_train.yaml").write_text("defaults: [train, _self_]\nfoo: 1\n")
    typed = ("--config-dir", "mine", "--config-name", "my_train")
    status, _, err = run_script("train.py", *typed, "experiment=wide", "fo=3")
    assert (status, err) == (1, "error: fo is read by nothing; did you mean foo?\n")
    status, _, err = run_script("train.py", *typed, "experiment=wild")
    assert status == 1 and "experiment has no option wild; did you mean wide? it has" in err


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("mine.Nett", "mine has no Nett; did you mean Net?"),
        ("mine.inner.Net", "mine has no inner"),
        ("mime.Net", "there is no module mime in {}, nor is one installed; did you mean mine?"),
        ("broken.Net", "importing broken failed with ZeroDivisionError: division by zero"),
        ("lacking.Net", "importing lacking failed with ModuleNotFoundError: No module named 'nowhere'"),
        ("torch.optimm.SGD", "torch has no optimm; did you mean optim?"),
        ("mine..Net", "expected the full name of a class or a function, such as mine.Net"),
    ],
)
def test_a_class_that_is_not_there(
    run_script: Callable[..., tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, said: str
) -> None:
    (tmp_path / "mine.py").write_text("class Net: pass\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "lacking.py").write_text("import nowhere\n")
    monkeypatch.setattr("sys.path", [*sys.path])
    status, _, err = run_script("train.py", "model=module", f"model._target_={target}", *TRAIN)
    for name in ("mine", "broken", "lacking"):
        sys.modules.pop(name, None)
    assert (status, err) == (1, f"error: model._target_={target}: {said.format(tmp_path)}\n")

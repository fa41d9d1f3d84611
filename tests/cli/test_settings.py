"""Every setting of the three entry points, deleted or null: a job, or one line that names it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from intriguing.analysis.job import AnalysisJob
from intriguing.attacking import AttackJob
from intriguing.cli import overrides
from intriguing.cli.config import plain, training_job
from intriguing.errors import UserError
from intriguing.training import fit

ROOT = Path(__file__).parents[2]
STAGES = [
    ("train", "data=digits", "callbacks=back_feeding", "spectral_penalty=margin"),
    ("train", "data=image_folder", "data.folder=pictures", "callbacks=early_stopping", "trainer=ddp", "model=convnet"),
    ("train", "data=digits", "model=ae400_10", "debug=overfit", "weight_decay=literal"),
    ("attack", "attack=gaussian", "data=digits"),
    ("attack", "attack=lbfgs", "checkpoints=NETWORK"),
    ("attack", "attack=nearest", "checkpoints=NETWORK"),
    ("analyze", "networks=NETWORK"),
    ("analyze", "study=stability_digits", "study.seeds=[0]"),
]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    given = ["data=digits", "model=fc10", "trainer.max_epochs=1", "logger=csv", "name=n", f"runs={folder}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = plain(compose("train", overrides=given))
    return fit(training_job(config, (), ""))


def _keys(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def _jobs(stage: str, config: dict[str, Any]) -> list[Any]:
    if stage == "train":
        return [training_job(config, (), "")]
    if stage == "attack":
        return list(AttackJob.from_config(config))
    if config["study"]:
        from intriguing.cli.study import check_study

        check_study(config["study"])
    return [AnalysisJob.from_config(config)]


def _changed(config: DictConfig, key: str, change: str) -> DictConfig:
    """What Hydra makes of ``~key`` and ``key=null``."""
    changed = copy.deepcopy(config)
    OmegaConf.set_struct(changed, False)
    if change == "null":
        OmegaConf.update(changed, key, None)
        return changed
    parent, _, last = key.rpartition(".")
    del (OmegaConf.select(changed, parent) if parent else changed)[last]
    return changed


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: " ".join(stage[:2]))
def test_every_setting_may_be_null_or_deleted_or_says_why_not(stage: tuple[str, ...], network: Path) -> None:
    entry, *given = stage
    wrong = []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        typed = [text.replace("NETWORK", str(network)) for text in given]
        composed = compose(entry, overrides=[*typed, "logger=csv"])
        keys = list(_keys(plain(composed)))
        for key in keys:
            for change in ("deleted", "null"):
                try:
                    if change == "deleted":
                        overrides.check([f"~{key}"])
                    for job in _jobs(entry, plain(_changed(composed, key, change))):
                        assert job.runs and job.name and "None" not in (job.runs, job.name)
                except (UserError, HydraException) as error:
                    if "\n" in str(error) or not str(error):
                        wrong.append((key, change, repr(error)))
                except Exception as error:
                    wrong.append((key, change, repr(error)))
    assert len(keys) > 20 and not wrong


@pytest.mark.parametrize("group", ["data", "model", "split", "trainer", "logger"])
def test_a_group_cannot_be_null(run_script: Callable[..., tuple], group: str) -> None:
    status, _, err = run_script("train.py", "model=fc10", f"{group}=null")
    assert (status, err) == (1, f"error: {group}=null cannot be: such a group needs one of its options, see --help\n")


TAGS = [
    ("paper", ["paper"]), ("[a,b]", ["a", "b"]), ("a b", ["a b"]), ("'a,b'", ["a,b"]), ("null", []), ("[]", []),
    ("''", []), ("2024", ["2024"]), ("[1,x]", ["1", "x"]), ("'größe'", ["größe"]),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "tags"), TAGS)
def test_tags_are_words(composed: Callable[..., dict], typed: str, tags: list[str]) -> None:
    assert composed("attack", f"tags={typed}")["tags"] == tags


@pytest.mark.parametrize("typed", ["tags={a: 1}", "tags=[[a]]", "tags=[null]"])
def test_other_tags_are_refused(composed: Callable[..., dict], typed: str) -> None:
    with pytest.raises((UserError, HydraException), match="tags"):
        composed("train", typed)


def test_a_home_that_is_not_known_is_named(composed: Callable[..., dict], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"data.root=~nobody-has-this/x: the home folder of ~nobody-has-this is not"):
        composed("train", "data.root='~nobody-has-this/x'")
    monkeypatch.setenv("HOME", "/my home")
    assert composed("analyze", "runs='~/r'", "networks=['~/a','b']")["networks"] == ["/my home/a", "b"]

"""The scheduler of a study: order, side by side, failures that stay alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intriguing.cli.scheduler import Here, Step, run
from intriguing.cli.workers import Workers
from intriguing.errors import UserError


def _step(key: str, *needs: str) -> Step:
    return Step(key, "train", {"key": key}, needs=needs)


STEPS = [_step("a"), _step("b", "a"), _step("c"), _step("d", "b", "c")]


def do(step: Step) -> list[Path]:
    if step.config["key"] == "bad":
        raise ValueError("it broke")
    return [Path(step.key)]


@pytest.mark.parametrize("processes", [1, 2])
def test_every_step_runs_once_after_those_it_needs(processes: int) -> None:
    seen: list[str] = []
    worked: list[list[str]] = []
    folders = run(
        STEPS,
        Here(do) if processes == 1 else Workers(do, processes),
        advance=lambda key, made: seen.append(key),
        working=worked.append,
    )
    assert {key for keys in worked for key in keys} == {"a", "b", "c", "d"}
    assert all(len(keys) <= processes for keys in worked)
    assert folders == [Path(step.key) for step in STEPS]
    assert sorted(seen) == ["a", "b", "c", "d"]
    for step in STEPS:
        assert all(seen.index(need) < seen.index(step.key) for need in step.needs)


def test_a_failed_step_is_named_and_takes_only_its_own_with_it() -> None:
    steps = [_step("bad"), _step("after", "bad"), _step("good")]
    seen: list[str] = []
    with pytest.raises(
        UserError, match=r"2 of 3 steps failed \(bad: ValueError: it broke; after: needs one that failed\)"
    ):
        run(steps, Here(do), advance=lambda key, made: seen.append(key))
    assert seen == ["good"]


def test_a_study_composes_its_steps_as_the_entry_points_would(composed: Callable[..., dict]) -> None:
    from intriguing.cli.study import study_steps

    config = composed("analyze", "study=quickstart", "study.seeds=[1]")
    steps = study_steps(config)
    keys = [step.key for step in steps]
    assert len(set(keys)) == len(keys)
    trained = {step.key: step for step in steps if step.stage == "train"}
    assert len(trained) == 9
    assert trained["fc10_1e-2 seed 1"].config["weight_decay"]["value"] == 1e-2
    assert trained["fc10_1e-2 seed 1"].command == "python train.py data=digits network=fc10_1e-2 seed=1"
    for step in steps:
        if step.stage == "attack" and step.config["attack"]["name"] != "gaussian":
            assert step.needs and "digits" in step.config["checkpoints"]
    assert all(key in keys[: keys.index(step.key)] for step in steps for key in step.needs)


def test_a_network_that_no_step_trains_is_named(composed: Callable[..., dict]) -> None:
    from intriguing.cli.study import study_steps

    config = composed("analyze", "study=quickstart")
    config["study"]["attack"][0]["networks"] = ["fc7"]
    with pytest.raises(UserError, match="fc7"):
        study_steps(config)


def _tiny(config: dict[str, Any]) -> dict[str, Any]:
    """A config of a study with one network and one attack."""
    train = {"all": ["data=digits"], "networks": {"fc10_1": ["network=fc10_1"]}}
    attack = [{"networks": ["*"], "overrides": ["attack=nearest"]}]
    return config | {"study": config["study"] | {"seeds": [0], "train": train, "attack": attack}}


@pytest.mark.parametrize("name", ["é", "a=b [1],(c) {d} 'e' \"f\" %g #h: $i ${j} \\k"])
def test_a_study_runs_in_a_folder_of_any_name(composed: Callable[..., dict], tmp_path: Path, name: str) -> None:
    from intriguing.cli.overrides import override
    from intriguing.cli.study import study_steps

    folder, root = tmp_path / name / "runs", tmp_path / name
    given = [override("runs", str(folder)), override("data.root", str(root)), "tags=[x]"]
    train, attack = study_steps(_tiny(composed("analyze", "study=quickstart", *given)), ["processes=1"])
    assert train.config["runs"] == attack.config["runs"] == str(folder)
    assert train.config["data"]["root"] == attack.config["data"]["root"] == str(root)
    assert train.config["tags"] == ["x"]
    assert attack.config["checkpoints"] == f"{folder}/train/digits_fc10_wd1_full_seed0/model.ckpt"


def test_what_is_given_with_a_study_reaches_its_steps(composed: Callable[..., dict]) -> None:
    from intriguing.cli.study import study_steps

    config = _tiny(composed("analyze", "study=quickstart", "study.overrides=['data.download=false']"))
    given = ["trainer.max_epochs=2", "+trainer.gradient_clip_val=1", "+data.validation=30", "trainer.accelerator=auto"]
    train, attack = study_steps(config, given)
    trainer = train.config["trainer"]
    assert (trainer["max_epochs"], trainer["gradient_clip_val"], train.config["data"]["validation"]) == (2, 1, 30)
    assert attack.config["trainer"]["accelerator"] == trainer["accelerator"] == "auto"
    assert train.config["data"]["download"] is attack.config["data"]["download"] is False
    # whoever runs it by hand gets the very same run, which is not that of the plain study
    assert train.command == (
        "python train.py data.download=false data=digits network=fc10_1 seed=0 trainer.max_epochs=2 "
        "+trainer.gradient_clip_val=1 data.validation=30 trainer.accelerator=auto"
    )
    assert "max_epochs2" in attack.config["checkpoints"]


@pytest.mark.parametrize("text", ["networks='runs/train/*'", "+data.typo=3"])
def test_what_no_step_of_a_study_reads_is_refused(composed: Callable[..., dict], text: str) -> None:
    from intriguing.cli.study import study_steps

    with pytest.raises(UserError, match="is read by no step of study=quickstart; leave it out"):
        study_steps(_tiny(composed("analyze", "study=quickstart")), [text])


def test_what_only_a_study_reads_is_refused_without_one() -> None:
    from intriguing.cli.study import check_without_study

    check_without_study(["networks=x", "seed=1"])
    with pytest.raises(UserError, match=r"trainer.devices=2 is for the steps of a study"):
        check_without_study(["trainer.devices=2"])


def test_a_studys_sections_and_settings_count_unless_they_are_typed(composed: Callable[..., dict]) -> None:
    from intriguing.cli.study import with_study_settings

    def read(*typed: str) -> dict[str, Any]:
        return with_study_settings(composed("analyze", "study=quickstart", *typed), typed)

    default = composed("analyze")["settings"]["units"]
    found = read()
    assert found["sections"][-1] == "units" and found["settings"]["units"]["sweeps"] == 3
    assert found["settings"]["units"]["rows"] == default["rows"]
    assert read("sections=[table1]")["sections"] == ["table1"]
    assert read("settings.units.sweeps=5")["settings"]["units"] == found["settings"]["units"] | {"sweeps": 5}
    assert read("study.settings.units.sweeps=7")["settings"]["units"]["sweeps"] == 7
    assert composed("analyze") == with_study_settings(composed("analyze"))
    config = composed("analyze", "study=quickstart")
    config["study"]["settings"] = {"units": [3]}
    with pytest.raises(UserError, match=r"study\.settings\.units must be a mapping of settings, got \[3\]"):
        with_study_settings(config)
    config["study"]["settings"] = [1]
    with pytest.raises(UserError, match=r"study\.settings must be a mapping of sections, got \[1\]"):
        with_study_settings(config)


def test_other_data_have_a_name_of_their_own_and_leave_the_results_of_the_study(composed: Callable[..., dict]) -> None:
    from intriguing.cli.study import with_study_settings

    def read(*typed: str) -> tuple[str | None, str | None]:
        config = with_study_settings(composed("analyze", "study=paper", *typed), typed)
        return config["name"], config["study"]["results"]

    assert read() == (None, "results/paper") == read("data.root=x", "trainer.devices=1")
    assert read("data=digits") == ("paper_digits", None)
    assert read("data=digits", "name=mine", "study.results=here") == ("mine", "here")
    assert read("trainer.max_epochs=3") == (None, None)


def test_a_users_images_reach_every_step_of_a_study(composed: Callable[..., dict]) -> None:
    from intriguing.cli.study import study_steps

    given = ["data=module", "++data._target_=mine.both", "++data.last=60"]
    for step in study_steps(_tiny(composed("analyze", "study=quickstart", *given)), given):
        data = step.config["data"]
        assert (data["name"], data["_target_"], data["last"]) == ("module", "mine.both", 60)


@pytest.mark.parametrize("text", ["model=fc10", "weight_decay.value=1", "split=p1", "attack=nearest", "limit=3"])
def test_a_setting_of_single_runs_beside_a_study_says_where_it_belongs(
    run_script: Callable[..., tuple], text: str
) -> None:
    status, _, err = run_script("analyze.py", "study=quickstart", text)
    assert status == 1 and err.startswith(f"error: {text} is a setting of single runs, and study=quickstart has")
    assert err.count("\n") == 1 and ("study.train.all" in err) == (text not in ("attack=nearest", "limit=3"))


def test_a_missing_file_is_said_once(
    run_script: Callable[..., tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTRIGUING_DATA", str(tmp_path / "empty"))
    typed = ["study=lambda", "study.seeds=[0]", "data.download=false", "processes=1", "logger=csv"]
    status, _, err = run_script("analyze.py", *typed)
    assert status == 1 and err.count("MNIST is not there") == 1 and len(err) < 600
    assert "16 of 16 steps failed (fc10_1e-6 seed 0, fc10_1e-5 seed 0, fc10_1e-4 seed 0 and 5 more: MNIST" in err
    assert "and 5 more: needs one that failed" in err

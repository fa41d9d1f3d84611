"""The scheduler of a study: order, side by side, failures that stay alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from intriguing.errors import UserError
from intriguing.study import Step, run


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
        STEPS, processes=processes, advance=lambda key, made: seen.append(key), perform=do, working=worked.append
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
    with pytest.raises(UserError, match=r"2 of 3 steps failed \(bad: ValueError: it broke; after: needs bad\)"):
        run(steps, processes=1, advance=lambda key, made: seen.append(key), perform=do)
    assert seen == ["good"]


def test_a_study_composes_its_steps_as_the_doors_would(composed: Callable[..., dict], tmp_path: Path) -> None:
    from intriguing.doors import study_steps

    config = composed("analyze", "study=quickstart", "study.seeds=[0,1]")
    steps = study_steps(config["study"], str(tmp_path), logger={"wandb": False}, threads=1)
    keys = [step.key for step in steps]
    assert len(set(keys)) == len(keys)
    trained = {step.key: step for step in steps if step.stage == "train"}
    assert len(trained) == 2 * 9
    assert trained["fc10_1e-2 seed 1"].config["weight_decay"]["value"] == 1e-2
    assert trained["fc10_1e-2 seed 1"].command == "python train.py data=digits network=fc10_1e-2 seed=1"
    for step in steps:
        if step.stage == "attack" and step.config["attack"]["name"] != "gaussian":
            assert step.needs and "digits" in step.config["checkpoints"]
    assert all(key in keys[: keys.index(step.key)] for step in steps for key in step.needs)


def test_a_network_that_no_step_trains_is_named(composed: Callable[..., dict], tmp_path: Path) -> None:
    from intriguing.doors import study_steps

    config = composed("analyze", "study=quickstart")
    config["study"]["attack"][0]["networks"] = ["fc7"]
    with pytest.raises(UserError, match="fc7"):
        study_steps(config["study"], str(tmp_path), logger={}, threads=1)

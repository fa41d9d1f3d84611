"""Every config composes, and says what the code does."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from intriguing.attacks import ATTACKS
from intriguing.cli.config import training_job

CONF = Path(__file__).parents[2] / "conf"
KINDS = ("network", "model", "data", "split", "optimizer", "scheduler", "weight_decay", "spectral_penalty", "trainer")
KINDS += ("callbacks", "logger", "debug", "experiment")
NEEDED = {
    "data=image_folder": ["data.folder=photographs"],
    "data=blank": ["data.shape=[1,8,8]", "data.num_classes=10", "trainer.max_epochs=0"],
    "data=module": ["+data.train._target_=mine.Letters"],  # opened once it is needed
    "model=alexnet": ["data=image_folder", "data.folder=photographs"],  # for images of three channels
    "data=imagenet": ["data.folder=photographs"],
    "model=efficientnet_lite": ["data=image_folder", "data.folder=photographs"],
    "model=torchvision": ["data=image_folder", "data.folder=photographs"],
    **{
        f"network=quocnet_{size}": ["data=image_folder", "data.folder=photographs"] for size in ("small", "paper")
    },  # too large for MNIST
    "model=module": ["model._target_=planted_networks.Functional"],
    "optimizer=other": ["optimizer._target_=torch.optim.RMSprop"],
    "scheduler=other": ["scheduler._target_=torch.optim.lr_scheduler.ExponentialLR", "+scheduler.gamma=0.9"],
}

OF_OTHER_STAGES = ("from_checkpoint", "from_study")
OF_A_FILE = ("file",)  # tests/training/test_modules.py saves one


def _options(group: str) -> list[str]:
    return sorted(
        file.stem for file in (CONF / group).glob("*.yaml") if file.stem not in (*OF_OTHER_STAGES, *OF_A_FILE)
    )


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in KINDS for option in _options(group)])
def test_every_option_makes_a_job(composed: Callable[..., dict], group: str, option: str) -> None:
    if option.startswith("optuna"):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra optuna")
    config = composed("train", f"{group}={option}", *NEEDED.get(f"{group}={option}", []))
    job = training_job(config)
    assert job.name and job.label


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_attack_settings_are_the_functions_own_defaults(composed: Callable[..., dict], name: str) -> None:
    config = composed("attack", f"attack={name}")["attack"]
    given = config["settings"] if ATTACKS[name].reads_model else {k: v for k, v in config.items() if k != "name"}
    given = given | ({"effort": config["effort"]} if "effort" in config else {})
    defaults = ATTACKS[name].defaults
    assert given == {key: given[key] if value is inspect.Parameter.empty else value for key, value in defaults.items()}


# A card has no steps; those of quickstart and lambda are composed in test_study.py.
@pytest.mark.parametrize("study", [one for one in _options("study") if one not in ("card", "quickstart", "lambda")])
def test_every_study_composes(composed: Callable[..., dict], study: str) -> None:
    from intriguing.cli.study import study_steps

    config = composed("analyze", f"study={study}", "study.seeds=[0]")  # composing takes a tenth of a second a step
    steps = study_steps(config)
    assert len(steps) >= len(config["study"]["train"]["networks"])


def test_the_papers_networks_have_the_papers_settings(composed: Callable[..., dict]) -> None:
    """Tables 1 and 3: names, widths, lambdas and splits."""
    found = {}
    for network in _options("network"):
        if network.startswith(("cifar10", "quocnet", "cae", "vae")):  # which no table of the paper has
            continue
        job = training_job(composed("train", f"network={network}"))
        key = (job.label, job.identity["split"]["name"])
        found[key] = (
            job.network.settings.get("widths", job.network.settings.get("units")),
            job.identity["weight_decay"]["value"],
        )
    deep = [1e-5, 1e-5, 1e-6]
    assert found == {
        ("FC10(1e-4)", "full"): ([], [1e-4]),
        ("FC10(1e-2)", "full"): ([], [1e-2]),
        ("FC10(1)", "full"): ([], [1.0]),
        ("FC100-100-10", "full"): ([100, 100], deep),
        ("FC200-200-10", "full"): ([200, 200], deep),
        ("AE400-10", "full"): (400, [1e-6]),
        ("FC100-100-10", "p1"): ([100, 100], deep),
        ("FC123-456-10", "p1"): ([123, 456], deep),
        ("FC100-100-10'", "p2"): ([100, 100], deep),
    }


@pytest.mark.parametrize(("name", "arm"), [("back_feeding", "all"), ("back_feeding_relu", "all_dropout")])
def test_an_experiment_of_back_feeding_has_the_settings_of_its_study(
    composed: Callable[..., dict], name: str, arm: str
) -> None:
    study = composed("analyze", f"study={name}")["study"]["train"]
    own = training_job(composed("train", f"experiment={name}")).identity
    assert own == training_job(composed("train", *study["all"], *study["networks"][arm], "test_curve=false")).identity


def test_personal_settings_are_picked_up(composed: Callable[..., dict]) -> None:
    """conf/local/default.yaml is optional and never tracked."""
    ignored = (CONF.parent / ".gitignore").read_text().splitlines()
    assert "/conf/local/*" in ignored
    assert "optional local: default" in (CONF / "train.yaml").read_text()
    assert composed("train")["seed"] == 0

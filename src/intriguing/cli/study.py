"""Check the config of a study, compose its steps, and run one."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from intriguing.cli import overrides as texts
from intriguing.cli.config import command, plain, training_job
from intriguing.cli.hydra_files import hydra_files
from intriguing.cli.overrides import name_extras, override
from intriguing.cli.scheduler import Executor, Here, Step
from intriguing.cli.unknown import unknown
from intriguing.cli.workers import Workers
from intriguing.errors import UserError
from intriguing.validation import choice, whole

STUDY: dict[str, Any] = {  # the keys of a study and the types of their values
    "name": str,
    "title": str,
    "seeds": list,
    "limit": object,
    "results": str | None,
    "overrides": list,
    "train": dict,
    "attack": list,
}


# where images lie and steps run, which changes no number
_PLACES = (
    *("data.root", "data.download", "data.folder", "data.workers"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes"),
)


def with_study_settings(config: dict[str, Any], given: Sequence[str] = ()) -> dict[str, Any]:
    """Take the sections and their settings from the study, except those that were typed.

    Args:
        config: The resolved config of ``analyze.py``; with a study, ``study.sections`` and ``study.settings`` may say
            what to make of it.
        given: Its overrides. With other data the analysis is named after these too, and what is to be copied to
            ``study.results`` is not.

    Raises:
        UserError: A study that cannot be, or settings of a section that are no mapping.
    """
    study = config["study"]
    if study is None:
        return config
    check_study(study)
    typed = {texts.split(text)[1] for text in given}
    sections = config["sections"] if "sections" in typed or study.get("sections") is None else study["sections"]
    changed = [key for key in typed if key.split(".")[0] in ("data", "trainer") and key not in _PLACES]
    if changed and "study.results" not in typed:  # these are not the numbers that the study is there for
        study = study | {"results": None}
    name = config["name"]
    if name is None and (
        images := next((texts.split(text)[2] for text in given if texts.split(text)[1] == "data"), "")
    ):
        name = f"{study['name']}_{images}"
    whole = {section: values for section, values in config["settings"].items() if not isinstance(values, dict)}
    settings = {section: dict(values) for section, values in config["settings"].items() if section not in whole}
    if not isinstance(own := study.get("settings") or {}, dict):
        raise UserError(f"study.settings must be a mapping of sections, got {own!r}")
    for section, values in own.items():
        if not isinstance(values, dict):
            raise UserError(f"study.settings.{section} must be a mapping of settings, got {values!r}")
        left = {key: value for key, value in values.items() if not typed & _above(f"settings.{section}.{key}")}
        settings[section] = settings.get(section, {}) | left
    return config | {"study": study, "name": name, "sections": sections, "settings": whole | settings}


def _above(key: str) -> set[str]:
    """List a key and those that hold it: ``a.b.c``, ``a.b``, ``a``."""
    parts = key.split(".")
    return {".".join(parts[: end + 1]) for end in range(len(parts))}


def study_steps(config: dict[str, Any], given: Sequence[str] = ()) -> list[Step]:
    """Compose every step of a study from its overrides, as ``train.py`` and ``attack.py`` do.

    Args:
        config: The resolved config of ``analyze.py`` with a study.
        given: Its overrides. Those of ``data`` and ``trainer`` go to every step that has such a setting, after the
            study's own.

    Returns:
        The steps in the order in which they start.

    Raises:
        UserError: An override that no step reads, or a network that no step trains.
        HydraException: An override that is wrong.
    """
    study, runs = config["study"], config["runs"]
    check_study(study)
    wanted = [text for text in given if texts.split(text)[1].split(".")[0] in ("data", "trainer")]
    # no checkpoint opens a Dataset of the user's: each step is given it, with arguments that only it knows
    users_own = [text for text in wanted if "data=module" in wanted and texts.split(text)[1].split(".")[0] == "data"]
    unread = dict.fromkeys([*wanted, *(text for text in given if texts.split(text)[1] in ("networks", "sets"))])
    common = [override("runs", runs), override("threads", config["threads"]), override("tags", config["tags"])]
    common += [] if config["data"].get("root") is None else [override("data.root", config["data"]["root"])]

    def composed(
        stage: str, own: list[str], *quiet: str, network: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], list[str], tuple[str, ...], dict[str, str]]:
        """Compose a step: its config, its overrides with those given that it reads, its name's extras, its files."""
        found, whole = _compose(stage, [*common, *own, *quiet], config)
        taken = {text: text if text in users_own else texts.for_stage(text, stage, found, network) for text in wanted}
        for text in taken:
            if taken[text]:
                unread.pop(text, None)
        if any(taken.values()):
            own = [*own, *(text for text in taken.values() if text)]
            found, whole = _compose(stage, [*common, *own, *quiet], config)
        return found, own, tuple(name_extras(own, whole.hydra)), hydra_files(whole, own)

    steps: list[Step] = []
    for seed in study["seeds"]:
        checkpoints: dict[str, str] = {}
        trained: dict[str, dict[str, Any]] = {}
        once = study["train"].get("once", []) if seed != study["seeds"][0] else []
        for key, own in study["train"]["networks"].items():
            if key in once:
                continue
            overrides = [*study["overrides"], *study["train"]["all"], *own, override("seed", seed)]
            made, overrides, extras, files = composed("train", overrides, "trainer.enable_progress_bar=false")
            trained[key] = made
            name = training_job(made, extras).name
            checkpoints[key] = f"{runs}/train/{name}/model.ckpt"
            steps.append(
                Step(f"{key} seed {seed}", "train", made, extras, command("train", overrides, is_step=True), (), files)
            )
        before: dict[str, str] = {key: f"{key} seed {seed}" for key in checkpoints}
        for number, entry in enumerate(study["attack"]):
            for key in _chosen(entry["networks"], checkpoints):
                overrides = [*study["overrides"], *entry["overrides"], override("seed", seed)]
                overrides += [override("limit", study["limit"])]
                source = [] if key is None else [override("checkpoints", checkpoints[key])]
                network = None if key is None else trained[key]
                for name in ("_target_", "path"):  # what opens the checkpoint of a network of the user's
                    if network is not None and network["model"].get(name):
                        source.append(override(f"model.{name}", network["model"][name]))
                made, overrides, extras, files = composed("attack", overrides, *source, network=network)
                step = Step(
                    f"attack {number + 1} on {key or 'noise'} seed {seed}",
                    "attack",
                    made,
                    extras,
                    command("attack", [*source, *overrides], is_step=True),
                    () if key is None else (before[key],),
                    files,
                )
                if key is not None:
                    before[key] = step.key  # attacks of one network run in order: amplifying reads the plain set
                steps.append(step)
    if unread:
        raise UserError(f"{next(iter(unread))} is read by no step of study={study['name']}; leave it out")
    return steps


def make_executor(config: dict[str, Any]) -> Executor:
    """Make what runs the steps of a study.

    Args:
        config: The resolved config of ``analyze.py``.

    Raises:
        UserError: An unknown launcher, or one that is not there.
    """
    launcher, processes = config["launcher"], config["processes"]
    if choice("launcher.name", launcher.get("name"), ("local", "slurm")) == "slurm":
        from intriguing.cli.slurm import Slurm

        return Slurm(perform, launcher, Path(config["runs"]) / "studies" / config["study"]["name"], processes)
    if unknown := sorted(set(launcher) - {"name"}):
        raise UserError(f"launcher.{unknown[0]} is read by nothing with launcher=local")
    processes = processes or os.cpu_count() or 1
    return Here(perform) if processes == 1 else Workers(perform, processes)


def check_without_study(given: Sequence[str]) -> None:
    """Refuse overrides that only the steps of a study read.

    Raises:
        UserError: There is one.
    """
    for text in given:
        if texts.split(text)[1].split(".")[0] in ("trainer", "processes", "launcher"):
            raise UserError(f"{text} is for the steps of a study; give study=... or leave it out")


def perform(step: Step) -> list[Path]:
    """Run one step of a study, as its entry point does; skip finished runs.

    Returns:
        The run folders.
    """
    if step.stage == "train":
        from intriguing import training

        return [training.fit(training_job(step.config, step.extras, step.command, step.files))]
    from intriguing import attacking
    from intriguing.cli import factories

    jobs = attacking.AttackJob.from_config(
        step.config,
        network_classes=factories.networks(step.config),
        images=factories.images(step.config),
        function=factories.attack(step.config),
        extras=step.extras,
        command=step.command,
        files=step.files,
    )
    return [attacking.craft(job) for job in jobs]


def check_study(study: dict[str, Any]) -> None:
    """Check a study's config, before any of its steps runs.

    Raises:
        UserError: A key that nothing reads, or a value of another type.
    """
    if unknown := sorted(set(study) - set(STUDY) - {"sections", "settings", "requires"}):
        raise UserError(
            f"study.{unknown[0]} is read by nothing; a study has {', '.join(STUDY)}, sections, settings, requires"
        )
    for key, kinds in STUDY.items():
        if not isinstance(study.get(key), kinds):
            raise UserError(f"study.{key} must be {_words(kinds)}, got {study.get(key)!r}")
    if study["limit"] is not None:
        whole("study.limit", study["limit"], 1)
    if not study["seeds"] or not study["train"].get("networks"):
        raise UserError("study.seeds and study.train.networks must name at least one seed and one network")
    for seed in study["seeds"]:
        whole("study.seeds", seed, 0)
    lists = {f"study.train.networks.{name}": own for name, own in study["train"]["networks"].items()}
    if unknown := sorted(set(study["train"]) - {"all", "networks", "once"}):
        raise UserError(f"study.train.{unknown[0]} is read by nothing; it has all, networks and once")
    lists["study.train.once"] = study["train"].get("once", [])
    lists |= {"study.overrides": study["overrides"], "study.train.all": study["train"].get("all")}
    for number, entry in enumerate(study["attack"]):
        if not isinstance(entry, dict) or set(entry) != {"networks", "overrides"}:
            raise UserError(f"study.attack[{number}] must be {{networks: [...], overrides: [...]}}, got {entry!r}")
        lists[f"study.attack[{number}].overrides"] = entry["overrides"]
        if entry["networks"] is not None:
            lists[f"study.attack[{number}].networks"] = entry["networks"]
    for name, own in lists.items():
        if not isinstance(own, list) or not all(isinstance(text, str) for text in own):
            raise UserError(f"{name} must be a list of texts, got {own!r}")


def _words(kinds: Any) -> str:
    names = {str: "a text", dict: "a mapping", list: "a list", type(None): "null"}
    return " or ".join(names[kind] for kind in (kinds.__args__ if hasattr(kinds, "__args__") else (kinds,)))


def _compose(stage: str, overrides: list[str], config: dict[str, Any]) -> tuple[dict[str, Any], DictConfig]:
    """Compose the config of a step, in plain values and with Hydra's own."""
    overrides = texts.accepted(overrides)
    texts.check(overrides)
    logger = config["logger"] | {"name": None}  # the name is the analysis'
    try:
        composed = compose(stage, overrides=overrides, return_hydra_config=True)
    except HydraException as error:
        if said := unknown(stage, stage, overrides):
            raise UserError(said) from error
        raise
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    return plain(own) | {"study": config["study"]["name"], "logger": logger}, composed


def _chosen(patterns: list[str] | None, names: Iterable[str]) -> list[str | None]:
    if patterns is None:
        return [None]
    chosen = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if not chosen:
        raise UserError(f"study.attack names the networks {patterns}, but study.train has only {', '.join(names)}")
    return list(chosen)

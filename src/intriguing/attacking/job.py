"""From a resolved ``attack`` config to one checked job a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from intriguing.attacks import ATTACKS, Attack, FunctionAttack, as_attack
from intriguing.attacks.amplify import RULES as AMPLIFY_RULES
from intriguing.attacks.targets import RULES
from intriguing.checkpoints import Network, TrainedNetwork, find_checkpoints, load_network, refuse_unused
from intriguing.data import (
    DATA_NAMES,
    SUBSETS,
    ImageData,
    OwnData,
    folder_name,
    folder_settings,
    images_of_network,
    open_images,
    target_of,
)
from intriguing.errors import UserError
from intriguing.models import Classifier
from intriguing.runs.identity import identity_of
from intriguing.runs.jobs import LoggerSettings
from intriguing.runs.names import slug
from intriguing.validation import choice, flag, number, refuse_unknown, whole

CLOSEST = "closest"
MODULE = "module"
"""Name of the option of conf/attack for a function of the user's."""


_KEYS = (
    *("checkpoints", "model", "attack", "subset", "limit", "shard", "data", "trainer"),
    *("logger", "runs", "name", "study", "tags", "seed", "threads"),
)


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """An attack and its settings, checked.

    Attributes:
        name: name in ``attacks.ATTACKS``; of a function of the user's, the name of the function.
        settings: keywords of the attack.
        targets: rule for target classes: one of ``attacks.targets.RULES`` or ``closest``; empty for noise, and for a
            function that is given no targets.
        amplify: per-pixel RMS to scale the perturbations to afterwards; None: they are not scaled.
        amplify_by: ``set`` or ``image``, see ``attacks.amplify``.
        own: the function of the user's; None for an attack of the project.
        function: its full name as it was typed; empty for an attack of the project.
    """

    name: str
    settings: Mapping[str, Any]
    targets: str = ""
    amplify: float | None = None
    amplify_by: str = "set"
    own: FunctionAttack | None = field(default=None, repr=False)
    function: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any], function: Callable[..., Any] | None = None) -> AttackSettings:
        """Check the ``attack`` part of a config.

        Args:
            config: plain values.
            function: what ``attack._target_`` names, for ``attack=module``.

        Raises:
            UserError: an unknown attack, rule or setting, or a value that cannot be right.
        """
        name = choice("attack.name", config["name"], (*ATTACKS, MODULE))
        if name == MODULE:
            return _own_attack(config, function)
        if "_target_" in config:
            raise UserError(
                f"attack._target_ is read by nothing with attack={name}; for a function of yours give attack=module "
                f"attack._target_={config['_target_']}"
            )
        if not ATTACKS[name].reads_model:
            settings = {key: value for key, value in config.items() if key != "name"}
            return cls(name=name, settings=_checked(ATTACKS[name], "attack", settings))
        refuse_unknown("attack", config, ("name", "targets", "amplify", "amplify_by", "settings"))
        settings = _checked(ATTACKS[name], "attack.settings", config["settings"] or {})
        targets = choice("attack.targets", config["targets"], (*RULES, CLOSEST))
        return cls(name=name, settings=settings, targets=targets, **_amplification(config))

    @property
    def attack(self) -> Attack | FunctionAttack:
        """The attack itself."""
        return self.own or ATTACKS[self.name]

    @property
    def clip(self) -> bool:
        """Whether the images lie in [0, 1]."""
        return self.own.clip if self.own else bool(self.settings.get("clip", True))

    @property
    def description(self) -> dict[str, Any]:
        """The attack in plain values, as sets and run folders record it."""
        if not self.attack.reads_model:
            return {"name": self.name, **self.settings}
        settings = {key: value for key, value in self.settings.items() if (key, value) != ("levels", None)}
        described: dict[str, Any] = {"name": self.name, "targets": self.targets or None, "settings": settings}
        described["amplify"] = self.amplify
        if self.own:
            described |= {"function": self.function, "clip": self.own.clip}
        return described | ({} if self.amplify is None else {"amplify_by": self.amplify_by})

    @property
    def label(self) -> str:
        """The part of a run's name that names the attack, "lbfgs_random", "mine.fgsm" or "gaussian0.1"."""
        if self.own:
            return f"{self.function}_{self.targets}" if self.targets else self.function
        return f"{self.name}_{self.targets}" if self.targets else f"{self.name}{self.settings['stddev']:g}"

    @property
    def amplification(self) -> str:
        """The part of a run's name that says how it is amplified, "_amplify0.1"; empty where it is not."""
        by = "_by_image" if self.amplify_by == "image" else ""
        return "" if self.amplify is None else f"_amplify{self.amplify:g}{by}"


@dataclass(frozen=True)
class Source:
    """The network under attack.

    Attributes:
        name: name of its training run, with the checkpoint's where that is not ``model.ckpt``.
        split: the part of the training images it saw.
        trained: the network with what identifies it.
    """

    name: str
    split: str
    trained: TrainedNetwork = field(repr=False)

    @property
    def model(self) -> Classifier:
        """The network, in evaluation mode."""
        return self.trained.model

    @property
    def description(self) -> dict[str, Any]:
        """The network in plain values, as a set records it."""
        return {
            "name": self.name,
            "label": self.model.label,
            "checkpoint_sha256": self.trained.sha256,
            "split": self.split,
            "seed": self.trained.seed,
        }


@dataclass(frozen=True)
class Processes:
    """Where the attack runs.

    Attributes:
        accelerator: ``cpu``, ``gpu``, ``cuda`` or ``auto``.
        devices: processes of a node.
        num_nodes: nodes.
        threads: threads of a process.
    """

    accelerator: str
    devices: int
    num_nodes: int
    threads: int

    @property
    def count(self) -> int:
        """Number of processes in all."""
        return self.devices * self.num_nodes


@dataclass(frozen=True, kw_only=True)
class AttackJob:
    """One adversarial set, checked.

    Attributes:
        runs: folder of all runs.
        name: the run folder is ``<runs>/attack/<name>``.
        label: what is attacked, by its name in tables.
        identity: what would change the result; it guards the run folder.
        source: the network under attack; None for noise.
        data: the images of the data set.
        attack: the attack and its settings.
        subset: the subset of the data that is attacked.
        limit: number of images, drawn by the seed; None: all.
        seed: seed of everything random.
        shard: images saved at once.
        processes: where it runs.
        logger: whether and as what W&B records the run.
        study: name of the study, or None.
        tags: free words.
        command: the command line that makes this job.
        files: further files of the run folder, text by name.
    """

    runs: str
    name: str = ""
    label: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict, repr=False)
    source: Source | None = None
    data: ImageData = field(repr=False)
    attack: AttackSettings
    subset: str
    limit: int | None
    seed: int
    shard: int
    processes: Processes
    logger: LoggerSettings
    study: str | None
    tags: tuple[str, ...]
    command: str
    files: Mapping[str, str] = field(repr=False)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        network_classes: Sequence[Network] = (),
        images: OwnData | None = None,
        function: Callable[..., Any] | None = None,
        extras: Sequence[str] = (),
        command: str = "",
        files: Mapping[str, str] | None = None,
    ) -> list[AttackJob]:
        """Check a resolved ``attack`` config and make its jobs: one a checkpoint, a single one for noise.

        Each checkpoint is opened once; its network travels with the job.

        Args:
            config: plain values.
            network_classes: those of ``model._target_``, by which checkpoints of users' networks are opened.
            images: opens the Datasets of ``data=module``; None for other data.
            function: what ``attack._target_`` names, for ``attack=module``; None for another attack.
            extras: parts of the name for overrides that nothing else in it shows.
            command: the command line that makes these jobs.
            files: further files of their run folders, text by name.

        Raises:
            UserError: a value that cannot be right, a pattern that matches nothing, a checkpoint that cannot be used.
        """
        refuse_unknown("", config, _KEYS, whole="an attack")
        attack, trainer = AttackSettings.of(config["attack"], function), config["trainer"]
        common: dict[str, Any] = {
            "runs": str(config["runs"]),
            "attack": attack,
            "subset": choice("subset", config["subset"], SUBSETS),
            "limit": None if config["limit"] is None else whole("limit", config["limit"], 1),
            "seed": whole("seed", config["seed"], 0),
            "shard": whole("shard", config["shard"], 1),
            "processes": Processes(
                accelerator=choice("trainer.accelerator", trainer["accelerator"], ("cpu", "gpu", "cuda", "auto")),
                devices=whole("trainer.devices", trainer["devices"], 1),
                num_nodes=whole("trainer.num_nodes", trainer["num_nodes"], 1),
                threads=whole("threads", config["threads"], 1),
            ),
            "logger": LoggerSettings.of(config["logger"]),
            "study": config["study"],
            "tags": tuple(config["tags"]),
            "command": command,
            "files": files or {},
        }
        if not attack.attack.reads_model:
            return [_noise_job(config, images, extras, common)]
        if not config["checkpoints"]:
            raise UserError("checkpoints has no value; give checkpoints='runs/train/*/model.ckpt' or the like")
        wandb_mode = config["logger"]["mode"]
        checkpoints = find_checkpoints(config["checkpoints"], runs=str(config["runs"]), wandb_mode=wandb_mode)
        if config["name"] and len(checkpoints) > 1:
            raise UserError(f"name={config['name']} would be shared by {len(checkpoints)} checkpoints; leave name out")
        opened = [load_network(checkpoint, network=network_classes) for checkpoint in checkpoints]
        refuse_unused((one.model for one in opened), network_classes)
        return [_network_job(one, config, images, extras, common) for one in opened]

    @property
    def plain(self) -> AttackJob:
        """The job without amplification, whose set is amplified."""
        suffix, attack = self.attack.amplification, replace(self.attack, amplify=None)
        name = self.name.replace(suffix, "") if suffix in self.name else f"{self.name}_plain"
        return replace(self, name=name, attack=attack, identity={**self.identity, "attack": attack.description})


def _noise_job(
    config: Mapping[str, Any], images: OwnData | None, extras: Sequence[str], common: Mapping[str, Any]
) -> AttackJob:
    given, attack = config["data"], common["attack"]
    if not given["name"]:
        raise UserError(f"attack={attack.name} needs to know the images: give data=mnist or data=digits")
    choice("data", given["name"], DATA_NAMES)
    data = {"name": given["name"], "split": "full", "split_seed": 0}
    prefix = str(given["name"])
    if given["name"] == "module":
        prefix = target_of(given).rpartition(".")[2]
    else:
        data |= {"root": given["root"] or "data", "download": flag("data.download", given["download"])}
    if given["name"] == "image_folder":
        data |= folder_settings(given)
        prefix = folder_name(data["root"], data["folder"])
    job = AttackJob(
        **common, data=open_images(**data, own=images), label=f"Gaussian, stddev {attack.settings['stddev']}"
    )
    return _identified(job, config, data, prefix, extras)


def _network_job(
    trained: TrainedNetwork,
    config: Mapping[str, Any],
    images: OwnData | None,
    extras: Sequence[str],
    common: Mapping[str, Any],
) -> AttackJob:
    checkpoint = trained.path
    data = images_of_network(trained.model.trained_on, config["data"], str(checkpoint))
    folder = checkpoint.parent if checkpoint.name == "model.ckpt" else checkpoint.parent.parent
    stem = folder.name if checkpoint.name == "model.ckpt" else f"{folder.name}_{checkpoint.stem}"
    source = Source(stem, data["split"], trained)
    job = AttackJob(**common, data=open_images(**data, own=images), source=source, label=trained.model.label)
    return _identified(job, config, data, stem, extras)


def _identified(
    job: AttackJob, config: Mapping[str, Any], data: Mapping[str, Any], prefix: str, extras: Sequence[str]
) -> AttackJob:
    """Add the name and the identity: the config without what cannot change the result, and the facts it does not say.

    Args:
        job: the job.
        config: the whole config.
        data: arguments of ``ImageData``; of images in folders and Datasets, the classes and files that are there
            count, and not the place.
        prefix: first part of the name.
        extras: last parts of the name.
    """
    if data["name"] in ("image_folder", "module"):
        part = "test" if job.subset == "test" else "train"
        there = job.data.description
        data = there | {key: {part: there[key][part]} for key in ("counts", "files")}
    identity = identity_of(config, "attack") | {
        "source": None if job.source is None else job.source.description,
        "data": {key: value for key, value in data.items() if key not in ("root", "download", "folder")},
        "attack": job.attack.description,
    }
    parts = [prefix, job.attack.label, f"{job.subset}{'all' if job.limit is None else job.limit}", f"seed{job.seed}"]
    parts += [job.attack.amplification.removeprefix("_")] if job.attack.amplification else []
    name = str(config["name"]) if config["name"] else slug("_".join([*parts, *extras]))
    return replace(job, name=name, identity=identity)


_OWN_KEYS = ("name", "_target_", "targets", "amplify", "amplify_by", "clip", "settings")


def _own_attack(config: Mapping[str, Any], function: Callable[..., Any] | None) -> AttackSettings:
    """Check the config of ``attack=module``, whose other keys are settings of the function."""
    if function is None:
        raise UserError("attack=module needs the function that attack._target_ names")
    short, nested = {key: value for key, value in config.items() if key not in _OWN_KEYS}, config["settings"] or {}
    if twice := sorted(set(short) & set(nested)):
        raise UserError(f"attack.{twice[0]} and attack.settings.{twice[0]} are one setting; give one of them")
    target = str(config["_target_"])
    try:
        own = as_attack(function, clip=flag("attack.clip", config["clip"]))
    except TypeError as error:
        raise UserError(f"attack._target_={target}: {error}") from error
    if not isinstance(own, FunctionAttack):
        raise UserError(f"attack._target_={target} is attack={own.name}")
    targets = "" if config["targets"] is None else choice("attack.targets", config["targets"], RULES)
    if targets and not own.takes("targets"):
        raise UserError(f"attack.targets={targets}: {target} takes no targets; leave attack.targets out")
    return AttackSettings(
        name=target if own.name in ATTACKS else own.name,
        settings=_checked(own, "attack", short | nested),
        targets=targets,
        own=own,
        function=target,
        **_amplification(config),
    )


def _amplification(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check how the perturbations are scaled afterwards."""
    amplify = None if config["amplify"] is None else number("attack.amplify", config["amplify"], 0, above=True)
    return {"amplify": amplify, "amplify_by": choice("attack.amplify_by", config["amplify_by"], AMPLIFY_RULES)}


def _checked(attack: Attack | FunctionAttack, where: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return attack.check(settings)
    except (TypeError, ValueError) as error:
        raise UserError(_with_full_names(str(error), settings, where)) from error


def _with_full_names(message: str, settings: Mapping[str, Any], where: str) -> str:
    """Put ``where`` before the setting that a message of an attack speaks of."""
    for key in settings:
        if message.startswith(f"{key} "):
            return f"{where}.{message}"
        if (words := f"expected {key} ") in message:
            return message.replace(words, f"expected {where}.{key} ", 1)
    return f"{where}: {message}"

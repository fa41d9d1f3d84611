"""From a resolved ``attack`` config to one checked job a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from intriguing.attacking.settings import BATCH, TRAIN, AttackSettings
from intriguing.attacking.starts import chosen_starts
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
from intriguing.validation import choice, flag, refuse_unknown, whole

ORDERS = ("drawn", "label")
_KEYS = (
    *("checkpoints", "model", "attack", "subset", "limit", "order", "shard", "data", "trainer"),
    *("logger", "runs", "name", "study", "tags", "seed", "threads"),
)


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
        plain_name: that of the run without amplification.
        label: what is attacked, by its name in tables.
        identity: what would change the result; it guards the run folder.
        source: the network under attack; None for noise.
        data: the images of the data set.
        attack: the attack and its settings.
        subset: the subset of the data that is attacked.
        limit: number of images; None: all.
        order: which images ``limit`` leaves: ``drawn`` by the seed, or one of every class in turn, by ``label``.
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
    plain_name: str = ""
    label: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict, repr=False)
    source: Source | None = None
    data: ImageData = field(repr=False)
    attack: AttackSettings
    subset: str
    limit: int | None
    order: str
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
            "order": choice("order", config["order"], ORDERS),
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
        attack = replace(self.attack, amplify=None)
        return replace(
            self, name=self.plain_name, attack=attack, identity={**self.identity, "attack": attack.description}
        )


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
    data |= folder_settings(given)
    if given["name"] == "image_folder":
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
    opened, attack = open_images(**data, own=images), common["attack"]
    attack = replace(attack.aimed(opened), starts=chosen_starts(attack, opened))
    job = AttackJob(**{**common, "attack": attack}, data=opened, source=source, label=trained.model.label)
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
    there = job.data.description
    if "files" in there:
        part = "test" if job.subset == "test" else "train"
        data = there | {key: {part: there[key][part]} for key in ("counts", "files")}
    identity = identity_of(config, "attack") | {
        "source": None if job.source is None else job.source.description,
        "data": {
            key: value for key, value in data.items() if key not in ("root", "download", "folder", "classes_file")
        },
        "attack": job.attack.description,
    }
    if job.attack.starts == TRAIN and "files" in data:  # of images in folders and Datasets, those it begins from
        identity["starts"] = {"files": job.data.description["files"]["train"]}
    if job.attack.starts == BATCH:  # an image begins from the others of its shard
        identity["shard"] = job.shard
    if job.order == "drawn" or job.limit is None:  # which changes nothing
        del identity["order"]
    parts = [prefix, job.attack.label, f"{job.subset}{'all' if job.limit is None else job.limit}", f"seed{job.seed}"]
    amplified = [job.attack.amplification.removeprefix("_")] if job.attack.amplification else []
    if given := config["name"]:
        suffix = job.attack.amplification
        plain = str(given).replace(suffix, "") if suffix and suffix in str(given) else f"{given}_plain"
        return replace(job, name=str(given), plain_name=plain, identity=identity)
    # From the parts, for a long name ends in a digest of the whole.
    name, plain = (slug("_".join([*parts, *more, *extras])) for more in (amplified, []))
    return replace(job, name=name, plain_name=plain, identity=identity)

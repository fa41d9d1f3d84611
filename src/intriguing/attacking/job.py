"""From a resolved ``attack`` config to one checked job a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from intriguing.attacks import AttackResult, adam_l1, lbfgs, nearest
from intriguing.attacks.amplify import RULES as AMPLIFY_RULES
from intriguing.attacks.targets import RULES
from intriguing.checkpoints import find_checkpoints, read_checkpoint
from intriguing.data import DATA_NAMES, SUBSETS, folder_name, folder_settings, images_of_network, open_images
from intriguing.errors import UserError
from intriguing.runs.jobs import LoggerSettings
from intriguing.runs.names import slug
from intriguing.storage.files import file_sha256
from intriguing.validation import choice, flag, number, whole

_GIVEN = ("model", "inputs", "labels", "targets", "generator")  # what is not a setting
ATTACKS: dict[str, Callable[..., AttackResult]] = {"lbfgs": lbfgs, "adam_l1": adam_l1, "nearest": nearest}


@dataclass(frozen=True)
class AttackJob:
    """All that one adversarial set needs, checked.

    Attributes:
        runs, name: the run folder is ``<runs>/attack/<name>``.
        label: what was attacked, by its name in tables, and how.
        identity: what would change the result; the run folder is guarded by it.
        checkpoint: the network's file; None for Gaussian noise.
        data: arguments of ``ImageData`` (without the batch size).
        attack: ``name``, ``targets``, ``settings``, ``amplify`` (and ``amplify_by`` where that is a number), or
            ``name``, ``stddev``, ``clip``.
        subset, limit, seed: which images.
        shard: images saved at once.
        accelerator, devices, num_nodes: where the network runs, and in how many processes.
        files: further files of the run folder, text by name.
        logger: ``wandb`` (bool), ``project``, ``mode``.
    """

    runs: str
    name: str
    label: str
    identity: dict[str, Any]
    checkpoint: Path | None
    data: dict[str, Any]
    attack: dict[str, Any]
    subset: str
    limit: int | None
    shard: int
    seed: int
    threads: int
    accelerator: str
    devices: int
    num_nodes: int
    logger: LoggerSettings
    study: str | None
    tags: tuple[str, ...]
    command: str
    files: Mapping[str, str]

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        *,
        extras: Sequence[str] = (),
        command: str = "",
        files: Mapping[str, str] | None = None,
    ) -> list[AttackJob]:
        """Check a resolved ``attack`` config and make its jobs: one a checkpoint, one in all for Gaussian noise.

        Raises:
            UserError: a value that cannot be right, a pattern that matches nothing, a checkpoint that cannot be used.
        """
        attack = _attack(config["attack"])
        sources: list[Path | None] = [None]
        if attack["name"] != "gaussian":
            if not config["checkpoints"]:
                raise UserError("checkpoints has no value; give checkpoints='runs/train/*/model.ckpt' or the like")
            wandb_mode = config["logger"]["mode"]
            sources = list(find_checkpoints(config["checkpoints"], runs=str(config["runs"]), wandb_mode=wandb_mode))
        elif not config["data"]["name"]:
            raise UserError("attack=gaussian needs to know the images: give data=mnist or data=digits")
        limit = None if config["limit"] is None else whole("limit", config["limit"], 1)
        job = cls(
            runs=str(config["runs"]),
            name="",
            label="",
            identity={},
            checkpoint=None,
            data={},
            attack=attack,
            subset=choice("subset", config["subset"], SUBSETS),
            limit=limit,
            shard=whole("shard", config["shard"], 1),
            seed=whole("seed", config["seed"], 0),
            threads=whole("threads", config["threads"], 1),
            accelerator=choice("trainer.accelerator", config["trainer"]["accelerator"], ("cpu", "gpu", "cuda", "auto")),
            devices=whole("trainer.devices", config["trainer"]["devices"], 1),
            num_nodes=whole("trainer.num_nodes", config["trainer"]["num_nodes"], 1),
            logger=LoggerSettings.of(config["logger"]),
            study=config["study"],
            tags=tuple(config["tags"]),
            command=command,
            files=files or {},
        )
        if config["name"] and len(sources) > 1:
            raise UserError(f"name={config['name']} would be shared by {len(sources)} checkpoints; leave name out")
        return [job._for(source, config, extras) for source in sources]

    def _for(self, checkpoint: Path | None, config: dict[str, Any], extras: Sequence[str]) -> AttackJob:
        given = config["data"]
        source, label, prefix = None, f"Gaussian, stddev {self.attack.get('stddev')}", str(given["name"])
        if checkpoint is None:
            choice("data", given["name"], DATA_NAMES)
            data = _images(given)
            prefix = folder_name(data["root"], data["folder"]) if "folder" in data else prefix
        else:
            content = read_checkpoint(checkpoint)
            data = images_of_network(content["intriguing"]["data"], given, str(checkpoint))
            folder = checkpoint.parent if checkpoint.name == "model.ckpt" else checkpoint.parent.parent
            stem = folder.name if checkpoint.name == "model.ckpt" else f"{folder.name}_{checkpoint.stem}"
            label, prefix = str(content["hyper_parameters"]["label"]), stem
            source = {
                "name": stem,
                "label": label,
                "checkpoint_sha256": file_sha256(checkpoint),
                "split": data["split"],
                "seed": int(content["intriguing"]["seed"]),
            }
        identity = {
            "source": source,
            "data": _identified(data, self.subset),
            "attack": self.attack,
            "subset": self.subset,
            "limit": self.limit,
            "seed": self.seed,
        }
        name = str(config["name"]) if config["name"] else slug("_".join([str(prefix), *self._parts(), *extras]))
        return replace(
            self,
            name=name,
            label=label,
            identity=identity,
            checkpoint=checkpoint,
            data=data,
        )

    def _parts(self) -> list[str]:
        attack = self.attack
        how = (
            f"gaussian{attack['stddev']:g}" if attack["name"] == "gaussian" else f"{attack['name']}_{attack['targets']}"
        )
        parts = [how, f"{self.subset}{'all' if self.limit is None else self.limit}", f"seed{self.seed}"]
        return parts + ([self.amplification.removeprefix("_")] if self.amplification else [])

    @property
    def amplification(self) -> str:
        """The end of its name that tells how it is amplified, "_amplify0.1"; empty where it is not."""
        size, by = self.attack.get("amplify"), self.attack.get("amplify_by")
        return "" if size is None else f"_amplify{size:g}{'_by_image' if by == 'image' else ''}"


def _images(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``ImageData`` for images of no network."""
    data = {"name": given["name"], "split": "full", "split_seed": 0}
    data |= {"root": given["root"] or "data", "download": flag("data.download", given["download"])}
    return data | (folder_settings(given) if given["name"] == "image_folder" else {})


def _identified(data: dict[str, Any], subset: str) -> dict[str, Any]:
    """What decides which images these are: of folders, the classes and files that are there now, not where they lie."""
    if data["name"] == "image_folder":
        part = "test" if subset == "test" else "train"
        there = open_images(**data).description
        data = there | {key: {part: there[key][part]} for key in ("counts", "files")}
    return {key: value for key, value in data.items() if key not in ("root", "download", "folder")}


def _attack(config: dict[str, Any]) -> dict[str, Any]:
    name = choice("attack.name", config["name"], ("gaussian", *ATTACKS))
    if name == "gaussian":
        stddev = number("attack.stddev", config["stddev"], 0, above=True)
        return {"name": name, "stddev": stddev, "clip": flag("attack.clip", config["clip"])}
    amplify, amplify_by = config["amplify"], choice("attack.amplify_by", config["amplify_by"], AMPLIFY_RULES)
    settings = dict(config["settings"] or {})
    _check_settings(name, settings)
    return {
        "name": name,
        "targets": choice("attack.targets", config["targets"], (*RULES, "closest")),
        "settings": settings,
        "amplify": None if amplify is None else number("attack.amplify", amplify, 0, above=True),
        **({} if amplify is None else {"amplify_by": amplify_by}),  # how to do what is not done changes nothing
    }


def _check_settings(name: str, settings: dict[str, Any]) -> None:
    """Raises UserError for a setting the attack does not have, or of another kind or range."""
    known = {key: one.default for key, one in inspect.signature(ATTACKS[name]).parameters.items() if key not in _GIVEN}
    for key, value in settings.items():
        what = f"attack.settings.{key}"
        if key not in known:
            raise UserError(f"{what} is no setting of attack={name}; it has {', '.join(known)}")
        if isinstance(known[key], float):
            number(what, value, 0)
        elif not (value is None and known[key] is None):
            whole(what, value, 0)
    # the attack's own checks, on an image for which it has nothing to do
    layer = nn.Linear(1, 2)
    layer.weight.data.zero_()
    layer.bias.data = torch.tensor([2.0, 0.0])
    sure = nn.Sequential(nn.Flatten(), layer)
    answer = torch.tensor([1 if name == "nearest" else 0])
    try:
        ATTACKS[name](sure, torch.zeros(1, 1, 1, 1), answer, **settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"attack={name}: attack.settings: {error}") from error

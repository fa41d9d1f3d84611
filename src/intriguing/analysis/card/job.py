"""From a resolved config with a card to one checked job: its networks, opened, with their images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from intriguing import __version__
from intriguing.analysis.card.card import RobustnessCard
from intriguing.analysis.card.networks import OpenNetwork, open_networks, open_reference
from intriguing.analysis.card.sample import stratified_order
from intriguing.analysis.card.subject import Passes, Subject
from intriguing.attacks.effort import EFFORTS
from intriguing.checkpoints import Network
from intriguing.data import SUBSETS, OwnData
from intriguing.errors import UserError
from intriguing.runs.identity import identity_of
from intriguing.runs.jobs import LoggerSettings
from intriguing.runs.names import slug
from intriguing.storage.files import file_sha256
from intriguing.validation import choice, flag, number, refuse_unknown, whole

KEYS = (
    *("checkpoint", "model", "settings", "weights", "name", "subset", "minutes", "images", "effort", "device"),
    *("reference", "compare", "fail_if_worse"),
)


@dataclass(frozen=True, kw_only=True)
class CardJob:
    """One card, or one page of several, checked.

    Attributes:
        runs: folder of all runs.
        name: the run folder is ``<runs>/analyze/<name>``.
        label: heading.
        networks: opened, with their images.
        reference: another network for transfer; None without one.
        subset: whose images.
        minutes: budget of each network.
        images: largest number of images; None: all.
        effort: of the attack.
        device: where it is measured.
        compare: an earlier card; None without one.
        compared_with: its file.
        fail_if_worse: whether a number that became worse is an error.
        identity: what decides the result.
        seed: of everything random.
        threads: of the process; the config's null is one a core.
        logger, study, tags, command, files: see ``runs.jobs.Job``.
    """

    runs: str
    name: str
    label: str
    networks: tuple[OpenNetwork, ...]
    reference: OpenNetwork | None
    subset: str
    minutes: float
    images: int | None
    effort: str
    device: torch.device
    compare: RobustnessCard | None
    compared_with: str
    fail_if_worse: bool
    identity: Mapping[str, Any] = field(repr=False)
    seed: int
    threads: int
    logger: LoggerSettings
    study: str | None
    tags: tuple[str, ...]
    command: str
    files: Mapping[str, str]

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        module: Callable[..., nn.Module] | None = None,
        network_classes: Sequence[Network] = (),
        images: OwnData | None = None,
        command: str = "",
        files: Mapping[str, str] | None = None,
    ) -> CardJob:
        """Check a resolved ``analyze`` config that has a ``card``, and open its networks.

        Args:
            config: plain values.
            module: the class that ``card.model`` names; None for a network of torchvision, a program, or checkpoints.
            network_classes: by which checkpoints of users' networks are opened.
            images: opens the Datasets of ``data=module``; None for other data.
            command: the command line that makes this job.
            files: further files of the run folder, text by name.

        Raises:
            UserError: a value that cannot be right, or a network that cannot be opened.
        """
        card = config["card"]
        refuse_unknown("card", card, KEYS)
        minutes = number("card.minutes", card["minutes"], 0, above=True)
        most = None if card["images"] is None else whole("card.images", card["images"], 1)
        subset = choice("card.subset", card["subset"], SUBSETS)
        effort = choice("card.effort", card["effort"], EFFORTS)
        failing = flag("card.fail_if_worse", card["fail_if_worse"])
        if failing and card["compare"] is None:
            raise UserError(
                "card.fail_if_worse=true changes nothing without card.compare=<card.json of an earlier card>"
            )
        device = _device(card["device"])
        seed = whole("seed", config["seed"], 0)
        compare = None if card["compare"] is None else RobustnessCard.load(str(card["compare"]))
        networks = open_networks(config, module, network_classes, images, seed)
        if compare is not None and len(networks) > 1:
            raise UserError(f"card.compare is for the card of one network, and there are {len(networks)}")
        reference = None if card["reference"] is None else open_reference(config, network_classes, networks[0])
        name = config["name"] or slug("_".join(["card", *(one.stem for one in networks)]))
        asked = identity_of(config, "analyze")
        kept = ("subset", "minutes", "images", "effort", "name")
        identity = {
            "networks": {one.name: dict(one.identity) for one in networks},
            "card": {key: card[key] for key in kept},
            "reference": None if reference is None else dict(reference.identity),
            "compare": None if compare is None else file_sha256(Path(str(card["compare"]))),
            "data": {one.name: _content(one, subset) for one in networks},
            "seed": seed,
            "version": __version__,
            **{key: asked[key] for key in ("experiment",) if key in asked},
        }
        return cls(
            runs=str(config["runs"]),
            name=str(name),
            label=f"Robustness card: {', '.join(one.name for one in networks)}",
            networks=tuple(networks),
            reference=reference,
            subset=subset,
            minutes=minutes,
            images=most,
            effort=effort,
            device=device,
            compare=compare,
            compared_with=str(card["compare"] or ""),
            fail_if_worse=failing,
            identity=identity,
            seed=seed,
            threads=_threads(config["threads"]),
            logger=LoggerSettings.of(config["logger"]),
            study="card",
            tags=tuple(config["tags"]),
            command=command,
            files=files or {},
        )

    def subject(self, network: OpenNetwork, *, passes: Passes | None = None, like: Subject | None = None) -> Subject:
        """Read the sample of a network's images, or take that of another subject.

        Raises:
            UserError: there are no such images.
        """
        if like is None:
            network.data.prepare_data()
            subset = network.data.subset(self.subset)
            if not len(subset):
                raise UserError(
                    f"the data of {network.name} has no {self.subset} images; give card.subset=train, or a folder with "
                    f"{self.subset}/<class>/*.jpg"
                )
            order = stratified_order(subset.labels, self.seed)[: self.images]
            images, labels, indices = *_read(subset, order), order
        else:
            images, labels, indices = like.images, like.labels, like.indices
        return Subject(
            name=network.name,
            model=network.model.to(self.device),
            images=images,
            labels=labels,
            indices=indices,
            device=self.device,
            seed=self.seed,
            classes=network.classes,
            passes=passes or Passes(),
        )


def _read(subset: Any, order: Tensor) -> tuple[Tensor, Tensor]:
    """Read images in the order of the sample; files are read in their own order, which is faster."""
    places = order.sort()
    images, labels = subset.read(places.values)
    back = torch.empty_like(places.indices)
    back[places.indices] = torch.arange(len(order))
    return images[back].float(), labels[back].long()


def _content(network: OpenNetwork, subset: str) -> dict[str, Any]:
    """Describe a network's images by their content, without their place."""
    found = {key: value for key, value in network.data.description.items() if key not in ("root", "folder", "download")}
    part = "test" if subset == "test" else "train"
    return {k: {part: v[part]} if k in ("counts", "files") and isinstance(v, dict) else v for k, v in found.items()}


def _threads(value: Any) -> int:
    """Return the number of threads: one network is measured at a time, so all cores are for it."""
    return whole("threads", value, 1) if value is not None else os.cpu_count() or 1


def _device(value: Any) -> torch.device:
    name = choice("card.device", value, ("cpu", "cuda", "auto"))
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("card.device=cuda: there is no GPU here; give card.device=cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")

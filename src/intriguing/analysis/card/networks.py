"""Open the networks of a card: checkpoints, a class with its weights, torchvision's, programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from intriguing.checkpoints import Network, find_checkpoints, load_network, refuse_unused
from intriguing.data import (
    DATA_NAMES,
    ImageData,
    OwnData,
    folder_settings,
    images_of_network,
    open_images,
)
from intriguing.errors import UserError
from intriguing.models import Classifier, ModuleClassifier, ProgramClassifier, TorchvisionModel
from intriguing.models.weights_file import read_weights
from intriguing.storage.files import file_sha256
from intriguing.validation import choice, flag

TORCHVISION = "torchvision:"
_GIVE = "give card.checkpoint=<run>, or card.model=<class> with card.weights=<file> and data=..."


@dataclass(frozen=True, kw_only=True)
class OpenNetwork:
    """Hold an opened network.

    Attributes:
        name: on the page.
        stem: short name, for the run folder.
        model: images to logits.
        data: its images.
        classes: names of its classes; empty where they have none.
        identity: what decides its answers, without the place of a file.
    """

    name: str
    stem: str
    model: Classifier = field(repr=False)
    data: ImageData
    classes: tuple[str, ...] = ()
    identity: Mapping[str, Any] = field(default_factory=dict, repr=False)


def names_class(card: Mapping[str, Any]) -> bool:
    """Return whether ``card.model`` is the full name of a class, and neither torchvision's network nor a file.

    Raises:
        UserError: it is no text, or a checkpoint is given too.
    """
    model = card["model"]
    if model is None:
        return False
    if card["checkpoint"] is not None:
        raise UserError(f"card.checkpoint and card.model are both given; {_GIVE}")
    if not isinstance(model, str) or not model:
        raise UserError(f"card.model must be a text, such as mine.Net or torchvision:resnet18, got {model!r}")
    return not model.startswith(TORCHVISION) and not _is_file(model)


def _is_file(model: str) -> bool:
    return Path(model).expanduser().is_file() or Path(model).suffix in (".pt", ".pt2", ".pth", ".ts", ".safetensors")


def open_networks(
    config: Mapping[str, Any],
    module: Callable[..., nn.Module] | None,
    network_classes: Sequence[Network],
    images: OwnData | None,
    seed: int,
) -> list[OpenNetwork]:
    """Open what ``card.checkpoint`` or ``card.model`` names.

    Raises:
        UserError: neither is given, or something cannot be opened.
    """
    card = config["card"]
    if card["checkpoint"] is None and card["model"] is None:
        raise UserError(f"there is no network; {_GIVE}")
    if card["checkpoint"] is None:
        return [_open_model(config, module, images, seed)]
    for key in ("weights", "settings"):
        if card[key]:
            raise UserError(f"card.{key} is read with card.model alone: a checkpoint has its own; leave it out")
    paths = _found("card.checkpoint", card["checkpoint"], config)
    opened = [load_network(path, network=network_classes) for path in paths]
    refuse_unused((one.model for one in opened), network_classes)
    if card["name"] and len(opened) > 1:
        raise UserError(f"card.name={card['name']} would be shared by {len(opened)} networks; leave it out")
    stems = [path.parent.name if path.name == "model.ckpt" else path.stem for path in paths]
    labels = [one.model.label for one in opened]
    names = labels if len(set(labels)) == len(labels) else stems
    if len(set(names)) < len(names):
        names = [f"{path.parent}" for path in paths]
    found = []
    for name, stem, one in zip(names, stems, opened, strict=True):
        data = images_of_network(one.model.trained_on, config["data"], str(one.path))
        own = open_images(**data, own=images)
        identity = {"checkpoint_sha256": one.sha256}
        found.append(_network(str(card["name"] or name), stem, one.model, own, identity))
    return found


def open_reference(config: Mapping[str, Any], network_classes: Sequence[Network], network: OpenNetwork) -> OpenNetwork:
    """Open the checkpoint of ``card.reference``, for the images of a network.

    Raises:
        UserError: it cannot be opened, is more than one, or takes other images.
    """
    paths = _found("card.reference", config["card"]["reference"], config)
    if len(paths) > 1:
        raise UserError(f"card.reference={config['card']['reference']} matches {len(paths)} checkpoints; give one")
    opened = load_network(paths[0], network=network_classes)
    theirs, own = tuple(opened.model.input_shape), tuple(network.data.input_shape)
    if theirs != own or opened.model.num_classes != network.data.num_classes:
        raise UserError(
            f"card.reference={paths[0]} takes images of shape {theirs} in {opened.model.num_classes} classes, and "
            f"{network.name} of {own} in {network.data.num_classes}; give a network for the same images"
        )
    stem = paths[0].parent.name if paths[0].name == "model.ckpt" else paths[0].stem
    name = opened.model.label if opened.model.label != network.name else stem
    return _network(name, stem, opened.model, network.data, {"checkpoint_sha256": opened.sha256})


def _found(key: str, patterns: Any, config: Mapping[str, Any]) -> list[Path]:
    if not isinstance(patterns, str | list) or not patterns:
        raise UserError(f"{key} must be a checkpoint, a run folder, a glob, or a list of them, got {patterns!r}")
    try:
        return find_checkpoints(patterns, runs=str(config["runs"]), wandb_mode=config["logger"]["mode"])
    except UserError as error:
        raise UserError(str(error).replace("checkpoints=", f"{key}=", 1)) from error


def _open_model(
    config: Mapping[str, Any], module: Callable[..., nn.Module] | None, images: OwnData | None, seed: int
) -> OpenNetwork:
    card, data = config["card"], _images(config, images)
    model, weights = str(card["model"]), card["weights"]
    settings = card["settings"] or {}
    if not isinstance(settings, dict):
        raise UserError(f"card.settings must be a mapping of keywords, such as {{width: 8}}, got {settings!r}")
    identity: dict[str, Any] = {"model": model, "settings": settings, "weights": None}
    if weights is not None and str(weights) != "default":
        if not Path(str(weights)).expanduser().is_file():
            raise UserError(f"card.weights={weights} is no file; give a state dict (.pt, .pth, .safetensors)")
        identity["weights"] = file_sha256(Path(str(weights)).expanduser())
    elif weights is not None:
        if not model.startswith(TORCHVISION):
            raise UserError("card.weights=default is for card.model=torchvision:<architecture>; give a file")
        identity["weights"] = "default"
    arguments: dict[str, Any] = {"input_shape": list(data.input_shape), "num_classes": data.num_classes}
    torch.manual_seed(seed)  # for weights that no file gives
    try:
        if model.startswith(TORCHVISION):
            opened, stem = _torchvision(model.removeprefix(TORCHVISION), settings, weights, data, arguments)
        elif module is None:
            if weights is not None or settings:
                raise UserError("card.weights and card.settings are for a class: a program has its own; leave them out")
            opened, stem = ProgramClassifier(str(Path(model).expanduser()), **arguments), Path(model).stem
            identity |= {"model": "program", "sha256": file_sha256(Path(model).expanduser())}
        else:
            weights_file = None if weights is None else str(weights)
            opened = ModuleClassifier(module, settings=settings, weights=weights_file, **arguments)
            stem = model.rpartition(".")[2]
    except (TypeError, ValueError) as error:
        raise UserError(f"card.model={model}: {str(error).split('build_network() ')[-1]}") from error
    return _network(str(card["name"] or opened.label), str(card["name"] or stem), opened.eval(), data, identity)


def _torchvision(
    architecture: str, settings: Mapping[str, Any], weights: Any, data: ImageData, arguments: Mapping[str, Any]
) -> tuple[Classifier, str]:
    if settings:
        raise UserError("card.settings are for a class: torchvision's networks are built as they are; leave them out")
    if weights is None:
        raise UserError(
            f"card.model={TORCHVISION}{architecture} has random weights without card.weights=default (torchvision's, "
            "downloaded) or card.weights=<file of a state dict>"
        )
    opened = TorchvisionModel(architecture=architecture, weights=str(weights), **arguments)
    held = 1000 if weights == "default" else _classes_of(str(weights), opened)
    if held != data.num_classes:
        raise UserError(
            f"the weights of {architecture} have {held} classes, and the images {data.num_classes}: the last layer "
            f"would be random; give images with all {held} folders of classes, or weights trained on these"
        )
    return opened, architecture


def _classes_of(weights: str, opened: Classifier) -> int:
    """Return the number of classes that the last layer has in a file."""
    network = opened.network
    last = [name for name, one in network.model.named_modules() if isinstance(one, nn.Linear | nn.Conv2d)][-1]  # pyright: ignore
    return len(read_weights(weights)[f"{last}.weight"])


def _images(config: Mapping[str, Any], images: OwnData | None) -> ImageData:
    """Open the images of ``data=...`` for a network that no checkpoint describes."""
    given = config["data"]
    if not given["name"]:
        raise UserError("card.model needs to know the images: give data=image_folder data.folder=..., or data=mnist")
    choice("data", given["name"], DATA_NAMES)
    data: dict[str, Any] = {"name": given["name"], "split": "full", "split_seed": 0}
    if given["name"] != "module":
        data |= {"root": given["root"] or "data", "download": flag("data.download", given["download"])}
    data |= folder_settings(given)
    return open_images(**data, own=images)


def _network(name: str, stem: str, model: Classifier, data: ImageData, identity: Mapping[str, Any]) -> OpenNetwork:
    return OpenNetwork(
        name=name, stem=stem, model=model, data=data, classes=tuple(map(str, data.class_names)), identity=identity
    )

"""Check the parts of a training config and make typed settings of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from intriguing.checkpoints import Network
from intriguing.data import (
    DATA_NAMES,
    IMAGENET_SIZE,
    SHAPES,
    SPLIT_NAMES,
    ImageData,
    OwnData,
    blank_settings,
    folder_name,
    folder_settings,
    open_images,
    target_of,
)
from intriguing.errors import UserError
from intriguing.models import PENALTIES, REGISTRY, Classifier
from intriguing.storage.files import file_sha256
from intriguing.training.labels import network_label
from intriguing.training.options import trainer_options
from intriguing.validation import choice, flag, number, refuse_unknown, whole

_MODEL = ("name", "label", "spell_lambda", "settings", "recipe")
_OWN = {"module": ("_target_", "input", "output", "weights"), "file": ("path", "input", "output")}
"""Further keys of ``model`` that some architectures have."""


def gathered(config: Mapping[str, Any]) -> dict[str, Any]:
    """Move the keywords of a class that stand in ``model`` itself (``model.width``) to ``model.settings``.

    Args:
        config: the whole config.

    Raises:
        UserError: one that stands in both.
    """
    model = config["model"]
    if model["name"] != "module":
        return dict(config)
    known = (*_MODEL, *_OWN["module"])
    keywords = {key: value for key, value in model.items() if key not in known}
    if twice := sorted(keywords.keys() & (model["settings"] or {}).keys()):
        raise UserError(f"model.{twice[0]} and model.settings.{twice[0]} are one setting: give one of them")
    kept = {key: value for key, value in model.items() if key in known}
    return {**config, "model": kept | {"settings": {**(model["settings"] or {}), **keywords}}}


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Describe the images of a training run; see ``open_images`` for the attributes.

    Attributes:
        in_folder: ``folder``, ``size``, ``resize``, ``channels`` and ``workers`` of folders of images; empty for other
            data.
        blank: ``shape`` and ``num_classes`` of a data set without images; empty for other data.
        target: the user's class or function that ``data=module`` names; empty for other data.
        own: opens its Datasets.
    """

    name: str
    root: str
    download: bool
    split: str
    split_seed: int
    batch_size: int
    validation: int
    only: int | None
    seed: int
    in_folder: Mapping[str, Any] = field(default_factory=dict)
    blank: Mapping[str, Any] = field(default_factory=dict)
    one_against_rest: str | None = None
    target: str = ""
    own: OwnData | None = field(default=None, repr=False)

    @classmethod
    def of(cls, config: Mapping[str, Any], own: OwnData | None = None) -> DataSettings:
        """Check the sections ``data`` and ``split`` of a config; ``own`` opens the user's Datasets."""
        data, split = config["data"], config["split"]
        choice("data", data["name"], DATA_NAMES)
        in_folder = folder_settings(data)
        if data["name"] == "imagenet" and in_folder["size"] is None:
            wanted = REGISTRY[config["model"]["name"]].image_size(config["model"]["settings"])
            size, resize = wanted or IMAGENET_SIZE
            in_folder |= {"size": size, "resize": in_folder["resize"] or resize}
        blank = blank_settings(data) if data["name"] == "blank" else {}
        if blank and config["trainer"]["max_epochs"]:
            raise UserError("data=blank has no images to train on: give trainer.max_epochs=0")
        module = data["name"] == "module"
        # mean and std are read as settings of the network, whose first layer they are
        known = ("name", "root", "download", "batch_size", "validation", "only", "mean", "std", *in_folder, *blank)
        known += ("one_against_rest",)
        known += ("folder", "workers") if data["name"] == "cifar10" else ()
        if not module:  # what reads its settings is the user's own
            refuse_unknown("data", data, known)
        refuse_unknown("split", split, ("name", "seed"))
        return cls(
            name=data["name"],
            root="data" if module else data["root"] or "data",
            download=False if module else flag("data.download", data["download"]),
            split=choice("split", split["name"], SPLIT_NAMES),
            split_seed=whole("split.seed", split["seed"], 0),
            batch_size=whole("data.batch_size", data["batch_size"], 1),
            validation=whole("data.validation", data["validation"], 0),
            only=None if data["only"] is None else whole("data.only", data["only"], 1),
            seed=whole("seed", config["seed"], 0),
            in_folder=in_folder,
            blank=blank,
            one_against_rest=None if data["one_against_rest"] is None else str(data["one_against_rest"]),
            target=target_of(data) if module else "",
            own=own,
        )

    @property
    def label(self) -> str:
        """The data set, or the name of the folder of images, of the user's class or function; with the one class."""
        if self.target:
            found = self.target.rpartition(".")[2]
        else:
            found = folder_name(self.root, self.in_folder["folder"]) if self.name == "image_folder" else self.name
        return found if self.one_against_rest is None else f"{found}_{self.one_against_rest}"

    @property
    def shape(self) -> tuple[tuple[int, ...], int] | None:
        """(C, H, W) and the number of classes; None where they are known only once the images are opened."""
        known = (tuple(self.blank["shape"]), self.blank["num_classes"]) if self.blank else SHAPES.get(self.name)
        return known if known is None or self.one_against_rest is None else (known[0], 2)

    @property
    def by_content(self) -> bool:
        """Whether the images that are there, rather than a name, decide which run this is."""
        return bool(self.in_folder or self.target)

    def open(self) -> ImageData:
        """Open the images."""
        plain = {key: value for key, value in vars(self).items() if key not in ("in_folder", "blank")}
        return open_images(**plain, **self.in_folder, **self.blank)


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Describe a network before it is built.

    Attributes:
        name: of the architecture, in the registry.
        given_label: the label of the architecture; None for one that says its shape.
        settings: the architecture's own.
        weight_decay: lambda of all decayed layers, or of each.
        implied: the weight decay that the architecture's label implies; None where none is implied.
        normaliser: k of the weight decay.
        penalty: kind and strength of the spectral penalty; None without one.
        normalisation: ``mean`` and ``std`` of the pixels, for the first layer; empty without one.
    """

    name: str
    given_label: str | None
    settings: Mapping[str, Any]
    weight_decay: float | list[float]
    implied: float | list[float] | None
    normaliser: str | float
    penalty: tuple[str, float] | None
    normalisation: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any], module: Callable[..., nn.Module] | None = None) -> NetworkSettings:
        """Check the sections ``model``, ``weight_decay`` and ``spectral_penalty`` of a config, and ``data.mean``.

        Args:
            config: the whole config, see ``gathered``.
            module: the class of ``model._target_``, or a function that builds modules; None without one.
        """
        model, decay, penalty = config["model"], config["weight_decay"], config["spectral_penalty"]
        choice("model.name", model["name"], sorted(REGISTRY))
        own = _OWN.get(model["name"], ())
        if "_target_" in model and "_target_" not in own:
            raise UserError("model._target_ is read with model=module alone: model=module model._target_=<class>")
        refuse_unknown("model", model, (*_MODEL, *own))
        refuse_unknown("model.recipe", model["recipe"], ("lr", "weight_decay", "normaliser", "epochs", "batch_size"))
        refuse_unknown("weight_decay", decay, ("value", "normaliser"))
        refuse_unknown("spectral_penalty", penalty, ("kind", "value"))
        kind = choice("spectral_penalty.kind", penalty["kind"], ("none", *PENALTIES))
        strength = number("spectral_penalty.value", penalty["value"], 0)
        if kind == "none" and strength:
            raise UserError(
                f"spectral_penalty.value={strength:g} is the strength of no penalty; give spectral_penalty=log_product "
                "or spectral_penalty=margin"
            )
        k = decay["normaliser"]
        settings = dict(model["settings"])
        if own and settings and "path" in own:
            raise UserError(f"model.settings.{next(iter(settings))} is read by nothing: a file has no settings")
        if own:
            given = {key: model[key] for key in own if key != "_target_"}
            settings = given if "path" in own else {"network": module, "settings": settings, **given}
        if config["trainer"]["max_epochs"] and not REGISTRY[model["name"]].is_trainable:
            raise UserError(
                f"model={model['name']} is a network as it is: give trainer.max_epochs=0; the weights of one that is "
                "to be trained further are read with model=module model.weights=..."
            )
        normalisation = {key: config["data"].get(key) for key in ("mean", "std")}
        return cls(
            name=model["name"],
            given_label=None if model["label"] is None else str(model["label"]),
            settings=settings,
            weight_decay=_lambdas("weight_decay.value", decay["value"]),
            implied=None
            if flag("model.spell_lambda", model["spell_lambda"])
            else _lambdas("model.recipe.weight_decay", model["recipe"]["weight_decay"]),
            normaliser="units" if k == "units" else number("weight_decay.normaliser (or 'units')", k, 0, above=True),
            penalty=(kind, strength) if strength else None,
            normalisation={} if normalisation == {"mean": None, "std": None} else normalisation,
        )

    @property
    def code(self) -> Network | None:
        """The user's class, a copy of their module, or their program, to open checkpoints with; None of one of ours."""
        given = self.settings.get("network", self.settings.get("path"))
        return copy.deepcopy(given) if isinstance(given, nn.Module) else given

    @property
    def program(self) -> Path | None:
        """The file of a program, of which the run keeps a copy; None of other networks."""
        path = self.settings.get("path") if self.name == "file" else None
        return None if path is None else Path(path).expanduser()

    @property
    def digests(self) -> dict[str, Any]:
        """The sha256 of each file that the network is made from, which counts in place of where the file lies."""
        if self.name not in _OWN:
            files = {key: Path(str(self.settings.get(key))).expanduser() for key in ("weights", "features")}
            found = {key: file_sha256(file) for key, file in files.items() if file.is_file()}
            return {"settings": {**self.settings, **found}} if found else {}
        keys = [key for key in ("weights", "path") if self.name in _OWN and self.settings.get(key) is not None]
        return {key: file_sha256(Path(self.settings[key]).expanduser()) for key in keys}

    @property
    def lambdas(self) -> list[float]:
        """The weight decays to spell out in labels and names: none where the architecture's label implies them."""
        return [] if _shortened(self.weight_decay) == _shortened(self.implied) else _shortened(self.weight_decay)

    def architecture(self, num_classes: int | None) -> str:
        """Return the label of the architecture, see ``Classifier.architecture_label``."""
        return self.given_label or REGISTRY[self.name].architecture_label(self.settings, num_classes)

    def build(
        self, input_shape: tuple[int, ...], num_classes: int, split: str, *, by_trainer: bool = False, **more: Any
    ) -> Classifier:
        """Build the network with random weights from the global seed.

        Args:
            input_shape: (C, H, W).
            num_classes: K.
            split: the images it trains on, for its label.
            by_trainer: leave the layers to the Trainer, which shards them over processes.
            more: optimizer and scheduler.

        Raises:
            UserError: settings that the architecture does not take.
        """
        label = network_label(self.architecture(num_classes), self.lambdas, self.penalty, split)
        if self.penalty:
            more |= {"spectral_penalty_kind": self.penalty[0], "spectral_penalty": self.penalty[1]}
        try:
            return REGISTRY[self.name](
                label=label,
                input_shape=None if by_trainer else list(input_shape),
                num_classes=None if by_trainer else num_classes,
                weight_decay=self.weight_decay,
                normaliser=self.normaliser,
                **self.normalisation,
                **more,
                **self.settings,
            )
        except (TypeError, ValueError) as error:
            where = f"model.settings of {label}" if self.code is None else "model"
            said = str(error).split("build_network() ")[-1]
            raise UserError(said if said.startswith("data.") else f"{where}: {said}") from error

    def decay_of_layers(self, input_shape: tuple[int, ...], num_classes: int, split: str) -> list[float]:
        """Return lambda of every decayed layer, which only the network knows; ours are built without memory."""
        with torch.device("cpu" if self.name in _OWN else "meta"):  # the user's code may compute with its weights
            return replace(self, penalty=None).build(input_shape, num_classes, split).weight_decay


@dataclass(frozen=True)
class TrainerSettings:
    """Hold the options of Lightning's Trainer.

    Attributes:
        options: arguments of ``lightning.Trainer`` without those that a run sets itself.
    """

    options: Mapping[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> TrainerSettings:
        """Check the section ``trainer`` of a config."""
        options = trainer_options(config["trainer"])
        # No epoch at all: a network as it comes, with published weights or random ones.
        return cls({**options, "max_epochs": whole("trainer.max_epochs", options["max_epochs"], 0)})

    @property
    def max_epochs(self) -> int:
        """Epochs at most."""
        return self.options["max_epochs"]

    def without_epochs(self, count: int) -> TrainerSettings:
        """Return the options of a fit that is shorter by so many epochs."""
        return TrainerSettings({**self.options, "max_epochs": self.max_epochs - count})

    @property
    def is_sharded(self) -> bool:
        """Whether the processes of a fit share one network's weights (``trainer=fsdp``)."""
        return self.options.get("strategy") == "fsdp"

    @property
    def shows_only(self) -> bool:
        """Whether the run only shows that it runs (``fast_dev_run``), and keeps nothing."""
        return bool(self.options.get("fast_dev_run"))

    @property
    def progress_bar(self) -> bool:
        """Whether progress is shown."""
        return bool(self.options.get("enable_progress_bar", True))


def _lambdas(name: str, value: Any) -> float | list[float]:
    return [number(name, item, 0) for item in value] if isinstance(value, list) else number(name, value, 0)


def _shortened(value: float | list[float] | None) -> list[float]:
    """Return one number where all layers have one."""
    values: list[float] = [] if value is None else value if isinstance(value, list) else [value]
    return values[:1] if len(set(values)) == 1 else values

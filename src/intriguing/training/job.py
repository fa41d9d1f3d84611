"""From a resolved ``train`` config to a checked job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch.callbacks import Callback

from intriguing.data import DATA_NAMES, SPLIT_NAMES, folder_name, folder_settings
from intriguing.errors import UserError
from intriguing.models import PENALTIES, REGISTRY
from intriguing.runs.names import short_number, slug
from intriguing.training.options import trainer_options
from intriguing.validation import choice, flag, number, whole

PENALTY_WORDS = {"log_product": "penalty", "margin": "margin"}  # in labels and names, before the strength
# Settings of the Trainer that do not change the result (on one kind of device), so not part of a run's identity.
PRESENTATION = (
    "accelerator", "devices", "num_nodes", "strategy", "deterministic", "enable_progress_bar", "enable_model_summary",
    "log_every_n_steps", "profiler", "num_sanity_val_steps",
)  # fmt: skip

_CLASSES = "{classes}"  # in a label, where the number of classes is not known yet


@dataclass(frozen=True)
class TrainingJob:
    """All that one training run needs, checked.

    Attributes:
        runs, name: the run folder is ``<runs>/train/<name>``.
        label: the network's name in tables.
        identity: what would change the result; the run folder is guarded by it.
        data: arguments of ``ImageData``.
        model: name in the registry.
        settings: arguments of the network.
        trainer: arguments of ``lightning.Trainer``.
        logger: ``wandb`` (bool), ``project``, ``mode``.
        callbacks: further Lightning callbacks, built.
        keep: ``last`` or ``best``, the checkpoint that becomes ``model.ckpt``.
        resume: go on from the last checkpoint of an unfinished folder.
        test_curve: log the test error after every epoch.
        debug: None, ``fast``, ``overfit`` or ``profile``.
    """

    runs: str
    name: str
    label: str
    identity: dict[str, Any]
    data: dict[str, Any]
    model: str
    settings: dict[str, Any]
    trainer: dict[str, Any]
    logger: dict[str, Any]
    callbacks: tuple[Callback, ...]
    keep: str
    resume: bool
    test_curve: bool
    seed: int
    threads: int
    study: str | None
    tags: tuple[str, ...]
    command: str
    debug: str | None

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        *,
        extras: Sequence[str] = (),
        command: str = "",
        callbacks: Sequence[Callback] = (),
    ) -> TrainingJob:
        """Check a resolved ``train`` config and make the job of it.

        Args:
            config: plain values.
            extras: parts of the name for overrides that nothing else in it shows.
            command: the command line that makes this job.
            callbacks: the config's callbacks, built.

        Raises:
            UserError: a value that cannot be right, with what would be.
        """
        data, model, split = config["data"], config["model"], config["split"]
        choice("data", data["name"], DATA_NAMES)
        in_folder = folder_settings(data) if data["name"] == "image_folder" else {}
        choice("split", split["name"], SPLIT_NAMES)
        choice("model.name", model["name"], sorted(REGISTRY))
        model = {**model, "label": _model_label(model, data["name"])}
        decay = _weight_decay(config["weight_decay"]["value"], model["weight_decay"])
        normaliser = _normaliser(config["weight_decay"]["normaliser"], model["normaliser"])
        penalty = number("spectral_penalty.value", config["spectral_penalty"]["value"], 0)
        kind = choice("spectral_penalty.kind", config["spectral_penalty"]["kind"], tuple(PENALTIES))
        trainer = _trainer(config)
        batch_size = model["batch_size"] if data["batch_size"] is None else data["batch_size"]
        own = _rated(dict(model["settings"]), config)
        settings = {**own, "weight_decay": decay, "normaliser": normaliser}
        settings["label"] = _label(model, decay, split["name"], kind, penalty)
        identity = {
            "data": {
                "name": data["name"],
                "batch_size": whole("data.batch_size", batch_size, 1),
                "validation": whole("data.validation", data["validation"], 0),
                "only": None if data["only"] is None else whole("data.only", data["only"], 1),
                **{key: in_folder[key] for key in ("size", "resize") if key in in_folder},
            },
            "split": {"name": split["name"], "seed": whole("split.seed", split["seed"], 0)},
            "model": {"name": model["name"], "label": str(model["label"]), "settings": own},
            "weight_decay": {"value": decay, "normaliser": normaliser},
            "trainer": {key: value for key, value in trainer.items() if key not in PRESENTATION},
            "callbacks": _with_text_keys(config["callbacks"]),
            "keep": choice("keep", config["keep"], ("last", "best")),
            "seed": whole("seed", config["seed"], 0),
            "debug": config["debug"]["mode"] or ("fast" if trainer.get("fast_dev_run") else None),
        }
        if penalty:  # a network without it is what it was before there was one
            settings |= {"spectral_penalty": penalty, "spectral_penalty_kind": kind}
            identity["spectral_penalty"] = {"kind": kind, "value": penalty}
        return cls(
            runs=str(config["runs"]),
            name=str(config["name"]) if config["name"] else _name(identity, model, data, extras),
            label=settings["label"],
            identity=identity,
            data={
                **identity["data"],
                "root": data["root"] or "data",
                "split": split["name"],
                "split_seed": identity["split"]["seed"],
                "seed": identity["seed"],
                "download": flag("data.download", data["download"]),
                **in_folder,
            },
            model=model["name"],
            settings=settings,
            trainer=trainer,
            logger=dict(config["logger"]),
            callbacks=tuple(callbacks),
            keep=identity["keep"],
            resume=flag("resume", config["resume"]),
            test_curve=flag("test_curve", config["test_curve"]),
            seed=identity["seed"],
            threads=whole("threads", config["threads"], 1),
            study=config["study"],
            tags=tuple(config["tags"]),
            command=command,
            debug=identity["debug"],
        )

    def with_images(self, description: dict[str, Any]) -> TrainingJob:
        """Add to the identity what a folder of images holds: its classes, their counts and a digest of its files.

        Where the folder lies is no part of the identity.

        Args:
            description: of the images, see ``ImageData.description``.
        """
        content = {key: description[key] for key in ("classes", "counts", "files")}
        number_of = str(len(description["classes"]))
        model = self.identity["model"]
        identity = {
            **self.identity,
            "data": {**self.identity["data"], **content},
            "model": {**model, "label": model["label"].replace(_CLASSES, number_of)},
        }
        label = self.label.replace(_CLASSES, number_of)
        return replace(self, identity=identity, label=label, settings={**self.settings, "label": label})


def _trainer(config: dict[str, Any]) -> dict[str, Any]:
    trainer = trainer_options(config["trainer"])
    if trainer.get("max_epochs") is None:
        scale = number("data.epochs_scale", config["data"]["epochs_scale"], 0, above=True)
        trainer["max_epochs"] = max(1, round(whole("model.epochs", config["model"]["epochs"], 1) * scale))
    # No epoch at all: a network as it comes, with published weights or none.
    trainer["max_epochs"] = whole("trainer.max_epochs", trainer["max_epochs"], 0)
    return trainer


def _with_text_keys(value: Any) -> Any:
    """The same with every key as a text: an identity has no other, and a callback may have ``scheduling: {4: 2}``."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value


def _rated(settings: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    scale = number("data.sgd_rate_scale", config["data"]["sgd_rate_scale"], 0, above=True)
    if settings.get("optimizer") == "sgd" and scale != 1:
        settings["learning_rate"] = number("model.settings.learning_rate", settings["learning_rate"], 0) * scale
    return settings


def _normaliser(value: Any, own: Any) -> str | float:
    value = own if value is None else value
    return "units" if value == "units" else number("weight_decay.normaliser (or 'units')", value, 0, above=True)


def _weight_decay(value: Any, paper: list[float]) -> list[float]:
    values = paper if value is None else value
    values = values if isinstance(values, list) else [values] * len(paper)
    if len(values) != len(paper):
        raise UserError(f"weight_decay.value wants one number or a list of {len(paper)} (one per layer), got {values}")
    return [number("weight_decay.value", item, 0) for item in values]


def _lambdas(decay: list[float]) -> list[str]:
    return [short_number(value) for value in (decay[:1] if len(set(decay)) == 1 else decay)]


def _is_paper(decay: list[float], model: dict[str, Any]) -> bool:
    """Are these the lambdas that the network's name implies? FC10 has several rows, so its own are always spelt out."""
    return not model["spell_lambda"] and decay == [float(value) for value in model["weight_decay"]]


def _model_label(model: dict[str, Any], data: str) -> str:
    """The label a config gives to its model, or one that says its shape: FC100-100-10.

    How many classes a folder has is filled in when it is read, see ``with_images``.
    """
    if model["label"] is not None:
        return str(model["label"])
    classes, settings = _CLASSES if data == "image_folder" else "10", model["settings"]
    if model["name"] == "sparse_autoencoder" and "units" in settings:
        return f"AE{settings['units']}-{classes}"
    widths = settings.get("widths")
    if model["name"] == "fully_connected" and isinstance(widths, list):
        return "FC" + "-".join(map(str, [*widths, classes]))
    return str(model["name"])


def _label(model: dict[str, Any], decay: list[float], split: str, kind: str, penalty: float) -> str:
    shown = "" if _is_paper(decay, model) else f"({','.join(_lambdas(decay))})"
    shown += f" {PENALTY_WORDS[kind]} {short_number(penalty)}" if penalty else ""
    return f"{model['label']}{shown}" + ("'" if split == "p2" else "")


def _name(identity: dict[str, Any], model: dict[str, Any], data: dict[str, Any], extras: Sequence[str]) -> str:
    decay, images = identity["weight_decay"]["value"], data["name"]
    parts = [f"debug-{identity['debug']}"] if identity["debug"] else []
    if images == "image_folder":
        images = folder_name(data["root"] or "data", str(data["folder"]))
    parts += [] if images == "mnist" else [images]
    parts.append(str(model["label"]).replace(f"-{_CLASSES}", "").replace(_CLASSES, "").lower().replace("-", "_"))
    parts += [] if _is_paper(decay, model) else ["wd" + "-".join(_lambdas(decay))]
    if "spectral_penalty" in identity:
        kind, value = identity["spectral_penalty"]["kind"], identity["spectral_penalty"]["value"]
        parts.append(f"{PENALTY_WORDS[kind]}{short_number(value)}")
    return slug("_".join([*parts, identity["split"]["name"], f"seed{identity['seed']}", *extras]))

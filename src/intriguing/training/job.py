"""From a resolved ``train`` config to a checked job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from lightning.pytorch.callbacks import Callback
from torch import nn

from intriguing.data import ImageData, OwnData
from intriguing.models import Classifier, Scheduler
from intriguing.runs.identity import identity_of
from intriguing.runs.jobs import LoggerSettings
from intriguing.training.further import Start
from intriguing.training.labels import network_label, run_name
from intriguing.training.settings import DataSettings, NetworkSettings, TrainerSettings, gathered
from intriguing.validation import choice, flag, number, refuse_unknown, whole

# what says which images a folder, or a Dataset, holds
CONTENT = ("size", "resize", "channels", "target", "classes", "counts", "files")
_OFF_WHEN_NULL = ("mean", "std", "one_against_rest")
_SECTIONS = (
    *("data", "split", "model", "optimizer", "scheduler", "weight_decay", "spectral_penalty", "callbacks", "trainer"),
    *("logger", "debug", "runs", "name", "study", "tags", "seed", "threads", "resume", "keep", "test_curve"),
    "ckpt_path",
)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Hold all that one training run needs, checked.

    Attributes:
        runs, name: the run folder is ``<runs>/train/<name>``.
        label: the network's name in tables.
        identity: the config without what cannot change the result, see ``identity_of``, which guards the run folder.
        data: the images.
        network: the network.
        optimizer: takes parameters or parameter groups.
        scheduler: of the learning rate; None keeps it constant.
        trainer: options of Lightning's Trainer.
        logger: whether and as what W&B records the run.
        callbacks: further Lightning callbacks.
        keep: ``last`` or ``best``, the checkpoint that becomes ``model.ckpt``.
        resume: go on from the last checkpoint of an unfinished folder.
        start: checkpoint of a finished run to train further; None: from the start.
        test_curve: log the test error after every epoch.
        seed: of the weights, the order of the images and all else that is random.
        threads: of this process.
        study, tags, command: for the record.
        debug: None, ``fast``, ``overfit`` or ``profile``.
        files: further files of the run folder, text by name.
    """

    runs: str
    name: str
    label: str
    identity: dict[str, Any]
    data: DataSettings
    network: NetworkSettings
    optimizer: partial[Any]
    scheduler: Scheduler | None
    trainer: TrainerSettings
    logger: LoggerSettings
    callbacks: tuple[Callback, ...]
    keep: str
    resume: bool
    start: Start | None = None
    test_curve: bool
    seed: int
    threads: int
    study: str | None
    tags: tuple[str, ...]
    command: str
    debug: str | None
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        optimizer: partial[Any],
        scheduler: Scheduler | None,
        module: Callable[..., nn.Module] | None = None,
        callbacks: Sequence[Callback] = (),
        images: OwnData | None = None,
        extras: Sequence[str] = (),
        command: str = "",
        files: Mapping[str, str] | None = None,
    ) -> TrainingJob:
        """Check a resolved ``train`` config and make the job of it.

        Args:
            config: the whole config, plain values.
            optimizer: the config's, takes parameters or parameter groups.
            scheduler: the config's; None keeps the learning rate constant.
            module: the class of ``model._target_``; None without one.
            callbacks: the config's, built.
            images: opens the Datasets of ``data=module``; None for other data.
            extras: parts of the name for overrides that nothing else in it shows.
            command: the command line that makes this job.
            files: further files of the run folder, text by name.

        Raises:
            UserError: a value that cannot be right, with what would be.
        """
        _check_keys(config)
        config = gathered(config)
        data, trainer = DataSettings.of(config, images), TrainerSettings.of(config)
        network = NetworkSettings.of(config, module)
        debug = config["debug"]["mode"] or ("fast" if trainer.shows_only else None)
        shape, start = data.shape, None if config["ckpt_path"] is None else Start.of(config["ckpt_path"])
        architecture = network.architecture(shape[1] if shape else None)
        own_name = run_name(
            data.label,
            network.given_label or config["model"].get("_target_") or architecture,
            network.lambdas,
            network.penalty,
            split=data.split,
            seed=data.seed,
            debug=debug,
            extras=[*extras, *(["more"] if start else [])],
        )
        job = cls(
            runs=str(config["runs"]),
            name=str(config["name"]) if config["name"] else own_name,
            label=network_label(architecture, network.lambdas, network.penalty, data.split),
            identity=_identity(config, start),
            data=data,
            network=network,
            optimizer=optimizer,
            scheduler=scheduler,
            trainer=trainer,
            logger=LoggerSettings.of(config["logger"]),
            callbacks=tuple(callbacks),
            keep=choice("keep", config["keep"], ("last", "best")),
            start=start,
            resume=flag("resume", config["resume"]),
            test_curve=flag("test_curve", config["test_curve"]),
            seed=data.seed,
            threads=whole("threads", config["threads"], 1),
            study=config["study"],
            tags=tuple(config["tags"]),
            command=command,
            debug=debug,
            files=files or {},
        )
        return job._on(shape[0], shape[1], {}) if shape else job

    def with_images(self, images: ImageData) -> TrainingJob:
        """Add to the identity what a folder, or a Dataset, of images holds: classes, their counts, and digests.

        Where the folder lies is no part of the identity.
        """
        described = images.description
        content = {key: described[key] for key in CONTENT if key in described}
        return self._on(images.input_shape, images.num_classes, content)

    def _on(self, input_shape: tuple[int, ...], num_classes: int, content: Mapping[str, Any]) -> TrainingJob:
        """Add what only the images and the network know: the content of a folder, the lambda of every layer, labels."""
        architecture = self.network.architecture(num_classes)
        decay = self.network.decay_of_layers(input_shape, num_classes, self.data.split)
        identity = {
            **self.identity,
            "data": {**self.identity["data"], **content},
            "model": {**self.identity["model"], "label": architecture, **self.network.digests},
            "weight_decay": {"value": decay, "normaliser": self.network.normaliser},
        }
        label = network_label(architecture, self.network.lambdas, self.network.penalty, self.data.split)
        return replace(self, identity=identity, label=label)

    def build_model(self, images: ImageData) -> Classifier:
        """Build the network, with random weights from the global seed."""
        built = {"optimizer": self.optimizer, "scheduler": self.scheduler, "by_trainer": self.trainer.is_sharded}
        return self.network.build(images.input_shape, images.num_classes, self.data.split, **built)


def _identity(config: Mapping[str, Any], start: Start | None) -> dict[str, Any]:
    """Return the part of a config that decides the result; settings that are off leave no trace in it."""
    identity = identity_of(config, "train")
    identity["data"] = {
        key: value for key, value in identity["data"].items() if key not in _OFF_WHEN_NULL or value is not None
    }
    without = {key: value for key, value in identity.items() if key != "ckpt_path"}
    return without | ({"ckpt_path": start.sha256} if start else {})


def _check_keys(config: Mapping[str, Any]) -> None:
    """Raise UserError for a key that nothing reads, or a learning rate that cannot be one."""
    refuse_unknown("", config, _SECTIONS, whole="a training")
    refuse_unknown("debug", config["debug"], ("mode",))
    if "lr" in config["optimizer"]:
        number("optimizer.lr", config["optimizer"]["lr"], 0, above=True)

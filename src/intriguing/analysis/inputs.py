"""What the analysis reads: trained networks and adversarial sets, each with the run it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis.identity import NetworkId, data_set
from intriguing.errors import plural
from intriguing.results import RunSummary
from intriguing.runs.records import RunRecord
from intriguing.statistics.counts import Count

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A trained network.

    Attributes:
        label: the paper's name for it, e.g. "FC10(1e-4)".
        module: images in [0, 1], (N, C, H, W), to logits (N, K); in evaluation mode.
        record: the record of its training run.
        curves: columns of its metrics.csv with a value after every epoch.
    """

    label: str
    module: nn.Module = field(repr=False)
    record: RunRecord = field(repr=False)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict, repr=False)

    @classmethod
    def in_memory(
        cls,
        label: str,
        module: nn.Module,
        *,
        name: str = "",
        errors: Mapping[str, Sequence[int]],
        config: Config | None = None,
        curves: Mapping[str, Sequence[float]] | None = None,
    ) -> Network:
        """Make the network of no run folder.

        Args:
            label: name in tables.
            module: the network, in evaluation mode.
            name: unique name; empty: the label.
            errors: (wrong, out of) by image set.
            config: configuration of its training, as far as it is known.
            curves: see `Network`.
        """
        record = RunRecord.in_memory("train", name or label, config=config, result={"errors": errors})
        return cls(label=label, module=module, record=record, curves=curves or {})

    @property
    def name(self) -> str:
        """Name of its training run, unique."""
        return self.record.name

    @property
    def config(self) -> Config:
        """The resolved configuration of its training."""
        return self.record.config

    @property
    def errors(self) -> Mapping[str, Sequence[int]]:
        """(wrong, out of) by image set: "train", "test", "full", "p1", "p2"."""
        return self.record.result.get("errors", {})

    @property
    def checkpoint_sha256(self) -> str:
        """Digest of its file, which adversarial sets name it by; empty where there is none: then they use its name."""
        return self.record.artifacts.get("model.ckpt", "")

    @cached_property
    def id(self) -> NetworkId:
        """What makes it the network it is; networks are seeds of one another where these are equal."""
        further = self.record.result.get("further") or {}
        return NetworkId.of(self.label, self.config, self.module, epochs_before=further.get("epochs"))

    @property
    def seed(self) -> int:
        """The seed it was trained with."""
        return self.id.seed

    @property
    def split(self) -> str:
        """The part of the training images it saw: full, p1 or p2."""
        return self.id.split

    def error(self, *subsets: str) -> Count:
        """Return the wrong answers on the first of these image sets that was counted; 0 of 0 if none was."""
        return next((Count(*self.errors[name]) for name in subsets if name in self.errors), Count(0, 0))

    @property
    def data(self) -> str:
        """The data set, e.g. mnist; the class or function that gives a user's own images."""
        data = self.config.get("data", {})
        return str(data.get("target") or data.get("name", "unknown"))

    @property
    def data_name(self) -> str:
        """The data set in a sentence; a folder of images, whose path no record holds, by its number of classes."""
        if self.data != "image_folder":
            return self.data
        classes = self.config["data"].get("classes") or ()
        return "a folder of images" + (f" of {plural(len(classes), 'class', 'classes')}" if classes else "")

    @property
    def is_trained(self) -> bool:
        """Whether its run trained it; False for one that was taken as it came (``trainer.max_epochs=0``)."""
        return self.config.get("trainer", {}).get("max_epochs") != 0

    @property
    def has_images(self) -> bool:
        """Whether its data have images; False for a network that was built for a shape alone (``data=blank``)."""
        return self.data != "blank"

    @property
    def data_set(self) -> str:
        """The data set in full: of images in folders also which; equal where the same images may be shown."""
        return data_set(self.config.get("data", {}))

    @property
    def run(self) -> RunSummary:
        """The training run, for the report."""
        return _summary(self.record, self.label, split=self.split, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class CraftedSet:
    """An adversarial set that is in memory only while it is measured: 60,000 images are 380 MB.

    Attributes:
        record: the record of its attack run.
        load: reads the set from its file; called once.
    """

    record: RunRecord = field(repr=False)
    load: Callable[[], AdversarialSet] = field(repr=False)

    @classmethod
    def in_memory(cls, name: str, examples: AdversarialSet) -> CraftedSet:
        """Make a set of no run folder, under a unique name."""
        return cls(record=RunRecord.in_memory("attack", name), load=lambda: examples)

    @property
    def name(self) -> str:
        """Name of its attack run, unique."""
        return self.record.name

    @property
    def config(self) -> Config:
        """The resolved configuration of the attack."""
        return self.record.config

    @property
    def folder(self) -> str:
        """Folder of its run."""
        return str(self.record.folder)

    def run(self, label: str) -> RunSummary:
        """Summarise the attack run for the report; the label is known only once the set was read."""
        return _summary(self.record, label)


def _summary(record: RunRecord, label: str, **facts: Any) -> RunSummary:
    facts |= {"commit": record.info.get("commit"), "seconds": record.result.get("seconds")}
    return RunSummary(
        name=record.name,
        stage=record.stage,
        label=label,
        folder=str(record.folder),
        command=str(record.info.get("command", "")),
        config=record.config,
        facts={key: value for key, value in facts.items() if value is not None},
    )

"""What the analysis reads: trained networks and adversarial sets, each with the run it came from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor, nn

from intriguing.analysis.identity import NetworkId, data_set
from intriguing.results import RunSummary
from intriguing.statistics.counts import Count

Config = Mapping[str, Any]


class ExampleSet(Protocol):
    """The part of an `AdversarialSet` that an analysis reads (shapes as documented there).

    It also reads `indices`, where there are any: without them it cannot see whether two sets share images, and takes
    it that they do.
    """

    @property
    def inputs(self) -> Tensor: ...
    @property
    def adv_inputs(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def targets(self) -> Tensor: ...
    @property
    def success(self) -> Tensor: ...
    @property
    def distortion(self) -> Tensor: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Network:
    """A trained network.

    Attributes:
        label: the paper's name for it, e.g. "FC10(1e-4)".
        name: the name of its training run, unique.
        module: images in [0, 1], (N, C, H, W), to logits (N, K); in evaluation mode.
        errors: (wrong, out of) by image set: "train", "test", "full", "p1", "p2".
        config: the resolved configuration of its training.
        checkpoint_sha256: of the file that holds its weights; adversarial sets name their network by it. Empty where
            there is no file: then sets name it by `name`.
        folder, command: where its run lies, and the command that made it.
        facts: commit, seconds and the like, shown as they are.
        curves: what its metrics.csv says after every epoch, by column.
    """

    label: str
    name: str
    module: nn.Module = field(repr=False)
    errors: Mapping[str, Sequence[int]]
    config: Config = field(default_factory=dict, repr=False)
    checkpoint_sha256: str = ""
    folder: str = ""
    command: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict, repr=False)

    @cached_property
    def id(self) -> NetworkId:
        """What makes it the network it is; networks are seeds of one another where these are equal."""
        return NetworkId.of(self.label, self.config, self.module)

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
        """The data set, e.g. mnist."""
        return str(self.config.get("data", {}).get("name", "unknown"))

    @property
    def data_set(self) -> str:
        """The data set in full: of images in folders also which; equal where the same images may be shown."""
        return data_set(self.config.get("data", {}))

    @property
    def run(self) -> RunSummary:
        """The training run, for the report."""
        facts = {"split": self.split, "seed": self.seed, **self.facts}
        return RunSummary(
            name=self.name,
            stage="train",
            label=self.label,
            folder=self.folder,
            command=self.command,
            config=self.config,
            facts=facts,
        )


@dataclass(frozen=True, kw_only=True)
class CraftedSet:
    """An adversarial set that is loaded only while it is being measured: 60,000 images are 380 MB.

    Attributes:
        name: the name of its attack run, unique.
        load: returns the set; called once for the counts and, for Figure 7, once more.
        config: the resolved configuration of the attack.
        folder, command: where its run lies, and the command that made it.
        facts: commit, seconds and the like, shown as they are.
    """

    name: str
    load: Callable[[], ExampleSet] = field(repr=False)
    config: Config = field(default_factory=dict, repr=False)
    folder: str = ""
    command: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def run(self, label: str) -> RunSummary:
        """The attack run, for the report; what it attacked is known only once the set was read."""
        return RunSummary(
            name=self.name,
            stage="attack",
            label=label,
            folder=self.folder,
            command=self.command,
            config=self.config,
            facts=self.facts,
        )

"""Declare the sections of an analysis: what each is made of, and what it needs for that.

`analysis.analyze.SECTIONS` is the registry. A new section is one package here, one line there, and a dataclass for its
settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet, Progress
from intriguing.analysis.reference import Reference
from intriguing.data import ImageSubset
from intriguing.results import Figure, Table

Subsets = Callable[[Network, str], ImageSubset]
"""Map a network and a subset (train, test, full, p1, p2, val) to these images of the network's data."""


@dataclass(frozen=True)
class NoSettings:
    """The settings of a section that has none."""


@dataclass(frozen=True, kw_only=True)
class SectionInputs:
    """What a section is made from.

    Attributes:
        networks: networks with images, in evaluation mode.
        imageless: networks that were built for a shape alone (``data=blank``), in evaluation mode.
        sets: the measured adversarial sets.
        tables: tables of the sections before it.
        settings: an instance of the section's settings.
        observed: by the name of a set: what the section's ``observe`` returned.
        subsets: finds the images of a network's data; None where there are none at hand.
        seed: seed of everything random.
        batch_size: images per forward pass; it changes speed and memory, not results.
        workers: threads that read images of a folder.
        progress: called with (name of the work, steps done, steps in all), or None.
        reference: numbers that the tables compare with; None: the paper's.
    """

    networks: Sequence[Network]
    imageless: Sequence[Network] = ()
    sets: Sequence[MeasuredSet] = ()
    tables: Sequence[Table] = ()
    settings: Any = field(default_factory=NoSettings)
    observed: Mapping[str, Any] = field(default_factory=dict, repr=False)
    subsets: Subsets | None = field(default=None, repr=False)
    seed: int = 0
    batch_size: int = 1024
    workers: int = 0
    progress: Progress | None = field(default=None, repr=False)
    reference: Reference | None = None

    def subset(self, network: Network, name: str) -> ImageSubset:
        """Return a subset of a network's data, which need not fit in memory: ``read``, ``batches``, ``labels``.

        Raises:
            ValueError: no images are at hand.
        """
        if self.subsets is None:
            raise ValueError("this section reads images: give subsets")
        return self.subsets(network, name)

    def images(self, network: Network, name: str, most: int) -> Tensor:
        """Read the first images of a subset, at most so many: (M, C, H, W) in [0, 1]."""
        subset = self.subset(network, name)
        return subset.read(torch.arange(min(most, len(subset))))[0]


@dataclass(frozen=True, kw_only=True)
class SectionOutput:
    """Tables and figures of a section in their order, and sentences that say what they show."""

    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    summary: tuple[str, ...] = ()

    @classmethod
    def of(cls, *made: Table | Figure | None) -> SectionOutput:
        """Sort tables and figures, without the missing ones."""
        return cls(
            tables=tuple(one for one in made if isinstance(one, Table)),
            figures=tuple(one for one in made if isinstance(one, Figure)),
        )


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of an analysis.

    Attributes:
        make: makes the section; without its inputs an empty one.
        settings: frozen dataclass of its settings, every field with a default.
        observe: computes the small part of a set that the section needs later, while the set is in memory. The
            inputs have neither ``sets`` nor ``observed`` then.
        check: raises UserError for networks that the section cannot take, before any set is read.
        reads_images: whether it reads the images of the networks' data.
    """

    make: Callable[[SectionInputs], SectionOutput]
    settings: type = NoSettings
    observe: Callable[[AdversarialSet, MeasuredSet, SectionInputs], Any] | None = None
    check: Callable[[Sequence[Network]], object] | None = None
    reads_images: bool = False

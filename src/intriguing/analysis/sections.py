"""Analyses beyond the paper's tables: each a function of the material at hand, asked for by its name.

They cost more than counting answers, so an analysis makes them only where a study or a user names them. The package
registers them in `EXTRA`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from intriguing.analysis.inputs import CraftedSet, Network
from intriguing.analysis.measure import MeasuredSet, Progress
from intriguing.data import ImageSubset, Subset
from intriguing.results import Figure, Table

Images = Callable[[Network, str], tuple[Tensor, Tensor]]
"""A network and a subset (train, test, full, p1, p2, val) to its images (N, C, H, W) in [0, 1] and labels (N,)."""
Subsets = Callable[[Network, str], ImageSubset]
"""The same, not yet in memory where the images lie in a folder."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a section may use.

    Attributes:
        networks: trained networks, in evaluation mode.
        sets: the adversarial sets, not loaded.
        measured: the same in the same order, counted.
        images: the images of a network's data by subset.
        subsets: the same, to be read batch by batch; None: from ``images``.
        settings: of this section, plain values; what is missing or None is the section's own default.
        seed: of everything random.
        batch_size: images per forward pass; it changes speed and memory, not results.
        progress: to be told how far the section is, or None.
    """

    networks: Sequence[Network]
    sets: Sequence[CraftedSet] = ()
    measured: Sequence[MeasuredSet] = ()
    images: Images = field(repr=False)
    subsets: Subsets | None = field(default=None, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    batch_size: int = 1024
    progress: Progress | None = field(default=None, repr=False)

    def setting(self, name: str, default: Any) -> Any:
        """A setting, or the default where it is missing or None."""
        value = self.settings.get(name)
        return default if value is None else value

    def subset(self, network: Network, name: str) -> ImageSubset:
        """A subset of a network's data that need not fit in memory: ``read``, ``batches``, ``labels``."""
        if self.subsets is not None:
            return self.subsets(network, name)
        images, labels = self.images(network, name)
        return Subset(images, labels, torch.arange(len(labels)))


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a section hands over: tables and figures in their order, and plain sentences of what they say."""

    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    summary: tuple[str, ...] = ()


EXTRA: dict[str, Callable[[Material], Made]] = {}
"""Sections by name. A section without its inputs returns `Made()`."""

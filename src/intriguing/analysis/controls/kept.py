"""What the sections of this package keep of each adversarial set, and how they group networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

from torch import Tensor

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis.cells import distortion_cell, one_attack
from intriguing.analysis.identity import labels_apart
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet, image_indices
from intriguing.analysis.sections import SectionInputs
from intriguing.controls.transfer import classes
from intriguing.results import Cell, Quantity
from intriguing.statistics.intervals import Interval


class Limited(Protocol):
    """Settings with a limit of the images of each set."""

    @property
    def limit(self) -> int:
        """Images of each set that are used."""
        ...


@dataclass(frozen=True)
class Kept:
    """Hold the first perturbed examples that fool a network.

    Attributes:
        network: the network that they were made for.
        label: that network's label, equal for its seeds alone; set by `grouped`.
        run: name of the attack run.
        inputs, adv_inputs: (M, C, H, W).
        labels: (M,), classes of the images.
        targets: (M,), classes that the network takes the examples for.
        indices: (M,) of the images in the data set; empty where they are not known.
    """

    network: Network
    label: str
    run: str
    inputs: Tensor
    adv_inputs: Tensor
    labels: Tensor
    targets: Tensor
    indices: Tensor

    @property
    def seed(self) -> int:
        """Seed of the network."""
        return self.network.seed

    @property
    def runs(self) -> tuple[str, str]:
        """Names of the attack's run and the network's."""
        return self.run, self.network.name

    @property
    def norms(self) -> Tensor:
        """(M,) L2 norms of the perturbations, float64."""
        return (self.adv_inputs - self.inputs).double().flatten(1).norm(dim=1)


@dataclass(frozen=True)
class Group:
    """Hold the networks of one data set and the examples of one attack on them.

    Attributes:
        suffix: of the keys of its tables and figures; empty for the first group.
        detail: the data set where there are several groups, for headings.
        attack: the attack and its images, in words.
        networks: by label, one a seed.
        kept: examples, at most one entry a network.
    """

    suffix: str
    detail: str
    attack: str
    networks: dict[str, list[Network]]
    kept: list[Kept] = field(repr=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the networks that examples were made for, in order."""
        return tuple(dict.fromkeys(one.label for one in self.kept))

    def of(self, label: str) -> list[Kept]:
        """Return the examples of a label's networks, one entry a seed."""
        return [one for one in self.kept if one.label == label]

    def victims(self, seed: int) -> list[tuple[str, Network]]:
        """List the labels and networks that were trained with a seed."""
        return [(label, one) for label, members in self.networks.items() for one in members if one.seed == seed]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the networks that examples were made for."""
        return tuple(sorted({one.seed for one in self.kept}))

    @property
    def sample(self) -> str:
        """N and the seeds in words."""
        sizes = sorted({len(one.labels) for one in self.kept})
        many = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        return f"up to N = {many} images of each network, {self.attack}; seeds {', '.join(map(str, self.seeds))}"


def keep(examples: AdversarialSet, one: MeasuredSet, inputs: SectionInputs) -> Kept | None:
    """Keep the first perturbed examples that fool their network; None for noise, amplified and foreign sets."""
    network = next((n for n in inputs.networks if n.name == one.source), None)
    if network is None or one.amplify is not None:
        return None
    limit = cast(Limited, inputs.settings).limit
    rows = (examples.success.bool() & (examples.distortion > 0)).nonzero().flatten()[:limit]
    adv_inputs = examples.adv_inputs[rows].clone()
    return Kept(
        network=network,
        label="",
        run=one.name,
        inputs=examples.inputs[rows].clone(),
        adv_inputs=adv_inputs,
        labels=examples.labels[rows].clone(),
        targets=classes(network.module, adv_inputs),
        indices=image_indices(examples, rows),
    )


def grouped(inputs: SectionInputs) -> list[Group]:
    """Group networks and their examples by data set; only groups with examples."""
    found: list[Group] = []
    for data_set in dict.fromkeys(network.data_set for network in inputs.networks):
        networks = [network for network in inputs.networks if network.data_set == data_set]
        labels = labels_apart({network.name: network.id for network in networks})
        names = {network.name for network in networks}
        chosen = one_attack(one for one in inputs.sets if one.source in names and inputs.observed.get(one.name))
        observed = [inputs.observed[one.name] for one in chosen]
        kept = [replace(one, label=labels[one.network.name]) for one in observed]
        kept = [one for one in kept if len(one.labels)]
        if not kept:
            continue
        by_label: dict[str, list[Network]] = {}
        for network in networks:
            by_label.setdefault(labels[network.name], []).append(network)
        attack = f"{chosen[0].attack_name} on {chosen[0].subset} images"
        found.append(Group(f"_{len(found) + 1}" if found else "", data_set, attack, by_label, kept))
    if len(found) == 1:
        return [Group("", "", found[0].attack, found[0].networks, found[0].kept)]
    return found


def mean_cell(
    values: Sequence[Tensor], kept: Sequence[Kept], quantity: Quantity, *, least: float = 0.0, most: float | None = None
) -> Cell | None:
    """Make the cell of a mean over images and seeds, without values that are not finite.

    Args:
        values: (M,) by entry of ``kept``.
        kept: the examples that the values belong to.
        quantity: of the values.
        least: smallest value that is possible, where ``most`` is given: no interval reaches below.
        most: largest one; None: there are no such limits.

    Returns:
        The cell; None without values.
    """
    finite = [value.isfinite() for value in values]
    known = all(len(one.indices) == len(one.labels) for one in kept)
    indices = [one.indices[rows] for one, rows in zip(kept, finite, strict=True)] if known else []
    chosen = [value[rows] for value, rows in zip(values, finite, strict=True)]
    runs = [run for one in kept for run in one.runs]
    cell = distortion_cell(chosen, indices=indices, quantity=quantity, runs=runs)
    if cell is None or most is None or cell.interval is None:
        return cell
    low, high = cell.interval
    return replace(cell, interval=Interval(max(least, low), min(most, high)))


def runs_of(kept: Iterable[Kept]) -> tuple[str, ...]:
    """List the runs behind examples."""
    return tuple(dict.fromkeys(run for one in kept for run in one.runs))

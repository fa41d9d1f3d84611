"""The paper's networks and the sets made for them, as far as an analysis has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis import paper
from intriguing.analysis.cells import FULL, HALVES, ByImage, distortion_cell, made_by, one_attack, pool_of
from intriguing.analysis.errata.erratum import ErrataSettings
from intriguing.analysis.identity import NetworkId
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import MeasuredSet, image_indices, mixed_seed
from intriguing.analysis.sections import SectionInputs
from intriguing.attacks import amplify, gaussian
from intriguing.nn.evaluation import wrong_answers
from intriguing.results import Cell

LINEAR = ("FC10(1e-4)", "FC10(1e-2)", "FC10(1)")
HALF = ("FC100-100-10", "FC123-456-10", "FC100-100-10'")
NOISE = 0.3
"""Standard deviation of the noise of Table 2's last row."""
MEAN, IMAGE, ROOT = "one factor, from the mean", "image by image", "one factor, from the root mean square"
RULES = (MEAN, IMAGE, ROOT)
"""Readings of Table 4's amplification."""
LBFGS = ("lbfgs", "random")
"""The paper's attack: its name and its targets."""
Pair = tuple[MeasuredSet, Network]
"""A set and a network, its source or a victim."""


@dataclass(frozen=True)
class Examples:
    """Hold the first perturbed examples of a set.

    Attributes:
        inputs, adv_inputs: (M, C, H, W).
        targets, indices: (M,).
    """

    inputs: Tensor
    adv_inputs: Tensor
    targets: Tensor
    indices: Tensor


@dataclass(frozen=True)
class Observed:
    """Hold what the section needs of a set of the paper's attack.

    Attributes:
        examples: of a linear network; else None.
        noise: errors of FC10(1e-4) on the set's images in Gaussian noise, by whether it was clipped.
        amplified: by rule and name of the victim: its errors on the amplified set.
    """

    examples: Examples | None = None
    noise: Mapping[bool, ByImage] = field(default_factory=dict)
    amplified: Mapping[str, Mapping[str, ByImage]] = field(default_factory=dict)


@dataclass(frozen=True)
class Material:
    """Hold the paper's networks of one data set.

    Attributes:
        inputs: of the section.
        networks: by pool (full or halves) and the paper's name: networks that differ in their seed alone, one a seed.
        runs: the same with every run, also several of one seed.
        judged: whether the data are the paper's, so that its numbers may be compared.
    """

    inputs: SectionInputs
    networks: Mapping[tuple[str, str], Sequence[Network]]
    runs: Mapping[tuple[str, str], Sequence[Network]]
    judged: bool

    @classmethod
    def of(cls, inputs: SectionInputs) -> Material:
        """Choose the data set: the paper's, or else the one with the most of its networks."""
        named = [network for network in inputs.networks if paper.network_name(network.config)]
        papers = {network.data_set for network in named if paper.is_paper_data(network.config)}
        sizes = Counter(network.data_set for network in named)
        chosen = max(sizes, key=lambda one: (one in papers, sizes[one]), default="")
        families: dict[tuple[str, str], dict[NetworkId, list[Network]]] = {}
        for network in sorted(named, key=lambda one: (one.seed, one.name)):
            if network.data_set == chosen:
                place = pool_of(network.split), paper.network_name(network.config)
                families.setdefault(place, {}).setdefault(network.id, []).append(network)
        runs = {
            place: max(found.values(), key=lambda members: len({one.seed for one in members}))
            for place, found in families.items()
        }
        firsts = {place: list({one.seed: one for one in reversed(members)}.values()) for place, members in runs.items()}
        networks = {place: sorted(members, key=lambda one: one.seed) for place, members in firsts.items()}
        return cls(inputs, networks, runs, chosen in papers)

    @property
    def settings(self) -> ErrataSettings:
        """Settings of the section."""
        return self.inputs.settings

    def place(self, network: Network | None) -> tuple[str, str] | None:
        """Return the pool and the paper's name of a network that is one of these; else None."""
        return next((place for place, members in self.networks.items() if network in members), None)

    def sets(self, names: Sequence[str], attack: str, targets: str, *, pool: str = FULL) -> dict[str, list[Pair]]:
        """Find the sets of one attack, all with the same settings, and their networks, by the paper's name."""
        sources = {one.name: (name, one) for name in names for one in self.networks.get((pool, name), ())}
        fitting = [
            one
            for one in self.inputs.sets
            if one.source in sources and (one.attack.get("name"), one.attack.get("targets")) == (attack, targets)
        ]
        found: dict[str, list[Pair]] = {}
        for one in sorted(one_attack(fitting), key=lambda one: (one.seed, one.name)):
            name, network = sources[str(one.source)]
            found.setdefault(name, []).append((one, network))
        return {name: found[name] for name in names if name in found}

    def distortion(self, pairs: Sequence[Pair], name: str) -> Cell | None:
        """Make the cell of the mean distortion of some sets of one of Table 1's networks, beside its number."""
        return distortion_cell(
            [one.distortion for one, _ in pairs],
            ("table1", name, paper.DISTORTION),
            indices=[one.indices for one, _ in pairs],
            judge=self.judged,
            runs=made_by(one for one, _ in pairs),
        )

    def observed(self, one: MeasuredSet) -> Observed:
        """Return what was observed of a set."""
        return self.inputs.observed.get(one.name) or Observed()


def run_names(pairs: Iterable[Pair]) -> list[str]:
    """List the runs of sets and networks."""
    return list(dict.fromkeys(name for one, network in pairs for name in (one.name, network.name)))


def known(by_image: Sequence[ByImage]) -> list[ByImage]:
    """Return the values where the images of all of them are known; else nothing."""
    return list(by_image) if all(values.shape == indices.shape for values, indices in by_image) else []


def observe(examples: AdversarialSet, one: MeasuredSet, inputs: SectionInputs) -> Observed | None:
    """Keep a few examples of the paper's attack, and count errors in noise and on amplified examples."""
    if one.amplify is not None or (one.attack.get("name"), one.attack.get("targets")) != LBFGS:
        return None
    material = Material.of(inputs)
    network = next((network for network in inputs.networks if network.name == one.source), None)
    pool, name = material.place(network) or ("", "")
    if network is None or not name:
        return None
    if pool == HALVES and name in HALF:
        return Observed(amplified=_amplified(examples, material, network))
    if pool == FULL and name in LINEAR:
        rows = (examples.success & (examples.distortion > 0)).nonzero().flatten()[: material.settings.limit]
        parts = (examples.inputs, examples.adv_inputs, examples.targets)
        first, second, classes = (part[rows].clone() for part in parts)
        kept = Examples(first, second, classes, image_indices(examples, rows))
        return Observed(kept, _in_noise(examples, one, inputs, network) if name == LINEAR[0] else {})
    return None


def _in_noise(
    examples: AdversarialSet, one: MeasuredSet, inputs: SectionInputs, network: Network
) -> dict[bool, ByImage]:
    generator = torch.Generator().manual_seed(mixed_seed(inputs.seed, f"errata {one.name}"))
    noisy = gaussian(examples.inputs, NOISE, generator=generator)
    shown = {False: noisy, True: noisy.clamp(0, 1)}
    every = torch.arange(len(noisy))
    indices = image_indices(examples, every)
    return {
        clip: (_errors(network.module, images, examples.labels, inputs.batch_size), indices)
        for clip, images in shown.items()
    }


def _amplified(examples: AdversarialSet, material: Material, network: Network) -> dict[str, dict[str, ByImage]]:
    """Count the errors of the networks of one seed on a set that is amplified by each rule."""
    rows = examples.success.nonzero().flatten()
    if not len(rows):
        return {}
    originals, adv_inputs, labels = examples.inputs[rows], examples.adv_inputs[rows], examples.labels[rows]
    indices, size = image_indices(examples, rows), material.settings.amplify
    found = examples.distortion[rows].double()
    root = float(found.square().mean().sqrt())
    sizes = {MEAN: size, IMAGE: size, ROOT: size * float(found.mean()) / root if root else size}
    victims = [one for name in HALF for one in material.networks.get((HALVES, name), ()) if one.seed == network.seed]
    errors: dict[str, dict[str, ByImage]] = {}
    for rule, stddev in sizes.items():
        shown = amplify(originals, adv_inputs, stddev, by="image" if rule == IMAGE else "set")
        errors[rule] = {
            one.name: (_errors(one.module, shown, labels, material.inputs.batch_size), indices) for one in victims
        }
    return errors


def _errors(module: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    return wrong_answers(module, zip(images.split(batch_size), labels.split(batch_size), strict=True))

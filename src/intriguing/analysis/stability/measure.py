"""Measurements of one network: bounds, certified radii, and amplification layer by layer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis.identity import Penalty, labels_apart
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import Examples, MeasuredSet, mixed_seed
from intriguing.analysis.sections import SectionInputs
from intriguing.analysis.stability.settings import StabilitySettings
from intriguing.metrics import equal_norm_gaussian
from intriguing.spectral import Certifier, certified_radii, jacobian_norms, layer_outputs, lipschitz_bounds


@dataclass(frozen=True)
class NetworkStability:
    """Hold the measurements of one network.

    Attributes:
        network: the network.
        product: product of the layers' bounds, an upper bound of its Lipschitz constant.
        constant: certified upper bound; the product where nothing sharper is known.
        jacobian: largest Jacobian norm met, a lower bound.
        distances: (N,) L2 norms of the adversarial perturbations found, of the images the attack fooled.
        radii: (N,) certified L2 radii of those images.
        layers: names of the layers.
        shape: (C, H, W) of one image.
        adversarial: (layers,) mean amplification of adversarial perturbations.
        random: (layers,) mean amplification of random perturbations of equal norm.
        bounds: (layers,) running products of the bounds.
        sharper: whether ``constant`` comes from a sharper method than the product.
        runs: names of the network's run and of the set's.
        images: (N,) digests of the images, by which those of two networks are paired.
    """

    network: Network
    product: float
    constant: float
    jacobian: float
    distances: Tensor
    radii: Tensor
    layers: tuple[str, ...]
    shape: tuple[int, ...]
    adversarial: tuple[float, ...]
    random: tuple[float, ...]
    bounds: tuple[float, ...]
    sharper: bool
    runs: tuple[str, ...]
    images: tuple[str, ...] = ()

    @property
    def indices(self) -> Tensor:
        """The images as numbers (N,), equal for equal images; empty where they are not known."""
        return torch.tensor([int(digest[:15], 16) for digest in self.images], dtype=torch.int64)

    @property
    def penalty(self) -> Penalty | None:
        """Spectral penalty of its training; None without one."""
        return self.network.id.penalty

    @property
    def strength(self) -> float:
        """Strength of that penalty, 0 without one."""
        return self.penalty.strength if self.penalty else 0.0

    @property
    def kind(self) -> str:
        """Kind of that penalty; empty without one."""
        return self.penalty.kind if self.penalty else ""

    @property
    def family(self) -> tuple[tuple[str, str], ...]:
        """All of its settings but the penalty's: networks of one family differ in the penalty and the seed alone."""
        return self.network.id.without("spectral_penalty.")


Groups = Mapping[str, Sequence[NetworkStability]]
"""By label, the networks that are seeds of one another."""


def observe(examples: AdversarialSet, one: MeasuredSet, inputs: SectionInputs) -> Examples | None:
    """Keep the first successful examples of a network's set, at most ``limit``; None for noise."""
    if one.source is None:
        return None
    settings: StabilitySettings = inputs.settings
    keep = examples.success.bool().nonzero().flatten()[: settings.limit]
    columns = (examples.inputs, examples.adv_inputs, examples.labels, examples.targets, examples.distortion)
    return Examples(*(column[keep] for column in columns))


def measure_stability(inputs: SectionInputs, network: Network, chosen: MeasuredSet | None) -> NetworkStability:
    """Measure bounds, certified radii and amplification of one network.

    Args:
        inputs: images, settings and observed examples of the section.
        network: the network.
        chosen: measured set made for it; None without one, which leaves radii and amplification empty.
    """
    settings: StabilitySettings = inputs.settings
    images = inputs.images(network, "test", settings.limit)
    shape = tuple(images.shape[1:])
    layers = lipschitz_bounds(network.module, shape)
    product = math.prod(layer.bound for layer in layers)
    certifier = Certifier(network.module, shape)
    constant = min(product, certifier.constant())
    distances, radii, adversarial, random = torch.zeros(0), torch.zeros(0), (), ()
    digests: tuple[str, ...] = ()
    if chosen is not None:
        kept: Examples = inputs.observed[chosen.name]
        originals, adv_inputs, labels = kept.inputs, kept.adv_inputs, kept.labels
        digests = tuple(hashlib.sha256(one.contiguous().numpy().tobytes()).hexdigest() for one in originals)
        distances = (adv_inputs - originals).double().flatten(1).norm(dim=1)
        with torch.no_grad():
            logits = network.module(originals)
        radii = certified_radii(logits, labels, constant)
        if settings.pairs:
            radii = torch.maximum(certifier.radii(logits, labels), radii)
        moved = distances > 0
        noise = equal_norm_gaussian(
            originals[moved],
            (distances[moved] / math.sqrt(originals[0].numel())).float(),
            generator=torch.Generator().manual_seed(mixed_seed(inputs.seed, chosen.name)),
        )
        adversarial = amplification(network.module, originals[moved], adv_inputs[moved])
        random = amplification(network.module, originals[moved], noise)
    return NetworkStability(
        network=network,
        product=product,
        constant=constant,
        jacobian=float(jacobian_norms(network.module, images).max()),
        distances=distances,
        radii=radii,
        layers=tuple(layer.kind for layer in layers),
        shape=shape,
        adversarial=adversarial,
        random=random,
        bounds=tuple(math.prod(layer.bound for layer in layers[: k + 1]) for k in range(len(layers))),
        sharper=certifier.method != "product",
        runs=(network.name, *(() if chosen is None else (chosen.name,))),
        images=digests,
    )


def amplification(module: nn.Module, inputs: Tensor, moved: Tensor) -> tuple[float, ...]:
    """Average |phi_k(x + r) - phi_k(x)| / |r| over images, layer by layer.

    Returns:
        One number a layer; nothing of a program that runs its layers on batches of another size than ours.
    """
    size = (moved - inputs).flatten(1).norm(dim=1)
    pairs = list(zip(layer_outputs(module, inputs), layer_outputs(module, moved), strict=True))
    if any(len(a) != len(inputs) for a, _ in pairs):
        return ()
    return tuple(float(((b - a).flatten(1).norm(dim=1) / size).mean()) for a, b in pairs)


def groups_of(measured: Sequence[NetworkStability]) -> dict[str, list[NetworkStability]]:
    """Group the networks that are seeds of one another, by label."""
    labels = labels_apart({one.network.name: one.network.id for one in measured})
    groups: dict[str, list[NetworkStability]] = {}

    def place(one: NetworkStability) -> tuple:
        own = one.network.id
        return own.name, own.split, own.weight_decay, one.family, one.kind, one.strength, own.seed

    for one in sorted(measured, key=place):
        groups.setdefault(labels[one.network.name], []).append(one)
    return groups

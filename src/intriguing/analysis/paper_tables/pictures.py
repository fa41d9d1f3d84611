"""Figures of images: Figure 7, and a grid of examples for each network."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis import paper
from intriguing.analysis.cells import display_labels, variants
from intriguing.analysis.drawing import chart, style
from intriguing.analysis.gallery import Panel, gallery
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import BLOCK, Examples, MeasuredSet, short, size_text
from intriguing.analysis.sections import SectionInputs
from intriguing.nn.evaluation import count_wrong
from intriguing.results import Figure
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import wilson_interval

NOISE_STDDEV: float = 1.0
GAINS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
"""Factors, times a power of ten, by which a difference is shown."""


@dataclass(frozen=True)
class NoiseAccuracy:
    """Hold the right answers of a network under unclipped Gaussian noise of stddev 1."""

    label: str
    right: Count

    @property
    def words(self) -> str:
        """The accuracy in percent with its 95 % interval and N."""
        low, high = wilson_interval(self.right.k, self.right.n).percent
        return f"{self.label} {self.right.percent:.1f} % ({low:.1f} to {high:.1f}, N = {self.right.n:,})"


def grid_figure(one: MeasuredSet, label: str) -> Figure | None:
    """Show original, adversarial and difference of up to ten images of a set; None if its attack never succeeded."""
    examples = one.examples
    count = examples.labels.numel()
    if count == 0:
        return None
    difference = examples.adv_inputs.float() - examples.inputs.float()
    gain = difference_gain(difference)
    rows = [examples.inputs, examples.adv_inputs, (0.5 + gain * difference).clamp(0, 1)]
    with style():
        panel = Panel(
            tiles=[[row[i] for i in range(count)] for row in rows],
            rows=("original", "adversarial", f"difference ×{gain:g}"),
            columns=[_words(examples, i) for i in range(count)],
        )
        figure = gallery([panel])
    amplified = "" if one.amplify is None else f", scaled to a distortion of {short(one.amplify)}"
    return chart(
        figure,
        key="examples_" + re.sub(r"[^A-Za-z0-9_.=-]+", "_", one.name),
        title="Examples",
        detail=label,
        caption="The first image of each class that the attack succeeded on. Above each column: the true class, the "
        "class the attack aimed at, and the distortion. The difference is multiplied by the factor beside it, the "
        "largest round one at which 99 % of the pixels stay between black and white, and shifted to mid-grey.",
        note=f"{one.attack_name} on {one.subset} images{amplified}.",
        alt=f"Rows of images for {label}: originals, their adversarial versions, and the differences times {gain:g}.",
        runs=(one.name, *([one.source] if one.source else [])),
    )


def difference_gain(difference: Tensor) -> float:
    """Return the largest round factor by which 99 % of the pixels fit between black and white; 1 without a difference.

    Args:
        difference: (N, C, H, W) of images in [0, 1].
    """
    sizes = difference.abs().nan_to_num(0, 0, 0).flatten().double()
    reach = float(np.quantile(sizes.numpy(), 0.99)) or float(sizes.max())
    if reach == 0:
        return 1.0
    largest = 0.5 / reach * (1 + 1e-6)
    power = 10.0 ** math.floor(math.log10(largest))
    return max(step * power for step in GAINS if step * power <= largest)


@dataclass(frozen=True)
class Figure7Settings:
    """Settings of Figure 7.

    Attributes:
        linear: label of the linear network.
        deep: label of the deep network.
    """

    linear: str = "FC10(1e-4)"
    deep: str = "FC200-200-10"


@dataclass(frozen=True)
class Noise:
    """Hold the accuracies under noise on the images of a set, and its first images without and with noise."""

    accuracies: Mapping[str, NoiseAccuracy]
    inputs: Tensor
    noisy: Tensor


def observe_noise(examples: AdversarialSet, one: MeasuredSet, inputs: SectionInputs) -> Noise | None:
    """Measure linear networks and the set's own under noise on its images; None for a set that Figure 7 cannot show."""
    settings: Figure7Settings = inputs.settings
    labels = display_labels(inputs.networks)
    if one.amplify is not None or one.split != "full" or labels.get(one.source or "") != settings.deep:
        return None
    linear = [n for n in inputs.networks if labels[n.name] == settings.linear and n.split == "full"]
    shown = [*linear, *(n for n in inputs.networks if n.name == one.source)]
    accuracies, noisy = _noise_accuracies(examples.inputs, examples.labels, shown, inputs.seed, inputs.batch_size)
    by_name = {network.name: accuracy for network, accuracy in zip(shown, accuracies, strict=True)}
    return Noise(by_name, examples.inputs[: len(noisy)].clone(), noisy)


def figure_7(inputs: SectionInputs) -> Figure | None:
    """Make the paper's Figure 7: originals beside adversarial examples of two networks, and beside noise.

    Gaussian noise is added to all images of the deep network's set, and the accuracy of both networks is measured: the
    paper gives one number without naming the network.

    Args:
        inputs: networks, sets, and the accuracies observed on the deep network's set.

    Returns:
        The figure, or None unless both networks were attacked.
    """
    settings: Figure7Settings = inputs.settings
    linear, deep = (_attacked(label, inputs.networks, inputs.sets) for label in (settings.linear, settings.deep))
    if linear is None or deep is None or not (linear[1].num_success and deep[1].num_success):
        return None
    noise: Noise = inputs.observed[deep[1].name]
    accuracies, noisy = [noise.accuracies[network.name] for network in (linear[0], deep[0])], noise.noisy
    panels = []
    for (network, one), letter in zip((linear, deep), "ab", strict=True):
        mean = size_text(float(one.distortion.mean()))
        pairs = _pairs(one.examples.inputs, one.examples.adv_inputs)
        panels.append(Panel(tiles=pairs, title=f"({letter}) for {network.label}\nmean distortion {mean}"))
    title = f"(c) Gaussian noise, stddev {NOISE_STDDEV:g}\n{_percents(accuracies)}"
    panels.append(Panel(tiles=_pairs(noise.inputs, noisy), title=title))
    with style():
        figure = gallery(panels)
    measured = "; ".join(one.words for one in accuracies)
    return chart(
        figure,
        key="figure7",
        number="Figure 7",
        title="Adversarial examples beside noise",
        caption="Odd columns are originals; even columns are adversarial examples for a linear network (a) and a deep "
        f"one (b), and Gaussian noise of stddev {NOISE_STDDEV:g}, not clipped (c). Accuracy under that noise: "
        f"{measured}; "
        f"the paper gives {paper.NOISE_ACCURACY} % without naming the network. "
        f"On its own adversarial examples {_own_accuracy(*linear)} and {_own_accuracy(*deep)}.",
        alt="Three panels of digits: originals beside adversarial examples of a linear network, of a deep network, "
        "and beside images under strong Gaussian noise.",
        runs=(linear[0].name, linear[1].name, deep[0].name, deep[1].name),
    )


def _own_accuracy(network: Network, one: MeasuredSet) -> str:
    wrong = one.outcomes[network.name].against_clean.first
    return f"{network.label} is right on {100 * (1 - wrong.rate):.0f} %"


def _attacked(
    label: str, networks: Sequence[Network], sets: Sequence[MeasuredSet]
) -> tuple[Network, MeasuredSet] | None:
    """Find the network of a label with the lowest seed, and the paper's attack on it, training images first."""
    shown = display_labels(networks)
    for network in sorted(networks, key=lambda n: (n.seed, n.name)):
        if shown[network.name] != label or network.split != "full":
            continue
        own = [s for s in sets if s.source == network.name and s.amplify is None]
        for _, group in variants(own):
            return network, sorted(group, key=lambda s: s.subset != "train")[0]
    return None


def _noise_accuracies(
    inputs: Tensor, labels: Tensor, networks: Sequence[Network], seed: int, batch_size: int
) -> tuple[list[NoiseAccuracy], Tensor]:
    """Measure each network's accuracy under noise, and return the first noisy images (M, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    wrong = [Count(0, 0)] * len(networks)
    kept: Tensor | None = None
    for batch, batch_labels in zip(inputs.split(BLOCK), labels.split(BLOCK), strict=True):
        noisy = batch + NOISE_STDDEV * torch.randn(batch.shape, generator=generator)
        kept = noisy[:10] if kept is None else kept
        for i, network in enumerate(networks):
            batches = zip(noisy.split(batch_size), batch_labels.split(batch_size), strict=True)
            wrong[i] += count_wrong(network.module, batches)
    found = [NoiseAccuracy(one.label, Count(w.n - w.k, w.n)) for one, w in zip(networks, wrong, strict=True)]
    return found, inputs[:0] if kept is None else kept.clone()


def _percents(accuracies: Sequence[NoiseAccuracy]) -> str:
    return "accuracy " + " and ".join(f"{one.right.percent:.0f} %" for one in accuracies)


def _pairs(inputs: Tensor, adv_inputs: Tensor) -> list[list[Tensor]]:
    """Lay out two pairs a row: original, changed, original, changed."""
    cells = [image for pair in zip(inputs, adv_inputs, strict=True) for image in pair]
    cells = cells[: len(cells) // 4 * 4] or cells
    return [cells[i : i + 4] for i in range(0, len(cells), 4)]


def _words(examples: Examples, i: int) -> str:
    """Write the words above a column: "3 → 8" and the distortion."""
    target = int(examples.targets[i])
    arrow = f"{int(examples.labels[i])} → {target}" if target >= 0 else f"not {int(examples.labels[i])}"
    return f"{arrow}\n{size_text(float(examples.distortion[i]))}"

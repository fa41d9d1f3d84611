"""Figures of images: Figure 7, and a grid of examples for each network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis import paper
from intriguing.analysis.cells import display_labels, variants
from intriguing.analysis.drawing import canvas, photograph, show, style
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import BLOCK, Examples, MeasuredSet, short, size_text
from intriguing.analysis.sections import SectionInputs
from intriguing.nn.evaluation import count_wrong
from intriguing.results import Figure
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import wilson_interval

NOISE_STDDEV: float = 1.0
DIFFERENCE_GAIN: float = 10.0


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
    difference = (0.5 + DIFFERENCE_GAIN * (examples.adv_inputs - examples.inputs)).clamp(0, 1)
    rows = [examples.inputs, examples.adv_inputs, difference]
    with style():
        figure = canvas(0.8 * count + 1.15, 3.05)
        axes = figure.subplots()
        image, pitch = mosaic([[row[i] for i in range(count)] for row in rows])
        show(axes, image)
        height, width = pitch
        tile_height, tile_width = examples.inputs.shape[-2:]
        for i in range(count):
            axes.text(
                i * width + tile_width / 2, -0.06 * height, _words(examples, i), ha="center", va="bottom", fontsize=9
            )
        for i, name in enumerate(("original", "adversarial", f"difference ×{DIFFERENCE_GAIN:g}")):
            axes.text(-0.12 * width, i * height + tile_height / 2, name, ha="right", va="center", fontsize=9)
    amplified = "" if one.amplify is None else f", scaled to a distortion of {short(one.amplify)}"
    return photograph(
        figure,
        key="examples_" + re.sub(r"[^A-Za-z0-9_.=-]+", "_", one.name),
        title="Examples",
        detail=label,
        caption=f"Above each column: the true class, the class the attack aimed at, and the distortion. The difference "
        f"is multiplied by {DIFFERENCE_GAIN:g} and shifted to mid-grey. {one.attack_name} on {one.subset} "
        f"images{amplified}; the first image of each class.",
        alt=f"Rows of images for {label}: originals, their adversarial versions, and the differences times ten.",
        runs=(one.name, *([one.source] if one.source else [])),
    )


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
    with style():
        figure = canvas(9.4, 4.5)
        panels = figure.subplots(1, 3, gridspec_kw={"wspace": 0.06})
        for axes, (network, one), letter in zip(panels, (linear, deep), "ab", strict=False):
            mean = size_text(float(one.distortion.mean()))
            _pairs(axes, one.examples.inputs, one.examples.adv_inputs)
            axes.set_title(f"({letter}) for {network.label}\nmean distortion {mean}")
        _pairs(panels[2], noise.inputs, noisy)
        panels[2].set_title(f"(c) Gaussian noise, stddev {NOISE_STDDEV:g}\n{_percents(accuracies)}")
    measured = "; ".join(one.words for one in accuracies)
    return photograph(
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


def _pairs(axes: Axes, inputs: Tensor, adv_inputs: Tensor) -> None:
    """Show two pairs a row: original, changed, original, changed."""
    cells = [image for pair in zip(inputs, adv_inputs, strict=True) for image in pair]
    cells = cells[: len(cells) // 4 * 4] or cells
    image, _ = mosaic([cells[i : i + 4] for i in range(0, len(cells), 4)])
    show(axes, image)


def mosaic(rows: Sequence[Sequence[Tensor]]) -> tuple[np.ndarray, tuple[int, int]]:
    """Join images (C, H, W) with white gaps to (C, height, width); also return the pitch (rows, columns) in pixels."""
    channels, height, width = rows[0][0].shape
    gap = max(1, width // 14)
    pitch = height + gap, width + gap
    image = np.ones((channels, len(rows) * pitch[0] - gap, max(len(row) for row in rows) * pitch[1] - gap))
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            image[:, i * pitch[0] : i * pitch[0] + height, j * pitch[1] : j * pitch[1] + width] = tile.numpy()
    return image, pitch


def _words(examples: Examples, i: int) -> str:
    """Write the words above a column: "3 → 8" and the distortion."""
    target = int(examples.targets[i])
    arrow = f"{int(examples.labels[i])} → {target}" if target >= 0 else f"not {int(examples.labels[i])}"
    return f"{arrow}\n{size_text(float(examples.distortion[i]))}"

"""Errata of section 4.3 and Table 5, beside dense matrices: aliasing, exponent, pooling, padding, AlexNet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from intriguing.analysis import paper
from intriguing.analysis.errata.erratum import RATIO, Erratum, Line, lines
from intriguing.analysis.inputs import Network
from intriguing.analysis.stability.table_5 import BOUND, convolutions_alone, has_table_5_layers
from intriguing.models import Classifier
from intriguing.results import Cell
from intriguing.spectral.lipschitz import trace
from intriguing.statistics.intervals import t_interval

STRIDES = (1, 2, 3, 4)
SIZE = 12
"""Side of the torus, which every stride divides."""
_PLANE = 5  # side of the image with zeros around it: odd, so that no frequency of the torus alternates
_EQUAL = 1e-9


def printed_norm(weight: Tensor, size: int, stride: int, *, power: int = 1) -> float:
    """Compute the operator norm of section 4.3's formula with its factor s^-2, frequency by frequency.

    Args:
        weight: (D, C, k, k), float64.
        size: side N of the torus; the stride divides it.
        stride: s.
        power: the phases are u . xi / N^power; the paper prints 2, and 1 is right.
    """
    taps = torch.cartesian_prod(*[torch.arange(one) for one in weight.shape[2:]]).double()
    steps = torch.cartesian_prod(torch.arange(stride), torch.arange(stride)) * (size // stride)
    outputs = torch.cartesian_prod(*[torch.arange(size // stride)] * 2)
    frequencies = (outputs[:, None] + steps).double()  # (F, s^2, 2): those that alias onto one output frequency
    phases = torch.exp(-2j * math.pi * (frequencies @ taps.T) / size**power)
    transform = torch.einsum("fat,dct->fdca", phases, weight.flatten(2).to(phases.dtype))
    return float(torch.linalg.matrix_norm(transform.flatten(2) / stride**2, 2).max())


def dense_norm(weight: Tensor, size: int, stride: int = 1, *, zeros: bool = False) -> float:
    """Compute the operator norm of a convolution from its dense matrix.

    Args:
        weight: (D, C, k, k), float64.
        size: side of the image.
        stride: of the convolution.
        zeros: pad with (k - 1) / 2 zeros on every side; else the image is a torus.
    """
    channels, extent = weight.shape[1], weight.shape[2] - 1
    images = torch.eye(channels * size * size, dtype=torch.float64).view(-1, channels, size, size)
    before = extent // 2
    padding = (before, extent - before) * 2
    images = F.pad(images, padding) if zeros else F.pad(images, padding, mode="circular")
    return float(torch.linalg.matrix_norm(F.conv2d(images, weight, stride=stride).flatten(1), 2))


def aliasing(kernels: Tensor) -> Erratum:
    """Table 5: the printed factor s^-2 understates the norm by exactly the stride."""
    found = []
    for stride in STRIDES:
        ratios = [dense_norm(one, SIZE, stride) / printed_norm(one, SIZE, stride) for one in kernels]
        found.append((f"stride {stride}, exact norm / printed formula", _mean(ratios)))
    first = next(iter(paper.TABLE_5.items()))
    corrected = Cell(quantity=BOUND, value=4 * first[1], interval=None, n=1)
    return Erratum(
        name="Table 5 aliasing",
        printed="the factor s^-2 of a stride s",
        correct="s^-1: the printed formula is no upper bound",
        note=f"Aliasing: the largest singular value of the dense matrix of a random convolution on a {SIZE} x {SIZE} "
        "torus over the printed formula, evaluated frequency by frequency; it is the stride for every kernel.",
        lines=lines(*found, of="kernels") + lines((f"{first[0]}: 2.75 with s^-1", corrected), of="printed number"),
    )


def exponent(kernels: Tensor) -> Erratum:
    """Table 5: the exponent's N^2 must be N."""
    ratios = [dense_norm(one, SIZE) / printed_norm(one, SIZE, 1, power=2) for one in kernels]
    return Erratum(
        name="Table 5 exponent",
        printed="exp(-2 pi i u xi / N^2)",
        correct="exp(-2 pi i u xi / N)",
        note="Exponent: the same ratio at stride 1, with the phases as printed.",
        lines=lines(("exact norm / printed formula", _mean(ratios)), of="kernels"),
    )


def pooling() -> Erratum:
    """Table 5: overlapping max-pooling can double a distance."""
    image = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    found = []
    for words, window in (("3x3 with stride 2, one pixel that wins 4 windows", 3), ("2x2 with stride 2", 2)):
        other = image.clone()
        other[..., 4, 4] = 1
        ratio = F.max_pool2d(other, window, 2) - F.max_pool2d(image, window, 2)
        cell = Cell(quantity=RATIO, value=float(ratio.norm() / (other - image).norm()), interval=None, n=1)
        found.append((f"{words}, distance after / before", cell))
    return Erratum(
        name="Table 5 pooling",
        printed="max-pooling is contractive",
        correct="only without overlap; 3x3 with stride 2 has the constant 2",
        note="Pooling: an image of zeros and one with a single pixel of 1. A pixel lies in at most 4 windows of 3x3 "
        "with stride 2, so no pair has a larger ratio than 2; AlexNet has three such pools, a factor of 8.",
        lines=lines(*found, of="constructed pair"),
    )


def padding(kernels: Tensor) -> Erratum:
    """Table 5: zero padding is not the circular convolution."""
    ratios = [dense_norm(one, _PLANE, zeros=True) / dense_norm(one, _PLANE) for one in kernels]
    signs = torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64)
    alternating = torch.outer(signs, signs).view(1, 1, 3, 3)
    above = dense_norm(alternating, _PLANE, zeros=True) / dense_norm(alternating, _PLANE)
    constructed = Cell(quantity=RATIO, value=above, interval=None, n=1)
    return Erratum(
        name="Table 5 padding",
        printed="the circular convolution",
        correct="state the padding: the circular norm does not bound zero padding",
        note=f"Padding: norms of dense matrices on {_PLANE} x {_PLANE} images, of random convolutions and of the outer "
        "product of (-1, 1, -1) with itself, whose norm with zeros is the larger. A torus of the image with its zeros "
        "bounds both.",
        lines=lines(("random kernels, norm with zeros / circular norm", _mean(ratios)), of="kernels")
        + lines(("an alternating kernel, norm with zeros / circular norm", constructed), of="constructed kernel"),
    )


def alexnet(networks: Sequence[Network]) -> Erratum:
    """Table 5: bounds of the convolutions of a trained AlexNet."""
    trained = [one for one in networks if has_table_5_layers(one.module) and _has_weights(one)]
    trained.sort(key=lambda one: (not convolutions_alone(one), one.seed, one.name))
    found = []
    for network in trained[:1]:
        layers = trace(network.module, cast(Classifier, network.module).input_shape).layers
        bounds = [layer.bound for layer in layers if isinstance(layer.module, nn.Conv2d)]
        for (row, printed), bound in zip(paper.TABLE_5.items(), bounds, strict=False):
            cell = Cell(quantity=BOUND, value=bound, interval=None, n=1, paper=printed, runs=(network.name,))
            found.append(Line(what=f"{row}, bound", cell=cell, of="network"))
    return Erratum(
        name="Table 5 AlexNet",
        printed="2.75, 10, 7, 7.5, 11",
        correct="bounds by the corrected formula, with the layer's own padding",
        note="AlexNet: the bounds of a trained AlexNet of torchvision's shape, whose weights are not the paper's.",
        lines=tuple(found),
        needs="a trained AlexNet, such as the network alexnet of study=errata, which reads the file "
        "imagenet/alexnet_features.pth in data.root",
    )


def random_kernels(num: int, seed: int) -> Tensor:
    """Draw the weights (num, 3, 2, 3, 3) of convolutions, Gaussian, float64."""
    return torch.randn(num, 3, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _mean(ratios: Sequence[float]) -> Cell:
    """Make the cell of a mean over kernels; without an interval where they agree."""
    values = torch.tensor(ratios, dtype=torch.float64)
    differ = bool((values - values.mean()).abs().max() > _EQUAL * values.mean())
    interval = t_interval(values) if differ else None
    return Cell(quantity=RATIO, value=float(values.mean()), interval=interval, n=len(values))


def _has_weights(network: Network) -> bool:
    weights = convolutions_alone(network) or bool(network.id.get("model.settings.weights"))
    return weights or bool(network.id.get("trainer.max_epochs", 1))

"""A LeNet-style convolutional network: what the paper's Figures 1 and 2 look into, without saying which."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Any, ClassVar

from torch import nn

from intriguing.models.classifier import Classifier


class ConvNet(Classifier):
    """Convolutions, each with ReLU and 2x2 max-pooling, then fully connected ReLU layers and a softmax (LeCun 1998).

    Layers have names: ``network.conv1``, ``relu1``, ``pool1``, ``conv2`` ..., ``flatten``, ``fc1``, ``relu3``, ``fc2``.

    Args:
        channels: of each convolution.
        kernels: sizes of their square kernels, odd; the zero padding keeps height and width.
        widths: units of each fully connected hidden layer.
        **settings: see ``Classifier``.

    Raises:
        ValueError: sizes that are out of range, images too small for so many poolings, or a setting of ``Classifier``
            that is out of range.
    """

    name: ClassVar[str] = "convnet"

    def __init__(self, *, channels: list[int], kernels: list[int], widths: list[int], **settings: Any) -> None:
        super().__init__(**settings)
        for key, sizes in (("channels", channels), ("kernels", kernels), ("widths", widths)):
            if not all(isinstance(size, int) and size >= 1 for size in sizes):
                raise ValueError(f"model.{key} must be a list of whole numbers of at least 1, got {list(sizes)}")
        if not channels or len(channels) != len(kernels) or not all(kernel % 2 for kernel in kernels):
            raise ValueError(
                f"model.channels and model.kernels must be as long, kernels odd, got {channels} and {kernels}"
            )
        planes, height, width = self.input_shape
        if min(height, width) < 2 ** len(channels):
            raise ValueError(
                f"images of {height}x{width} are too small for {len(channels)} poolings by two: give fewer channels"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, ((before, after), kernel) in enumerate(zip(pairwise([planes, *channels]), kernels, strict=True), 1):
            layers[f"conv{i}"] = nn.Conv2d(before, after, kernel, padding=kernel // 2)
            layers[f"relu{i}"] = nn.ReLU()
            layers[f"pool{i}"] = nn.MaxPool2d(2)
            height, width = height // 2, width // 2
        layers["flatten"] = nn.Flatten()
        sizes = [channels[-1] * height * width, *widths]
        for i, (before, after) in enumerate(pairwise(sizes), 1):
            layers[f"fc{i}"] = nn.Linear(before, after)
            layers[f"relu{len(channels) + i}"] = nn.ReLU()
        layers[f"fc{len(sizes)}"] = nn.Linear(sizes[-1], self.num_classes)
        self.network = nn.Sequential(layers)
        for layer in self.network:
            if isinstance(layer, nn.Linear | nn.Conv2d):  # keeps the variance through ReLU (He 2015)
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.penalise_norms()
        self.decayed_weights()  # a wrong number of lambdas is said now, not at the first step

"""Define a LeNet-style convolutional network; the paper does not say which one Figures 1 and 2 show."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from torch import nn

from intriguing.models.classifier import Classifier


class ConvNet(Classifier):
    """Classify with convolutions, ReLU and 2x2 max-pooling, then fully connected layers and a softmax (LeCun 1998).

    Layers have names: ``network.conv1``, ``relu1``, ``pool1``, ``conv2`` ..., ``flatten``, ``fc1``, ``relu3``, ``fc2``.
    """

    name: ClassVar[str] = "convnet"

    def build_network(self, *, channels: Sequence[int], kernels: Sequence[int], widths: Sequence[int]) -> nn.Sequential:
        """Build the layers.

        Args:
            channels: of each convolution.
            kernels: sizes of their square kernels, odd; the zero padding keeps height and width.
            widths: units of each fully connected hidden layer.

        Raises:
            ValueError: sizes that are out of range, or images too small for so many poolings.
        """
        for key, sizes in (("channels", channels), ("kernels", kernels), ("widths", widths)):
            if not all(isinstance(size, int) and size >= 1 for size in sizes):
                raise ValueError(f"model.settings.{key} must list whole numbers of at least 1, got {list(sizes)}")
        if not channels or len(channels) != len(kernels) or not all(kernel % 2 for kernel in kernels):
            raise ValueError(
                f"model.settings.channels and kernels must be as long, kernels odd, got {channels} and {kernels}"
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
        network = nn.Sequential(layers)
        for layer in network:
            if isinstance(layer, nn.Linear | nn.Conv2d):  # keeps the variance through ReLU (He 2015)
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        return network

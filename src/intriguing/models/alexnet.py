"""Define Krizhevsky's AlexNet with the sizes of Table 5 (``model=torchvision`` has the later network)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from intriguing.models.classifier import Classifier
from intriguing.models.weights_file import fill_part, read_weights


class AlexNet(Classifier):
    """Classify as Krizhevsky, Sutskever and Hinton 2012: convolutions, response norms, overlapping pools, three layers.

    Table 5 gives the sizes as if the network were one tower; Krizhevsky's second, fourth and fifth convolutions see one
    half of the channels each (``groups=2``). Weights start as his: Gaussian of stddev .01, biases 1 in convolutions 2,
    4 and 5 and in the hidden fully connected layers. Eight layers have weight decay.
    """

    name: ClassVar[str] = "alexnet"

    def build_network(self, *, groups: int = 1, dropout: float = 0.5, features: str | None = None) -> nn.Sequential:
        """Build the layers.

        Args:
            groups: of convolutions 2, 4 and 5: 1 as in Table 5, 2 as in 2012.
            dropout: probability, before both hidden fully connected layers.
            features: a file of a state dict with the convolutions, named by their places (``0.weight``, ``4.weight``
                ...) or below ``features``; the fully connected layers stay random. They are read once.

        Raises:
            ValueError: groups other than 1 or 2, images too small for the pools, or weights that do not fit.
        """
        if groups not in (1, 2):
            raise ValueError(f"model.settings.groups must be 1 or 2, got {groups!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"model.settings.dropout must lie in [0, 1), got {dropout}")
        channels, height, width = self.input_shape
        convolutions = _features(channels, groups)
        if min(height, width) < 63:
            raise ValueError(f"AlexNet wants images of at least 63x63 pixels, got {height}x{width}")
        with torch.no_grad():
            num_features = convolutions(torch.zeros(1, *self.input_shape)).numel()
        network = nn.Sequential(
            *convolutions,
            nn.Flatten(),
            *(nn.Dropout(dropout), nn.Linear(num_features, 4096), nn.ReLU()),
            *(nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU()),
            nn.Linear(4096, self.num_classes),
        )
        layers = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
        for layer, bias in zip(layers, (0, 1, 0, 1, 1, 1, 1, 0), strict=True):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, bias)  # pyright: ignore[reportArgumentType]
        self.hparams["features"] = None
        if features is not None and not network[0].weight.is_meta:
            found = {name.removeprefix("features."): value for name, value in read_weights(features).items()}
            try:
                self.random_layers = fill_part(network, found, features)
            except ValueError as error:
                raise ValueError(
                    f"{error}; those of torchvision's AlexNet are read with model=torchvision "
                    "model.settings.architecture=alexnet model.settings.features=..."
                ) from error
        return network


def _features(channels: int, groups: int) -> nn.Sequential:
    """Build the convolutional part; at 224x224 its output is 256 x 6 x 6, Table 5's 9216."""

    def response() -> nn.Module:
        # Krizhevsky's alpha multiplies the sum over five channels, torch's their mean.
        return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)

    return nn.Sequential(
        *(nn.Conv2d(channels, 96, 11, stride=4, padding=2), nn.ReLU(), response(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=groups), nn.ReLU(), response(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=groups), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=groups), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )

"""AlexNet: Krizhevsky's own network with the sizes of Table 5, and torchvision's, with its published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
import torchvision
from torch import nn

from intriguing.errors import UserError
from intriguing.models.classifier import Classifier

PUBLISHED = "published"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which the published weights expect


class AlexNet(Classifier):
    """Krizhevsky, Sutskever and Hinton 2012: five convolutions, response norms, overlapping pools, three layers.

    Table 5 gives the sizes as if the network were one tower; Krizhevsky's second, fourth and fifth convolutions see one
    half of the channels each (``groups=2``). Weights start as his: Gaussian of stddev .01, biases 1 in convolutions 2,
    4 and 5 and in the hidden fully connected layers.

    Args:
        groups: of convolutions 2, 4 and 5: 1 as in Table 5, 2 as in 2012.
        dropout: probability, before both hidden fully connected layers.
        **settings: see ``Classifier``; eight layers have weights.

    Raises:
        ValueError: groups other than 1 or 2, images too small for the pools, or a setting of ``Classifier`` that is out
            of range.
    """

    name: ClassVar[str] = "alexnet"

    def __init__(self, *, groups: int = 1, dropout: float = 0.5, **settings: Any) -> None:
        super().__init__(**settings)
        if groups not in (1, 2):
            raise ValueError(f"model.settings.groups must be 1 or 2, got {groups!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"model.settings.dropout must lie in [0, 1), got {dropout}")
        channels, height, width = self.input_shape
        features = _features(channels, groups)
        if min(height, width) < 63:
            raise ValueError(f"AlexNet wants images of at least 63x63 pixels, got {height}x{width}")
        with torch.no_grad():
            num_features = features(torch.zeros(1, *self.input_shape)).numel()
        self.network = nn.Sequential(
            *features,
            nn.Flatten(),
            *(nn.Dropout(dropout), nn.Linear(num_features, 4096), nn.ReLU()),
            *(nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU()),
            nn.Linear(4096, self.num_classes),
        )
        layers = [layer for layer in self.network if isinstance(layer, nn.Conv2d | nn.Linear)]
        for layer, bias in zip(layers, (0, 1, 0, 1, 1, 1, 1, 0), strict=True):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, bias)  # pyright: ignore[reportArgumentType]
        self.penalise_norms()
        self.decayed_weights()


def _features(channels: int, groups: int) -> nn.Sequential:
    """The convolutional part; at 224x224 its output is 256 x 6 x 6, Table 5's 9216."""

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


class TorchvisionAlexNet(Classifier):
    """torchvision's AlexNet (Krizhevsky 2014, arXiv 1404.5997): other widths, one tower, no response normalisation.

    Its first layer normalises images in [0, 1] to what the published weights were trained on.

    Args:
        weights: None for torchvision's random ones, ``published`` to download those trained on ImageNet, or a local
            file of them (``alexnet-owt-7be5be79.pth``) or of another state_dict of the same network.
        dropout: see ``AlexNet``.
        **settings: see ``Classifier``; eight layers have weights.

    Raises:
        UserError: weights that can neither be downloaded nor found, or that do not fit.
    """

    name: ClassVar[str] = "torchvision_alexnet"

    def __init__(self, *, weights: str | None = None, dropout: float = 0.5, **settings: Any) -> None:
        super().__init__(**settings)
        inner = torchvision.models.alexnet(num_classes=self.num_classes, dropout=dropout)
        if weights is not None:
            _load(inner, weights)
            self.hparams["weights"] = None  # a checkpoint brings its own: loading it must not download
        self.network = nn.Sequential(
            torchvision.transforms.Normalize(_MEAN, _STD),
            *inner.features,
            inner.avgpool,
            nn.Flatten(),
            *inner.classifier,
        )
        for layer in self.network:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        self.penalise_norms()
        self.decayed_weights()


def _load(network: nn.Module, weights: str) -> None:
    if weights == PUBLISHED:
        enum = torchvision.models.AlexNet_Weights.IMAGENET1K_V1
        try:
            state = enum.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:  # no network, no such host, a damaged file
            reason = str(error).strip() or type(error).__name__
            raise UserError(
                f"AlexNet's published weights cannot be downloaded here ({reason}); "
                f"give a local file of them, weights=/path/{enum.url.rsplit('/', 1)[-1]}, or null for random ones"
            ) from error
    else:
        if not Path(weights).is_file():
            raise UserError(f"there is no file {weights}; give AlexNet's weights as a file, '{PUBLISHED}' or null")
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        except Exception as error:  # torch names a dozen kinds for files that are not what they should be
            raise UserError(f"{weights} holds no weights that load safely (weights_only=True refused it)") from error
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        line = str(error).strip().splitlines()[0]
        raise UserError(
            f"these weights do not fit torchvision's AlexNet: {line} (1000 classes in the published ones)"
        ) from error

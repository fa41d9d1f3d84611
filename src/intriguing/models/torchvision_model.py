"""Define torchvision's classification networks, by name, with random or published weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.error import URLError

from torch import Tensor, nn

from intriguing.models.classifier import Classifier
from intriguing.models.normalize import Normalize
from intriguing.models.weights_file import fill_but_last, fill_part, read_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels: what torchvision's weights expect


class TorchvisionModel(Classifier):
    """Classify with a network of ``torchvision.models`` behind a normalisation by ImageNet's pixel statistics.

    ``mean`` and ``std`` take the place of ImageNet's. Layers keep torchvision's names below ``network.model``:
    ``network.model.features.1`` of AlexNet, for example.
    """

    name: ClassVar[str] = "torchvision"

    @classmethod
    def architecture_label(cls, settings: Mapping[str, Any], num_classes: int | None) -> str:
        """Return torchvision's name of the architecture."""
        return str(settings.get("architecture", cls.name))

    @classmethod
    def image_size(cls, settings: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return the side of the images, and the shorter side before the crop, that torchvision's weights want."""
        from torchvision.models import get_model_weights, list_models

        if settings.get("architecture") not in list_models(module=_classification()):
            return None
        published: Any = get_model_weights(str(settings["architecture"]))
        wanted = (published.DEFAULT if settings.get("weights") == "default" else next(iter(published))).transforms()
        return int(wanted.crop_size[0]), int(wanted.resize_size[0])

    def _normalised(self, network: nn.Module) -> nn.Module:
        return network

    def build_network(
        self,
        *,
        architecture: str,
        weights: str | None = None,
        features: str | None = None,
        stem_stride: int | None = None,
    ) -> nn.Sequential:
        """Build the network.

        Args:
            architecture: a name of ``torchvision.models.list_models()``, for example ``alexnet`` or ``resnet18``.
            weights: None for random ones; ``default`` for torchvision's best (downloaded into torch's cache); or a
                file of a state dict. Where the number of classes differs, the last layer stays random. They are read
                once: a checkpoint holds its own.
            features: a file of a state dict with a part of the layers, such as the convolutions; the others stay
                random. They are read once.
            stem_stride: by how much the stem of a ResNet shrinks an image, for small ones: 1 puts a 3x3 convolution of
                stride 1 in its place (He 2015, section 4.2, on CIFAR-10), 2 one of stride 2, 4 the latter before
                torchvision's pooling; None: torchvision's own, a 7x7 convolution of stride 2 and the pooling.

        Raises:
            ValueError: an unknown architecture, images that are not of three channels, weights that cannot be had or
                do not fit.
        """
        from torchvision.models import get_model, list_models

        if weights is not None and features is not None:
            raise ValueError("weights are those of the whole network and features of a part: give one of the two")

        if self.input_shape[0] != 3:
            raise ValueError(f"torchvision's networks want images of 3 channels, got {self.input_shape[0]}")
        if architecture not in list_models(module=_classification()):
            raise ValueError(
                f"unknown model.settings.architecture '{architecture}'; "
                f"known: {', '.join(list_models(module=_classification()))}"
            )
        # Auxiliary heads would answer beside the logits while training.
        more = {"aux_logits": False, "init_weights": True} if architecture in ("googlenet", "inception_v3") else {}
        model = get_model(architecture, weights=None, num_classes=self.num_classes, **more)
        if stem_stride is not None:
            _replace_stem(model, architecture, stem_stride)
        mean, std = self.hparams["mean"], self.hparams["std"]
        first = Normalize(MEAN, STD) if mean is None else Normalize(mean, std, self.input_shape[0])
        network = nn.Sequential(OrderedDict(normalize=first, model=model))
        self.hparams["weights"] = self.hparams["features"] = None
        if next(model.parameters()).is_meta:  # without memory, there is nothing to fill
            return network
        if weights is not None:
            self.random_layers = fill_but_last(model, _state_dict(architecture, weights), weights)
        if features is not None:
            self.random_layers = fill_part(model, read_weights(features), features)
        return network


def _classification() -> Any:
    from torchvision import models

    return models


def _replace_stem(model: nn.Module, architecture: str, stride: int) -> None:
    first = getattr(model, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not hasattr(model, "maxpool"):
        raise ValueError(f"model.settings.stem_stride is for ResNets, not for {architecture}")
    if stride not in (1, 2, 4) or isinstance(stride, bool):
        raise ValueError(f"model.settings.stem_stride must be 1, 2, 4 or null, got {stride!r}")
    model.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, min(stride, 2), padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's ResNets start
    if stride < 4:
        model.maxpool = nn.Identity()


def _state_dict(architecture: str, weights: str) -> dict[str, Tensor]:
    if weights == "default":
        from torchvision.models import get_model_weights

        published: Any = get_model_weights(architecture)
        try:
            return dict(published.DEFAULT.get_state_dict(progress=False, check_hash=True))
        except (URLError, OSError, RuntimeError) as error:
            raise ValueError(
                f"torchvision's weights of {architecture} cannot be downloaded here ({error}): fetch them elsewhere "
                "and give model.settings.weights=FILE"
            ) from error
    return read_weights(weights)

"""Define torchvision's classification networks, by name, with random or published weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.error import URLError

from torch import Tensor, nn

from intriguing.models.classifier import Classifier
from intriguing.models.normalize import Normalize
from intriguing.models.weights_file import read_weights

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

    def _normalised(self, network: nn.Module) -> nn.Module:
        return network

    def build_network(self, *, architecture: str, weights: str | None = None) -> nn.Sequential:
        """Build the network.

        Args:
            architecture: a name of ``torchvision.models.list_models()``, for example ``alexnet`` or ``resnet18``.
            weights: None for random ones; ``default`` for torchvision's best (downloaded into torch's cache); or a
                file of a state dict. Where the number of classes differs, the last layer stays random. They are read
                once: a checkpoint holds its own.

        Raises:
            ValueError: an unknown architecture, images that are not of three channels, weights that cannot be had or
                do not fit.
        """
        from torchvision.models import get_model, list_models

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
        mean, std = self.hparams["mean"], self.hparams["std"]
        first = Normalize(MEAN, STD) if mean is None else Normalize(mean, std, self.input_shape[0])
        network = nn.Sequential(OrderedDict(normalize=first, model=model))
        self.hparams["weights"] = None
        if weights is not None and not next(model.parameters()).is_meta:  # without memory, there is nothing to fill
            _fill(model, _state_dict(architecture, weights), weights)
        return network


def _classification() -> Any:
    from torchvision import models

    return models


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


def _fill(model: nn.Module, found: dict[str, Tensor], weights: str) -> None:
    """Copy weights; only those of the last layer may be of another shape (another number of classes)."""
    own = model.state_dict()
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    head = {f"{last}.weight", f"{last}.bias"}
    wrong = [
        name
        for name, value in own.items()
        if name not in head and (name not in found or found[name].shape != value.shape)
    ]
    if wrong:
        raise ValueError(f"the weights {weights} do not fit: {wrong[0]} is missing or of another shape")
    kept = {name: found[name] for name in own if name in found and found[name].shape == own[name].shape}
    model.load_state_dict(own | kept)

"""Define torchvision's classification networks, by name, with random or published weights."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import torch
from torch import Tensor, nn

from intriguing.models.classifier import Classifier

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels: what torchvision's weights expect


class Normalize(nn.Module):
    """Compute (images - mean) / std, channel by channel: the first layer, so that the images stay in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) in the same shape."""
        return (images - self.mean) / self.std


class TorchvisionModel(Classifier):
    """Classify with a network of ``torchvision.models`` behind a normalisation by ImageNet's pixel statistics.

    Layers keep torchvision's names below ``network.model``: ``network.model.features.1`` of AlexNet, for example.
    """

    name: ClassVar[str] = "torchvision"

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
        network = nn.Sequential(OrderedDict(normalize=Normalize(MEAN, STD), model=model))
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
    file = Path(weights).expanduser()
    if not file.is_file():
        raise ValueError(
            f"there is no file {weights}; model.settings.weights is null, 'default' or a state dict's file"
        )
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{weights} is not a state dict that loads safely (weights_only=True)") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{weights} is not a state dict: expected tensors by name")
    return found


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

"""Any of torchvision's classification networks, by name: with fresh weights or with published ones."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import torch
from torch import Tensor, nn

from intriguing.models.classifier import Classifier

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels: what torchvision's weights expect


class Normalize(nn.Module):
    """(images - mean) / stddev, channel by channel: the network's first layer, so that the box stays the images'."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return (images - self.mean) / self.std


class TorchvisionModel(Classifier):
    """A network of ``torchvision.models`` behind a normalisation by ImageNet's pixel statistics.

    Layers keep torchvision's names below ``network.model``: ``network.model.features.1`` of AlexNet, for example.

    Args:
        architecture: a name of ``torchvision.models.list_models()``, for example ``alexnet`` or ``resnet18``.
        weights: None for fresh ones; ``default`` for torchvision's best (downloaded into torch's cache); or a file of a
            state dict. Where the number of classes differs, the last layer stays fresh. They are read once: a
            checkpoint holds its own.
        **settings: see ``Classifier``; a single weight decay goes to every layer with weights.

    Raises:
        ValueError: an unknown architecture, images that are not of three channels, weights that cannot be had or do not
            fit, or a setting of ``Classifier`` that is out of range.
    """

    name: ClassVar[str] = "torchvision"

    def __init__(self, *, architecture: str, weights: str | None = None, **settings: Any) -> None:
        super().__init__(**settings)
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
        self.network = nn.Sequential()
        self.network.add_module("normalize", Normalize(MEAN, STD))
        self.network.add_module("model", model)
        self.hparams["weights"] = None
        if weights is not None:
            _fill(model, _state_dict(architecture, weights), weights)
        self.penalise_norms()
        self.decayed_weights()

    def decayed_weights(self) -> list[tuple[Tensor, float]]:
        """The weight of each linear or convolutional layer at any depth, with its coefficient lambda / k."""
        weights = [m.weight for m in self.network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        decay = self.weight_decay * len(weights) if len(self.weight_decay) == 1 else self.weight_decay
        if len(weights) != len(decay):
            raise ValueError(f"weight_decay.value wants one number or a list of {len(weights)}, got {decay}")
        units = [w.shape[0] if self.normaliser == "units" else float(self.normaliser) for w in weights]
        return [(w, value / k) for w, value, k in zip(weights, decay, units, strict=True)]


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

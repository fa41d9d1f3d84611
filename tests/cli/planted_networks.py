"""Networks as users write them, for the tests of ``model=module``: their outputs and parts differ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class Functional(nn.Module):
    """A convolution, batch normalisation, dropout and a head, with functions between them."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, width: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        channels, height, side = input_shape
        self.conv, self.norm = nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width * height * side, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.conv(images)))
        return self.head(self.dropout(hidden.flatten(1)))


class Chained(nn.Module):
    """Two chains of modules, flattened between them."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, width: int = 3) -> None:
        super().__init__()
        channels, height, side = input_shape
        self.features = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        size = width * height * side
        self.head = nn.Sequential(nn.Linear(size, 5), nn.Sigmoid(), nn.Linear(5, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.flatten(self.features(images), 1))


class Named(Functional):
    """A dict of two tensors."""

    def forward(self, images: Tensor) -> Any:
        return {"embedding": images, "scores": super().forward(images)}


class ByKeyword(Functional):
    """Images by keyword, and logits as an attribute beside others, as Hugging Face's networks have them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)

    def forward(self, *, pixel_values: Tensor) -> Any:
        return SimpleNamespace(loss=None, logits=super().forward(pixel_values))


class Double(Chained):
    """Weights of float64."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.double()


class Tied(nn.Module):
    """Two layers with one weight, a frozen buffer, a transposed and a one-dimensional convolution."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        channels, height, side = input_shape
        self.line = nn.Conv1d(channels * height, 4, 3, padding=1)
        self.up = nn.ConvTranspose1d(4, 2, 2, stride=2)
        size = 4 * side
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.tensor(0.5))
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(size, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.up(torch.relu(self.line(images.flatten(1, 2)))).flatten(1) * self.scale
        return self.head(torch.relu(self.second(torch.relu(self.first(hidden)))))


class Signs(torch.optim.Optimizer):
    """An optimiser of the user's: steps of one size along the sign of the gradient."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None if closure is None else closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter -= group["lr"] * parameter.grad.sign()
        return loss

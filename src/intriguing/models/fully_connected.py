"""The paper's fully connected networks: FC10, FC100-100-10, FC200-200-10, FC123-456-10 and any other widths."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import nn

from intriguing.models.classifier import Classifier

ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}


class FullyConnected(Classifier):
    """Fully connected hidden layers and a softmax on top (section 4, Table 1).

    Args:
        widths: units of each hidden layer; an empty list is softmax regression (FC10).
        activation: ``sigmoid`` (the paper's), ``relu`` or ``tanh``.
        dropout: probabilities of leaving out a pixel and a hidden unit while training (Hinton et al. 2012).
        **settings: see ``Classifier``.

    Raises:
        ValueError: a width below 1, an unknown activation, or a setting of ``Classifier`` that is out of range.
    """

    name: ClassVar[str] = "fully_connected"

    def __init__(
        self,
        *,
        widths: list[int],
        activation: str = "sigmoid",
        dropout: list[float] | tuple[float, float] = (0.0, 0.0),
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation '{activation}'; known: {', '.join(ACTIVATIONS)}")
        if not all(isinstance(width, int) and width >= 1 for width in widths):
            raise ValueError(f"model.widths must be a list of whole numbers of at least 1, got {list(widths)}")
        if len(dropout) != 2 or not all(0 <= share < 1 for share in dropout):
            raise ValueError(
                f"model.dropout must be two numbers in [0, 1), of pixels and of hidden units, got {list(dropout)}"
            )
        sizes = [math.prod(self.input_shape), *widths]
        layers: list[nn.Module] = [nn.Flatten(), *_dropped(dropout[0])]
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation](), *_dropped(dropout[1])]
        self.network = nn.Sequential(*layers, nn.Linear(sizes[-1], self.num_classes))
        for layer in self.network:
            if isinstance(layer, nn.Linear):  # sigmoids start in their linear range
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.penalise_norms()
        self.decayed_weights()  # a wrong number of lambdas is said now, not at the first step

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # A stream of its own for every epoch, so that a resumed fit leaves out what it would have left out; not at the
        # epoch's start, because making the loader's iterator comes after it and draws a number.
        if batch_idx == 0 and any(isinstance(layer, nn.Dropout) for layer in self.network):
            rank, world_size = self.global_rank, self.trainer.world_size
            torch.manual_seed((self._first_seed * 1_000_003 + self.current_epoch) * world_size + rank)

    def on_fit_start(self) -> None:
        self._first_seed = torch.initial_seed() % 2**31


def _dropped(share: float) -> list[nn.Module]:
    return [nn.Dropout(share)] if share else []

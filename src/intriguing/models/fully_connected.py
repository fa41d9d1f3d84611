"""The paper's fully connected networks: FC10, FC100-100-10, FC200-200-10, FC123-456-10 and any other widths."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

from torch import nn

from intriguing.models.classifier import Classifier

ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}


class FullyConnected(Classifier):
    """Fully connected hidden layers and a softmax on top (section 4, Table 1).

    Args:
        widths: units of each hidden layer; an empty list is softmax regression (FC10).
        activation: ``sigmoid`` (the paper's), ``relu`` or ``tanh``.
        **settings: see ``Classifier``.

    Raises:
        ValueError: a width below 1, an unknown activation, or a setting of ``Classifier`` that is out of range.
    """

    name: ClassVar[str] = "fully_connected"

    def __init__(self, *, widths: list[int], activation: str = "sigmoid", **settings: Any) -> None:
        super().__init__(**settings)
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation '{activation}'; known: {', '.join(ACTIVATIONS)}")
        if not all(isinstance(width, int) and width >= 1 for width in widths):
            raise ValueError(f"model.widths must be a list of whole numbers of at least 1, got {list(widths)}")
        sizes = [math.prod(self.input_shape), *widths]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        self.network = nn.Sequential(*layers, nn.Linear(sizes[-1], self.num_classes))
        for layer in self.network:
            if isinstance(layer, nn.Linear):  # sigmoids start in their linear range
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.decayed_weights()  # a wrong number of lambdas is said now, not at the first step

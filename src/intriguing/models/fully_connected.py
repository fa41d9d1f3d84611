"""Define the paper's fully connected networks: FC10, FC100-100-10, FC200-200-10, FC123-456-10, any widths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from torch import nn

from intriguing.models.classifier import Classifier

ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}


class FullyConnected(Classifier):
    """Classify with fully connected hidden layers and a softmax on top (section 4, Table 1)."""

    name: ClassVar[str] = "fully_connected"

    @classmethod
    def architecture_label(cls, settings: Mapping[str, Any], num_classes: int | None) -> str:
        """Return the widths of the layers: ``FC100-100-10``; without the last one while the classes are not known."""
        widths = settings.get("widths")
        if not isinstance(widths, list | tuple):
            return cls.name
        return "FC" + "-".join(map(str, [*widths, *([] if num_classes is None else [num_classes])]))

    def build_network(
        self, *, widths: Sequence[int], activation: str = "sigmoid", dropout: Sequence[float] = (0.0, 0.0)
    ) -> nn.Sequential:
        """Build the layers.

        Args:
            widths: units of each hidden layer; an empty list is softmax regression (FC10).
            activation: ``sigmoid`` (the paper's), ``relu`` or ``tanh``.
            dropout: probabilities of leaving out a pixel and a hidden unit while training (Hinton et al. 2012).

        Raises:
            ValueError: a width below 1, a probability outside [0, 1), or an unknown activation.
        """
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation '{activation}'; known: {', '.join(ACTIVATIONS)}")
        if not all(isinstance(width, int) and width >= 1 for width in widths):
            raise ValueError(f"model.settings.widths must be a list of whole numbers of at least 1, got {list(widths)}")
        if len(dropout) != 2 or not all(0 <= share < 1 for share in dropout):
            raise ValueError(
                f"model.settings.dropout must be two numbers in [0, 1), of pixels and hidden units, got {list(dropout)}"
            )
        sizes = [math.prod(self.input_shape), *widths]
        layers: list[nn.Module] = [nn.Flatten(), *_dropped(dropout[0])]
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation](), *_dropped(dropout[1])]
        network = nn.Sequential(*layers, nn.Linear(sizes[-1], self.num_classes))
        for layer in network:
            if isinstance(layer, nn.Linear):  # sigmoids start in their linear range
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        return network


def _dropped(share: float) -> list[nn.Module]:
    return [nn.Dropout(share)] if share else []

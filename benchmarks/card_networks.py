"""Networks and images for the cards of results/cards, from `$INTRIGUING_DATA/networks/networks.py`.

python analyze.py study=card card.model=benchmarks.card_networks.published card.settings={name:resnet20}
data=module data._target_=benchmarks.card_networks.exact_cifar10      (one line)
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import torch
from torch import nn
from torch.utils.data import TensorDataset


def published(name: str) -> nn.Module:
    """Load a published network by its name."""
    return _file().load(name)


def exact_cifar10() -> tuple[TensorDataset, TensorDataset]:
    """Open 300 test images of CIFAR-10 with their exact pixels; the training images are ten of them, and not read."""
    images, labels = _file().exact_cifar10()
    first = torch.stack([(labels == label).nonzero()[0, 0] for label in range(10)])
    return TensorDataset(images[first], labels[first]), TensorDataset(images, labels)


def _file() -> ModuleType:
    path = Path(os.environ.get("INTRIGUING_DATA", "data")) / "networks" / "networks.py"
    spec = importlib.util.spec_from_file_location("published_networks", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"error: there is no {path}; set INTRIGUING_DATA")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

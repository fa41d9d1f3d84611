"""Untrained copies of a network: the control of every score."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from intriguing.models import Classifier


def untrained_copy(model: nn.Module, *, seed: int) -> nn.Module | None:
    """Copy a network with newly drawn initial weights.

    Args:
        model: one of the project's networks, which is built again from its settings; or any other module, each part of
            which resets its parameters.
        seed: of the weights; torch's global random state is left unchanged.

    Returns:
        The network in evaluation mode; None where a part has weights and no ``reset_parameters``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(model, Classifier) and (again := model.another()) is not None:
            return again.eval()
        made = copy.deepcopy(model)
        for part in made.modules():
            if not any(True for _ in part.parameters(recurse=False)):
                continue
            if not hasattr(part, "reset_parameters"):
                return None
            reset: Any = part
            reset.reset_parameters()
        return made.eval()

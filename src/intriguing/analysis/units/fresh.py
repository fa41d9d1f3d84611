"""The same network before it was trained: the control of every score."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from intriguing.models import Classifier


def fresh(model: nn.Module, *, seed: int) -> nn.Module | None:
    """A copy of a network with weights as training would have started from.

    Args:
        model: one of the project's networks, which is built anew from its settings; or any other module, each part of
            which is told to reset itself.
        seed: of the weights; torch's global randomness is left as it was.

    Returns:
        The network in evaluation mode; None where a part has weights and does not know how to reset them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(model, Classifier):
            return type(model)(**dict(model.hparams)).eval()
        made = copy.deepcopy(model)
        for part in made.modules():
            if not any(True for _ in part.parameters(recurse=False)):
                continue
            if not hasattr(part, "reset_parameters"):
                return None
            reset: Any = part
            reset.reset_parameters()
        return made.eval()

"""Run the attacks in SecML-Torch: an evasion attack of its kind.

For example::

    from intriguing.integrations.secml import Evasion  # pip install 'intriguing[secml]'

    attacked = Evasion("nearest")(model, loader)  # a DataLoader of adversarial images and labels
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from intriguing.attacks import as_attack

try:
    from secmlt.adv.evasion.base_evasion_attack import BaseEvasionAttack
    from secmlt.adv.evasion.perturbation_models import LpPerturbationModels
    from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier
except ImportError as error:
    raise ImportError(f"this module needs secml-torch ({error}): pip install 'intriguing[secml]'") from error


class Evasion(BaseEvasionAttack):
    """Attack SecML-Torch's classifiers, or any torch module, with an attack of this project.

    It is called as SecML-Torch's attacks are: with a classifier and a DataLoader of images in [0, 1] and labels. The
    classifier's own pre- and postprocessing belong to the network under attack.

    Args:
        attack: a name in ``intriguing.attacks.ATTACKS``, or a function; see ``intriguing.attacks.as_attack``.
        y_target: class that every image should be given; None for any class but its label.
        settings: of the attack.

    Raises:
        TypeError: an unknown setting.
        ValueError: there is no attack of this name, or a value is out of range.
    """

    def __init__(
        self, attack: str | Callable[..., Any] = "nearest", *, y_target: int | None = None, **settings: Any
    ) -> None:
        self.attack = as_attack(attack)
        self.settings = self.attack.check(settings)
        self.y_target = y_target

    @staticmethod
    def get_perturbation_models() -> set[str]:
        """Return the norm that the project's attacks minimise."""
        return {LpPerturbationModels.L2}

    def _run(self, model: BasePyTorchClassifier, samples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Attack one batch.

        Returns:
            Adversarial images (N, ...), and the perturbations.
        """
        device = model._get_device()
        inputs, labels = samples.to(device), labels.to(device)
        targets = None if self.y_target is None else torch.full_like(labels, self.y_target)
        result = self.attack(_Scores(model), inputs, labels, targets=targets, **self.settings)
        return result.adv_inputs, result.adv_inputs - inputs


class _Scores(nn.Module):
    """Call a classifier of SecML-Torch as a module, so that an attack can freeze the network inside it."""

    def __init__(self, classifier: BasePyTorchClassifier) -> None:
        super().__init__()
        self.network = classifier.model
        self._classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self._classifier.decision_function(images)

"""Train an autoencoder first, then a softmax on its frozen code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from intriguing.models.classifier import Classifier
from intriguing.models.fit_size import planned_epochs, world_size


class AutoencoderClassifier(Classifier):
    """Classify by softmax regression on the frozen code of an autoencoder, as AE400-10 of Table 1 does.

    The first ``pretrain_share`` of the epochs trains the autoencoder without labels, the rest the softmax alone, with
    the learning rate ``second_lr`` of ``intriguing.models.optimization.two_cosines``. A subclass sets
    ``pretrain_share`` and builds ``network`` as flatten, encoder, activation, softmax; parameters outside of it belong
    to the autoencoder.
    """

    trains_in_parts: ClassVar[bool] = True
    prefix: ClassVar[str] = "AE"
    pretrain_share: float
    pretraining: bool = True
    network: nn.Sequential  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def architecture_label(cls, settings: Mapping[str, Any], num_classes: int | None) -> str:
        """Return the widths of the layers: ``AE400-10``; without the last one while the classes are not known."""
        if "units" not in settings:
            return cls.name
        widths = [settings["units"], *([] if num_classes is None else [num_classes])]
        return cls.prefix + "-".join(map(str, widths))

    def _normalised(self, network: nn.Module) -> nn.Module:
        if self.hparams["mean"] is not None:
            label = self.architecture_label(self.settings, self.num_classes)
            raise ValueError(f"the decoder of {label} gives images in [0, 1], so data.mean and data.std are not for it")
        return network

    def decayed_layers(self) -> list[nn.Module]:
        """Return the softmax layer; the frozen encoder has no weight decay (Table 1: one lambda)."""
        return [self.network[3]]

    def autoencoder_terms(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the autoencoder's objective as two scalars.

        Args:
            images: (N, C, H, W), this process's part of the batch.

        Returns:
            A mean over these images, and a term of the whole batch that no process's share changes.
        """
        raise NotImplementedError

    def draw(self, images: Tensor, *shape: int) -> Tensor:
        """Draw standard normal numbers (N, *shape) for the images of a step.

        They are a new stream for every batch, so that a resumed fit sees the noise it would have seen; and of a batch
        that several processes share, each gets for its images what one process would have drawn for them.
        """
        batch = 0 if self._trainer is None else self._trainer.fit_loop.total_batch_idx
        seed = (torch.initial_seed() * 1_000_003 + batch * 131) % 2**63
        generator = torch.Generator(images.device).manual_seed(seed)
        noise = torch.randn((self.batch_images or len(images), *shape), generator=generator, device=images.device)
        return noise[self.global_rank :: world_size()]

    # -- two phases in one fit: an epoch's number alone says which one it belongs to, so a resumed fit agrees ----------

    def pretrain_epochs(self) -> int:
        """Return the number of epochs of the fit that train the autoencoder."""
        epochs = planned_epochs(self.trainer)
        return min(max(1, round(self.pretrain_share * epochs)), epochs - 1)

    def planned(self) -> dict[str, int]:
        """Return the lengths of the fit, with the optimiser steps that train the autoencoder."""
        planned = super().planned()
        steps = planned["planned_steps"] * self.pretrain_epochs() // planned["planned_epochs"]
        return planned | {"pretrain_steps": steps}

    def on_train_epoch_start(self) -> None:
        """Choose the layers that train in this epoch."""
        super().on_train_epoch_start()
        self.pretraining = self.current_epoch < self.pretrain_epochs()
        self.requires_grad_(self.pretraining)
        self.network[3].requires_grad_(not self.pretraining)

    @property
    def supervised(self) -> bool:
        """Whether the softmax is being trained."""
        return not self.pretraining

    def objective(self, batch: list[Tensor]) -> Tensor:
        """Return the loss of the phase, a scalar."""
        if not self.pretraining:
            return super().objective(batch)
        mean, whole = self.autoencoder_terms(batch[0])
        with torch.no_grad():
            self._count(mean + whole, self(batch[0]), batch[1])
        return self.weighted(mean) + whole

    def penalty(self) -> Tensor:
        """Return the weight decay term of the softmax, a scalar; 0 while the autoencoder trains."""
        return torch.zeros((), device=self.device) if self.pretraining else super().penalty()


def check_sizes(units: Any, pretrain_share: float) -> None:
    """Raise ValueError unless the code has a whole number of units and both phases have epochs."""
    if not (isinstance(units, int) and units >= 1):
        raise ValueError(f"model.settings.units must be a whole number of at least 1, got {units!r}")
    check_share("pretrain_share", pretrain_share)


def check_share(key: str, share: float) -> None:
    """Raise ValueError unless a setting lies in (0, 1)."""
    if not 0 < share < 1:
        raise ValueError(f"model.settings.{key} must lie in (0, 1), got {share}")

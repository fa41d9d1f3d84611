"""Define AE400-10: a sparse autoencoder is trained first, then a softmax on its frozen encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from intriguing.models.classifier import Classifier
from intriguing.models.fit_size import planned_epochs, world_size


class SparseAutoencoder(Classifier):
    """Classify by softmax regression on the frozen code of a sparse autoencoder (section 4, Table 1).

    The first ``pretrain_share`` of the epochs trains the autoencoder without labels: sigmoid code, sigmoid decoder with
    tied weights, noisy images in and clean ones out, to minimise ``mean over images of sum((decoded - image)^2) +
    sparsity_weight * sum over units of KL(sparsity || mean activation over the batch)``. The rest trains the softmax
    alone, with the learning rate ``second_lr`` of ``intriguing.models.optimization.two_cosines``. The paper gives none
    of these settings; README says how they were chosen.
    """

    name: ClassVar[str] = "sparse_autoencoder"
    trains_in_parts: ClassVar[bool] = True
    network: nn.Sequential  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def architecture_label(cls, settings: Mapping[str, Any], num_classes: int | None) -> str:
        """Return the widths of the layers: ``AE400-10``; without the last one while the classes are not known."""
        if "units" not in settings:
            return cls.name
        return "AE" + "-".join(map(str, [settings["units"], *([] if num_classes is None else [num_classes])]))

    def _normalised(self, network: nn.Module) -> nn.Module:
        if self.hparams["mean"] is not None:
            raise ValueError("the decoder of AE400-10 gives images in [0, 1], so data.mean and data.std are not for it")
        return network

    def build_network(
        self, *, units: int, pretrain_share: float, sparsity: float, sparsity_weight: float, noise: float
    ) -> nn.Sequential:
        """Build the encoder, the decoder's bias and the softmax layer.

        Args:
            units: hidden sigmoid units.
            pretrain_share: share of the epochs that trains the autoencoder, in (0, 1).
            sparsity: wanted mean activation of a unit over a batch, in (0, 1).
            sparsity_weight: weight of the divergence from it.
            noise: standard deviation of the Gaussian noise on the autoencoder's input images.

        Raises:
            ValueError: a setting that is out of range.
        """
        if not (isinstance(units, int) and units >= 1):
            raise ValueError(f"model.settings.units must be a whole number of at least 1, got {units!r}")
        for key, share in (("pretrain_share", pretrain_share), ("sparsity", sparsity)):
            if not 0 < share < 1:
                raise ValueError(f"model.settings.{key} must lie in (0, 1), got {share}")
        if min(sparsity_weight, noise) < 0:
            raise ValueError("model.settings: sparsity_weight and noise must be at least 0")
        self.pretrain_share, self.sparsity, self.sparsity_weight = pretrain_share, sparsity, sparsity_weight
        self.noise, self.pretraining = noise, True
        pixels = math.prod(self.input_shape)
        encoder, softmax = nn.Linear(pixels, units), nn.Linear(units, self.num_classes)
        self.decoder_bias = nn.Parameter(torch.zeros(pixels))
        for layer in (encoder, softmax):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        return nn.Sequential(nn.Flatten(), encoder, nn.Sigmoid(), softmax)

    def decayed_layers(self) -> list[nn.Module]:
        """Return the softmax layer; the frozen encoder has no weight decay (Table 1: one lambda)."""
        return [self.network[3]]

    def reconstruction(self, images: Tensor, corrupted: Tensor) -> Tensor:
        """Return the autoencoder's objective, a scalar.

        Args:
            images: (N, C, H, W), what is to come out.
            corrupted: (N, C, H, W), what goes in.
        """
        error, divergence = self._terms(images, corrupted)
        return error + divergence

    def _terms(self, images: Tensor, corrupted: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean error over this process's images, and the divergence of the mean code of the whole batch."""
        encoder = self.network[1]
        assert isinstance(encoder, nn.Linear)
        code = torch.sigmoid(encoder(corrupted.flatten(1)))
        decoded = torch.sigmoid(F.linear(code, encoder.weight.t(), self.decoder_bias))
        error = (decoded - images.flatten(1)).square().sum(1).mean()
        mean = self.weighted(code.mean(0))
        if (processes := world_size()) > 1:
            whole = mean.detach().clone()
            distributed.all_reduce(whole)
            mean = whole / processes + (mean - mean.detach())  # the gradient is that of this process's part
        mean = mean.clamp(1e-6, 1 - 1e-6)
        rho = self.sparsity
        divergence = (rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()).sum()
        return error, self.sparsity_weight * divergence

    def _corrupt(self, images: Tensor) -> Tensor:
        # A new stream for every batch, so that a resumed fit sees the noise it would have seen; and of a batch that
        # several processes share, each adds to its images the noise that one process would have added to them.
        batch = 0 if self._trainer is None else self._trainer.fit_loop.total_batch_idx
        seed = (torch.initial_seed() * 1_000_003 + batch * 131) % 2**63
        generator = torch.Generator(images.device).manual_seed(seed)
        shape = (self.batch_images, *images.shape[1:])
        noise = torch.randn(shape, generator=generator, device=images.device)[self.global_rank :: world_size()]
        return images + self.noise * noise if len(noise) else images

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
        for module, trained in (
            (self.network[1], self.pretraining),
            (self.network[3], not self.pretraining),
        ):
            module.requires_grad_(trained)
        self.decoder_bias.requires_grad_(self.pretraining)

    @property
    def supervised(self) -> bool:
        """Whether the softmax is being trained."""
        return not self.pretraining

    def objective(self, batch: list[Tensor]) -> Tensor:
        """Return the loss of the phase, a scalar."""
        if not self.pretraining:
            return super().objective(batch)
        error, divergence = self._terms(batch[0], self._corrupt(batch[0]))
        with torch.no_grad():
            self._count(error + divergence, self(batch[0]), batch[1])
        return self.weighted(error) + divergence

    def penalty(self) -> Tensor:
        """Return the weight decay term of the softmax, a scalar; 0 while the autoencoder trains."""
        return torch.zeros((), device=self.device) if self.pretraining else super().penalty()

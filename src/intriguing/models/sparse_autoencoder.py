"""AE400-10: a sparse autoencoder trained first, its encoder then frozen, a softmax on top."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from intriguing.models.classifier import Classifier


class SparseAutoencoder(Classifier):
    """One sparse autoencoder layer of sigmoid units, then softmax regression on its frozen code (section 4, Table 1).

    The first ``pretrain_share`` of the epochs trains encoder and decoder without labels, to minimise
    ``mean over images of sum((decoded - image)^2) / 2 + sparsity_weight * sum over units of KL(sparsity || mean
    activation) + code_decay * sum(w^2)``; the rest trains the softmax alone. The paper gives none of these settings.

    Args:
        units: hidden sigmoid units.
        pretrain_share: share of the epochs that trains the autoencoder, in (0, 1).
        sparsity: wanted mean activation of a unit over a batch, in (0, 1).
        sparsity_weight: weight of the divergence from it.
        code_decay: coefficient of the squared weights of encoder and decoder.
        softmax_rate: highest learning rate of the softmax (``learning_rate`` is the autoencoder's).
        **settings: see ``Classifier``; its weight decay is that of the softmax layer.

    Raises:
        ValueError: a setting that is out of range.
    """

    name: ClassVar[str] = "sparse_autoencoder"

    def __init__(
        self,
        *,
        units: int,
        pretrain_share: float,
        sparsity: float,
        sparsity_weight: float,
        code_decay: float,
        softmax_rate: float,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if not (isinstance(units, int) and units >= 1):
            raise ValueError(f"model.settings.units must be a whole number of at least 1, got {units!r}")
        for key, share in (("pretrain_share", pretrain_share), ("sparsity", sparsity)):
            if not 0 < share < 1:
                raise ValueError(f"model.settings.{key} must lie in (0, 1), got {share}")
        if min(sparsity_weight, code_decay) < 0 or softmax_rate <= 0:
            raise ValueError("model.settings: sparsity_weight and code_decay must be at least 0, softmax_rate above 0")
        self.pretrain_share, self.sparsity, self.sparsity_weight = pretrain_share, sparsity, sparsity_weight
        self.code_decay, self.softmax_rate = code_decay, softmax_rate
        pixels = math.prod(self.input_shape)
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, units), nn.Sigmoid(), nn.Linear(units, self.num_classes)
        )
        self.decoder = nn.Linear(units, pixels)
        for layer in (self.network[1], self.network[3], self.decoder):
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.pretraining = True
        self.decayed_weights()

    def decayed_weights(self) -> list[tuple[nn.Parameter, float]]:
        """The softmax's weight and its lambda / k; the frozen encoder has none (Table 1: one lambda)."""
        layer = self.network[3]
        assert isinstance(layer, nn.Linear)
        if len(self.weight_decay) != 1:
            raise ValueError(
                f"{self.label} decays its softmax layer alone: one weight_decay.value, got {self.weight_decay}"
            )
        k = layer.weight.shape[0] if self.normaliser == "units" else float(self.normaliser)
        return [(layer.weight, self.weight_decay[0] / k)]

    def reconstruction(self, images: Tensor) -> Tensor:
        """The autoencoder's objective on images (N, C, H, W), a scalar."""
        encoder = self.network[1]
        assert isinstance(encoder, nn.Linear)
        code = torch.sigmoid(encoder(images.flatten(1)))
        error = (self.decoder(code) - images.flatten(1)).square().sum(1).mean() / 2
        mean = code.mean(0).clamp(1e-6, 1 - 1e-6)
        rho = self.sparsity
        divergence = (rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()).sum()
        decay = encoder.weight.square().sum() + self.decoder.weight.square().sum()
        return error + self.sparsity_weight * divergence + self.code_decay * decay

    # -- two phases in one fit: which one an epoch belongs to follows from its number alone, so a resumed fit agrees ----

    def pretrain_epochs(self) -> int:
        """Number of epochs of the fit that train the autoencoder."""
        epochs = self.trainer.max_epochs or 1
        return min(max(1, round(self.pretrain_share * epochs)), epochs - 1)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.pretraining = self.current_epoch < self.pretrain_epochs()
        for module, trained in (
            (self.network[1], self.pretraining),
            (self.decoder, self.pretraining),
            (self.network[3], not self.pretraining),
        ):
            module.requires_grad_(trained)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if not self.pretraining:
            return super().training_step(batch, batch_idx)
        loss = self.reconstruction(batch[0])
        with torch.no_grad():
            self._count(loss, self(batch[0]), batch[1])
        return loss

    def rate_factor(self, step: int, total: int) -> float:
        """Two cosines, one for each phase; the softmax's is scaled to its own rate."""
        epochs = self.trainer.max_epochs or 1
        cut = total * self.pretrain_epochs() // epochs
        if step < cut:
            return super().rate_factor(step, cut)
        return super().rate_factor(step - cut, total - cut) * self.softmax_rate / self.learning_rate

    def penalty(self) -> Tensor:
        return torch.zeros((), device=self.device) if self.pretraining else super().penalty()

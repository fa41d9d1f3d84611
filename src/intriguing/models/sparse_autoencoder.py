"""Define AE400-10: a sparse autoencoder is trained first, then a softmax on its frozen encoder."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from intriguing.models.autoencoder import AutoencoderClassifier, check_share, check_sizes
from intriguing.models.fit_size import world_size


class SparseAutoencoder(AutoencoderClassifier):
    """Classify by softmax regression on the frozen code of a sparse autoencoder (section 4, Table 1).

    The first ``pretrain_share`` of the epochs trains the autoencoder without labels: sigmoid code, sigmoid decoder with
    tied weights, noisy images in and clean ones out, to minimise ``mean over images of sum((decoded - image)^2) +
    sparsity_weight * sum over units of KL(sparsity || mean activation over the batch)``. The rest trains the softmax
    alone, with the learning rate ``second_lr`` of ``intriguing.models.optimization.two_cosines``. The paper gives none
    of these settings; docs/howto/training.md says how they were chosen.
    """

    name: ClassVar[str] = "sparse_autoencoder"

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
        check_sizes(units, pretrain_share)
        check_share("sparsity", sparsity)
        if min(sparsity_weight, noise) < 0:
            raise ValueError("model.settings: sparsity_weight and noise must be at least 0")
        self.pretrain_share, self.sparsity, self.sparsity_weight = pretrain_share, sparsity, sparsity_weight
        self.noise = noise
        pixels = math.prod(self.input_shape)
        encoder, softmax = nn.Linear(pixels, units), nn.Linear(units, self.num_classes)
        self.decoder_bias = nn.Parameter(torch.zeros(pixels))
        for layer in (encoder, softmax):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        return nn.Sequential(nn.Flatten(), encoder, nn.Sigmoid(), softmax)

    def reconstruction(self, images: Tensor, corrupted: Tensor) -> Tensor:
        """Return the autoencoder's objective, a scalar.

        Args:
            images: (N, C, H, W), what is to come out.
            corrupted: (N, C, H, W), what goes in.
        """
        error, divergence = self._terms(images, corrupted)
        return error + divergence

    def autoencoder_terms(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the error of the decoded images under noise, and the weighted divergence of the batch's mean code."""
        noise = self.draw(images, *images.shape[1:])
        return self._terms(images, images + self.noise * noise if len(noise) else images)

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

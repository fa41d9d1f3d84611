"""Define CAE400-10: a contractive autoencoder is trained first, then a softmax on its frozen encoder."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from intriguing.models.autoencoder import AutoencoderClassifier, check_sizes


class ContractiveAutoencoder(AutoencoderClassifier):
    """Classify by softmax regression on the frozen code of a contractive autoencoder (Rifai et al. 2011).

    Sigmoid code h, sigmoid decoder with tied weights. The autoencoder minimises ``mean over images of
    sum((decoded - image)^2) + contraction * |dh/dx|^2``, the squared Frobenius norm of the Jacobian of the code.
    """

    name: ClassVar[str] = "contractive_autoencoder"
    prefix: ClassVar[str] = "CAE"

    def build_network(self, *, units: int, pretrain_share: float, contraction: float) -> nn.Sequential:
        """Build the encoder, the decoder's bias and the softmax layer.

        Args:
            units: hidden sigmoid units.
            pretrain_share: share of the epochs that trains the autoencoder, in (0, 1).
            contraction: weight of the Jacobian's squared norm, at least 0.

        Raises:
            ValueError: a setting that is out of range.
        """
        check_sizes(units, pretrain_share)
        if not contraction >= 0:
            raise ValueError(f"model.settings.contraction must be at least 0, got {contraction}")
        self.pretrain_share, self.contraction = pretrain_share, contraction
        pixels = math.prod(self.input_shape)
        encoder, softmax = nn.Linear(pixels, units), nn.Linear(units, self.num_classes)
        self.decoder_bias = nn.Parameter(torch.zeros(pixels))
        for layer in (encoder, softmax):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        return nn.Sequential(nn.Flatten(), encoder, nn.Sigmoid(), softmax)

    def autoencoder_terms(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean of the images' errors and weighted contractions, and 0."""
        encoder = self.network[1]
        assert isinstance(encoder, nn.Linear)
        code = torch.sigmoid(encoder(images.flatten(1)))
        decoded = torch.sigmoid(F.linear(code, encoder.weight.t(), self.decoder_bias))
        errors = (decoded - images.flatten(1)).square().sum(1)
        return (errors + self.contraction * self.contractions(code)).mean(), errors.new_zeros(())

    def contractions(self, code: Tensor) -> Tensor:
        """Compute ``|dh/dx|^2``, the sum over units of ``(h (1 - h))^2 |w|^2``, from codes h (N, units): (N,)."""
        encoder = self.network[1]
        assert isinstance(encoder, nn.Linear)
        return (code * (1 - code)).square() @ encoder.weight.square().sum(1)

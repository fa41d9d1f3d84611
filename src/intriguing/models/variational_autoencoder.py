"""Define VAE400-10: a variational autoencoder is trained first, then a softmax on its frozen encoder."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from intriguing.models.autoencoder import AutoencoderClassifier, check_sizes
from intriguing.nn.variational import VariationalHead


class VariationalAutoencoder(AutoencoderClassifier):
    """Classify by softmax regression on the frozen encoder of a variational autoencoder (Kingma and Welling 2014).

    The softmax stands on the encoder's hidden sigmoid units, in the place of the units of AE400-10: on the code's mean,
    which is linear in them, it could say no more. The autoencoder maximises the evidence lower bound
    (`intriguing.nn.variational.VariationalHead`), one draw of the code for an image.
    """

    name: ClassVar[str] = "variational_autoencoder"
    prefix: ClassVar[str] = "VAE"

    def build_network(self, *, units: int, pretrain_share: float, latent: int) -> nn.Sequential:
        """Build the encoder, the code with its decoder, and the softmax layer.

        Args:
            units: hidden sigmoid units of the encoder.
            pretrain_share: share of the epochs that trains the autoencoder, in (0, 1).
            latent: values of the code.

        Raises:
            ValueError: a setting that is out of range.
        """
        check_sizes(units, pretrain_share)
        if not (isinstance(latent, int) and latent >= 1):
            raise ValueError(f"model.settings.latent must be a whole number of at least 1, got {latent!r}")
        self.pretrain_share, self.latent = pretrain_share, latent
        pixels = math.prod(self.input_shape)
        encoder, softmax = nn.Linear(pixels, units), nn.Linear(units, self.num_classes)
        for layer in (encoder, softmax):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.head = VariationalHead(units, latent, pixels)
        return nn.Sequential(nn.Flatten(), encoder, nn.Sigmoid(), softmax)

    def autoencoder_terms(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return minus the mean evidence lower bound for each value of an image, in nats, and 0."""
        rows = images.flatten(1)
        hidden = torch.sigmoid(self.network[1](rows))
        noise = self.draw(images, self.latent)
        if len(noise) != len(images):  # stand-in images of a process that has none in the last batch
            noise = images.new_zeros(len(images), self.latent)
        return -self.head.bound(hidden, rows, noise[None]).mean() / rows.shape[1], rows.new_zeros(())

"""The variational bound of an autoencoder, on top of an encoder's hidden activations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class VariationalHead(nn.Module):
    """Model images by a Gaussian code and a decoder, given hidden activations of an encoder (Kingma and Welling 2014).

    q(z | h) is a Gaussian with a diagonal covariance whose mean and log variance are linear in h; p(z) = N(0, I);
    p(x | z) is a Gaussian around the decoder's output with one learned standard deviation, at least ``smallest``.

    Args:
        hidden: values of h.
        latent: values of z.
        num_values: values of an image.
        smallest: smallest standard deviation of p(x | z).
    """

    def __init__(self, hidden: int, latent: int, num_values: int, *, smallest: float = 0.02) -> None:
        super().__init__()
        self.mean, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.first, self.last = nn.Linear(latent, hidden), nn.Linear(hidden, num_values)  # of the decoder
        self.log_stddev = nn.Parameter(torch.tensor(-1.5))
        self.latent, self.smallest = latent, smallest
        for layer in (self.mean, self.log_variance):
            nn.init.xavier_uniform_(layer.weight, gain=0.5)
            nn.init.zeros_(layer.bias)

    @property
    def stddev(self) -> Tensor:
        """The standard deviation of p(x | z), a scalar."""
        return self.log_stddev.exp() + self.smallest

    def bound(self, hidden: Tensor, rows: Tensor, noise: Tensor) -> Tensor:
        """Estimate the evidence lower bound of log p(x), in nats.

        Args:
            hidden: (N, H), hidden activations for the images.
            rows: (N, D), the images.
            noise: (S, N, latent) standard normal, one draw of the code for each of S samples.

        Returns:
            (N,), averaged over the samples.
        """
        mean, log_variance = self.mean(hidden), self.log_variance(hidden).clamp(-12, 8)
        decoded = self.decode(mean + (log_variance / 2).exp() * noise)
        return self.log_likelihood(rows, decoded).mean(0) - gaussian_divergence(mean, log_variance)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the mean (..., D) of p(x | z) for codes (..., latent)."""
        # A function and no module: the classifier, whose hidden layers are its nonlinearities, does not call it.
        return self.last(torch.tanh(self.first(codes)))

    def log_likelihood(self, rows: Tensor, decoded: Tensor) -> Tensor:
        """Compute log p(x | z) of images (N, D) given the decoder's outputs (S, N, D): (S, N)."""
        stddev = self.stddev
        squares = ((rows - decoded) / stddev).square().sum(-1)
        return -squares / 2 - rows.shape[-1] * (stddev.log() + math.log(2 * math.pi) / 2)


def gaussian_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute the Kullback-Leibler divergence of diagonal Gaussians (N, L) from N(0, I), in nats: (N,).

    Example:
        >>> import torch
        >>> gaussian_divergence(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)).item()
        0.5
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1) / 2

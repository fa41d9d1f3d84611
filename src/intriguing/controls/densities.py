"""Fit densities to images or activations: how likely is a perturbed one?"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from intriguing.errors import did_you_mean
from intriguing.nn.variational import VariationalHead

DENSITIES: dict[str, str] = {
    "mixture": "Gaussian mixture on PCA",
    "neighbours": "k-NN distance",
    "variational": "variational autoencoder",
}
"""Kinds of densities and their names in tables."""


class Density(Protocol):
    """A density of vectors."""

    def log_prob(self, rows: Tensor) -> Tensor:
        """Return the log density (N,) of rows (N, ...) in nats, float64; a bound or an estimate of it."""
        ...


class MixtureDensity:
    """A Gaussian mixture of the leading principal components, and isotropic Gaussian noise in all other directions.

    Args:
        rows: (N, ...) to fit to.
        components: Gaussians of the mixture, with full covariances.
        dimensions: principal components at most.
        seed: of the fit.
        floor: variance added to every direction, as a share of the mean variance of a value.
    """

    def __init__(
        self, rows: Tensor, *, components: int = 10, dimensions: int = 30, seed: int = 0, floor: float = 1e-3
    ) -> None:
        from sklearn.mixture import GaussianMixture

        data = rows.flatten(1).double().cpu()
        self.mean = data.mean(0)
        _, sizes, right = torch.linalg.svd(data - self.mean, full_matrices=False)
        variances = sizes.square() / max(len(data) - 1, 1)
        kept = min(dimensions, len(variances))
        extra = floor * max(float(data.var(0).mean()), 1e-12)
        self.basis, rest = right[:kept], data.shape[1] - kept
        self.variance = float(variances[kept:].sum()) / rest + extra if rest else 1.0
        self.rest = rest
        codes = ((data - self.mean) @ self.basis.T).numpy()
        self.mixture = GaussianMixture(
            min(components, len(data)), reg_covar=extra, random_state=seed, covariance_type="full"
        ).fit(codes)

    def log_prob(self, rows: Tensor) -> Tensor:
        """Return the log density (N,) of rows (N, ...) in nats."""
        centred = rows.flatten(1).double().cpu() - self.mean
        codes = centred @ self.basis.T
        found = torch.from_numpy(self.mixture.score_samples(codes.numpy()))
        if not self.rest:
            return found
        left = (centred.square().sum(1) - codes.square().sum(1)).clamp_min(0)
        return found - left / (2 * self.variance) - self.rest / 2 * math.log(2 * math.pi * self.variance)


class NeighbourDensity:
    """The k-nearest-neighbour estimate log(k / (N V r^D)) of a density (Loftsgaarden and Quesenberry 1965).

    r is the distance to the k-th nearest of the N rows that it was fitted to, V the volume of the unit ball.

    Args:
        rows: (N, ...) to fit to.
        neighbours: k.
    """

    def __init__(self, rows: Tensor, *, neighbours: int = 5) -> None:
        from sklearn.neighbors import NearestNeighbors

        data = rows.flatten(1).double().cpu().numpy()
        self.k, self.num, self.values = min(neighbours, len(data)), len(data), data.shape[1]
        self.found: Any = NearestNeighbors(n_neighbors=self.k).fit(data)

    def log_prob(self, rows: Tensor) -> Tensor:
        """Return the estimated log density (N,) of rows (N, ...) in nats; no radius counts as less than 1e-12."""
        distances, _ = self.found.kneighbors(rows.flatten(1).double().cpu().numpy())
        log_volume = self.values / 2 * math.log(math.pi) - math.lgamma(self.values / 2 + 1)
        radius = torch.from_numpy(np.ascontiguousarray(distances[:, -1])).clamp_min(1e-12)
        return math.log(self.k / self.num) - log_volume - self.values * radius.log()


class VariationalDensity:
    """The evidence lower bound of a small variational autoencoder.

    Values are scaled to variance 1 on average first. The bound is below the model's log density.

    Args:
        rows: (N, ...) to fit to.
        hidden: hidden units of encoder and decoder.
        latent: values of the code.
        epochs: of Adam at a rate of 2e-3, in batches of 100.
        samples: codes drawn for each row by ``log_prob``.
        seed: of the weights, the batches and the codes.
    """

    def __init__(
        self,
        rows: Tensor,
        *,
        hidden: int = 128,
        latent: int = 16,
        epochs: int = 20,
        samples: int = 16,
        seed: int = 0,
    ) -> None:
        data = rows.flatten(1).float().cpu()
        self.mean, self.scale = data.mean(0), max(float(data.var(0).mean()), 1e-12) ** 0.5
        self.samples, self.seed = samples, seed
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(nn.Linear(data.shape[1], hidden), nn.Tanh())
            self.head = VariationalHead(hidden, latent, data.shape[1])
            parameters = [*self.encoder.parameters(), *self.head.parameters()]
            optimizer = torch.optim.Adam(parameters, lr=2e-3)
            scaled = (data - self.mean) / self.scale
            for _ in range(epochs):
                for some in torch.randperm(len(scaled)).split(100):
                    noise = torch.randn(1, len(some), latent)
                    loss = -self.head.bound(self.encoder(scaled[some]), scaled[some], noise).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()

    def log_prob(self, rows: Tensor) -> Tensor:
        """Return the evidence lower bound (N,) of rows (N, ...) in nats."""
        scaled = (rows.flatten(1).float().cpu() - self.mean) / self.scale
        generator = torch.Generator().manual_seed(self.seed)
        # One draw for all rows, so that a row's value does not depend on the rows beside it.
        noise = torch.randn(self.samples, 1, self.head.latent, generator=generator)
        with torch.no_grad():
            found = self.head.bound(self.encoder(scaled), scaled, noise)
        return found.double() - scaled.shape[1] * math.log(self.scale)


def fit_density(kind: str, rows: Tensor, *, seed: int = 0) -> Density:
    """Fit a density to images or to a layer's activations.

    Args:
        kind: one of `DENSITIES`.
        rows: (N, ...), at least two.
        seed: of the fit.

    Returns:
        The density; its ``log_prob`` takes rows (M, ...) of one shape with these.

    Raises:
        ValueError: an unknown kind, or fewer than two rows.
    """
    if len(rows) < 2:
        raise ValueError(f"a density needs at least two rows, got {len(rows)}")
    if kind == "mixture":
        return MixtureDensity(rows, seed=seed)
    if kind == "neighbours":
        return NeighbourDensity(rows)
    if kind == "variational":
        return VariationalDensity(rows, seed=seed)
    near = did_you_mean(kind, DENSITIES) or ""
    raise ValueError(f"expected a density out of {', '.join(DENSITIES)}, got {kind!r}{near}")

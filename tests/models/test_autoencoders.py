"""Contractive and variational autoencoders: the penalty by autograd, the bound by hand, the two phases."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch

import intriguing as ig
from intriguing.models import ContractiveAutoencoder, VariationalAutoencoder
from intriguing.nn.variational import VariationalHead, gaussian_divergence

COMMON: dict[str, Any] = {"input_shape": [1, 3, 4], "num_classes": 5}
IMAGES = torch.rand(6, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_contractive_penalty_is_the_squared_norm_of_the_codes_jacobian() -> None:
    torch.manual_seed(0)
    model = ContractiveAutoencoder(units=7, pretrain_share=0.5, contraction=0.3, **COMMON).double()
    encode = torch.nn.Sequential(model.network[0], model.network[1], model.network[2])
    code, decoded = encode(IMAGES), None
    jacobians = [torch.autograd.functional.jacobian(encode, image[None]) for image in IMAGES]
    exact = torch.stack([jacobian.square().sum() for jacobian in jacobians])
    torch.testing.assert_close(model.contractions(code), exact)
    decoded = torch.sigmoid(code @ model.network[1].weight + model.decoder_bias)
    objective = ((decoded - IMAGES.flatten(1)).square().sum(1) + 0.3 * exact).mean()
    mean, whole = model.autoencoder_terms(IMAGES)
    torch.testing.assert_close(mean, objective)
    assert float(whole) == 0


def test_the_bound_is_the_likelihood_minus_the_divergence() -> None:
    torch.manual_seed(0)
    head = VariationalHead(4, 2, 12).double()
    hidden = torch.rand(6, 4, dtype=torch.float64)
    noise = torch.randn(3, 6, 2, dtype=torch.float64)
    rows = IMAGES.flatten(1)
    found = head.bound(hidden, rows, noise)
    prior = torch.distributions.Normal(torch.zeros(2).double(), 1.0)
    code = torch.distributions.Normal(head.mean(hidden), (head.log_variance(hidden) / 2).exp())
    divergence = torch.distributions.kl_divergence(code, prior).sum(1)
    decoded = head.decode(code.mean + code.stddev * noise)
    likelihood = torch.distributions.Normal(decoded, head.stddev).log_prob(rows).sum(2).mean(0)
    torch.testing.assert_close(found, likelihood - divergence)
    assert float(gaussian_divergence(torch.zeros(1, 2), torch.zeros(1, 2))) == 0


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(ContractiveAutoencoder, {"contraction": 0.1}), (VariationalAutoencoder, {"latent": 3})],
)
def test_the_autoencoder_trains_first_and_is_frozen_then(kind: Any, settings: dict[str, Any]) -> None:
    labels = torch.arange(40) % 2
    images = (0.2 + 0.6 * labels).float().view(-1, 1, 1, 1) * torch.ones(40, 1, 3, 4)
    images += 0.05 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    weights: list[torch.Tensor] = []
    begin = kind.on_train_epoch_start

    class Watched(kind):
        def on_train_epoch_start(self) -> None:
            begin(self)
            weights.append(self.network[1].weight.detach().clone())

    adam = partial(torch.optim.Adam, lr=0.05)
    watched = Watched(units=6, pretrain_share=0.5, weight_decay=1e-6, optimizer=adam, **settings)
    fitted = ig.fit(watched, (images, labels), epochs=4)
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert torch.equal(weights[2], weights[3])
    assert torch.equal(weights[3], fitted.get_parameter("network.1.weight"))
    assert fitted.label == f"{kind.prefix}6-2"


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (ContractiveAutoencoder, {"units": 0, "pretrain_share": 0.5, "contraction": 1.0}, "units"),
        (ContractiveAutoencoder, {"units": 3, "pretrain_share": 0.5, "contraction": -1.0}, "contraction"),
        (ContractiveAutoencoder, {"units": 3, "pretrain_share": 0.5, "contraction": math.nan}, "contraction"),
        (VariationalAutoencoder, {"units": 3, "pretrain_share": 1.0, "latent": 2}, "pretrain_share"),
        (VariationalAutoencoder, {"units": 3, "pretrain_share": 0.5, "latent": 0}, "latent"),
    ],
)
def test_wrong_settings_are_named(kind: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"model.settings.{words}"):
        kind(**settings, **COMMON)

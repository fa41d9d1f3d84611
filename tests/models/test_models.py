"""The networks: shapes, the weight decay's gradient in closed form, the autoencoder's two phases."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from intriguing.models import FullyConnected, SparseAutoencoder

COMMON: dict[str, Any] = {"label": "net", "input_shape": [1, 4, 4], "num_classes": 10}
CODE: dict[str, Any] = {
    "units": 7,
    "pretrain_share": 0.5,
    "sparsity": 0.1,
    "sparsity_weight": 0.3,
    "noise": 0.2,
}


def test_widths_make_the_layers() -> None:
    model = FullyConnected(widths=[5, 6], weight_decay=[0.0] * 3, **COMMON)
    sizes = [tuple(layer.weight.shape) for layer in model.network if isinstance(layer, torch.nn.Linear)]
    assert sizes == [(5, 16), (6, 5), (10, 6)]
    assert model(torch.rand(3, 1, 4, 4)).shape == (3, 10)


@pytest.mark.parametrize(("normaliser", "ks"), [("units", [5, 10]), (2.0, [2, 2])])
def test_decay_is_the_gradient_of_lambda_times_the_squares_over_k(normaliser: str | float, ks: list[int]) -> None:
    """One step of SGD from the same weights, with and without decay, differs by 1.9 * rate * 2 lambda w / k.

    (1.9 = 1 + momentum: Nesterov's first step.)
    """
    lambdas = [0.3, 0.7]
    steps = []
    for decay in ([0.0, 0.0], lambdas):
        torch.manual_seed(0)
        model = FullyConnected(
            widths=[5],
            weight_decay=decay,
            normaliser=normaliser,
            optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
            **COMMON,
        )
        before = [w.detach().clone() for w, _ in model.decayed_weights()]
        optimizer = model.configure_optimizers()
        F.cross_entropy(model(torch.rand(4, 1, 4, 4)), torch.arange(4)).backward()
        optimizer.step()
        steps.append([w.detach() - b for (w, _), b in zip(model.decayed_weights(), before, strict=True)])
        biases = [p.detach().clone() for n, p in model.named_parameters() if n.endswith("bias")]
        steps[-1].extend(biases)
    for layer, k in enumerate(ks):
        expected = -1.9 * 0.1 * 2 * lambdas[layer] / k * before[layer]
        torch.testing.assert_close(steps[1][layer] - steps[0][layer], expected, atol=1e-6, rtol=1e-5)
    for plain, decayed in zip(steps[0][2:], steps[1][2:], strict=True):
        assert torch.equal(plain, decayed)  # biases are not decayed


def test_penalty_is_the_papers_sum() -> None:
    model = FullyConnected(widths=[5], weight_decay=[0.5, 2.0], normaliser="units", **COMMON)
    first, second = (w for w, _ in model.decayed_weights())
    expected = 0.5 * first.square().sum() / 5 + 2.0 * second.square().sum() / 10
    torch.testing.assert_close(model.penalty(), expected)


def test_the_autoencoders_objective_is_what_its_docstring_says() -> None:
    torch.manual_seed(1)
    model = SparseAutoencoder(weight_decay=[1e-6], **CODE, **COMMON).double()
    images = torch.rand(6, 1, 4, 4, dtype=torch.float64)
    corrupted = images + 0.1 * torch.randn(images.shape, dtype=torch.float64)
    encoder = model.network[1]
    with torch.no_grad():
        code = torch.sigmoid(corrupted.flatten(1) @ encoder.weight.T + encoder.bias)
        decoded = torch.sigmoid(code @ encoder.weight + model.decoder_bias)
        objective = float(model.reconstruction(images, corrupted))
    error = sum(float(((d - x) ** 2).sum()) for d, x in zip(decoded, images.flatten(1), strict=True)) / 6
    mean = code.mean(0)
    divergence = float((0.1 * (0.1 / mean).log() + 0.9 * (0.9 / (1 - mean)).log()).sum())
    assert objective == pytest.approx(error + 0.3 * divergence, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"widths": [0], "weight_decay": [0.0, 0.0]}, "model.settings.widths"),
        ({"widths": [3], "weight_decay": [0.0]}, "2 layers with weight decay"),
        ({"widths": [], "weight_decay": [-1.0]}, "at least 0"),
        ({"widths": [], "weight_decay": [0.0], "activation": "swish"}, "unknown activation"),
        ({"widths": [], "weight_decay": [0.0], "normaliser": -2}, "normaliser"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FullyConnected(**settings, **COMMON)

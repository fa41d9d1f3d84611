"""The penalty is log(1 + product of the norms), and its gradient that of the norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from intriguing.models import Classifier, ConvNet, FullyConnected, TorchvisionModel
from intriguing.spectral import LogProductPenalty


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_value_and_gradient_are_those_of_the_norms(mode: str) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1, padding_mode=mode)
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)).double()
    penalty = LogProductPenalty(model, (2, 6, 6)).double()
    for _ in range(300):
        penalty()
    value = penalty()
    images = torch.zeros(2, 6, 6, dtype=torch.float64)
    matrix = torch.func.jacrev(lambda x: conv(x[None])[0].flatten())(images).reshape(27, -1)
    norms = torch.linalg.matrix_norm(matrix, 2), torch.linalg.matrix_norm(model[3].weight, 2)
    expected = (1 + norms[0] * norms[1]).log()
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    weights = [conv.weight, model[3].weight]
    for ours, true in zip(torch.autograd.grad(value, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, true, rtol=1e-3, atol=1e-4)


def test_it_follows_the_weights_only_in_training_and_owns_no_layers() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    penalty = LogProductPenalty(model, (1, 2, 2))
    assert not list(penalty.parameters()) and set(penalty.state_dict()) == {"vector_0"}
    before = penalty.vector_0.clone()
    penalty.eval()()
    assert torch.equal(penalty.vector_0, before)
    penalty.train()()
    assert not torch.equal(penalty.vector_0, before)
    with pytest.raises(ValueError, match="Linear or Conv2d"):
        LogProductPenalty(nn.Sequential(nn.Flatten(), nn.ReLU()), (1, 2, 2))


def test_a_classifier_without_it_has_no_state_of_it_and_with_it_adds_strength_times_value() -> None:
    settings = {"label": "net", "input_shape": [1, 4, 4], "num_classes": 3, "widths": [5], "weight_decay": [0.0, 0.0]}
    torch.manual_seed(0)
    plain = FullyConnected(**settings)
    torch.manual_seed(0)
    penalised = FullyConnected(spectral_penalty=0.5, **settings)
    assert {key for key in penalised.state_dict() if key not in plain.state_dict()} == {
        "log_product.vector_0",
        "log_product.vector_1",
    }
    batch = [torch.rand(6, 1, 4, 4), torch.arange(6) % 3]
    difference = penalised.training_step(batch, 0) - plain.training_step(batch, 0)
    penalised.log_product.load_state_dict(FullyConnected(spectral_penalty=0.5, **settings).log_product.state_dict())
    torch.testing.assert_close(difference, 0.5 * penalised.log_product())
    with pytest.raises(ValueError, match="spectral_penalty"):
        FullyConnected(spectral_penalty=-1.0, **settings)


NETWORKS: list[tuple[type[Classifier], dict[str, Any], list[int]]] = [
    (FullyConnected, {"widths": [5], "weight_decay": [0.0, 0.0]}, [1, 8, 8]),
    (ConvNet, {"channels": [3], "kernels": [3], "widths": [4], "weight_decay": [0.0] * 3}, [1, 8, 8]),
    (TorchvisionModel, {"architecture": "squeezenet1_1", "weight_decay": [0.0]}, [3, 64, 64]),
]


@pytest.mark.parametrize(("network", "settings", "shape"), NETWORKS, ids=lambda value: getattr(value, "name", ""))
def test_every_network_of_the_project_takes_it(network: type[Classifier], settings: dict, shape: list[int]) -> None:
    model = network(label="net", input_shape=shape, num_classes=3, spectral_penalty=0.1, **settings)
    loss = model.training_step([torch.rand(2, *shape), torch.tensor([0, 1])], 0)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.network.parameters())
    buffers = [name for name in model.state_dict() if name.startswith("log_product.")]
    assert len(buffers) == sum(isinstance(m, torch.nn.Linear | torch.nn.Conv2d) for m in model.network.modules())

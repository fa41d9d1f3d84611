"""The penalty is log(1 + product of the norms), and its gradient that of the norms."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from intriguing.models import Classifier, ConvNet, FullyConnected, TorchvisionModel
from intriguing.spectral import LipschitzMargin, LogProductPenalty, lipschitz_bounds, with_margin


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_value_and_gradient_are_those_of_the_norms(mode: str) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1, padding_mode=mode)
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)).double()
    penalty = LogProductPenalty(model, (2, 6, 6)).double()
    for _ in range(1000):  # also enough where two singular values lie close together
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
        "operator_norms.vector_0",
        "operator_norms.vector_1",
    }
    batch = [torch.rand(6, 1, 4, 4), torch.arange(6) % 3]
    difference = penalised.training_step(batch, 0) - plain.training_step(batch, 0)
    again = FullyConnected(spectral_penalty=0.5, **settings).operator_norms
    penalised.operator_norms.load_state_dict(again.state_dict())
    torch.testing.assert_close(difference, 0.5 * penalised.operator_norms())
    with pytest.raises(ValueError, match="spectral_penalty"):
        FullyConnected(spectral_penalty=-1.0, **settings)


def test_a_margin_is_that_of_the_product_bound() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular")
    model = nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(27, 5), nn.Sigmoid())
    model = model.append(nn.Linear(5, 4)).double()
    margin = LipschitzMargin(model, (1, 6, 6)).double()
    for _ in range(500):
        margin()
    product = math.prod(layer.bound for layer in lipschitz_bounds(model, (1, 6, 6)))
    assert margin().item() == pytest.approx(math.sqrt(2) * product, rel=1e-6)
    raised = with_margin(torch.zeros(2, 4), torch.tensor([1, 3]), torch.tensor(2.0))
    assert raised.tolist() == [[2.0, 0.0, 2.0, 2.0], [2.0, 2.0, 2.0, 0.0]]
    with pytest.raises(ValueError, match="follow one another"):
        LipschitzMargin(torchvision.models.resnet18(num_classes=3), (3, 32, 32))


def test_training_on_a_margin_is_training_on_the_worst_case_of_the_bound() -> None:
    """One linear layer: within a radius r the logits' differences can fall by exactly sqrt(2) r |W| at most."""
    settings = {"label": "net", "input_shape": [1, 2, 2], "num_classes": 3, "widths": [], "weight_decay": [0.0]}
    model = FullyConnected(spectral_penalty=0.3, spectral_penalty_kind="margin", **settings)
    assert model.operator_norms is not None
    for _ in range(200):
        model.operator_norms()
    batch = [torch.rand(6, 1, 2, 2), torch.arange(6) % 3]
    logits, norm = model(batch[0]), torch.linalg.matrix_norm(model.network[-1].weight, 2)
    logits = logits + 0.3 * math.sqrt(2) * norm * (1 - torch.eye(3)[batch[1]])
    torch.testing.assert_close(model.training_step(batch, 0), F.cross_entropy(logits, batch[1]))
    plain = F.cross_entropy(model(batch[0]), batch[1])
    torch.testing.assert_close(model.criterion(model(batch[0]), batch[1]), plain)  # the margin was that step's
    assert copy.deepcopy(model).spectral_penalty == 0.3
    with pytest.raises(ValueError, match="spectral_penalty_kind"):
        FullyConnected(spectral_penalty_kind="hinge", **settings)


NETWORKS: list[tuple[type[Classifier], dict[str, Any], list[int]]] = [
    (FullyConnected, {"widths": [5], "weight_decay": [0.0, 0.0]}, [1, 8, 8]),
    (ConvNet, {"channels": [3], "kernels": [3], "widths": [4], "weight_decay": [0.0] * 3}, [1, 8, 8]),
    (TorchvisionModel, {"architecture": "squeezenet1_1", "weight_decay": 0.0}, [3, 64, 64]),
]


@pytest.mark.parametrize(("network", "settings", "shape"), NETWORKS, ids=lambda value: getattr(value, "name", ""))
def test_every_network_of_the_project_takes_it(network: type[Classifier], settings: dict, shape: list[int]) -> None:
    model = network(label="net", input_shape=shape, num_classes=3, spectral_penalty=0.1, **settings)
    loss = model.training_step([torch.rand(2, *shape), torch.tensor([0, 1])], 0)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.network.parameters())
    buffers = [name for name in model.state_dict() if name.startswith("operator_norms.")]
    assert len(buffers) == sum(isinstance(m, torch.nn.Linear | torch.nn.Conv2d) for m in model.network.modules())

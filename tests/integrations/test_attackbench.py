"""The attacks in AttackBench's form, and in the real package where it is installed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from intriguing.attacks import lbfgs as own_lbfgs
from intriguing.attacks import nearest as own_nearest
from intriguing.integrations.attackbench import lbfgs, nearest


@pytest.fixture
def network() -> nn.Module:
    """Three classes, linear: the nearest boundary of an image is known in closed form."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    model[1].weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]])
    model[1].bias.data = torch.zeros(3)
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.tensor([[0.7, 0.4, 0.1, 0.1], [0.3, 0.8, 0.5, 0.2], [0.6, 0.4, 0.2, 0.1]]).view(3, 1, 2, 2)


LABELS = torch.tensor([0, 1, 0])
# (w_a - w_b) . x over |w_a - w_b| towards the nearer of the two other classes
DISTANCES = torch.tensor([0.3 / 2**0.5, 0.1 / 3**0.5, 0.2 / 2**0.5]).minimum(torch.tensor([0.5, 0.1, 0.3]) / 3**0.5)


def test_untargeted_images_lie_on_the_nearest_boundary(network: nn.Module, images: torch.Tensor) -> None:
    found = nearest(network, images, LABELS)
    assert (network(found).argmax(dim=1) != LABELS).all()
    torch.testing.assert_close((found - images).flatten(1).norm(dim=1), DISTANCES, rtol=1e-3, atol=1e-5)


def test_targets_are_read_with_targeted_only(network: nn.Module, images: torch.Tensor) -> None:
    targets = torch.tensor([2, 0, 1])
    towards = nearest(network, images, LABELS, targeted=True, targets=targets)
    assert network(towards).argmax(dim=1).tolist() == targets.tolist()
    assert torch.equal(nearest(network, images, LABELS, targets=targets), nearest(network, images, LABELS))


def test_the_images_are_those_of_the_attacks(network: nn.Module, images: torch.Tensor) -> None:
    assert torch.equal(nearest(network, images, LABELS), own_nearest(network, images, LABELS).adv_inputs)
    targets = torch.tensor([2, 0, 1])
    found = lbfgs(network, images, LABELS, targeted=True, targets=targets, max_iter=50)
    assert torch.equal(found, own_lbfgs(network, images, targets, max_iter=50).adv_inputs)


def test_another_norm_or_no_targets_are_refused(network: nn.Module, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected threat_model 'l2', the norm that nearest minimises, got 'linf'"):
        nearest(network, images, LABELS, threat_model="linf")
    with pytest.raises(ValueError, match="expected targets"):
        nearest(network, images, LABELS, targeted=True)
    with pytest.raises(TypeError, match="epsilon is no setting of nearest"):
        nearest(network, images, LABELS, epsilon=1)


def test_in_the_real_package(network: nn.Module, images: torch.Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own imports
        attackbench = pytest.importorskip("attackbench", reason="attackbenchlib is not installed", exc_type=ImportError)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, LABELS), batch_size=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Out of query budget")
        device = torch.device("cpu")
        found = attackbench.run_attack(network, loader, nearest, "l2", device=device, debug=True, effort="fast")
    assert found["adv_success"] == [True] * 3
    assert found["metadata"]["attack_name"] == "nearest"
    passes = np.add(found["num_forwards"], found["num_backwards"])
    # a query counts for the image to which it is nearest, and two of these are near to each other: the sum is exact
    assert (passes > 0).all() and passes.sum() <= 3 * 61  # AttackBench's own first pass is one of them
    torch.testing.assert_close(torch.tensor(found["distances"]["l2"]), DISTANCES, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="expected threat_model 'l2'"):
        attackbench.run_attack(network, loader, nearest, "linf", device=torch.device("cpu"), debug=True)

"""Weight decay is the gradient of the paper's objective under every optimiser; schedules have their closed forms."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, optim

from intriguing.errors import UserError
from intriguing.models import REGISTRY, Classifier, FullyConnected, Scheduler
from intriguing.models.optimization import COUPLED, build_optimizer, cosine, two_cosines

LAMBDAS = [0.3, 0.07]


def _network(optimizer: partial[Any] | None = None, **settings: Any) -> FullyConnected:
    torch.manual_seed(0)
    common = {"label": "net", "input_shape": [1, 4, 4], "num_classes": 10, "widths": [5], "normaliser": 2.5}
    return FullyConnected(optimizer=optimizer, **{**common, "weight_decay": LAMBDAS, **settings})


def _batch() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(6, 1, 4, 4, generator=generator), torch.arange(6)]


def _objective(model: Classifier) -> Tensor:
    """Section 4, written out: cross-entropy + sum of lambda_l * sum(w_l^2) / k."""
    images, labels = _batch()
    weights = [layer.weight for layer in model.network if isinstance(layer, torch.nn.Linear)]
    decay = sum(c * (weight**2).sum() / 2.5 for c, weight in zip(LAMBDAS, weights, strict=True))
    return F.cross_entropy(model.network(images), labels) + decay


@pytest.mark.parametrize("kind", COUPLED, ids=lambda kind: kind.__name__)
def test_a_coupled_optimiser_descends_the_papers_objective(kind: type[optim.Optimizer]) -> None:
    """Three steps with decay as ``weight_decay`` equal three steps without it on the objective's own gradient."""
    ours, plain = _network(partial(kind, lr=0.01)), _network()
    optimizer = build_optimizer(ours.optimizer, ours.decayed_weights(), list(ours.parameters()))
    reference = kind(plain.parameters(), lr=0.01)  # pyright: ignore[reportCallIssue]
    for _ in range(3):
        optimizer.zero_grad()
        ours.training_step(_batch(), 0).backward()
        optimizer.step()
        reference.zero_grad()
        _objective(plain).backward()
        reference.step()
    for own, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, other, atol=2e-6, rtol=1e-4)


OTHERS = [partial(optim.AdamW, lr=0.01, weight_decay=0), partial(optim.Rprop, lr=0.01), partial(optim.LBFGS, lr=0.01)]
OTHERS += [partial(optim.Adam, lr=0.01, decoupled_weight_decay=True)]


@pytest.mark.parametrize("factory", OTHERS, ids=lambda one: f"{one.func.__name__}{len(one.keywords)}")
def test_other_optimisers_are_given_the_gradient_of_the_papers_objective(factory: partial[Any]) -> None:
    ours, plain = _network(factory), _network()
    optimizer = build_optimizer(factory, ours.decayed_weights(), list(ours.parameters()))
    assert all(not group.get("weight_decay") for group in optimizer.param_groups)
    ours.training_step(_batch(), 0).backward()
    _objective(plain).backward()
    for own, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_the_epochs_curve_of_the_loss_leaves_the_decay_out() -> None:
    for factory in (partial(optim.SGD, lr=0.1), OTHERS[0]):
        model = _network(factory)
        model.training_step(_batch(), 0)
        images, labels = _batch()
        expected = F.cross_entropy(model(images), labels)
        torch.testing.assert_close(model._tally.sums()[0] / 6, expected.detach())


def test_a_decay_beside_the_papers_and_wrong_settings_are_refused() -> None:
    for factory, words in (
        (partial(optim.SGD, lr=0.1, weight_decay=1e-3), "weight_decay.value"),
        (partial(optim.AdamW, lr=-1.0), "optimizer: Invalid learning rate"),
        (partial(optim.Adam, momentum=0.9), "optimizer: .*momentum"),
        (partial(dict), "optimizer: "),
    ):
        model = _network(factory)
        with pytest.raises(UserError, match=words):
            build_optimizer(factory, model.decayed_weights(), list(model.parameters()))


def _rates(scheduler: Any, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def test_cosines_have_their_closed_form() -> None:
    parameter = [torch.nn.Parameter(torch.zeros(1))]
    rates = _rates(cosine(optim.SGD(parameter, lr=0.4), 10), 11)
    assert rates == pytest.approx([0.2 * (1 + math.cos(math.pi * t / 10)) for t in range(11)])
    two = _rates(two_cosines(optim.SGD(parameter, lr=0.4), 10, first_steps=4, second_lr=0.06), 10)
    expected = [0.2 * (1 + math.cos(math.pi * t / 4)) for t in range(4)]
    assert two == pytest.approx(expected + [0.03 * (1 + math.cos(math.pi * t / 6)) for t in range(6)])


class _Trainer:
    check_val_every_n_epoch = 2


def test_lengths_are_filled_in_at_any_depth() -> None:
    optimizer = optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    planned = {"planned_steps": 8, "pretrain_steps": 3}
    parts = [
        partial(optim.lr_scheduler.LinearLR, start_factor=0.5, total_iters="pretrain_steps"),
        partial(optim.lr_scheduler.PolynomialLR, total_iters="planned_steps"),
    ]
    whole = partial(optim.lr_scheduler.SequentialLR, schedulers=parts, milestones=["pretrain_steps"])
    made = Scheduler(whole, {"interval": "step"}).build(optimizer, planned, _Trainer())  # pyright: ignore
    assert _rates(made["scheduler"], 6) == pytest.approx([0.5, 2 / 3, 5 / 6, 1, 7 / 8, 6 / 8])
    with pytest.raises(UserError, match=r"scheduler: .*gama"):
        Scheduler(partial(optim.lr_scheduler.StepLR, gama=1), {}).build(optimizer, {}, _Trainer())  # pyright: ignore
    plateau = Scheduler(partial(optim.lr_scheduler.ReduceLROnPlateau), {"monitor": "val/loss"})
    with pytest.raises(UserError, match="multiple of 2"):
        plateau.build(optimizer, {}, _Trainer())  # pyright: ignore[reportArgumentType]


def test_a_subclass_with_a_name_is_known_and_trains_without_further_calls() -> None:
    class Tiny(Classifier):
        name = "tiny"

        def build_network(self, *, scale: float) -> torch.nn.Sequential:
            layer = torch.nn.Linear(math.prod(self.input_shape), self.num_classes)
            torch.nn.init.constant_(layer.weight, scale)
            return torch.nn.Sequential(torch.nn.Flatten(), layer)

    try:
        assert REGISTRY["tiny"] is Tiny
        more: dict[str, Any] = {"weight_decay": 0.5, "spectral_penalty": 0.1, "scale": 0.25}
        model = Tiny(label="tiny", input_shape=[1, 4, 4], num_classes=10, **more)
        assert model.weight_decay == [0.5] and dict(model.hparams)["scale"] == 0.25
        assert model.penalty().item() == pytest.approx(0.5 * 160 * 0.25**2 / 2)
        # the operator norm of a constant matrix is its entry times the root of its size
        norm = 0.25 * math.sqrt(160)
        images, labels = _batch()
        model.training_step([images, labels], 0)  # its power iteration settles in one step
        loss = model.training_step([images, labels], 0) - F.cross_entropy(model(images), labels)
        assert float(loss.detach()) == pytest.approx(0.1 * math.log1p(norm), rel=1e-3)
    finally:
        REGISTRY.pop("tiny", None)

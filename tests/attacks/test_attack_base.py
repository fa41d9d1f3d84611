"""The state of the model around an attack, and the chunk size."""

import pytest
import torch
from attack_networks import curved_network, images
from scipy import stats
from torch import nn

from intriguing.attacks import AttackResult, evaluating, frozen, lbfgs
from intriguing.attacks.network import under_attack


def test_frozen_and_evaluating_restore_the_state_of_each_module():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2))
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)

    def fail() -> None:
        with frozen(model), evaluating(model):
            assert not any(parameter.requires_grad for parameter in model.parameters())
            assert not any(module.training for module in model.modules())
            raise RuntimeError("from inside")

    with pytest.raises(RuntimeError, match="from inside"):
        fail()
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True, True, True]
    assert [module.training for module in model.modules()] == [True, True, False, True]


def test_an_attack_restores_the_state_of_the_model():
    model = curved_network().train()
    before = [parameter.clone() for parameter in model.parameters()]
    lbfgs(model, images(2, dtype=torch.float32), torch.tensor([0, 1]), c_tolerance=1.0)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_an_attack_works_where_gradients_are_off():
    model, inputs = curved_network(), images(2, dtype=torch.float32)
    with torch.no_grad():
        result = lbfgs(model, inputs, torch.tensor([0, 1]))
    assert result.success.all()


def test_the_chunk_shrinks_with_the_memory_that_autograd_keeps():
    class Wide(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.width = width

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).repeat(1, self.width).sigmoid()[:, :2]

    def max_rows(width: int, floats_per_pixel: int) -> int:
        with under_attack(Wide(width), images(3, dtype=torch.float32), floats_per_pixel=floats_per_pixel) as net:
            return net.max_rows

    assert max_rows(1, 20) > 20 * max_rows(1000, 20) > 0
    assert max_rows(1, 20000) < max_rows(1, 20)


def _result(sizes: list[float]) -> AttackResult:
    distortion = torch.tensor(sizes)
    passes = torch.arange(len(sizes))
    return AttackResult(torch.rand(len(sizes), 4), distortion.isfinite(), distortion, None, passes, 2 * passes)


def test_a_result_is_summarised_without_its_unperturbed_images():
    found = _result([0.0, 0.2, 0.3, 0.4, torch.inf]).summary()
    assert (found["images"], found["success"], found["already"]) == (5, 4, 1)
    half = float(stats.t.ppf(0.975, 2) * 0.1 / 3**0.5)
    assert found["mean_distortion"] == pytest.approx(0.3)
    assert (found["low"], found["high"]) == pytest.approx((0.3 - half, 0.3 + half))
    assert found["median_distortion"] == pytest.approx(0.3)
    assert (found["forwards"], found["backwards"]) == (2.0, 4.0)


def test_a_result_says_what_it_holds():
    text = repr(_result([0.0, 0.1, 0.2, 0.6, torch.inf]))
    assert text.startswith("AttackResult(4 of 5 succeeded, 1 of them unperturbed; distortion mean 0.3 (")
    assert text.endswith("median 0.2)")
    assert repr(_result([torch.inf])) == "AttackResult(0 of 1 succeeded)"
    assert repr(_result([0.0])) == "AttackResult(1 of 1 succeeded, 1 of them unperturbed)"
    assert repr(_result([0.25])) == "AttackResult(1 of 1 succeeded; distortion mean 0.25, median 0.25)"
    assert repr(_result([])) == "AttackResult(0 of 0 succeeded)"

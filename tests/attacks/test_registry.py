"""Every attack of the registry over shapes and batch sizes: what it returns is what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from intriguing.attacks import ATTACKS
from intriguing.metrics import distortion

SHAPES = [(8,), (4, 6), (1, 4, 4), (3, 5, 7), (5, 7, 7)]
QUICK: dict[str, dict[str, Any]] = {
    "lbfgs": {"search_steps": 8, "max_iter": 20},
    "adam_l1": {"num_steps": 40, "learning_rate": 0.02},
    "nearest": {"num_steps": 10, "num_projections": 3},
    "gaussian": {"stddev": 0.2, "clip": True},
}


def _network(shape: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(len(shape))
    size = int(torch.tensor(shape).prod())
    model = nn.Sequential(nn.Flatten(), nn.Linear(size, 12), nn.Tanh(), nn.Linear(12, 4)).train()
    with torch.no_grad():
        model[3].weight.mul_(30)  # steep enough for the attack that weighs sum|r| as much as the cross-entropy
    return model


def _images(shape: tuple[int, ...], number: int) -> Tensor:
    return torch.rand(number, *shape, generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("number", [1, 3, 8])
def test_an_attack_keeps_its_contract(name: str, shape: tuple[int, ...], number: int) -> None:
    attack, model, inputs = ATTACKS[name], _network(shape), _images(shape, number)
    with torch.no_grad():
        labels = model(inputs).argmax(1)
    before = inputs.clone()
    for targets in (None, (labels + 1) % 4) if attack.reads_model else (None,):
        generator = torch.Generator().manual_seed(0)
        result = attack(model, inputs, labels, targets=targets, generator=generator, **QUICK[name])
        adv_inputs, success = result.adv_inputs, result.success
        assert torch.equal(inputs, before) and model.training
        assert adv_inputs.shape == inputs.shape and adv_inputs.dtype == inputs.dtype
        assert float(adv_inputs.min()) >= 0 and float(adv_inputs.max()) <= 1
        assert success.shape == (number,) and success.dtype == torch.bool
        assert result.num_forwards.shape == result.num_backwards.shape == (number,)
        assert result.c is None or result.c.shape == (number,)
        expected = distortion(inputs, adv_inputs)
        torch.testing.assert_close(result.distortion[success], expected[success], atol=1e-7, rtol=1e-5)
        assert bool(result.distortion[~success].isinf().all())
        assert torch.equal(adv_inputs[~success], inputs[~success])
        if attack.reads_model:
            with torch.no_grad():
                answers = model(adv_inputs).argmax(1)
            fooled = answers != labels if targets is None else answers == targets
            assert bool(fooled[success].all()) and bool(success.any())
            assert bool((result.num_forwards > 0).all())
        else:
            assert bool(success.all()) and int(result.num_forwards.sum()) == 0


@pytest.mark.parametrize("name", ATTACKS)
def test_the_settings_of_the_table_and_the_defaults_are_accepted(name: str) -> None:
    assert set(QUICK) == set(ATTACKS)
    assert ATTACKS[name].check(QUICK[name]) == QUICK[name]
    given = {key: 0.1 if key == "stddev" else value for key, value in ATTACKS[name].defaults.items()}
    assert ATTACKS[name].check(given) == given


def test_settings_become_values_of_their_types() -> None:
    checked = ATTACKS["lbfgs"].check({"max_iter": 1e2, "c_factor": 2, "chunk_size": 8.0})
    assert checked == {"max_iter": 100, "c_factor": 2.0, "chunk_size": 8}
    assert [type(value) for value in checked.values()] == [int, float, int]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("lbfgs", {"speed": 1}, "speed is no setting of lbfgs; it has c_start"),
        ("adam_l1", {"generator": None}, "generator is no setting of adam_l1; it has num_steps, learning_rate"),
        ("adam_l1", {"learning_rate": 0}, "expected learning_rate as a finite number > 0, got 0"),
        ("nearest", {"num_steps": 1.5}, "expected num_steps as a whole number >= 1, got 1.5"),
        ("nearest", {"chunk_size": "all"}, "expected chunk_size as a whole number >= 1, got 'all'"),
        ("gaussian", {}, "gaussian needs stddev"),
        ("gaussian", {"stddev": 0.1, "clip": "no"}, "expected clip to be true or false, got 'no'"),
    ],
)
def test_other_settings_are_refused_in_one_line(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refusal:
        ATTACKS[name].check(settings)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_noise_has_no_targets() -> None:
    with pytest.raises(ValueError, match="expected no targets for noise"):
        ATTACKS["gaussian"](None, torch.rand(2, 3), torch.zeros(2).long(), targets=torch.ones(2).long(), stddev=0.1)

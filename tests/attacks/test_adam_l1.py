"""The published variant with Adam and the L1 norm."""

import pytest
import torch
from attack_networks import curved_network, images, linear_network

from intriguing.attacks import adam_l1, lbfgs


def attack(model, inputs, targets, *, seed=0, **settings):
    return adam_l1(model, inputs, targets, generator=torch.Generator().manual_seed(seed), **settings)


def test_it_succeeds_inside_the_box_and_lbfgs_comes_nearer():
    model, inputs = linear_network(3, scale=3.0), images(8)
    targets = (model(inputs).argmax(dim=1) + 1) % 3
    result = attack(model, inputs, targets, num_steps=400, learning_rate=1e-2)
    assert result.success.all()
    assert result.c is None
    assert result.adv_inputs.min() >= 0
    assert result.adv_inputs.max() <= 1
    assert torch.equal(model(result.adv_inputs).argmax(dim=1), targets)
    assert lbfgs(model, inputs, targets).distortion.mean() < result.distortion.mean()


def test_on_one_pixel_it_ends_where_the_penalty_is_least():
    """|r| + log(1 + exp(-m)) with m = 8 (x + r) - 4: the derivative vanishes at sigmoid(-m) = 1/8."""
    model = linear_network(2, (1, 1, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0], [8.0]]))
        model[1].bias.copy_(torch.tensor([4.0, 0.0]))
    seen = []
    model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach().clone()))
    image = torch.full((1, 1, 1, 1), 0.1, dtype=torch.float64)
    attack(model, image, torch.tensor([1]), num_steps=1500, learning_rate=5e-3)
    best = (torch.tensor(7.0).log() + 4) / 8
    assert float(seen[-2]) == pytest.approx(float(best), abs=2e-3)  # the last pass checks the result


def test_seeds_repeat_and_chunks_do_not_matter():
    model, inputs = curved_network(dtype=torch.float64), images(5)
    targets = torch.tensor([0, 1, 2, 3, 0])
    settings = {"num_steps": 50, "learning_rate": 0.02}
    whole = attack(model, inputs, targets, **settings)
    again = attack(model, inputs, targets, **settings)
    cut = attack(model, inputs, targets, chunk_size=2, **settings)
    assert torch.equal(whole.adv_inputs, again.adv_inputs)
    torch.testing.assert_close(cut.adv_inputs, whole.adv_inputs)


def test_images_already_in_their_target_class_cost_nothing():
    model, inputs = curved_network(), images(2, dtype=torch.float32)
    result = attack(model, inputs, model(inputs).argmax(dim=1), num_steps=5)
    assert torch.equal(result.adv_inputs, inputs)
    assert result.distortion.tolist() == [0.0, 0.0]
    assert result.num_backwards.tolist() == [0, 0]


def test_wrong_settings_are_refused():
    model, inputs, targets = linear_network(), images(2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="num_steps"):
        adam_l1(model, inputs, targets, num_steps=0)
    with pytest.raises(ValueError, match="learning_rate"):
        adam_l1(model, inputs, targets, learning_rate=-1.0)

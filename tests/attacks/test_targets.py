"""The rules that choose a target class."""

import warnings

import pytest
import torch
from attack_networks import curved_network, images, linear_network
from hypothesis import given, settings
from hypothesis import strategies as st

from intriguing.attacks import choose_targets, closest, lbfgs

LOGITS = torch.tensor([[5.0, 1.0, 3.0, 2.0], [0.0, 4.0, 1.0, 9.0]])


def test_runner_up_and_least_likely_are_never_the_label():
    labels = torch.tensor([0, 0])
    assert choose_targets("runner_up", labels, LOGITS).tolist() == [2, 3]
    assert choose_targets("least_likely", labels, LOGITS).tolist() == [1, 2]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), num_classes=st.integers(2, 10))
def test_random_targets_are_wrong_classes_and_repeat(seed, num_classes):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (30,), generator=generator)
    logits = torch.randn(30, num_classes, generator=generator)
    first, second = (
        choose_targets("random", labels, logits, generator=torch.Generator().manual_seed(seed)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert (first != labels).all()
    assert 0 <= int(first.min()) <= int(first.max()) < num_classes


def test_random_targets_are_uniform():
    labels = torch.zeros(9000, dtype=torch.int64)
    targets = choose_targets("random", labels, torch.zeros(9000, 4), generator=torch.Generator().manual_seed(0))
    counts = targets.bincount(minlength=4)
    assert int(counts[0]) == 0
    assert (counts[1:] - 3000).abs().max() < 200


def test_closest_is_the_least_over_all_wrong_classes():
    model, inputs = curved_network(), images(6, dtype=torch.float32)
    labels = model(inputs).argmax(dim=1)
    result = closest(lbfgs, model, inputs, labels, c_tolerance=0.1)
    each = [lbfgs(model, inputs, (labels + shift) % 4, c_tolerance=0.1) for shift in (1, 2, 3)]
    torch.testing.assert_close(result.distortion, torch.stack([one.distortion for one in each]).amin(dim=0))
    assert (model(result.adv_inputs).argmax(dim=1) != labels).all()
    assert torch.equal(result.num_forwards, sum(one.num_forwards for one in each) + 1)


def test_closest_returns_misclassified_images_unchanged():
    model, inputs = curved_network(), images(3, dtype=torch.float32)
    labels = (model(inputs).argmax(dim=1) + 1) % 4
    assert closest(lbfgs, model, inputs, labels).distortion.tolist() == [0.0] * 3


@pytest.mark.parametrize(("num_classes", "warns"), [(101, False), (102, True)])
def test_closest_says_before_the_first_attack_that_many_classes_take_many(num_classes, warns):
    model, inputs = linear_network(num_classes), images(1)
    shown = []

    def attack(model, inputs, targets):
        shown.append(len(caught))
        return lbfgs(model, inputs, model(inputs).argmax(dim=1))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        closest(attack, model, inputs, model(inputs).argmax(dim=1))
    assert shown == [int(warns)] * (num_classes - 1)
    assert all(f"runs attack {num_classes - 1} times on each image" in str(one.message) for one in caught)


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match="target rule"):
        choose_targets("farthest", torch.tensor([0, 1]), LOGITS)
    with pytest.raises(ValueError, match="labels in"):
        choose_targets("random", torch.tensor([0, 4]), LOGITS)

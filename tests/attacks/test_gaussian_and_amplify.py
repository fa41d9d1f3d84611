"""Noise and scaled perturbations."""

import pytest
import torch
from attack_networks import images
from hypothesis import given, settings
from hypothesis import strategies as st

from intriguing.attacks import amplify, gaussian
from intriguing.metrics import distortion


def test_gaussian_noise_has_its_stddev_and_leaves_the_box():
    inputs = torch.rand(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    noisy = gaussian(inputs, 0.3, generator=torch.Generator().manual_seed(1))
    noise = noisy - inputs
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float(noise.mean())) < 0.01
    assert noisy.min() < 0
    assert noisy.max() > 1


def test_clipping_and_seeds():
    inputs = images(3)
    clipped = gaussian(inputs, 1.0, clip=True, generator=torch.Generator().manual_seed(1))
    free = gaussian(inputs, 1.0, generator=torch.Generator().manual_seed(1))
    assert torch.equal(clipped, free.clamp(0, 1))
    assert torch.equal(gaussian(inputs, 0.0), inputs)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), stddev=st.floats(0.001, 2.0))
def test_one_factor_amplifies_a_set(seed, stddev):
    inputs, adv_inputs = images(4, seed=seed), images(4, seed=seed + 1)
    adv_inputs[1] = 0.9 * inputs[1] + 0.1 * adv_inputs[1]
    adv_inputs[3] = inputs[3]
    amplified = amplify(inputs, adv_inputs, stddev)
    factor = stddev / distortion(inputs, adv_inputs).mean()
    torch.testing.assert_close(amplified - inputs, factor * (adv_inputs - inputs))
    assert float(distortion(inputs, amplified).mean()) == pytest.approx(stddev)


def test_amplifying_a_set_shrinks_no_image():
    inputs = torch.full((2, 1, 2, 2), 0.5)
    adv_inputs = inputs + torch.tensor([0.05, 0.15]).view(2, 1, 1, 1)
    # the mean distortion is .1
    torch.testing.assert_close(amplify(inputs, adv_inputs, 0.1), adv_inputs)
    torch.testing.assert_close(amplify(inputs, adv_inputs, 0.1, by="image"), inputs + 0.1)
    with pytest.raises(ValueError, match="by to be one of set, image, got 'images'"):
        amplify(inputs, adv_inputs, 0.1, by="images")


@pytest.mark.parametrize("by", ["set", "image"])
def test_a_zero_perturbation_stays_zero(by):
    inputs = images(3)
    assert torch.equal(amplify(inputs, inputs, 0.1, by=by), inputs)
    assert amplify(inputs[:0], inputs[:0], 0.1, by=by).shape == (0, *inputs.shape[1:])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), stddev=st.floats(0.001, 2.0))
def test_amplified_perturbations_have_the_given_size(seed, stddev):
    inputs, adv_inputs = images(4, seed=seed), images(4, seed=seed + 1)
    adv_inputs[3] = inputs[3]
    amplified = amplify(inputs, adv_inputs, stddev, by="image")
    expected = torch.tensor([stddev, stddev, stddev, 0.0], dtype=torch.float64)
    torch.testing.assert_close(distortion(inputs, amplified), expected)
    cosine = torch.cosine_similarity((amplified - inputs)[:3].flatten(1), (adv_inputs - inputs)[:3].flatten(1))
    torch.testing.assert_close(cosine, torch.ones(3, dtype=torch.float64))


def test_amplify_clips_on_request():
    inputs, adv_inputs = images(4), images(4, seed=9)
    free = amplify(inputs, adv_inputs, 1.0)
    assert free.max() > 1
    assert torch.equal(amplify(inputs, adv_inputs, 1.0, clip=True), free.clamp(0, 1))


def test_wrong_calls_are_refused():
    inputs = images(2)
    with pytest.raises(ValueError, match="stddev"):
        gaussian(inputs, -0.1)
    with pytest.raises(ValueError, match="stddev"):
        amplify(inputs, inputs, float("inf"))
    with pytest.raises(ValueError, match="adv_inputs of shape"):
        amplify(inputs, inputs[:1], 0.1)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        gaussian(inputs + 1, 0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e-3])
def test_a_perturbation_of_any_size_is_amplified_in_its_dtype(dtype, size):
    inputs = torch.zeros(2, 50, dtype=dtype)
    adv_inputs = inputs.clone()
    adv_inputs[0, ::2] = size
    amplified = amplify(inputs, adv_inputs, 0.1, by="image")
    assert amplified.dtype == dtype
    moved = 0.1 * 2**0.5 * (adv_inputs[0] != 0).double()  # 1e-30 is 0 in float16
    torch.testing.assert_close(amplified[0].double(), moved, rtol=1e-2, atol=0)
    assert torch.equal(amplified[1], inputs[1])

import math

import pytest
import torch

from intriguing import metrics
from intriguing.metrics import distortion, equal_norm_gaussian, wrong


def test_distortion_is_the_rms_change_per_pixel():
    inputs = torch.zeros(3, 1, 28, 28)
    adv_inputs = inputs.clone()
    adv_inputs[1] = 0.25
    adv_inputs[2, 0, 0, 0] = 1
    assert distortion(inputs, adv_inputs) == pytest.approx([0, 0.25, 1 / 28])


def test_l2_norm_is_28_times_the_distortion_on_mnist():
    torch.manual_seed(0)
    inputs, adv_inputs = torch.rand(2, 5, 1, 28, 28)
    l2 = (adv_inputs - inputs).flatten(1).norm(dim=1)
    torch.testing.assert_close(28 * distortion(inputs, adv_inputs), l2)


@pytest.mark.parametrize(("one", "other"), [((2, 3), (2, 4)), ((2,), (2,)), ((2, 1, 3), (1, 1, 3))])
def test_distortion_names_the_wrong_shapes(one, other):
    with pytest.raises(ValueError, match="must share one shape"):
        distortion(torch.zeros(one), torch.zeros(other))


def test_wrong_answers_are_counted_by_hand():
    logits = torch.eye(3)[[0, 1, 2, 2]]
    labels = torch.tensor([0, 1, 1, 2])
    assert wrong(logits, labels).tolist() == [False, False, True, False]


def test_wrong_refuses_logits_that_are_not_numbers():
    with pytest.raises(ValueError, match="NaN"):
        wrong(torch.tensor([[0.0, math.nan]]), torch.tensor([0]))


def test_equal_norm_gaussian_has_exactly_the_given_distortion():
    inputs = torch.rand(6, 1, 8, 8)
    wanted = torch.tensor([0.0, 0.01, 0.06, 0.1, 0.3, 1.0])
    noisy = equal_norm_gaussian(inputs, wanted, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(distortion(inputs, noisy), wanted, rtol=1e-5, atol=1e-7)
    assert noisy.min() < 0  # not clipped, as in the paper
    again = equal_norm_gaussian(inputs, wanted, generator=torch.Generator().manual_seed(0))
    assert torch.equal(noisy, again)


@pytest.mark.parametrize("bad", [math.inf, math.nan, -0.1])
def test_equal_norm_gaussian_refuses_failed_rows(bad):
    with pytest.raises(ValueError, match="finite"):
        equal_norm_gaussian(torch.zeros(2, 4), torch.tensor([0.1, bad]))


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-30, 1e-4, 300.0, 1e30])
def test_distortion_neither_underflows_nor_overflows(dtype, size):
    inputs = torch.zeros(2, 1, 3, 3, dtype=dtype)
    adv_inputs = inputs + torch.tensor([size, 0.0]).view(2, 1, 1, 1).to(dtype)
    expected = adv_inputs[:, 0, 0, 0].double()
    found = metrics.distortion(inputs, adv_inputs)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_distortion_is_that_of_exact_arithmetic_at_every_scale(scale):
    change = torch.rand(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = scale * (change.square().mean(dim=1)).sqrt()
    torch.testing.assert_close(
        metrics.distortion(torch.zeros_like(change), scale * change), expected, rtol=1e-12, atol=0
    )


def test_distortion_of_two_dtypes_is_taken_in_the_finer():
    inputs = torch.full((1, 4), 0.1, dtype=torch.float16)
    adv_inputs = inputs.double() + 1e-9
    torch.testing.assert_close(metrics.distortion(inputs, adv_inputs), torch.tensor([1e-9]).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-3, 0.1, 50.0])
def test_noise_of_equal_norm_has_its_distortion_in_half_precision_too(dtype, size):
    inputs = torch.zeros(2, 400, dtype=dtype)
    noisy = metrics.equal_norm_gaussian(inputs, torch.full((2,), size), generator=torch.Generator().manual_seed(0))
    assert noisy.dtype == dtype
    torch.testing.assert_close(
        metrics.distortion(inputs, noisy).double(), torch.full((2,), size).double(), rtol=1e-2, atol=0
    )


@pytest.mark.parametrize("dtype", INTEGERS)
def test_labels_of_every_integer_type_are_compared(dtype):
    labels = torch.tensor([0, 100, 127], dtype=dtype)
    logits = torch.nn.functional.one_hot(torch.tensor([0, 100, 199]), 200).to(torch.bfloat16)
    logits[:, 150] = -torch.inf  # a class that is masked
    assert metrics.wrong(logits, labels).tolist() == [False, False, True]


@pytest.mark.parametrize("labels", [torch.zeros(2), torch.zeros(2, dtype=torch.bool), [0, 0]])
def test_labels_that_are_not_integers_are_refused(labels):
    with pytest.raises(TypeError, match="labels must be"):
        metrics.wrong(torch.zeros(2, 3), labels)


def test_metrics_do_not_modify_their_arguments():
    inputs, adv_inputs = torch.rand(2, 4), torch.rand(1, 4).expand(2, 4)
    logits, labels = torch.rand(2, 3), torch.tensor([0, 1])
    given = (inputs, adv_inputs, logits, labels)
    versions = [one._version for one in given]
    metrics.distortion(inputs, adv_inputs)
    metrics.equal_norm_gaussian(inputs, metrics.distortion(inputs, adv_inputs))
    metrics.wrong(logits, labels)
    assert [one._version for one in given] == versions

"""Every attack on random small networks, over dtypes, shapes, labels and contexts: properties of all results."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from intriguing.attacks import AttackResult, AttackWarning, adam_l1, amplify, closest, gaussian, lbfgs, nearest
from intriguing.metrics import distortion

SHAPES = [(5,), (2, 3), (1, 4, 4), (3, 5, 2), (2, 2, 2, 2)]
LABELS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
CONTEXTS: dict[str, Callable[[], Any]] = {
    "plain": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


def coarse(model: Any, inputs: Tensor, targets: Tensor, **more: Any) -> AttackResult:
    return lbfgs(model, inputs, targets, c_tolerance=1.0, max_iter=20, **more)


ATTACKS: dict[str, Callable[..., AttackResult]] = {
    "lbfgs": lbfgs,
    "adam_l1": lambda *args, **more: adam_l1(*args, num_steps=20, learning_rate=0.05, **more),
    "nearest": lambda model, inputs, targets, **more: nearest(
        model, inputs, targets, targets=targets, effort="fast", **more
    ),
    "nearest_any": lambda *args, **more: nearest(*args, effort="fast", **more),
    "closest": lambda model, inputs, labels, **more: closest(coarse, model, inputs, labels, **more),
}
UNTARGETED = {"nearest_any", "closest"}


class Network(nn.Module):
    """A random network of two layers in a given dtype."""

    def __init__(self, shape: tuple[int, ...], num_classes: int, activation: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        n = int(torch.tensor(shape).prod())
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(n, 8), activation, nn.Dropout(0.5), nn.Linear(8, num_classes)
        )
        for parameter in self.layers.parameters():
            nn.init.normal_(parameter)
        self.layers.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.to(self.dtype))


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from(SHAPES),
    num_images=st.integers(1, 5),
    num_classes=st.integers(2, 6),
    activation=st.sampled_from([nn.ReLU, nn.Tanh, nn.Sigmoid, lambda: nn.ReLU(inplace=True)]),
    image_dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    label_dtype=st.sampled_from(LABELS),
    context=st.sampled_from(sorted(CONTEXTS)),
    attack=st.sampled_from(sorted(ATTACKS)),
    chunk_size=st.sampled_from([None, 1, 2]),
    strided=st.booleans(),
)
def test_every_attack(
    seed,
    shape,
    num_images,
    num_classes,
    activation,
    image_dtype,
    dtype,
    label_dtype,
    context,
    attack,
    chunk_size,
    strided,
):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Network(shape, num_classes, activation(), dtype).train()
        inputs = torch.rand(num_images, *shape).to(image_dtype)
        if strided:
            inputs = torch.stack([inputs, 1 - inputs], dim=1)[:, 0]
        classes = torch.randint(num_classes, (num_images,)).to(label_dtype)
        images, labels, weights = inputs.clone(), classes.clone(), [p.clone() for p in model.parameters()]
        versions = inputs._version, classes._version
        state = torch.random.get_rng_state()
        with CONTEXTS[context](), warnings.catch_warnings():
            warnings.simplefilter("ignore", AttackWarning)  # random networks have zero gradients
            if attack == "adam_l1":
                generator = torch.Generator().manual_seed(0)
                result = ATTACKS[attack](model, inputs, classes, chunk_size=chunk_size, generator=generator)
            else:
                result = ATTACKS[attack](model, inputs, classes, chunk_size=chunk_size)
        assert torch.equal(torch.random.get_rng_state(), state)

    # no argument has changed
    assert (inputs._version, classes._version) == versions
    assert torch.equal(inputs, images)
    assert torch.equal(classes, labels)
    assert all(
        torch.equal(p, w) and p.requires_grad and p.grad is None
        for p, w in zip(model.parameters(), weights, strict=True)
    )
    assert all(module.training for module in model.modules())

    # the examples lie in the box, and have the images' shape and dtype
    assert result.adv_inputs.shape == inputs.shape
    assert result.adv_inputs.dtype == image_dtype
    assert result.adv_inputs.min() >= 0
    assert result.adv_inputs.max() <= 1

    # success agrees with the network's predictions on the returned images
    with CONTEXTS[context](), torch.no_grad():
        logits = model.eval()(result.adv_inputs)
    answers = logits.argmax(dim=1)
    reached = answers != labels.long() if attack in UNTARGETED else answers == labels.long()
    top = logits.double().topk(2, dim=1).values
    eps = max(torch.finfo(logits.dtype).eps, torch.finfo(torch.bfloat16).eps if context == "autocast" else 0.0)
    sure = top[:, 0] - top[:, 1] > 32 * eps * (1 + top.abs().amax(dim=1))  # rounding changes with the batch size
    assert torch.equal(result.success[sure], reached[sure])

    # distortion is the perturbation's root mean square, 0 for an untouched image, inf for a failure
    rms = (result.adv_inputs.double() - inputs.double()).flatten(1).square().mean(dim=1).sqrt()
    torch.testing.assert_close(result.distortion.double()[result.success], rms[result.success], rtol=1e-5, atol=1e-9)
    assert (result.distortion[~result.success] == torch.inf).all()
    assert torch.equal(result.adv_inputs[~result.success], inputs[~result.success])
    assert (result.num_forwards >= 1).all()
    assert (result.num_backwards >= 0).all()
    if result.c is not None:
        assert (result.c[result.success] > 0).all()
        assert result.c[~result.success].isnan().all()


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    stddev=st.floats(1e-3, 10.0),
)
def test_noise_and_amplification(seed, shape, dtype, stddev):
    generator = torch.Generator().manual_seed(seed)
    inputs, adv_inputs = (torch.rand(3, *shape, generator=generator).to(dtype) for _ in range(2))
    versions = inputs._version, adv_inputs._version
    noisy = gaussian(inputs, stddev, clip=True, generator=generator)
    longer = amplify(inputs, adv_inputs, stddev, by="image")
    assert (inputs._version, adv_inputs._version) == versions
    assert noisy.dtype == longer.dtype == dtype
    assert 0 <= noisy.min() <= noisy.max() <= 1
    size = distortion(inputs, longer)
    # the sum is rounded by up to half the spacing of the dtype's numbers
    spacing = torch.finfo(dtype).eps * (1 + 8 * stddev)
    torch.testing.assert_close(size.double(), torch.full((3,), stddev).double(), rtol=2e-2, atol=spacing)

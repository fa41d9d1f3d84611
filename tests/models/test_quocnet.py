"""QuocNet: its objective against dense matrices, its phases and sizes, and a fit that goes on after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from intriguing.checkpoints import load_model, read_checkpoint
from intriguing.cli.config import training_job
from intriguing.models import QuocNet
from intriguing.models.quocnet import Stage, reconstruction_ica
from intriguing.nn.local import L2Pool2d, LocallyConnected2d
from intriguing.training import fit

SIZES: dict[str, Any] = {"maps": [3, 4], "kernels": [3, 2], "strides": [1, 1], "pools": [2, 2]}
SMALL = (
    "model=quocnet", "model.settings.maps=[3,4]", "model.settings.kernels=[3,2]", "model.settings.strides=[1,1]",
    "model.settings.pools=[2,2]", "data=digits", "data.only=200", "data.batch_size=50", "trainer.max_epochs=6",
)  # fmt: skip


def _dense(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> np.ndarray:
    unit = torch.eye(int(np.prod(shape)), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        return function(unit).flatten(1).T.numpy()


@pytest.mark.parametrize("tied", [True, False])
def test_the_objective_is_that_of_dense_matrices(tied: bool) -> None:
    """|W2 W1' x - x|^2 and sum sqrt(eps + H (W1' x)^2), H the zeros and ones of the pooling (Le et al., eq. 1)."""
    torch.manual_seed(0)
    shape, size = (2, 6, 5), (6, 5)
    filters, decoder = (LocallyConnected2d(2, 3, size, 3, 1).double() for _ in range(2))
    pool, images = L2Pool2d(2, eps=1e-3), torch.randn(4, *shape, dtype=torch.float64)
    w1, w2 = _dense(filters, shape), _dense(filters if tied else decoder, shape)
    maps, (rows, columns) = 3, filters.out_size
    h = np.zeros((maps * (rows - 1) * (columns - 1), maps * rows * columns))
    index = np.arange(maps * rows * columns).reshape(maps, rows, columns)
    for j, (m, a, b) in enumerate(np.ndindex(maps, rows - 1, columns - 1)):
        h[j, index[m, a : a + 2, b : b + 2].ravel()] = 1
    errors, terms = [], []
    for x in images.flatten(1).numpy():
        code = w1 @ x
        errors.append(np.sum((w2.T @ code - x) ** 2))
        terms.append(np.sum(np.sqrt(1e-3 + h @ code**2)))
    found = reconstruction_ica(images, filters, pool, None if tied else decoder.weight)
    assert found.error.item() == pytest.approx(np.mean(errors), rel=1e-12)
    assert found.sparsity.item() == pytest.approx(np.mean(terms), rel=1e-12)


@pytest.mark.parametrize("tied", [True, False])
def test_the_objective_s_gradient_is_that_of_finite_differences(tied: bool) -> None:
    torch.manual_seed(0)
    stage = Stage(1, 2, (5, 4), kernel_size=2, stride=1, pool=2, norm=3, floor=0.01, tied=tied).double()
    images = torch.rand(2, 1, 5, 4, dtype=torch.float64)
    names = [name for name, _ in stage.named_parameters()]
    assert names == ["filter.weight", *([] if tied else ["decoder.weight"])]

    def objective(*weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        error, sparsity = torch.func.functional_call(stage, given, (images,), {"objective": True})
        return error + 0.1 * sparsity

    assert torch.autograd.gradcheck(objective, tuple(stage.parameters()))


def test_layers_have_names_and_the_logits_their_shape() -> None:
    model = QuocNet(input_shape=[3, 12, 10], num_classes=2, **SIZES)
    assert [name for name, _ in model.network.named_children()] == [
        "normalize",
        "stage1",
        "stage2",
        "flatten",
        "standardize",
        "softmax",
    ]
    assert model(torch.rand(5, 3, 12, 10)).shape == (5, 2)
    assert model.label == "QuocNet"
    pixels = QuocNet(input_shape=[3, 12, 10], num_classes=2, maps=[], kernels=[], strides=[], pools=[])
    assert [name for name, _ in pixels.network.named_children()] == ["normalize", "flatten", "standardize", "softmax"]
    assert pixels.label == "Linear"


def test_the_paper_s_size_has_a_billion_weights(composed: Callable[..., dict]) -> None:
    """On the meta device, so without memory for one."""
    settings = composed("train", "network=quocnet_paper", "data=cifar10")["model"]["settings"]
    with torch.device("meta"):
        model = QuocNet(input_shape=[3, 200, 200], num_classes=2, **settings)
    filters = [stage.filter for stage in model.network.children() if isinstance(stage, Stage)]
    assert [one.out_size for one in filters] == [(183, 183), (162, 162), (141, 141)]
    assert [one.weight.numel() for one in filters] == [260_410_464, 544_195_584, 412_252_416]
    assert sum(one.weight.numel() for one in filters) == 1_216_858_464
    assert all(one.is_meta for one in model.parameters())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"maps": [3]}, "maps, kernels, strides and pools list one number a stage each"),
        ({"maps": [3, 0]}, "model.settings.maps must list whole numbers of at least 1"),
        ({"kernels": [3, 20]}, "stage 2, with images of 8x8 pixels: an input of 5x5 is smaller than a receptive field"),
        ({"pools": [2, 9]}, "stage 2, with images of 8x8 pixels: 4x4 outputs are fewer than a pool of 9"),
        ({"pretrain_share": 1.0}, "pretrain_share must lie in"),
        ({"norm": 4}, "odd kernel_size"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        QuocNet(input_shape=[1, 8, 8], num_classes=2, **{**SIZES, **changed})


def test_a_balanced_loss_weighs_the_classes_alike() -> None:
    model = QuocNet(input_shape=[1, 8, 8], num_classes=2, **SIZES)
    model.class_weights = torch.tensor([10 / 18, 5.0])  # of 9 images of the rest and one of the class
    logits = torch.randn(10, 2)
    labels = torch.tensor([0] * 9 + [1])
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = (losses[:9].mean() + losses[9]) / 2
    torch.testing.assert_close(model.criterion(logits, labels), expected)


def test_stages_train_one_after_the_other_and_stay_as_they_are(composed: Callable[..., dict]) -> None:
    """Stage 1 in epochs 1 and 2, stage 2 in 3 and 4, the softmax in the rest."""
    seen: list[dict[str, Tensor]] = []
    original = QuocNet.on_train_epoch_start

    def watch(self: QuocNet) -> None:
        seen.append({name: value.detach().clone() for name, value in self.network.named_parameters()})
        original(self)

    job = training_job(composed("train", "name=phases", *SMALL, "model.settings.pretrain_share=0.7"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuocNet, "on_train_epoch_start", watch)
        folder = fit(job)
    seen = seen[-6:]  # the rehearsal's epoch starts too
    seen.append({k.removeprefix("network."): v for k, v in load_model(folder / "model.ckpt").state_dict().items()})
    changed = [
        sorted(name.split(".")[0] for name in before if not torch.equal(before[name], after[name]))
        for before, after in pairwise(seen)
    ]
    assert changed == [["stage1"]] * 2 + [["stage2"]] * 2 + [["softmax"] * 2] * 2


def test_a_resumed_fit_equals_an_uninterrupted_one(
    composed: Callable[..., dict], fit_up_to: Callable[[int, Any], None]
) -> None:
    jobs = [training_job(composed("train", f"name={name}", *SMALL, "data.one_against_rest=3")) for name in "ab"]
    whole = fit(jobs[0])
    for epoch in (2, 5):
        fit_up_to(epoch, jobs[1])
    weights = [read_checkpoint(folder / "model.ckpt")["state_dict"] for folder in (whole, fit(jobs[1]))]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    model = load_model(whole / "model.ckpt")
    assert model.num_classes == 2
    assert model.trained_on is not None
    assert model.trained_on["one_against_rest"] == "3"


def test_fewer_epochs_than_stages_are_refused(composed: Callable[..., dict], tmp_path: Path) -> None:
    from intriguing.errors import UserError

    with pytest.raises(UserError, match=r"trainer.max_epochs=2: QuocNet trains 2 stages .* give at least 3"):
        fit(training_job(composed("train", "name=short", *SMALL, "trainer.max_epochs=2")))
    assert not (tmp_path / "runs" / "train" / "short").exists()

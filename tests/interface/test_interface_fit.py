"""``ig.fit``: any module, any images; it is train.py's fit, it is silent, and it leaves the process as it was."""

from __future__ import annotations

import copy
import logging
import os
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningDataModule
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import intriguing as ig
from intriguing import training
from intriguing.cli.config import training_job
from intriguing.errors import UserError
from intriguing.models import FullyConnected, Scheduler
from intriguing.models.optimization import cosine


def _blobs(count: int = 60, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Images of two classes that a linear network separates: dark and bright ones."""
    labels = torch.arange(count) % 2
    noise = torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.2
    return (noise + 0.6 * labels[:, None, None, None]).to(dtype), labels


class _Pairs(Dataset):
    def __init__(self) -> None:
        self.images, self.numbers = _blobs()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.numbers[index])


class _Module(LightningDataModule):
    num_classes = 2

    def train_dataloader(self) -> DataLoader:
        return DataLoader(_Pairs(), batch_size=7)


def _equal(one: nn.Module, two: nn.Module) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


ADAM = partial(torch.optim.Adam, lr=0.05)


@pytest.mark.parametrize(
    ("overrides", "settings"),
    [
        ((), {}),
        (("spectral_penalty=margin", "split=p1"), {"spectral_penalty": 0.15, "split": "p1"}),
        (("data.validation=50", "seed=3"), {"validation": 50, "seed": 3}),
    ],
)
def test_it_is_the_fit_of_train_py_bit_for_bit(
    composed: Callable[..., dict], overrides: tuple[str, ...], settings: dict[str, Any]
) -> None:
    job = training_job(composed("train", "data=digits", "model=fc10", "trainer.max_epochs=2", *overrides))
    theirs = ig.load_model(training.fit(job) / "model.ckpt")
    kind = {"spectral_penalty_kind": "margin"} if "spectral_penalty" in settings else {}
    own = ig.fit(
        FullyConnected(widths=[], normaliser=2.5, **kind),
        ig.data.digits(),
        weight_decay=1e-4,
        epochs=2,
        optimizer=partial(torch.optim.Adam, lr=5e-3, fused=True),
        scheduler=partial(cosine, total_steps="planned_steps"),
        **settings,
    )
    assert _equal(own, theirs) and not own.training
    assert own.trained_on == theirs.trained_on


@pytest.mark.parametrize(
    "data",
    [
        _blobs(),
        (_blobs(), _blobs(10)),
        [tuple(part.numpy() for part in _blobs())] * 2,
        TensorDataset(*_blobs()),
        (TensorDataset(*_blobs()), None),
        (_Pairs(), _Pairs()),
        _Module(),
        ig.data.from_tensors(_blobs()),
        ig.data.from_tensors(_blobs()).images,
    ],
    ids=["tensors", "pairs", "arrays", "dataset", "one", "datasets", "module", "images", "set"],
)
def test_any_data_of_equal_images_give_the_same_network(data: Any) -> None:
    images, labels = _blobs()
    found = ig.fit(FullyConnected(widths=[]), data, epochs=8, batch_size=20, optimizer=ADAM)
    assert (found(images).argmax(1) == labels).all()
    assert _equal(found, ig.fit(FullyConnected(widths=[]), _blobs(), epochs=8, batch_size=20, optimizer=ADAM))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_module_is_trained_itself(dtype: torch.dtype) -> None:
    images, labels = _blobs()
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).to(dtype)
    fitted = ig.fit(net, (images, labels), epochs=8, batch_size=20, optimizer=ADAM, label="mine")
    assert fitted.network is net and fitted.label == "mine" and net[1].weight.dtype == dtype
    assert (net(images.to(dtype)).argmax(1) == labels).all()
    assert len(ig.craft(fitted, images[:4], labels[:4])) == len(ig.craft(net, images[:4], labels[:4]))


def test_weight_decay_has_its_closed_form() -> None:
    """One full-batch step of SGD from zero weights: w = -rate * gradient; a second one shrinks it by the decay."""
    images, labels = _blobs()
    decayed, plain = (
        ig.fit(
            _zero_net(), (images, labels), weight_decay=decay, epochs=2, batch_size=60,
            optimizer=partial(torch.optim.SGD, lr=0.1),
        )
        for decay in (0.5, 0.0)
    )  # fmt: skip
    once = ig.fit(_zero_net(), (images, labels), epochs=1, batch_size=60, optimizer=partial(torch.optim.SGD, lr=0.1))
    shrunk = plain.network[1].weight - 0.1 * 2 * 0.5 / 2 * once.network[1].weight  # k = 2
    torch.testing.assert_close(decayed.network[1].weight, shrunk)


def _zero_net() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    return net


def test_a_network_goes_on_from_where_it_is() -> None:
    images, labels = _blobs()
    model = ig.fit(FullyConnected(widths=[]), (images, labels), epochs=1)
    before = copy.deepcopy(model)
    assert ig.fit(model, (images, labels), epochs=1) is model
    assert not _equal(model, before)


def test_schedulers_are_stepped_as_they_are_meant_to_be() -> None:
    class Rates(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    def rates(scheduler: Any) -> list[float]:
        watch = Rates()
        optimizer = partial(torch.optim.SGD, lr=1.0)
        ig.fit(FullyConnected(widths=[]), _blobs(), epochs=2, batch_size=30, optimizer=optimizer, scheduler=scheduler,
               callbacks=[watch])  # fmt: skip
        return watch.seen

    halved = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    assert rates(halved) == [1.0, 1.0, 0.5, 0.5]
    assert rates(Scheduler(halved, {"interval": "step"})) == [1.0, 0.5, 0.25, 0.125]
    assert rates(partial(cosine, total_steps="planned_steps")) == pytest.approx([1.0, 0.8536, 0.5, 0.1464], abs=1e-4)
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=1e9)
    assert rates(plateau) == [1.0, 1.0, 0.5, 0.5]


def test_back_feeding_is_one_argument() -> None:
    pools = ig.BackFeeding(distortion=0.05, size=10, start=0.0)
    fed = ig.fit(FullyConnected(widths=[4]), _blobs(), epochs=2, batch_size=20, back_feeding=pools)
    assert pools.mixing is not None and [len(one.pool) for one in pools.mixing.pools] == [10, 10]
    assert not _equal(fed, ig.fit(FullyConnected(widths=[4]), _blobs(), epochs=2, batch_size=20))
    assert _equal(fed, ig.fit(FullyConnected(widths=[4]), _blobs(), epochs=2, batch_size=20,
                              back_feeding=ig.BackFeeding(distortion=0.05, size=10, start=0.0)))  # fmt: skip


def test_the_process_is_left_as_it_was() -> None:
    def state() -> tuple:
        names = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG")
        return (
            torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.is_grad_enabled(),
            [os.environ.get(name) for name in names], logging.getLogger("lightning.pytorch").level,
            [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        )  # fmt: skip

    torch.set_num_threads(2)
    before = state()
    ig.fit(FullyConnected(widths=[]), _blobs(), epochs=1)
    assert state() == before

    class Breaks(Callback):
        def __init__(self, error: type[BaseException]) -> None:
            self.error = error

        def on_train_epoch_end(self, *_: Any) -> None:
            raise self.error

    for error in (RuntimeError, KeyboardInterrupt):  # Lightning would end the process after a Ctrl-C
        with pytest.raises(error):
            ig.fit(FullyConnected(widths=[]), _blobs(), epochs=1, callbacks=[Breaks(error)])
        assert state() == before


def test_a_folder_holds_the_network_as_train_py_writes_it(tmp_path: Path) -> None:
    model = ig.fit(FullyConnected(widths=[4]), ig.data.digits(), epochs=1, folder=tmp_path / "run", label="mine")
    assert [one.name for one in (tmp_path / "run").iterdir()] == ["model.ckpt"]
    loaded = ig.load_model(tmp_path / "run" / "model.ckpt")
    assert _equal(model, loaded) and loaded.label == "mine" and loaded.trained_on == model.trained_on
    with pytest.raises(UserError, match="is there already: give another folder"):
        ig.fit(FullyConnected(widths=[4]), ig.data.digits(), epochs=1, folder=tmp_path / "run")


def test_progress_is_reported_to_a_function() -> None:
    told: list[tuple[float, int, str]] = []
    ig.fit(FullyConnected(widths=[]), _blobs(), epochs=2, progress=lambda *news: told.append(news))
    assert told[0][:2] == (0, 2) and told[-1][:2] == (2, 2) and told[-1][2].startswith("loss ")


def test_a_fitted_network_can_be_copied_and_keeps_no_images() -> None:
    model = ig.fit(FullyConnected(widths=[4]), _blobs(), epochs=1)
    assert _equal(copy.deepcopy(model), model)
    with pytest.raises(RuntimeError, match="not attached to a `Trainer`"):
        _ = model.trainer


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"epochs": 0}, UserError, "epochs must be a whole number of at least 1, got 0"),
        ({"data": 3}, UserError, "data must be what ig.data opens, .* got a int"),
        ({"split": "p3"}, UserError, "unknown split 'p3'"),
        ({"validation": 60}, UserError, r"data.validation must be in \[0, 60\), got 60"),
        ({"weight_decay": [0.1, 0.2]}, ValueError, "1 layer with weight decay"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)], lr=0.1)}, UserError, "optimizer must take the parameters"),
        ({"optimizer": partial(torch.optim.SGD, rate=1)}, UserError, "optimizer: .*rate"),
        ({"scheduler": 3}, UserError, "scheduler must take the optimiser"),
        ({"max_epochs": 3}, UserError, "max_epochs is set by epochs="),
        ({"acelerator": "cpu"}, UserError, "acelerator is read by nothing: .*; did you mean accelerator"),
        ({"lr": 1e-3}, UserError, r"give optimizer=partial\(torch.optim.Adam, lr=1e-3\)$"),
        ({"model": nn.Linear(3, 2)}, ValueError, r"Linear returns a tensor of shape \(2, 1, 3, 2\)"),
        ({"model": nn.Linear(4, 2)}, ValueError, r"Linear cannot take images of shape \(2, 1, 3, 3\)"),
        ({"data": (_blobs()[0] * 9, _blobs()[1])}, UserError, "leave normalisation to the network"),
        ({"back_feeding": True}, UserError, r"back_feeding must be intriguing\.BackFeeding\(.*got a bool"),
        ({"back_feeding": ig.BackFeeding(layers=["hidden7"], distortion=0.1, size=3)}, UserError, "hidden7"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes: dict, error: type[Exception], message: str) -> None:
    given = {"model": FullyConnected(widths=[]), "data": _blobs(), "epochs": 1, **changes}
    with pytest.raises(error, match=message) as caught:
        ig.fit(given.pop("model"), given.pop("data"), **given)
    assert "\n" not in str(caught.value)

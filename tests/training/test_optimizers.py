"""Optimisers and schedulers of the command line: what they are, and that a resumed fit is the uninterrupted one."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from intriguing.checkpoints import load_model, read_checkpoint
from intriguing.cli.config import training_job
from intriguing.errors import UserError
from intriguing.training import TrainingJob, fit

SMALL = ("data=digits", "data.only=200", "data.batch_size=50", "model.settings.widths=[6,5]", "trainer.max_epochs=6")
WAYS = {
    "adamw": ("optimizer=adamw", "optimizer.lr=0.01", "scheduler=one_cycle"),
    "plateau": (
        *("scheduler=plateau", "scheduler.patience=0", "scheduler.monitor=val/loss", "scheduler.factor=0.5"),
        *("data.validation=50", "optimizer.lr=3", "+scheduler.threshold=0.5"),
    ),
    "train_plateau": ("optimizer=adam", "scheduler=plateau", "scheduler.patience=0", "+scheduler.threshold=0.9"),
    "step": ("optimizer=adam", "scheduler=step", "scheduler.step_size=2"),
    "other": (
        *("optimizer=other", "optimizer._target_=torch.optim.LBFGS", "optimizer.lr=0.1", "+optimizer.max_iter=3"),
        *("scheduler=other", "scheduler._target_=torch.optim.lr_scheduler.PolynomialLR"),
        "+scheduler.total_iters=planned_steps",
    ),
}


class Rates(Callback):
    """Note the learning rate of every step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def _job(composed: Callable[..., dict], *overrides: str) -> TrainingJob:
    return training_job(composed("train", *SMALL, *overrides))


def _rates(composed: Callable[..., dict], *overrides: str) -> list[float]:
    job = _job(composed, *overrides)
    rates = Rates()
    fit(TrainingJob(**{**vars(job), "callbacks": (rates,)}))
    return rates.rates


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_a_resumed_fit_is_the_uninterrupted_one(
    composed: Callable[..., dict], way: tuple[str, ...], fit_up_to: Callable[[int, TrainingJob], None]
) -> None:
    whole, job = fit(_job(composed, *way, "name=whole")), _job(composed, *way, "name=stopped")
    fit_up_to(3, job)
    folder = fit(job)
    one, two = (load_model(path / "model.ckpt").state_dict() for path in (whole, folder))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert (whole / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()
    first, second = (read_checkpoint(path / "checkpoints" / "last.ckpt") for path in (whole, folder))
    assert first["lr_schedulers"] == second["lr_schedulers"]
    rates = [[group["lr"] for group in one["optimizer_states"][0]["param_groups"]] for one in (first, second)]
    assert rates[0] == rates[1]


def test_schedules_span_the_planned_steps(composed: Callable[..., dict]) -> None:
    cycle = _rates(composed, "optimizer=adamw", "optimizer.lr=0.01", "scheduler=one_cycle")
    assert len(cycle) == 6 * 4 and max(cycle) == pytest.approx(0.01, rel=0.02)
    assert cycle.index(max(cycle)) == pytest.approx(0.3 * 24 - 1, abs=1) and cycle[-1] < 1e-4
    cosine = _rates(composed, "name=cosine")
    assert cosine[0] == 0.1 and 0 < cosine[-1] < 0.001
    assert set(_rates(composed, "scheduler=constant", "name=constant", "optimizer.lr=0.4")) == {0.4}


def test_a_plateau_lowers_the_rate_where_the_number_does_not_improve(composed: Callable[..., dict]) -> None:
    job = _job(composed, *WAYS["plateau"], "name=watched")
    rates = Rates()
    folder = fit(TrainingJob(**{**vars(job), "callbacks": (rates,)}))
    losses = [float(row["val/loss"]) for row in _rows(folder) if row.get("val/loss")][:6]
    rate, best, expected = 3.0, float("inf"), []
    for loss in losses:
        expected.append(rate)
        better = loss < best * (1 - 0.5)
        rate, best = (rate, loss) if better else (rate / 2, best)
    assert rates.rates[:: len(rates.rates) // 6] == expected
    assert expected[-1] < 3.0


def _rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def test_what_a_network_is_trained_with_stands_in_the_config(composed: Callable[..., dict]) -> None:
    """The data set chooses among the model's own values, visibly; what is typed is what is used."""

    def values(*overrides: str) -> tuple[Any, ...]:
        config = composed("train", *overrides)
        found = config["optimizer"]["lr"], config["trainer"]["max_epochs"], config["data"]["batch_size"]
        return (config["optimizer"]["_target_"].split(".")[-1], *found, config["weight_decay"]["value"])

    deep = [1e-5, 1e-5, 1e-6]
    assert values("network=fc100_100_10") == ("SGD", 0.4, 60, 20, deep)
    assert values("network=fc100_100_10", "data=digits") == ("SGD", 0.1, 60, 20, deep)
    assert values("network=fc100_100_10", "data=digits", "optimizer.lr=0.4")[1] == 0.4
    assert values("network=fc10_1e-2", "data=digits") == ("Adam", 5e-3, 30, 20, 1e-2)
    assert values("model=convnet", "optimizer=adamw") == ("AdamW", 1e-3, 8, 100, 1e-5)
    assert values("model=fc10", "optimizer=sgd")[:2] == ("SGD", 0.1)
    assert values("network=ae400_10", "model.recipe.epochs=3")[2] == 3


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("optimizer=other", "optimizer._target_=torch.optim.Lion"),
            r"optimizer\._target_=torch\.optim\.Lion: torch\.optim has no Lion",
        ),
        (("optimizer=adam", "+optimizer.momentum=0.9"), r"optimizer\.momentum is read by nothing: .*Adam has no"),
        (("optimizer.lr=nan",), "optimizer.lr must be a"),
        (("optimizer=sgd", "+optimizer.weight_decay=1e-3"), "set weight_decay.value"),
        (("scheduler=plateau", "scheduler.monitor=val/loss"), "scheduler.monitor watches val/loss"),
        (("scheduler=step", "+scheduler.steps=3"), r"scheduler\.steps is read by nothing: .*mean scheduler\.step_size"),
        (("scheduler=constant", "+scheduler.gamma=0.9"), "scheduler.gamma is read by nothing"),
        (("spectral_penalty.value=0.1",), "spectral_penalty=log_product"),
        (("+data.augment=true",), "data.augment is read by nothing"),
        (("+augment=true",), "augment is read by nothing"),
        (("weight_decay.value=[1e-4,1e-4]",), "3 layers with weight decay"),
        (("+model.settings.depth=3",), "depth"),
    ],
)
def test_what_cannot_be_is_refused_before_a_folder_is_made(
    composed: Callable[..., dict], tmp_path: Path, overrides: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        fit(_job(composed, *overrides))
    assert "\n" not in str(caught.value) and not (tmp_path / "runs").exists()


def test_another_depth_needs_its_widths_and_one_number_of_decay(composed: Callable[..., dict]) -> None:
    job = _job(composed, "model.settings.widths=[4,4,4,4]", "weight_decay.value=1e-4")
    assert job.identity["weight_decay"]["value"] == [1e-4] * 5
    assert job.label == "FC4-4-4-4-10(1e-4)"


def test_a_checkpoint_names_no_class_to_build(composed: Callable[..., dict]) -> None:
    folder = fit(_job(composed, "optimizer=adamw", "trainer.max_epochs=1"))
    settings = read_checkpoint(folder / "checkpoints" / "last.ckpt")["hyper_parameters"]
    assert not {"optimizer", "scheduler", "_target_"} & set(settings)
    assert OmegaConf.create(dict(settings)).widths == [6, 5]  # plain values

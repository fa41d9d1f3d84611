"""Callbacks and Trainer options of the user's: what is recorded with them, and what is refused before a run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from intriguing.callbacks import ErrorCurve
from intriguing.checkpoints import load_model, read_checkpoint
from intriguing.cli.config import training_job
from intriguing.errors import UserError
from intriguing.models._tally import Tally
from intriguing.tracking.wandb_run import WandbRun
from intriguing.training import TrainingJob, fit

SMALL = ("data=digits", "data.only=60", "data.batch_size=20", "model=fc10", "trainer.max_epochs=4")
VALIDATED = ("data.validation=50",)
LIGHTNING = "lightning.pytorch.callbacks"
SWA = "StochasticWeightAveraging, swa_lrs: 0.05, swa_epoch_start: 2"
EMA = "EMAWeightAveraging, decay: 0.9"


class AtTheEnd(Callback):
    """Keeps the weights and the learning rate that a training ended with; may break it off there."""

    weights: dict[str, torch.Tensor]
    rate: float
    breaks = False

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if AtTheEnd.breaks:
            raise ConnectionError
        AtTheEnd.weights = {key: value.clone() for key, value in pl_module.state_dict().items()}
        AtTheEnd.rate = trainer.optimizers[0].param_groups[0]["lr"]


class Watches(Callback):
    """Keeps the keys that a training logged."""

    keys: set[str]

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        Watches.keys = set(trainer.callback_metrics)


class OddState(Callback):
    """Has a state that a checkpoint may not hold: at once, or after the first epoch."""

    def __init__(self, at_once: bool) -> None:
        self.state: Any = numpy.float64(1) if at_once else 1.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.current_epoch == 2:
            self.state = numpy.float64(1)

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state}


@pytest.fixture(autouse=True)
def _unbroken() -> None:
    AtTheEnd.breaks = False


def with_callback(text: str, name: str = "theirs", package: str = LIGHTNING) -> str:
    return f"+callbacks.{name}={{_target_: {package}.{text}}}"


AT_THE_END = with_callback("AtTheEnd", "end", __name__)


@pytest.fixture
def job(composed: Callable[..., dict]) -> Callable[..., TrainingJob]:
    return lambda *overrides: training_job(composed("train", *SMALL, *overrides), [], "")


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())["result"]


def last(folder: Path, key: str) -> float:
    return float([row[key] for row in rows(folder) if row.get(key)][-1])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder / "model.ckpt").state_dict())


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def assert_numbers_are_the_files(folder: Path) -> None:
    for name in ("val", "test"):
        wrong, images = result(folder)["errors"][name]
        assert last(folder, f"{name}/acc") == pytest.approx(1 - wrong / images, abs=1e-6)


@pytest.mark.parametrize("averages", [SWA, EMA])
def test_the_network_is_what_the_training_ended_with(job: Callable[..., TrainingJob], averages: str) -> None:
    folder = fit(job(*VALIDATED, with_callback(averages), AT_THE_END))
    assert same(weights(folder), AtTheEnd.weights)
    assert not same(weights(folder), weights(fit(job(*VALIDATED, "name=plain"))))
    assert_numbers_are_the_files(folder)


@pytest.mark.parametrize("averages", [None, EMA])
def test_the_numbers_of_the_best_network_are_its_own(
    job: Callable[..., TrainingJob], averages: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rate that destroys what was learned, the first validated network is the best."""
    summary: dict[str, Any] = {}
    monkeypatch.setattr(WandbRun, "summarise", lambda self, values: summary.update(values))
    wild = ("keep=best", "optimizer.lr=0.5", "scheduler=constant")
    folder = fit(job(*VALIDATED, *wild, *([with_callback(averages)] if averages else [])))
    best = read_checkpoint(folder / "checkpoints" / "best.ckpt")
    assert same(weights(folder), dict(best["state_dict"]))
    assert_numbers_are_the_files(folder)
    epoch = next(row for row in rows(folder) if row["epoch"] == str(best["epoch"]) and row["train/loss"])
    assert summary["train/loss"] == float(epoch["train/loss"])
    assert summary["weights/rms_1"] == pytest.approx(
        float(best["state_dict"]["network.1.weight"].square().mean().sqrt())
    )


@pytest.mark.parametrize(
    "overrides",
    [
        (with_callback(SWA),),
        (with_callback(EMA),),
        (with_callback("GradientAccumulationScheduler, scheduling: {0: 2, 3: 1}"),),
        pytest.param((with_callback("LearningRateMonitor"),), marks=pytest.mark.slow),
        (with_callback("ModelCheckpoint, monitor: val/loss, save_last: true"), *VALIDATED),
        ("trainer.precision=64-true", with_callback(EMA)),
        ("+trainer.accumulate_grad_batches=2", "+trainer.max_steps=7"),
        pytest.param(("+trainer.val_check_interval=1", "keep=best", *VALIDATED), marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    job: Callable[..., TrainingJob], fit_up_to: Callable[[int, TrainingJob], None], overrides: tuple[str, ...]
) -> None:
    whole = fit(job("name=whole", *overrides))
    fit_up_to(3, job("name=stopped", *overrides))
    resumed = fit(job("name=stopped", *overrides))
    assert same(weights(whole), weights(resumed))
    assert rows(whole) == rows(resumed)


@pytest.mark.parametrize("averages", [SWA, EMA])
def test_a_run_that_broke_off_where_its_training_ended_ends_the_same(
    job: Callable[..., TrainingJob], averages: str
) -> None:
    whole = fit(job("name=whole", AT_THE_END, with_callback(averages)))
    AtTheEnd.breaks = True
    with pytest.raises(ConnectionError):
        fit(job("name=broken", AT_THE_END, with_callback(averages)))
    AtTheEnd.breaks = False
    resumed = fit(job("name=broken", AT_THE_END, with_callback(averages)))
    assert same(weights(whole), weights(resumed))
    assert result(whole)["epochs"] == result(resumed)["epochs"] == 4


@pytest.mark.parametrize(
    ("stops", "epochs", "steps"),
    [
        (with_callback("EarlyStopping, monitor: train/loss, stopping_threshold: 100."), 1, 3),
        (with_callback("EarlyStopping, monitor: train/error, min_delta: 2., patience: 1"), 2, 6),
        ("+trainer.max_steps=7", 3, 7),
        ("+trainer.limit_train_batches=1", 4, 4),
    ],
)
def test_the_epochs_are_those_that_were_trained(
    job: Callable[..., TrainingJob], stops: str, epochs: int, steps: int
) -> None:
    """Also of a run that broke off after it had stopped early: it does not train on."""
    AtTheEnd.breaks = True
    with pytest.raises(ConnectionError):
        fit(job(AT_THE_END, stops))
    AtTheEnd.breaks = False
    folder = fit(job(AT_THE_END, stops))
    assert (result(folder)["epochs"], result(folder)["steps"]) == (epochs, steps)
    assert sum(bool(row.get("train/loss")) for row in rows(folder)) == epochs


def test_so_many_steps_are_trained_where_no_epochs_are_given(job: Callable[..., TrainingJob]) -> None:
    folder = fit(job("trainer.max_epochs=null", "+trainer.max_steps=20", AT_THE_END))
    assert result(folder)["steps"] == 20
    assert AtTheEnd.rate == pytest.approx(0, abs=1e-12)


def test_the_rate_falls_to_zero_also_where_the_accumulation_changes(job: Callable[..., TrainingJob]) -> None:
    fit(job(with_callback("GradientAccumulationScheduler, scheduling: {0: 3, 2: 1}"), AT_THE_END))
    assert AtTheEnd.rate == pytest.approx(0, abs=1e-12)


def test_checkpoints_of_the_user_are_written_and_replaced_where_they_say(
    job: Callable[..., TrainingJob], tmp_path: Path
) -> None:
    every = with_callback(f"ModelCheckpoint, dirpath: {tmp_path}/every, filename: '{{epoch}}', save_top_k: -1", "every")
    best = with_callback(
        f"ModelCheckpoint, dirpath: {tmp_path}/best, monitor: train/loss, filename: '{{step}}'", "best"
    )
    inside = with_callback("ModelCheckpoint, every_n_train_steps: 5", "inside")
    folder = fit(job(every, best, inside))
    assert {file.name for file in (tmp_path / "every").iterdir()} == {f"epoch={epoch}.ckpt" for epoch in range(4)}
    assert len(list((tmp_path / "best").iterdir())) == 1
    assert len(list((folder / "checkpoints" / "own").iterdir())) == 1
    assert load_model(tmp_path / "every" / "epoch=3.ckpt").label == "FC10(1e-4)"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((with_callback("EarlyStopping, monitor: val/loss"),), "data.validation=... sets images apart"),
        ((with_callback("EarlyStopping, monitor: val/los"), *VALIDATED), "val/los, which this run does not log"),
        ((with_callback("ModelCheckpoint, monitor: train/acc"),), "train/acc, which this run does not log"),
        ((with_callback("ModelCheckpoint", "a"), with_callback("ModelCheckpoint", "b")), "more than one stateful"),
        ((with_callback("BatchSizeFinder"),), "would change data.batch_size"),
        ((with_callback("LearningRateFinder"),), "would change optimizer.lr"),
        ((with_callback("BackboneFinetuning"),), "no attribute 'backbone'"),
        ((with_callback("OnExceptionCheckpoint, dirpath: x"),), "OnExceptionCheckpoint"),
        ((with_callback("Nothing"),), "lightning.pytorch.callbacks has no Nothing"),
        ((with_callback("Identity", package="torch.nn"),), "expected Lightning callbacks"),
        ((with_callback("OddState, at_once: true", package=__name__),), "the state_dict of OddState"),
        (("+callbacks.theirs={monitor: x}",), "callbacks.theirs: expected {_target_: <class>"),
        (("+trainer.limit_train_batches=0",), "leaves nothing to train on; give at least 1"),
        (("+trainer.limit_train_batches=0.01",), "Please increase the `limit_train_batches`"),
        (("+trainer.limit_test_batches=0.5",), "Please increase the `limit_test_batches`"),
        (("+trainer.val_check_interval=50", *VALIDATED), "`val_check_interval` (50) must be less"),
        (("+trainer.check_val_every_n_epoch=9", "keep=best", *VALIDATED), "validates no network within 4 epochs"),
        (("+trainer.max_steps=0",), "trainer.max_steps must be a whole number of at least 1"),
        (("+trainer.overfit_batches=2",), "data.only=100 trains on the same"),
        (("+trainer.enable_checkpointing=false",), "a run goes on from its checkpoints"),
        (("+trainer.barebones=true",), "leaves out the checkpoints"),
        (("+trainer.logger=false",), "metrics.csv is always written"),
        (("+trainer.default_root_dir=x",), "runs=... and name=... say where"),
        (("+trainer.profiler=none_such",), "`profiler` parameter"),
        (
            ("+trainer.max_epoch=1",),
            "trainer.max_epoch is read by nothing: lightning.Trainer has no such option; did you",
        ),
        (
            ("+optimizer.lrr=1",),
            "optimizer.lrr is read by nothing: torch.optim.Adam has no such argument; did you mean opt",
        ),
        (("trainer.precision=31",), "Precision 31 is invalid"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_before_a_folder_is_made(
    job: Callable[..., TrainingJob], tmp_path: Path, overrides: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UserError) as error:
        fit(job(*overrides))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_folder_in_which_the_run_keeps_its_own_checkpoints_is_refused(
    job: Callable[..., TrainingJob], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="where the run keeps its own checkpoints"):
        fit(job("name=mine", with_callback(f"ModelCheckpoint, dirpath: {tmp_path}/runs/train/mine/checkpoints")))


def test_a_state_that_cannot_be_read_back_does_not_replace_a_checkpoint(job: Callable[..., TrainingJob]) -> None:
    with pytest.raises(UserError, match="no checkpoint may"):
        fit(job("name=odd", with_callback("OddState, at_once: false", package=__name__)))
    folder = Path(job("name=odd").runs) / "train" / "odd"
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["epoch"] == 1


@pytest.mark.parametrize("penalty", [(), ("spectral_penalty=log_product", "spectral_penalty.value=0.01")])
def test_the_keys_that_may_be_watched_are_those_that_are_logged(
    job: Callable[..., TrainingJob], penalty: tuple[str, ...]
) -> None:
    folder = fit(job(*penalty, with_callback("Watches", package=__name__)))
    assert Watches.keys == set(load_model(folder / "model.ckpt").metric_keys())


def test_the_spectral_penalty_is_logged(job: Callable[..., TrainingJob]) -> None:
    """It is strength * log(1 + product of the layers' largest singular values) of the weights at the epoch's end."""
    folder = fit(job("spectral_penalty=log_product", "spectral_penalty.value=0.5", "trainer.max_epochs=20"))
    norm = float(torch.linalg.svdvals(weights(folder)["network.1.weight"])[0])
    logged = last(folder, "train/spectral_penalty")
    assert logged == pytest.approx(0.5 * numpy.log1p(norm), rel=1e-2)
    assert not any(row.get("train/spectral_penalty") for row in rows(fit(job("name=none"))))


def test_a_showing_run_takes_any_callback_and_is_marked(job: Callable[..., TrainingJob]) -> None:
    showing = job(
        "+trainer.fast_dev_run=2", with_callback("ModelCheckpoint"), with_callback("LearningRateMonitor", "b")
    )
    assert showing.name.startswith("debug-fast")
    assert result(fit(showing))["debug"] == "fast"


@pytest.mark.parametrize("attack", ["gradient", "noise"])
def test_back_feeding_works_in_mixed_precision(job: Callable[..., TrainingJob], attack: str) -> None:
    pools = ("callbacks=back_feeding", "callbacks.back_feeding.start=0", f"callbacks.back_feeding.attack={attack}")
    steps = ("callbacks.back_feeding.num_steps=2", "model.settings.widths=[10]", "weight_decay.value=1e-4")
    folder = fit(job(*pools, steps[0], "model=fc100_100_10", "trainer.precision=bf16-mixed", "test_curve=true"))
    assert 0 <= last(folder, "pool/fooled_hidden1") <= 1
    assert last(folder, "test/acc") == pytest.approx(1 - last(folder, "curve/test_error"), abs=0.05)


@pytest.mark.parametrize("kind", ["margin", "log_product"])
def test_a_spectral_penalty_works_in_mixed_precision(job: Callable[..., TrainingJob], kind: str) -> None:
    penalty = (f"spectral_penalty={kind}", "spectral_penalty.value=0.01")
    folder = fit(job(*penalty, *VALIDATED, "trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=1"))
    assert last(folder, "train/spectral_penalty") > 0
    assert_numbers_are_the_files(folder)


def test_images_are_counted_in_any_precision() -> None:
    tally = Tally()
    labels = torch.zeros(300, dtype=torch.int64)
    tally.add(torch.tensor(2.0, dtype=torch.bfloat16), torch.zeros(300, 2, dtype=torch.bfloat16), labels)
    tally.add(torch.tensor(1.0, dtype=torch.bfloat16), torch.eye(2, dtype=torch.bfloat16)[[1]], labels[:1])
    assert tally.sums().tolist() == [601, 1, 301]


def test_the_error_curve_leaves_every_module_in_its_mode(job: Callable[..., TrainingJob]) -> None:
    class Frozen(ErrorCurve):
        modes: list[bool]

        def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
            network = pl_module.get_submodule("network")
            network.get_submodule("1").eval()
            super().on_train_epoch_end(trainer, pl_module)
            self.modes = [pl_module.training, network.training, network.get_submodule("1").training]

    curve = Frozen()
    made = job("trainer.max_epochs=1")
    fit(TrainingJob(**{**vars(made), "callbacks": (curve,)}))
    assert curve.modes == [True, True, False]

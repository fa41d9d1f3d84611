"""The training stage: repeats exactly, resumes exactly, refuses and skips; its counts are brute force's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from intriguing.checkpoints import load_model, read_checkpoint
from intriguing.cli.config import training_job
from intriguing.data import open_images
from intriguing.errors import UserError
from intriguing.models import Classifier
from intriguing.training import TrainingJob, fit

SMALL = ("data=digits", "model.settings.widths=[8,6]", "trainer.max_epochs=4")
NETWORKS = ("network=fc100_100_10_p2", "network=ae400_10", "spectral_penalty=log_product", "spectral_penalty=margin")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder / "model.ckpt").state_dict())


def _same(one: Path, two: Path) -> bool:
    first, second = _weights(one), _weights(two)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def _job(composed: Callable[..., dict], *overrides: str) -> TrainingJob:
    return training_job(composed("train", "data=digits", "trainer.max_epochs=4", *overrides))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_seeded_run_repeats_exactly_and_another_seed_does_not(composed: Callable[..., dict], network: str) -> None:
    first, again, other = (
        fit(_job(composed, network, f"name=run{i}", f"seed={seed}", "trainer.max_epochs=2"))
        for i, seed in enumerate((3, 3, 4))
    )
    assert _same(first, again)
    assert not _same(first, other)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_resumed_run_equals_an_uninterrupted_one(
    composed: Callable[..., dict], network: str, fit_up_to: Callable[[int, TrainingJob], None]
) -> None:
    told: list[tuple[float, int, str]] = []
    whole = fit(_job(composed, network, "name=whole"), progress=lambda *news: told.append(news))
    assert told[0][:2] == (0, 4) and told[-1][:2] == (4, 4) and told[-1][2].startswith("loss ")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    job = _job(composed, network, "name=stopped")
    fit_up_to(3, job)
    folder = Path(job.runs) / "train" / "stopped"
    assert json.loads((folder / "run.json").read_text())["state"] == "failed"
    assert not (folder / "model.ckpt").exists()
    fit(job)
    assert _same(whole, folder)
    assert (whole / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()


def test_the_recorded_counts_are_those_of_the_stored_network(composed: Callable[..., dict]) -> None:
    folder = fit(_job(composed, "network=fc10_1e-2", "split=p1", "data.validation=50"))
    info = json.loads((folder / "run.json").read_text())
    model, data = load_model(folder / "model.ckpt"), open_images(name="digits", split="p1", validation=50)
    assert info["label"] == "FC10(1e-2)"
    assert set(info["result"]["errors"]) == {"train", "val", "test", "full", "p1", "p2"}
    for name, (wrong, total) in info["result"]["errors"].items():
        subset = data.subset(name)
        with torch.no_grad():
            assert wrong == int((model(subset.images).argmax(1) != subset.labels).sum())
        assert total == len(subset)


def test_a_finished_folder_is_skipped_and_another_config_is_refused(composed: Callable[..., dict]) -> None:
    job = _job(composed, "network=fc10_1", "name=mine")
    folder = fit(job)
    before = (folder / "model.ckpt").stat().st_mtime_ns
    assert fit(job) == folder
    assert (folder / "model.ckpt").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"holds another config.*weight_decay"):
        fit(_job(composed, "network=fc10_1e-2", "name=mine"))


def test_best_and_last_checkpoints_are_kept(composed: Callable[..., dict]) -> None:
    job = _job(composed, "network=fc10_1e-4", "data.validation=200", "keep=best")
    folder = fit(job)
    assert {file.name for file in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    best = load_model(folder / "checkpoints" / "best.ckpt").state_dict()
    assert all(torch.equal(best[key], value) for key, value in _weights(folder).items())


def test_the_network_is_that_of_the_last_epoch_also_where_an_earlier_one_had_less_loss(
    composed: Callable[..., dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Classifier.on_train_epoch_start

    def spoil(self: Classifier) -> None:
        """Turn what was learnt into its opposite, a hundred times as sure: the last epoch's loss starts far above."""
        start(self)
        if self.current_epoch == 2:
            for parameter in self.network.parameters():
                parameter.data.mul_(-100)

    monkeypatch.setattr(Classifier, "on_train_epoch_start", spoil)
    folder = fit(_job(composed, "network=fc10_1e-4", "trainer.max_epochs=3"))
    losses = pd.read_csv(folder / "metrics.csv")["train/loss"].dropna().tolist()
    assert len(losses) == 3 and losses[2] > 2 * max(losses[:2])
    files = (folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt", folder / "model.ckpt")
    best, last, kept = (read_checkpoint(file) for file in files)
    assert best["epoch"] < last["epoch"] == kept["epoch"] == 2
    assert all(torch.equal(kept["state_dict"][key], value) for key, value in last["state_dict"].items())


@pytest.mark.parametrize(
    ("overrides", "name", "label"),
    [
        (["data=mnist", "network=fc10_1e-2"], "fc10_wd1e-2_full_seed0", "FC10(1e-2)"),
        (["network=fc100_100_10_p2", "seed=3"], "digits_fc100_100_10_p2_seed3", "FC100-100-10'"),
        (["network=ae400_10"], "digits_ae400_10_full_seed0", "AE400-10"),
        (
            ["network=fc200_200_10", "weight_decay.value=1e-3"],
            "digits_fc200_200_10_wd1e-3_full_seed0",
            "FC200-200-10(1e-3)",
        ),
    ],
)
def test_names_and_labels_say_what_a_run_is(
    composed: Callable[..., dict], overrides: list[str], name: str, label: str
) -> None:
    job = _job(composed, *overrides)
    assert (job.name, job.label) == (name, label)


@pytest.mark.parametrize("epochs", [300])
def test_softmax_regression_learns_the_digits(composed: Callable[..., dict], epochs: int) -> None:
    folder = fit(_job(composed, "network=fc10_1e-4", f"trainer.max_epochs={epochs // 10}"))
    wrong, total = json.loads((folder / "run.json").read_text())["result"]["errors"]["test"]
    assert wrong / total < 0.1

"""Back-feeding: one flag for every network, exact resumption, and errors for impossible settings."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from intriguing.checkpoints import load_model, read_checkpoint
from intriguing.cli.config import training_job
from intriguing.errors import UserError
from intriguing.training import fit


def job(composed: Callable[..., dict], *overrides: str):
    config = composed("train", "data=digits", "trainer.max_epochs=3", "callbacks=back_feeding", *overrides)
    return training_job(config, (), "")


def rows(folder: Path) -> list[dict[str, str]]:
    """Read the metrics of the epochs; the row of the final test has no metrics of pools."""
    found = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    return [row for row in found if row.get("train/loss")]


def same(one: Path, two: Path) -> bool:
    first, second = (load_model(folder / "model.ckpt").state_dict() for folder in (one, two))
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        ("network=fc10_1e-4", ["input"]),
        ("network=fc100_100_10", ["input", "hidden1", "hidden2"]),
        ("network=ae400_10", ["input", "hidden1"]),
        ("experiment=wide_relu", ["input", "hidden1"]),
    ],
)
def test_one_flag_turns_it_on_for_every_network(composed, network, layers):
    folder = fit(job(composed, network))
    last = rows(folder)[-1]
    for layer in layers:
        assert 0 <= float(last[f"pool/fooled_{layer}"]) <= 1
        assert 0 < float(last[f"pool/distortion_{layer}"]) <= 0.032 * 1.001
    assert float(last["pool/clean_loss"]) > 0
    assert float(last["pool/loss"]) > 0
    assert float(last["pool/renewal_seconds"]) > 0
    saved = read_checkpoint(folder / "checkpoints" / "last.ckpt")["callbacks"]
    pools = next(state for key, state in saved.items() if "BackFeeding" in key)["ranks"][0]["pools"]
    assert list(pools)[: len(layers)] == layers
    assert pools["input"]["pool"]["filled"] > 0


def test_back_feeding_changes_the_network(composed):
    with_it = fit(job(composed, "name=with"))
    without = fit(training_job(composed("train", "data=digits", "trainer.max_epochs=3", "name=without"), (), ""))
    assert not same(with_it, without)


@pytest.mark.parametrize("extra", ["callbacks.back_feeding.turns=together", "callbacks.back_feeding.attack=noise"])
def test_a_resumed_run_equals_an_uninterrupted_one(composed, fit_up_to, extra):
    overrides = (extra, "callbacks.back_feeding.size=50", "callbacks.back_feeding.refresh=0.2")
    whole = fit(job(composed, "name=whole", *overrides))
    fit_up_to(2, job(composed, "name=stopped", *overrides))
    resumed = fit(job(composed, "name=stopped", *overrides))
    assert same(whole, resumed)
    drop = "pool/renewal_seconds"  # a time, not a result
    assert [{k: v for k, v in row.items() if k != drop} for row in rows(whole)] == [
        {k: v for k, v in row.items() if k != drop} for row in rows(resumed)
    ]


def test_pools_may_stay_out_of_the_checkpoint(composed):
    folder = fit(job(composed, "callbacks.back_feeding.save_pools=false"))
    saved = read_checkpoint(folder / "checkpoints" / "last.ckpt")["callbacks"]
    assert not any(state for key, state in saved.items() if "BackFeeding" in key)


def test_layers_and_distortions_follow_the_settings(composed):
    folder = fit(
        job(
            composed,
            "callbacks.back_feeding.layers=[hidden2]",
            "+callbacks.back_feeding.distortion.hidden2=0.05",
        )
    )
    last = rows(folder)[-1]
    assert "pool/fooled_input" not in last
    assert float(last["pool/distortion_hidden2"]) == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("callbacks.back_feeding.layers=[hidden7]", "FC100-100-10 does not have; it has input, hidden1, hidden2"),
        ("+callbacks.back_feeding.distortion.hidden9=.1", "names 'hidden9'"),
        ("~callbacks.back_feeding.distortion.hidden", "has no value for the layer hidden1"),
        ("callbacks.back_feeding.size=0", "size must be a whole number of at least 1"),
        ("callbacks.back_feeding.refresh=1.5", "refresh"),
        ("callbacks.back_feeding.start=1", "start"),
        ("callbacks.back_feeding.attack=fgsm", "known: gradient, noise, lbfgs"),
        ("callbacks.back_feeding.turns=never", "known: alternate, together"),
    ],
)
def test_impossible_settings_are_refused_in_one_line_before_anything_is_written(composed, tmp_path, override, said):
    with pytest.raises(UserError) as error:
        fit(job(composed, override))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "UserError" not in str(error.value)
    assert not (tmp_path / "runs" / "train").exists()


def test_lbfgs_needs_values_in_0_1(composed):
    with pytest.raises(UserError, match="lie in \\[0, inf\\]"):
        fit(job(composed, "experiment=wide_relu", "callbacks.back_feeding.attack=lbfgs"))


def test_dropout_leaves_out_while_training_and_resumes_exactly(composed, fit_up_to):
    base = ("data=digits", "trainer.max_epochs=3", "+model.settings.dropout=[0.2,0.5]")
    whole = fit(training_job(composed("train", *base, "name=whole"), (), ""))
    fit_up_to(2, training_job(composed("train", *base, "name=stopped"), (), ""))
    assert same(whole, fit(training_job(composed("train", *base, "name=stopped"), (), "")))
    model = load_model(whole / "model.ckpt")
    images = torch.rand(3, *model.input_shape)
    assert torch.equal(model(images), model(images))
    assert not torch.equal(model.train()(images), model(images))


def test_the_error_curve_has_one_point_per_epoch(composed):
    config = composed("train", "data=digits", "trainer.max_epochs=3", "test_curve=true")
    folder = fit(training_job(config, (), ""))
    curve = [float(row["curve/test_error"]) for row in rows(folder) if row.get("curve/test_error")]
    assert len(curve) == 3
    assert all(0 <= error <= 1 and math.isfinite(error) for error in curve)

"""Users' networks through the stages: trained, resumed, trained further, opened by their class alone."""

from __future__ import annotations

import csv
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import planted_networks
import pytest
import torch

from intriguing.attacking import AttackJob, craft
from intriguing.checkpoints import load_model, read_checkpoint
from intriguing.cli import factories
from intriguing.cli.config import training_job
from intriguing.cli.study import study_steps
from intriguing.data import open_images
from intriguing.errors import UserError
from intriguing.models import ModuleClassifier
from intriguing.runs.records import read_run
from intriguing.training import TrainingJob, fit

SMALL = ("data=digits", "data.only=100", "data.batch_size=50", "trainer.max_epochs=2")
FUNCTIONAL = ("model=module", "model._target_=planted_networks.Functional")


def _job(composed: Callable[..., dict], *overrides: str) -> TrainingJob:
    return training_job(composed("train", *SMALL, *overrides))


def _weights(folder: Path, kind: type) -> dict[str, torch.Tensor]:
    return dict(load_model(folder / "model.ckpt", network=kind).state_dict())


def _same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    "way",
    [
        (*FUNCTIONAL, "+model.width=3", "optimizer=adamw", "optimizer.lr=3e-3", "scheduler=one_cycle"),
        ("model=module", "model._target_=planted_networks.Double", "callbacks=back_feeding", "optimizer=sgd"),
        (
            *("model=module", "model._target_=planted_networks.ByKeyword", "model.input=pixel_values"),
            *("scheduler=plateau", "scheduler.patience=0", "spectral_penalty=log_product"),
        ),
    ],
    ids=["one_cycle", "pools", "plateau"],
)
def test_a_resumed_fit_is_the_uninterrupted_one(
    composed: Callable[..., dict], way: tuple[str, ...], fit_up_to: Callable[[int, TrainingJob], None]
) -> None:
    whole, job = fit(_job(composed, *way, "name=whole")), _job(composed, *way, "name=stopped")
    fit_up_to(1, job)
    folder = fit(job)
    kind = getattr(planted_networks, way[1].rpartition(".")[2])
    assert _same(_weights(whole, kind), _weights(folder, kind))
    assert _numbers(whole) == _numbers(folder)


def _numbers(folder: Path) -> list[dict[str, str]]:
    rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in rows]


@pytest.mark.parametrize(
    "way",
    [
        ("torch.optim.LBFGS", "optimizer.lr=0.1", "+optimizer.max_iter=2"),
        ("planted_networks.Signs", "optimizer.lr=1e-3"),
    ],
    ids=["lbfgs", "mine"],
)
def test_any_optimiser_of_the_users_trains_it(composed: Callable[..., dict], way: tuple[str, ...]) -> None:
    way = ("optimizer=other", f"optimizer._target_={way[0]}", *way[1:])
    folder = fit(_job(composed, *FUNCTIONAL, "+model.dropout=0.0", *way, "scheduler=constant"))
    losses = [float(row["train/loss"]) for row in _numbers(folder) if row["train/loss"]]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_keywords_of_the_class_are_one_setting_wherever_they_stand(composed: Callable[..., dict]) -> None:
    one = _job(composed, *FUNCTIONAL, "+model.width=8")
    two = _job(composed, *FUNCTIONAL, "+model.settings.width=8")
    assert one.identity == two.identity and one.label == "Functional(width=8)"
    assert one.name.startswith("digits_planted_networks.functional_full_seed0")
    other = _job(composed, "model=module", "model._target_=planted_networks.Chained", "+model.width=8")
    assert other.identity["model"] != one.identity["model"]
    with pytest.raises(UserError, match="one setting"):
        _job(composed, *FUNCTIONAL, "+model.width=8", "+model.settings.width=8")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((*FUNCTIONAL, "+model.widht=8"), "unexpected keyword argument 'widht'"),
        (("model=module", "model._target_=planted_networks.Nett"), "model._target_=planted_networks.Nett: .*Nett"),
        (("model=module", "model._target_=nowhere.Net"), "nowhere"),
        (("model=fc10", "+model._target_=planted_networks.Functional"), "model=module model._target_=<class>"),
        (("model=module", "model._target_=planted_networks.Named"), "a dict with 'embedding', 'scores'.*model.output="),
        ((*FUNCTIONAL, "weight_decay.value=[1,1,1]"), "2 layers with weight decay"),
        (("model=file", "model.path=net.pt2"), "give trainer.max_epochs=0"),
        ((*FUNCTIONAL, "data.mean=0.5"), "data.mean and data.std belong together"),
        ((*FUNCTIONAL, "data.mean=abc"), "^data.mean must be a number or a list of numbers, got 'abc'"),
        ((*FUNCTIONAL, "+model.width=wide"), "Functional cannot be built with model.width=wide: TypeError: "),
    ],
)
def test_what_cannot_be_is_refused_before_a_folder_is_made(
    composed: Callable[..., dict], tmp_path: Path, overrides: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        fit(_job(composed, *overrides))
    assert "\n" not in str(caught.value) and not (tmp_path / "runs").exists()


def test_pools_at_hidden_layers_of_a_chain_and_at_the_input_of_any_other(
    composed: Callable[..., dict], caplog: pytest.LogCaptureFixture
) -> None:
    pools = ("callbacks=back_feeding", "callbacks.back_feeding.size=8", "trainer.max_epochs=1")
    folder = fit(_job(composed, "model=module", "model._target_=planted_networks.Chained", *pools))
    head = (folder / "metrics.csv").read_text().splitlines()[0]
    assert all(f"pool/fooled_{name}" in head for name in ("input", "hidden1", "hidden2"))
    with caplog.at_level(logging.WARNING):
        folder = fit(_job(composed, *FUNCTIONAL, *pools))
    head = (folder / "metrics.csv").read_text().splitlines()[0]
    assert "pool/fooled_input" in head and "hidden" not in head
    assert "Functional gets a pool at its input only" in caplog.text
    with pytest.raises(UserError, match="'hidden1', which Functional does not have; it has input; hidden layers are"):
        fit(_job(composed, *FUNCTIONAL, *pools, "callbacks.back_feeding.layers=[hidden1]", "name=other"))


def test_no_checkpoint_says_which_class_runs(composed: Callable[..., dict], tmp_path: Path) -> None:
    folder = fit(_job(composed, *FUNCTIONAL, "+model.width=3", "name=net"))
    settings = read_checkpoint(folder / "model.ckpt")["hyper_parameters"]
    assert settings["target"] == "planted_networks.Functional" and settings["settings"] == {"width": 3}
    path = folder / "model.ckpt"
    with pytest.raises(UserError, match=r"the class planted_networks.Functional: .* give model._target_=planted"):
        load_model(path)
    with pytest.raises(UserError, match=r"and planted_networks.Chained was given"):
        load_model(path, network=planted_networks.Chained)
    images = torch.rand(3, 1, 8, 8)
    by_class = load_model(path, network=[planted_networks.Chained, planted_networks.Functional])
    by_module = load_model(path, network=planted_networks.Functional((1, 8, 8), 10, width=3))
    assert torch.equal(by_class(images), by_module(images))
    with pytest.raises(UserError, match=r"does not fit planted_networks.Functional .*shape"):
        load_model(path, network=planted_networks.Functional((1, 8, 8), 10, width=4))
    attack = ("attack", f"checkpoints={path}", "limit=4", "attack.settings.max_iter=5")
    with pytest.raises(UserError, match=r"give model._target_="):
        AttackJob.from_config(composed(*attack))
    config = composed(*attack, "model._target_=[planted_networks.Chained,planted_networks.Functional]")
    (job,) = AttackJob.from_config(config, network_classes=factories.networks(config))
    assert "model" not in job.identity and (craft(job) / "set.safetensors").is_file()


def test_a_study_opens_the_networks_of_users_by_the_classes_of_its_own_steps(composed: Callable[..., dict]) -> None:
    config = composed(
        "analyze",
        "study=quickstart",
        "study.seeds=[0]",
        "++study.train.networks.net=['model=module','model._target_=planted_networks.Functional','model.width=3']",
        "study.attack=[{networks: [net], overrides: ['attack=lbfgs']}]",
    )
    train, attack = (step for step in study_steps(config) if step.key.split(" on ")[-1].startswith("net "))
    assert train.config["model"]["width"] == 3 and attack.config["model"]["_target_"] == "planted_networks.Functional"
    assert "model._target_=planted_networks.Functional" in attack.command
    assert factories.networks(config, train.config, attack.config) == (planted_networks.Functional,)


def test_a_class_that_opens_no_checkpoint_is_refused(composed: Callable[..., dict]) -> None:
    folder = fit(_job(composed, "model=fc10", "trainer.max_epochs=1"))
    config = composed("attack", f"checkpoints={folder}", "model._target_=planted_networks.Functional")
    with pytest.raises(UserError, match=r"model\._target_ changes nothing here"):
        AttackJob.from_config(config, network_classes=factories.networks(config))


def _traced(net: torch.nn.Module, file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is old
        program: Any = torch.jit.trace(net, torch.rand(2, 1, 8, 8))
    program.save(file)


def test_a_trained_network_of_the_users_is_evaluated_without_training(
    composed: Callable[..., dict], tmp_path: Path
) -> None:
    torch.manual_seed(3)
    net = planted_networks.Functional((1, 8, 8), 10).eval()
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pt")
    _traced(net, tmp_path / "net.ts")
    normalised = ("data.mean=0.0", "data.std=1.0")
    one = _job(composed, *FUNCTIONAL, f"model.weights={tmp_path}/net.pt", "trainer.max_epochs=0", *normalised)
    two = _job(composed, "model=file", f"model.path={tmp_path}/net.ts", "trainer.max_epochs=0")
    folders = [fit(one), fit(two)]
    assert [len(job.identity["model"][key]) for job, key in ((one, "weights"), (two, "path"))] == [64, 64]
    errors = [read_run(folder).result["errors"]["test"] for folder in folders]
    assert errors[0] == errors[1]
    program = folders[1] / "program.ts"
    with pytest.raises(UserError, match=r"the program net.ts \(sha256 .*give model.path=.*program.ts"):
        load_model(folders[1] / "model.ckpt")
    (tmp_path / "net.ts").unlink()
    images = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(load_model(folders[1] / "model.ckpt", network=str(program))(images), net(images))
    _traced(planted_networks.Functional((1, 8, 8), 10).eval(), tmp_path / "x.ts")
    with pytest.raises(UserError, match=r"x.ts is another"):
        load_model(folders[1] / "model.ckpt", network=tmp_path / "x.ts")


def test_a_module_in_memory_is_trained_by_a_trainer_that_knows_its_images(tmp_path: Path) -> None:
    model = ModuleClassifier(planted_networks.Functional((1, 8, 8), 10))
    data = open_images(name="digits", only=100, batch_size=50)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and the like
        trainer.fit(model, datamodule=data)
    assert model.is_built and model.num_classes == 10 and trainer.global_step == 2


def _further(composed: Callable[..., dict], start: Path, *way: str) -> Path:
    return fit(_job(composed, *way, f"ckpt_path={start}", "trainer.max_epochs=4"))


def test_more_epochs_of_a_finished_run_are_those_of_a_longer_one_where_the_schedule_does_not_end(
    composed: Callable[..., dict],
) -> None:
    way = (*FUNCTIONAL, "scheduler=step", "scheduler.step_size=1", "optimizer=sgd")
    start, whole = fit(_job(composed, *way)), fit(_job(composed, *way, "trainer.max_epochs=4", "name=whole"))
    folder = _further(composed, start, *way)
    assert folder.name.endswith("_more")
    kind = planted_networks.Functional
    assert _same(_weights(folder, kind), _weights(whole, kind))
    record = json.loads((folder / "run.json").read_text())
    further = record["result"]["further"]
    assert (further["run"], further["epochs"], further["schedule"]) == (start.name, 2, "goes on")
    assert read_run(folder).config["ckpt_path"] == further["sha256"] and record["result"]["epochs"] == 4
    plain = read_run(whole).config  # settings that are off leave no trace, so that folders of before stay what they are
    assert "ckpt_path" not in plain and "mean" not in plain["data"]
    assert _further(composed, start, *way) == folder  # finished, so skipped


def test_a_schedule_that_has_ended_starts_anew_over_the_further_epochs(
    composed: Callable[..., dict], fit_up_to: Callable[[int, TrainingJob], None]
) -> None:
    way = (*FUNCTIONAL, "optimizer=adamw", "optimizer.lr=0.01", "scheduler=one_cycle")
    start = fit(_job(composed, *way))
    folder = _further(composed, start, *way)
    state = read_checkpoint(folder / "checkpoints" / "last.ckpt")["lr_schedulers"][0]
    assert state["total_steps"] == 4 and state["last_epoch"] == 4 and state["_schedule_phases"]
    assert read_checkpoint(folder / "model.ckpt")["global_step"] == 8
    job = _job(composed, *way, f"ckpt_path={start}", "trainer.max_epochs=4", "name=stopped")
    fit_up_to(3, job)
    assert _same(_weights(fit(job), planted_networks.Functional), _weights(folder, planted_networks.Functional))


def test_weights_alone_are_a_start_too_and_what_does_not_fit_is_named(
    composed: Callable[..., dict], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = fit(_job(composed, *FUNCTIONAL, "name=start"))
    with pytest.raises(UserError, match="trained for 2 epochs, which count"):
        fit(_job(composed, *FUNCTIONAL, f"ckpt_path={start}"))
    with pytest.raises(UserError, match=r"does not fit Functional\(width=3\): network.conv.bias is \(4,\) there"):
        _further(composed, start, *FUNCTIONAL, "+model.width=3")
    with pytest.raises(UserError, match=r"was trained on other images: data\.split"):
        _further(composed, start, *FUNCTIONAL, "split=p1")
    with pytest.raises(UserError, match="no such run folder or checkpoint"):
        _further(composed, tmp_path / "nowhere", *FUNCTIONAL)
    (start / "checkpoints" / "last.ckpt").unlink()
    with caplog.at_level(logging.WARNING):
        folder = _further(composed, start, *FUNCTIONAL)
    assert "holds weights alone" in caplog.text
    assert read_run(folder).result["further"]["taken"].startswith("weights alone")


def test_profiling_shows_where_the_time_went(composed: Callable[..., dict], capsys: pytest.CaptureFixture[str]) -> None:
    folder = fit(_job(composed, *FUNCTIONAL, "debug=profile"))
    said = capsys.readouterr().err
    assert "run_training_batch" in said and str(folder / "fit-profile.txt") in said
    assert "Profiler Report" in (folder / "fit-profile.txt").read_text()

"""The three entry points as a user meets them: sweeps, skipping, the whole line (mistakes: tests/test_malformed.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = ("data=digits", "logger=csv", "trainer.max_epochs=2")


def test_the_whole_line_by_hand(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    """A sweep over lambda, an attack on all of it, the tables: each run in a folder of its own."""
    status, _, err = run_script("train.py", "-m", "model=fc10", "weight_decay.value=1e-2,1", *TRAIN)
    assert status == 0, err
    names = {folder.name for folder in (tmp_path / "runs" / "train").iterdir()}
    assert names == {"digits_fc10_wd1e-2_full_seed0_max_epochs2", "digits_fc10_wd1_full_seed0_max_epochs2"}
    status, _, err = run_script(
        "attack.py", f"checkpoints={tmp_path}/runs/train/*/model.ckpt", "limit=16", "logger=csv"
    )
    assert status == 0, err
    assert len(list((tmp_path / "runs" / "attack").iterdir())) == 2
    arguments = (f"networks={tmp_path}/runs/train/*", f"sets={tmp_path}/runs/attack/*", "logger=csv")
    status, out, err = run_script("analyze.py", *arguments)
    assert status == 0, err
    folder = tmp_path / "runs" / "analyze" / "analysis"
    assert (folder / "report.html").is_file() and "FC10(1e-2)" in out
    before = (folder / "report.html").stat().st_mtime_ns
    status, _, err = run_script("analyze.py", *arguments)
    assert status == 0 and (folder / "report.html").stat().st_mtime_ns == before


def test_another_config_in_the_same_folder_is_refused(run_script: Callable[..., tuple]) -> None:
    assert run_script("train.py", "model=fc10", "name=mine", *TRAIN)[0] == 0
    status, _, err = run_script("train.py", "model=fc10", "name=mine", "weight_decay.value=1", *TRAIN)
    assert status == 1 and "holds another config" in err and "weight_decay" in err and err.count("\n") == 1


def test_fast_debugging_runs_and_makes_no_network(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    status, _, err = run_script("train.py", "model=fc10", "debug=fast", "data=digits")
    assert status == 0, err
    (folder,) = (tmp_path / "runs" / "train").iterdir()
    assert folder.name.startswith("debug-fast_digits_fc10")
    assert not (folder / "model.ckpt").exists()


def test_help_and_config_do_not_import_torch() -> None:
    code = (
        "import runpy, sys; sys.argv = ['train.py', '--help']\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'lightning', 'wandb'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_a_small_study_runs_skips_and_remembers(
    run_script: Callable[..., tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = (
        "study=quickstart",
        "logger=csv",
        "processes=1",
        "study.limit=16",
        "study.sections=[table1,table2,table3,table4]",
        "study.train.all=['data=digits','data.only=100','trainer.max_epochs=1']",
        f"study.results={tmp_path}/results",
        *(f"~study.train.networks.{name}" for name in ("ae400_10", "fc200_200_10", "fc10_1e-4", "fc10_1")),
    )
    monkeypatch.setattr("intriguing.analysis.drawing.pdf", lambda canvas: b"")  # the slowest file, tested elsewhere
    status, out, err = run_script("analyze.py", *small)
    assert status == 0, err
    runs = tmp_path / "runs"
    assert len(list((runs / "train").iterdir())) == 5
    assert "Table 2" in out and "Table 4" in out
    assert "\x1b" not in out + err and "━" not in err  # a pipe: no colours, no bars
    assert max(map(len, out[out.index("Table 1") :].splitlines())) <= 80
    assert [line.split()[0] for line in err.splitlines()[:17]] == [f"[{i}/17]" for i in range(1, 18)]
    info = json.loads((tmp_path / "results" / "provenance.json").read_text())
    assert len(info["runs"]) == len(list((runs / "train").iterdir())) + len(list((runs / "attack").iterdir()))
    stamps = {
        file: file.stat().st_mtime_ns for file in runs.rglob("*") if file.name in ("model.ckpt", "set.safetensors")
    }
    status, _, err = run_script("analyze.py", *small)
    assert status == 0, err
    assert stamps == {file: file.stat().st_mtime_ns for file in stamps}


def test_several_processes_in_a_sweep_are_refused(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    status, _, err = run_script(
        "train.py", "-m", "model=fc10", "seed=0,1", "trainer=ddp", "trainer.accelerator=cpu", *TRAIN
    )
    assert status == 1 and "trainer.devices=2 in a sweep needs hydra/launcher=slurm" in err
    assert not (tmp_path / "runs" / "train").exists()


def test_a_failing_sweep_is_seen_from_another_working_folder(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    status, _, err = run_script(
        "train.py", "-m", "seed=-1,0", *TRAIN, "model=fc10", "runs=r", "hydra.job.chdir=true", runs=False
    )
    assert status == 1 and err.splitlines()[-1].startswith("error: 1 of 2 jobs failed: seed=-1: seed must be")
    (folder,) = (tmp_path / "r" / "train").iterdir()  # relative to where the command was started
    assert (folder / "model.ckpt").is_file()
    assert len(list((tmp_path / "r" / "sweeps").glob("*/job?.json"))) == 2
    attack = ("checkpoints=r/train/*", "limit=8", "runs=r", "logger=csv", "hydra.job.chdir=true", "hydra.run.dir=out")
    status, _, err = run_script("attack.py", *attack, runs=False)
    assert status == 0, err
    record = json.loads(next((tmp_path / "r" / "attack").glob("*/run.json")).read_text())
    assert record["command"] == "python attack.py 'checkpoints=r/train/*' limit=8 runs=r logger=csv"


def test_a_setting_of_wandb_is_refused_where_it_is_off(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    off = ("model=fc10", "data=digits", "logger=csv", "trainer.max_epochs=0")
    for typed in ("logger.entity=offline", "+logger.entity=offline", "logger.mode=offline"):
        status, _, err = run_script("train.py", *off, typed)
        key = typed.lstrip("+").partition("=")[0]
        assert status == 1 and err.startswith(f"error: {key} is read by nothing without W&B"), err
        assert err.count("\n") == 1 and not (tmp_path / "runs" / "train").exists()
    assert run_script("train.py", *off, "logger.entity=null")[0] == 0


def test_a_failed_sweep_tells_each_reason_once_with_its_jobs(run_script: Callable[..., tuple]) -> None:
    status, _, err = run_script("train.py", "-m", "model=fc10", "seed=0,1", "data.batch_size=0,-1", *TRAIN)
    why = "data.batch_size must be a whole number of at least 1, got"
    jobs = [f"seed=0 data.batch_size={n}, seed=1 data.batch_size={n}: {why} {n}" for n in (0, -1)]
    assert status == 1 and err.splitlines()[-1] == f"error: 4 of 4 jobs failed: {'; '.join(jobs)}"


def test_an_earlier_sweep_in_the_same_folder_is_not_blamed(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    (tmp_path / "jobs.json").write_text("{}")
    (tmp_path / "job9.json").write_text("[1]")  # of the user's own
    sweep = ("train.py", "-m", "model=fc10", "hydra.sweep.dir=.")
    assert "3 of 3 jobs failed" in run_script(*sweep, "seed=-1,-2,-3")[2]
    status, _, err = run_script(*sweep, "seed=-4,-5")
    assert status == 1 and "2 of 2 jobs failed: seed=-4" in err and "seed=-1" not in err
    assert (tmp_path / "job9.json").read_text() == "[1]" and (tmp_path / "jobs.json").exists()
    status, _, err = run_script(*sweep, "seed=0", *TRAIN)
    assert status == 0, err


def test_a_sweep_whose_reader_has_gone_is_finished(
    run_script: Callable[..., tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        status, _, err = run_script("train.py", "-m", "seed=0", "model=fc10", *TRAIN)
    assert (status, err) == (0, "")
    (record,) = (tmp_path / "runs" / "sweeps").glob("*/job0.json")
    assert json.loads(record.read_text())["state"] == "finished"


def test_overrides_and_callbacks_as_readme_writes_them(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    mine = "callbacks={mine: {_target_: lightning.pytorch.callbacks.LearningRateMonitor}}"
    status, _, err = run_script("train.py", "model=fc10", "-m", "seed=0", mine, *TRAIN)
    assert status == 0, err
    (folder,) = (tmp_path / "runs" / "train").iterdir()
    assert "mine" in folder.name

"""Sweeps and studies beyond one process: joblib, submitit on this machine, and Slurm without a cluster."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ("model=fc10", "data=digits", "trainer.max_epochs=1", "+callbacks.probe._target_=probe.Probe")
PROBE = """
import json, os
from pathlib import Path
import torch
from lightning.pytorch.callbacks import Callback
class Probe(Callback):
    def on_fit_start(self, trainer, pl_module):
        found = {"omp": os.environ["OMP_NUM_THREADS"], "torch": torch.get_num_threads(), "pid": os.getpid()}
        Path(trainer.default_root_dir, "probe.json").write_text(json.dumps(found))
"""


def _start(tmp_path: Path, launcher: str, *overrides: str, path: str = "") -> subprocess.Popen:
    """`train.py -m` as typed, W&B offline."""
    (tmp_path / "probe.py").write_text(PROBE)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "OMP", "MKL"))}
    kept |= {"WANDB_MODE": "offline", "PATH": f"{path}{os.environ['PATH']}"}
    kept["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    command = [sys.executable, str(ROOT / "train.py"), "-m", f"hydra/launcher={launcher}", *SMALL, *overrides]
    return subprocess.Popen(command, cwd=tmp_path, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _sweep(tmp_path: Path, launcher: str, *overrides: str, path: str = "") -> tuple[int, str]:
    """The same, waited for: status and standard error."""
    process = _start(tmp_path, launcher, *overrides, path=path)
    _, err = process.communicate(timeout=900)
    return process.returncode, err


def _check_three(tmp_path: Path) -> None:
    """Three jobs: three finished folders, three W&B runs, one thread each."""
    folders = sorted((tmp_path / "runs" / "train").iterdir())
    assert [folder.name.split("_")[4] for folder in folders] == ["seed0", "seed1", "seed2"]
    assert [json.loads((folder / "run.json").read_text())["state"] for folder in folders] == ["finished"] * 3
    wandb_runs = [[file.stem for file in folder.glob("wandb/offline-run-*/run-*.wandb")] for folder in folders]
    assert [len(own) for own in wandb_runs] == [1, 1, 1] and len({own[0] for own in wandb_runs}) == 3
    for folder in folders:
        found = json.loads((folder / "probe.json").read_text())
        assert (found["omp"], found["torch"]) == ("1", 1)
    # nothing but the package's cache of configs lies beside the runs
    assert {path.name for path in tmp_path.iterdir()} <= {"runs", "probe.py", "__pycache__", "bin"}


@pytest.mark.slow
def test_joblib(tmp_path: Path) -> None:
    """Two workers for three jobs: one of them trains two networks. 15 s of CPU."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    done = _sweep(tmp_path, "joblib", "seed=0,1,2", "hydra.launcher.n_jobs=2")
    assert done == (0, "")
    _check_three(tmp_path)
    (table,) = tmp_path.glob("runs/sweeps/*/runs.csv")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["0", "1", "2"] and all(float(row["test_error"]) > 0 for row in rows)
    assert len({json.loads(file.read_text())["pid"] for file in tmp_path.glob("runs/train/*/probe.json")}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "submitit_local"])
def test_submitit_on_this_machine(tmp_path: Path, launcher: str) -> None:
    """25 s of CPU: three processes that import everything."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra submitit")
    done = _sweep(tmp_path, launcher, "seed=0,1,2")
    assert done == (0, "")
    _check_three(tmp_path)
    assert len(list(tmp_path.glob("runs/sweeps/*/.submitit/*/*_0_result.pkl"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_failing_job_is_named_and_the_others_finish(tmp_path: Path, launcher: str) -> None:
    """20 s of CPU each."""
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher", reason="needs the extra")
    status, err = _sweep(tmp_path, launcher, "seed=-1,0")
    last = err.splitlines()[-1]
    assert (status, last.startswith("error: 1 of 2 jobs failed: seed=-1: seed must be")) == (1, True), last
    assert "Traceback" not in err
    (folder,) = (tmp_path / "runs" / "train").iterdir()
    assert "_seed0_" in folder.name and (folder / "model.ckpt").is_file()


@pytest.fixture
def slurm(tmp_path: Path) -> str:
    """A folder for PATH with what submitit calls."""
    (tmp_path / "bin").mkdir()
    script = (Path(__file__).parent / "slurm.py").read_text()
    for name in ("sbatch", "srun", "sacct", "squeue", "scancel", "scontrol"):
        (tmp_path / "bin" / name).write_text(script.replace("#!/usr/bin/env python3", f"#!{sys.executable}"))
        (tmp_path / "bin" / name).chmod(0o755)
    return f"{tmp_path / 'bin'}{os.pathsep}"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["slurm", "submitit_slurm"])
def test_slurm(tmp_path: Path, slurm: str, launcher: str) -> None:
    """The submission is a real one and its jobs run, only Slurm itself is a script. 25 s of CPU."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra submitit")
    asked = ["partition=cpu", "timeout_min=30", "gpus_per_node=1", "mem_gb=4", "array_parallelism=2"]
    done = _sweep(tmp_path, launcher, "seed=0,1,2", *(f"hydra.launcher.{one}" for one in asked), path=slurm)
    assert done == (0, "")
    _check_three(tmp_path)
    (submission,) = tmp_path.glob("runs/sweeps/*/.submitit/*/*submission*.sh")
    text = submission.read_text()
    for line in ("partition=cpu", "time=30", "gpus-per-node=1", "mem=4GB", "array=0-2%2", "job-name=train"):
        assert f"#SBATCH --{line}\n" in text
    assert ("#SBATCH --cpus-per-task=1\n" in text) == (launcher == "slurm")


@pytest.mark.slow
def test_what_runs_out_of_time_goes_on(tmp_path: Path, slurm: str) -> None:
    """Slurm's warning comes in the middle of a training: the job asks to come again, and resumes. 25 s of CPU."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra submitit")
    sweep = _start(tmp_path, "slurm", "seed=0,1", "trainer.max_epochs=60", path=slurm)
    deadline = time.monotonic() + 600
    while not (saved := list(tmp_path.glob("runs/train/*_seed0_*/checkpoints/last.ckpt"))):
        assert sweep.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    folder = saved[0].parents[1]
    first = json.loads((folder / "probe.json").read_text())["pid"]
    os.kill(first, signal.SIGUSR2)
    assert (sweep.communicate(timeout=900)[1], sweep.returncode) == ("", 0)
    assert json.loads((folder / "probe.json").read_text())["pid"] != first
    losses = [
        row["epoch"] for row in csv.DictReader((folder / "metrics.csv").read_text().splitlines()) if row["train/loss"]
    ]
    assert losses == [str(epoch) for epoch in range(60)]
    assert "this job is preempted" in "".join(log.read_text() for log in tmp_path.rglob("*_0_log.out"))


STUDY = (
    *("study=quickstart", "logger=csv", "launcher=slurm", "study.limit=8", "sections=[table1]", "launcher.mem_gb=2"),
    *(f"~study.train.networks.{one}" for one in ("ae400_10", "fc200_200_10", "fc100_100_10", "fc10_1e-4")),
    *(f"~study.train.networks.{one}" for one in ("fc100_100_10_p1", "fc123_456_10_p1", "fc100_100_10_p2")),
    "study.attack=[{networks: ['*'], overrides: ['attack=lbfgs', 'subset=train']}]",
)


def _study(tmp_path: Path, path: str, *overrides: str) -> subprocess.Popen:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    kept |= {"PATH": f"{path}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src"), "WANDB_MODE": "disabled"}
    command = [sys.executable, str(ROOT / "analyze.py"), *STUDY, *overrides]
    return subprocess.Popen(command, cwd=tmp_path, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_study_on_slurm(tmp_path: Path, slurm: str) -> None:
    """Four jobs, each attack after its network; a job that is killed is named. 60 s of CPU."""
    pytest.importorskip("submitit", reason="needs the extra submitit")
    study = _study(tmp_path, slurm, "study.train.all=['data=digits','trainer.max_epochs=2']")
    _, err = study.communicate(timeout=900)
    assert study.returncode == 0, err
    lines = [line.split(" s  ")[1].split(":")[0] for line in err.splitlines() if line.startswith("[")]
    assert sorted(lines[:2]) == [f"train   digits_fc10_wd{one}_full_seed0_max_epochs2" for one in ("1", "1e-2")]
    assert len(lines) == 4 and all(line.startswith("attack") for line in lines[2:])
    assert (tmp_path / "runs/analyze/quickstart/report.html").is_file()
    scripts = [file.read_text() for file in tmp_path.glob("runs/studies/quickstart/*/*submission.sh")]
    assert len(scripts) == 4 and all("#SBATCH --mem=2GB\n" in text for text in scripts)
    assert sorted(text.count("#SBATCH --job-name=train\n") for text in scripts) == [0, 0, 1, 1]
    study = _study(tmp_path, slurm, "study.train.all=['data=digits','trainer.max_epochs=2']")
    assert (study.communicate(timeout=900)[0], study.returncode) != ("", 1)  # all is skipped


@pytest.mark.slow
@pytest.mark.parametrize("what", ["ctrl-c", "killed"])
def test_a_study_on_slurm_that_is_stopped_or_killed(tmp_path: Path, slurm: str, what: str) -> None:
    """Ctrl-C interrupts the jobs and says what they saved; a killed job is named. 30 s of CPU."""
    pytest.importorskip("submitit", reason="needs the extra submitit")
    long = "study.train.all=['data=digits','trainer.max_epochs=4000']"
    study = _study(tmp_path, slurm, long, "~study.train.networks.fc10_1")
    deadline = time.monotonic() + 600
    while not list(tmp_path.glob("runs/train/*/checkpoints/last.ckpt")):
        assert study.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    (job,) = (tmp_path / "bin").glob("queued.*")
    if what == "ctrl-c":
        study.send_signal(signal.SIGINT)
    else:
        os.kill(int(job.read_text()), signal.SIGKILL)
    _, err = study.communicate(timeout=120)
    folder = "runs/train/digits_fc10_wd1e-2_full_seed0_max_epochs4000"
    if what == "ctrl-c":
        assert study.returncode == 130 and f"{folder}: epoch " in err and "0 of 2 steps are finished" in err, err
    else:
        assert study.returncode == 1 and "2 of 2 steps failed (fc10_1e-2 seed 0: its job 4711 ended without" in err, err
    assert not list((tmp_path / "bin").glob("queued.*"))
    state = json.loads((tmp_path / folder / "run.json").read_text())["state"]
    assert state == ("interrupted" if what == "ctrl-c" else "running")


def test_slurm_that_is_not_there_is_named(run_script: Callable[..., tuple], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="needs the extra submitit")
    monkeypatch.setenv("PATH", "/nowhere")
    status, _, err = run_script("analyze.py", *STUDY)
    assert status == 1 and err.startswith("error: launcher=slurm: ") and "srun" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["launcher=local", "+launcher.partition=cpu"], "launcher.partition is read by nothing with launcher=local"),
        (["launcher.name=pbs"], "unknown launcher.name 'pbs'; known: local, slurm"),
    ],
)
def test_a_wrong_launcher_is_named(run_script: Callable[..., tuple], typed: list[str], words: str) -> None:
    status, _, err = run_script("analyze.py", *[one for one in STUDY if "launcher" not in one], *typed)
    assert (status, err.count("\n")) == (1, 1) and words in err

"""W&B's environment variables, read back from W&B's own offline files, also of jobs that ran side by side."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from intriguing.errors import UserError
from intriguing.tracking.jobs import check_run_id
from intriguing.tracking.wandb_run import start_wandb

ROOT = Path(__file__).parents[2]
BLOCK, HEADER = 1 << 15, 7  # of the log format: blocks, and before each part a checksum, its length and its kind


def records(folder: Path) -> Iterator[Any]:
    """The records of the one offline run below a folder, as W&B's service wrote them."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    (file,) = folder.rglob("run-*.wandb")
    content, at, parts = file.read_bytes(), HEADER, b""  # the file begins with a header of its own
    while at + HEADER <= len(content):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def read_back(folder: Path) -> dict[str, Any]:
    """What the run says of itself, its config, its history by key, and its summary."""
    import json

    found: dict[str, Any] = {"config": {}, "history": {}, "summary": {}}
    for record in records(folder):
        if record.HasField("run"):
            run = record.run
            found |= {key: getattr(run, key) for key in ("run_id", "entity", "project", "display_name", "run_group")}
            found |= {"job_type": run.job_type, "notes": run.notes, "tags": list(run.tags)}
            found["config"] |= {one.key: json.loads(one.value_json) for one in run.config.update}
        if record.HasField("config"):
            found["config"] |= {one.key: json.loads(one.value_json) for one in record.config.update}
        for one in record.history.item:
            key = one.key or ".".join(one.nested_key)
            found["history"].setdefault(key, []).append(json.loads(one.value_json))
        for one in record.summary.update:
            found["summary"][one.key or ".".join(one.nested_key)] = json.loads(one.value_json)
    return found


VARIABLES = {
    "WANDB_PROJECT": "zebra", "WANDB_ENTITY": "crossing", "WANDB_TAGS": "a,b", "WANDB_NAME": "mine",
    "WANDB_RUN_ID": "abc123", "WANDB_RUN_GROUP": "grid", "WANDB_NOTES": "why", "WANDB_JOB_TYPE": "probe",
}  # fmt: skip
ALL_BY_SETTINGS = {"project": "p", "entity": "e", "tags": ["t"], "title": "title", "group": "g"}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What W&B's ``init`` is called with."""
    import wandb

    calls: list[dict[str, Any]] = []

    def init(**arguments: Any) -> None:
        calls.append(arguments)
        raise RuntimeError("seen")

    for name in os.environ.keys() & {*VARIABLES, "WANDB_DIR"}:
        monkeypatch.delenv(name)
    monkeypatch.setattr(wandb, "init", init)
    return calls


def _asked(calls: list[dict[str, Any]], folder: Path, **settings: Any) -> dict[str, Any]:
    start_wandb(folder=folder, name="run", job_type="train", mode="offline", **settings)
    keys = ("project", "entity", "tags", "name", "group", "job_type", "id", "dir")
    return {key: calls[-1][key] for key in keys}


def test_what_no_setting_says_is_left_to_the_environment(
    started: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: W&B itself reads the variable."""
    nothing = dict.fromkeys(("entity", "tags", "group", "id"))
    own = {"project": "intriguing", "name": "run", "job_type": "train", "dir": str(tmp_path)}
    assert _asked(started, tmp_path) == nothing | own
    for name, value in {**VARIABLES, "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    assert _asked(started, tmp_path) == nothing | dict.fromkeys(own)
    given = _asked(started, tmp_path, **ALL_BY_SETTINGS)
    assert {key: given[key] for key in ("project", "entity", "tags", "name", "group")} == {
        "project": "p", "entity": "e", "tags": ["t"], "name": "title", "group": "g"
    }  # fmt: skip


def test_a_run_id_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    monkeypatch.setenv("WANDB_MODE", "offline")
    on: dict[str, Any] = {"wandb": True, "mode": None}
    check_run_id(on, 1)
    check_run_id(on | {"wandb": False}, 5)
    check_run_id(on | {"mode": "disabled"}, 5)
    with pytest.raises(UserError, match="WANDB_RUN_ID=abc123 would be shared by several runs; unset it, or switch"):
        check_run_id(on, 2)


@pytest.mark.parametrize("command", [("train.py", "-m", "seed=0,1"), ("analyze.py", "study=quickstart")])
def test_a_sweep_and_a_study_refuse_a_shared_run_id_in_one_line(
    run_script: Callable[..., tuple], command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    monkeypatch.setenv("WANDB_MODE", "offline")
    small = ("study.seeds=[0]", "study.attack=[]") if "analyze.py" in command else ()
    status, _, err = run_script(*command, *small)
    assert status == 1 and err.startswith("error: WANDB_RUN_ID=abc123 would be shared") and err.count("\n") == 1
    assert not list((tmp_path / "runs").glob("train/*"))


JOB = """
import sys
from pathlib import Path
from intriguing.tracking.wandb_run import start_wandb
folder = Path(sys.argv[1])
folder.mkdir(parents=True)
with start_wandb(folder=folder, name=folder.name, job_type="train", config={"seed": int(sys.argv[2])}) as run:
    for step in range(100):
        run.log({"train/loss": int(sys.argv[2]) + step / 100}, step)
    run.summarise({"errors/test": int(sys.argv[2]) / 10})
"""


def _environment(home: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    return {**kept, "HOME": str(home), "WANDB_MODE": "offline", **more}


def test_offline_files_of_jobs_side_by_side_hold_each_its_own(tmp_path: Path) -> None:
    """Two processes at once, of which one has all variables set."""
    variables = [{}, VARIABLES]
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", JOB, str(tmp_path / f"job{i}"), str(i)], env=_environment(tmp_path, **variables[i])
        )
        for i in range(2)
    ]
    assert [job.wait(timeout=120) for job in jobs] == [0, 0]
    found = [read_back(tmp_path / f"job{i}") for i in range(2)]
    for i, one in enumerate(found):
        assert one["config"]["seed"] == i
        assert one["history"]["train/loss"] == pytest.approx([i + step / 100 for step in range(100)])
        assert one["summary"]["errors/test"] == i / 10
    keys = ("entity", "project", "display_name", "run_group", "job_type", "notes", "tags")
    assert [found[0][key] for key in keys] == ["", "intriguing", "job0", "", "train", "", []]
    assert [found[1][key] for key in keys] == ["crossing", "zebra", "mine", "grid", "probe", "why", ["a", "b"]]
    assert found[1]["run_id"] == "abc123" != found[0]["run_id"]


@pytest.mark.slow
def test_offline_files_of_a_parallel_sweep(tmp_path: Path) -> None:
    """`train.py -m` over four seeds with joblib, two at a time: 20 s of CPU."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command += ["model=fc10", "data=digits", "trainer.max_epochs=3", "seed=0,1,2,3", f"runs={tmp_path}/runs"]
    done = subprocess.run([*command, "tags=sweep"], env=_environment(tmp_path, WANDB_PROJECT="zebra"), cwd=tmp_path)
    assert done.returncode == 0
    found = [read_back(folder) for folder in sorted((tmp_path / "runs" / "train").iterdir())]
    assert len(found) == 4 and len({one["run_id"] for one in found}) == 4
    for seed, one in enumerate(found):
        assert one["config"]["seed"] == seed and one["project"] == "zebra" and one["tags"] == ["sweep"]
        assert 0 < one["summary"]["errors/test"] < 1
        epochs = [float(row["train/loss"]) for row in _rows(tmp_path / "runs" / "train", seed) if row["train/loss"]]
        assert len(epochs) == 3 and one["history"]["train/loss"] == pytest.approx(epochs)


def _rows(folder: Path, seed: int) -> list[dict[str, str]]:
    import csv

    (file,) = folder.glob(f"*_seed{seed}_*/metrics.csv")
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))

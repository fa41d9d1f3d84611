"""The dashboard: built without an account, and every panel shows what a stage really logs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from intriguing.tracking import dashboard

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # W&B's own


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B really records, and its service and threads are gone afterwards."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    import wandb

    wandb.teardown()


def _logged(folder: Path) -> set[str]:
    """Keys of the history and the summary in W&B's own record of a run."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    histories = [record["history"]["item"] for record in records if "history" in record]
    summaries = [record["summary"].get("update", {}) for record in records if "summary" in record]
    # a picture, a table and a histogram are recorded as key._type, key.height, ...
    return {key.removesuffix("._type") for values in (*histories, *summaries) for key in values}


def _panels(made: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for section in made["spec"]["section"]["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            yield section["name"], panel


def _keys(panel: dict[str, Any]) -> tuple[list[str], str | None]:
    """What a panel asks for: keys, and a pattern of keys."""
    config = panel["config"]
    named = [*config.get("metrics", []), *config.get("mediaKeys", [])]
    if panel["viewType"] == "Weave":
        named += re.findall(r'"val": "(analyze/[^"]+)"', json.dumps(config))
    return named, config.get("metricRegex")


@pytest.mark.slow
def test_every_panel_shows_what_is_logged(run_script: Callable[..., tuple], tmp_path: Path, offline: None) -> None:
    pytest.importorskip("wandb_workspaces", reason="needs the extra dashboard")
    small, runs = ("data=digits", "trainer.max_epochs=1"), tmp_path / "runs"
    fed = ("callbacks=back_feeding", "callbacks.back_feeding.start=0", "data.validation=200", "test_curve=true")
    few = ("limit=8", "logger=csv")
    shown = "table1,table2,table3,table4,lambda,distortions"
    for command in (
        ("train.py", "network=fc100_100_10", *small, *fed, "name=fed"),
        ("train.py", "-m", "network=fc10_1e-2,fc10_1,fc100_100_10_p1,fc100_100_10_p2", *small, "logger=csv"),
        ("attack.py", f"checkpoints=[{runs}/train/fed,{runs}/train/digits_fc10_*]", "subset=train", "limit=8"),
        ("attack.py", f"checkpoints={runs}/train/*_p?_*", "subset=test", *few),
        ("attack.py", f"checkpoints={runs}/train/*_p?_*", "subset=test", "attack.amplify=0.25", *few),
        ("analyze.py", f"networks={runs}/train/*", f"sets={runs}/attack/*", f"sections=[{shown}]"),
    ):  # fmt: skip
        status, _, err = run_script(*command)
        assert status == 0, err
    (attack,) = runs.glob("attack/digits_fc10_wd1e-2_*")
    logged = _logged(runs / "train" / "fed") | _logged(attack) | _logged(runs / "analyze" / "analysis")
    dashboard.main(["--entity", "me", "--runs", str(runs), "--out", str(tmp_path / "workspace.json")])
    made = json.loads((tmp_path / "workspace.json").read_text())
    sections = set()
    for section, panel in _panels(made):
        sections.add(section)
        named, pattern = _keys(panel)
        assert named or pattern, panel
        assert set(named) <= logged, set(named) - logged
        assert pattern is None or [key for key in logged if re.fullmatch(pattern, key)], pattern
        assert panel["config"].get("xAxis", "_step") in logged | {"_step"}
    shown = {key for _, panel in _panels(made) for key in _keys(panel)[0] if key.startswith("analyze/")}
    assert shown == {key for key in logged if key.startswith("analyze/") and "." not in key}, (
        "a table or figure without a panel"
    )
    assert sections == {"Training", "Weights", "Back-feeding", "Attacks", "Analysis"}
    assert [one["name"] for one in made["spec"]["section"]["runSets"][0]["grouping"]] == ["group", "jobType"]
    sweep = yaml.safe_load((ROOT / "sweeps" / "lambda.yaml").read_text())
    assert sweep["metric"]["name"] in logged


def test_pushing_wants_an_account(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: Any) -> None:
    pytest.importorskip("wandb_workspaces", reason="needs the extra dashboard")
    with pytest.raises(SystemExit, match="1"):  # the tests run with W&B disabled
        dashboard.main(["--entity", "me", "--push"])
    err = capsys.readouterr().err
    assert err.startswith("error: a dashboard is pushed to W&B, but W&B is disabled") and err.count("\n") == 1
    sent = []
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr("wandb_workspaces.workspaces.internal.upsert_view2", lambda view: sent.append(view) or _ANSWER)
    monkeypatch.setattr("wandb_workspaces.workspaces.interface.Workspace.url", "https://wandb.ai/me/intriguing")
    dashboard.main(["--entity", "me", "--push"])
    assert capsys.readouterr().out == "https://wandb.ai/me/intriguing\n" and sent[0].entity == "me"


_ANSWER = {"upsertView": {"view": {"name": "n", "id": "i"}}}

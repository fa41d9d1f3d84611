"""The scripts in ``examples/`` run offline and say what they found."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = {
    "attack_torchvision": ("--size=32", "--images=2"),
    "bounds_and_certificates": ("--epochs=1", "--images=10"),
    "transfer_between_networks": ("--epochs=1", "--images=20"),
    "units_of_a_layer": ("--epochs=1",),
}


def _run(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *more: str) -> str:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *SMALL[name], *more])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SMALL)


def test_a_network_of_torchvision_is_attacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = _run("attack_torchvision", monkeypatch, capsys, f"--save={tmp_path / 'set.safetensors'}")
    assert out.startswith("2 of 2 images are taken for something else") and len(out.splitlines()) == 4
    assert (tmp_path / "set.safetensors").exists()


def test_a_transfer_table_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    out = _run("transfer_between_networks", monkeypatch, capsys)
    assert out.count("FC100-100-10") >= 2 and "unperturbed images" in out and "excess over equal-norm noise" in out


def test_units_and_random_directions_are_scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = _run("units_of_a_layer", monkeypatch, capsys)
    scores = [float(number) for number in re.findall(r"  ([01]\.\d{3})  \[", out)]
    assert len(scores) == 3 and all(1 / 8 <= score <= 1 for score in scores)


def test_the_certified_radius_is_below_every_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = _run("bounds_and_certificates", monkeypatch, capsys)
    assert "the radius is below the example for 10 of 10 images" in out
    for certified, found in re.findall(r"% of images up to +([\d.]+) +([\d.]+)", out):
        assert float(certified) <= float(found)

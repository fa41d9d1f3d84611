"""Studies without a file, a folder or a package: what is left out, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from intriguing.cli.requires import missing, sentence, without
from intriguing.errors import UserError


def _study(**requires: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "train": {"all": [], "networks": {"here": ["a=1"], "away": ["a=2"]}, "once": ["away"]},
        "attack": [
            {"networks": ["*"], "overrides": []},
            {"networks": ["away"], "overrides": []},
            {"networks": ["nowhere"], "overrides": []},
            {"networks": None, "overrides": []},
        ],
        "settings": {"units": {"lpips": "weights.pth", "rows": 3}},
        "requires": requires,
    }


def test_what_is_there_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    needs: dict[str, Any] = {
        "here": {"file": str(tmp_path / "weights.pth")},
        "away": {"folder": str(tmp_path)},
        "settings.units.lpips": {"package": "json"},
    }
    assert missing(_study(**needs)) == {} == missing(_study()) == missing(None)
    needs = {
        "here": {"file": str(tmp_path)},
        "away": {"folder": str(tmp_path / "weights.pth")},
        "settings.units.lpips": {"package": "no_such_package"},
    }
    found = missing(_study(**needs))
    assert found == {
        "here": f"no file {tmp_path}",
        "away": f"no folder {tmp_path / 'weights.pth'}",
        "settings.units.lpips": "no package no_such_package",
    }
    assert sentence(found).endswith("units.lpips (no package no_such_package)")


def test_a_missing_network_goes_with_its_attacks_and_a_setting_becomes_null() -> None:
    study = _study()
    left = without(study, {"away": "no file x", "settings.units.lpips": "no file y"})
    assert left["train"] == {"all": [], "networks": {"here": ["a=1"]}, "once": []}
    # an attack on a network that the study never had stays, and is refused later
    assert [one["networks"] for one in left["attack"]] == [["*"], ["nowhere"], None]
    assert left["settings"] == {"units": {"lpips": None, "rows": 3}}
    assert study == _study()


def test_a_study_of_nothing_and_wrong_requirements_are_refused() -> None:
    with pytest.raises(UserError, match=r"no network of study=mine can be had: here \(no file x\), away \(no file y\)"):
        without(_study(), {"here": "no file x", "away": "no file y"})
    for requires, message in (
        ({"awway": {"file": "x"}}, "names awway, which is no network of the study; did you mean away?"),
        ({"away": "x"}, "must be one of {file: ...}, {folder: ...}, {package: ...}, got 'x'"),
        ({"away": {"url": "x"}}, "must be one of"),
        ({"away": {"file": "x", "folder": "y"}}, "must be one of"),
        ({"away": {"file": None}}, "study.requires.away.file must be a text, got None"),
    ):
        with pytest.raises(UserError) as caught:
            missing(_study(**requires))
        assert message in str(caught.value)
    with pytest.raises(UserError, match="must be a mapping of networks"):
        missing({**_study(), "requires": ["away"]})

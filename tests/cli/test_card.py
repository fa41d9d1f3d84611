"""`analyze.py study=card`: the command, its files, and its errors in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from intriguing.analysis.card import RobustnessCard

Run = Callable[..., tuple[int, str, str]]
QUICK = ("logger=csv", "study=card", "card.minutes=30", "card.images=24")


@pytest.fixture
def trained(run_script: Run, tmp_path: Path) -> str:
    small = ("data=digits", "trainer.max_epochs=3", "logger=csv")
    status, _, err = run_script("train.py", "model=fc10", *small, "name=net")
    assert status == 0, err
    return f"card.checkpoint={tmp_path}/runs/train/net"


def test_a_run_gets_its_page_and_file_and_is_then_skipped_and_compared(
    run_script: Run, tmp_path: Path, trained: str
) -> None:
    status, out, err = run_script("analyze.py", *QUICK, trained)
    assert status == 0, err
    assert "Accuracy" in out
    folder = tmp_path / "runs" / "analyze" / "card_net"
    card = RobustnessCard.load(folder / "card.json")
    assert card.images == 24
    assert card.shape == (1, 8, 8)
    assert "Robustness card" in (folder / "card.html").read_text()
    before = (folder / "card.html").stat().st_mtime_ns
    assert run_script("analyze.py", *QUICK, trained)[0] == 0
    assert (folder / "card.html").stat().st_mtime_ns == before

    better = json.loads((folder / "card.json").read_text())
    better["l2"]["median"] = {"value": 50.0, "low": 49.0, "high": 51.0, "n": 24}
    (tmp_path / "old.json").write_text(json.dumps(better))
    more = (f"card.compare={tmp_path}/old.json", "card.fail_if_worse=true", "name=compared")
    for _ in range(2):  # also where the finished card is skipped
        status, _, err = run_script("analyze.py", *QUICK, trained, *more)
        assert status == 1
        assert "1 number of" in err.splitlines()[-1]
        assert "median L2 distance 50 ->" in err.splitlines()[-1]
        assert (tmp_path / "runs" / "analyze" / "compared" / "card.html").is_file()


@pytest.mark.slow
def test_a_users_class_with_weights_and_two_networks_side_by_side(
    run_script: Run, tmp_path: Path, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_card.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Sequential):\n    def __init__(self, width=4):\n"
        "        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.Linear(width, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.Linear(5, 10))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    own = ("card.model=mine_card.Net", "card.settings={width:5}", "card.weights=net.pt", "data=digits")
    status, _, err = run_script("analyze.py", *QUICK, *own)
    assert status == 0, err
    found = RobustnessCard.load(tmp_path / "runs" / "analyze" / "card_Net" / "card.json")
    assert found.name == "Net(width=5)"
    first = trained.removeprefix("card.checkpoint=")
    status, _, err = run_script("analyze.py", *QUICK, f"card.checkpoint=[{first},{first}/model.ckpt]", "name=one")
    assert status == 0, err  # one file, one card
    assert (tmp_path / "runs" / "analyze" / "one" / "card.json").is_file()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "there is no network; give card.checkpoint="),
        (["card.model=mine.Net", "card.checkpoint=x"], "both given"),
        (["card.checkpoint=nowhere"], "card.checkpoint=nowhere matches no checkpoint"),
        (["card.model=torch.nn.Linear"], "data=image_folder"),
        (["card.model=torchvision:resnet18", "data=digits"], "card.weights=default"),
        (["card.model=nothing.Net", "data=digits"], "there is no module nothing"),
        (["card.model=torch.nn.Linear", "card.weights=no.pt", "data=digits"], "card.weights=no.pt is no file"),
        (["card.checkpoint=x", "card.minutes=0"], "card.minutes must be a finite number above 0"),
        (["card.checkpoint=x", "card.effort=best"], "unknown card.effort 'best'"),
        (["card.checkpoint=x", "card.fail_if_worse=true"], "card.compare"),
        (["card.checkpoint=x", "card.compare=old.json"], "cannot read the card"),
        (["card.checkpoint=x", "sections=[table1]"], "sections=[table1] is read by nothing with study=card"),
        (["card.checkpoint=x", "card.minute=3"], "card.minute is read by nothing; did you mean card.minutes?"),
    ],
)
def test_each_wrong_call_has_one_line(run_script: Run, tmp_path: Path, given: list[str], words: str) -> None:
    status, _, err = run_script("analyze.py", "logger=csv", "study=card", *given)
    assert status == 1
    assert len(err.strip().splitlines()) == 1, err
    assert words in err
    assert not (tmp_path / "runs").exists()

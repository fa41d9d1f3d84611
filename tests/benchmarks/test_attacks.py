"""benchmarks/attacks.py on a file of networks that anyone could write, and SuperDeepFool against a closed form."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import attacks
import numpy as np
import pandas as pd
import pytest
import torch
from benchmark_networks import read_images, take_correct
from superdeepfool import superdeepfool
from torch import nn

NETWORKS = """
import torch
from torch import nn

NETWORKS = {"linear": "toy"}


def load(name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    torch.manual_seed(0)
    nn.init.orthogonal_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    return model.eval()


def exact_toy():
    images = torch.rand(40, 1, 2, 3, generator=torch.Generator().manual_seed(1)) * 0.4 + 0.3
    return images, load("linear")(images).argmax(dim=1)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)

    def run(*arguments: str) -> None:
        folder = str(tmp_path)
        command = ["attacks.py", "--networks-file", f"{folder}/nets.py", "--out", folder, *arguments]
        monkeypatch.setattr(sys, "argv", command)
        attacks.main()

    return run


def test_any_file_of_networks_gives_a_table_and_goes_on_where_it_stopped(
    run: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nets.py").write_text(NETWORKS)
    wanted = ("--images", "6", "--budgets", "60", "--only", "nearest", "SuperDeepFool")
    run(*wanted)
    frame = pd.read_csv(tmp_path / "attacks_networks.csv")
    assert set(frame["images"]) == {6} and (frame["success"] == 1).all()
    assert (frame["within_1_percent"] == 1).all()  # every attack finds a linear network's nearest boundary
    assert (frame.query("budget == 60")["propagations"] <= 60).all()
    measured = json.loads((tmp_path / "attacks_networks.json").read_text())
    distances = {(row["method"], row["budget"]): row["l2"] for row in measured}
    assert distances["nearest", 60] == distances["nearest, fast", None]  # whose effort keeps to these propagations
    assert "measuring" in capsys.readouterr().out
    run(*wanted)
    assert "measuring" not in capsys.readouterr().out
    assert json.loads((tmp_path / "attacks_networks.json").read_text()) == measured


def test_wrong_files_and_names_are_named_in_one_line(run: Callable[..., None], tmp_path: Path) -> None:
    for content, expected in {
        None: "is no Python file",
        "NETWORKS = {}": "has no load; it needs NETWORKS",
        "NETWORKS = {'a': 'birds'}\ndef load(name): ...": "no images of 'birds'",
        NETWORKS: "has no network 'liner'; it has linear",
    }.items():
        if content is not None:
            (tmp_path / "nets.py").write_text(content)
        with pytest.raises(SystemExit, match=expected) as stopped:
            run(*(["--network", "liner"] if content == NETWORKS else []))
        assert str(stopped.value).startswith("error: ") and "\n" not in str(stopped.value)


def test_images_are_read_of_bytes_or_numbers_and_only_correct_ones_are_taken(tmp_path: Path) -> None:
    images = np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2) * 20
    np.savez(tmp_path / "bytes.npz", images=images, labels=np.array([0, 1, 1]))
    inputs, labels = read_images(tmp_path / "bytes.npz")
    assert inputs.dtype == torch.float32 and inputs[2, 0, 1, 1].item() == pytest.approx(220 / 255)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    network[1].weight.data, network[1].bias.data = torch.tensor([[0.0] * 4, [1.0] * 4]), torch.tensor([1.0, 0.0])
    case = take_correct("sums", network, (inputs, labels), 2)
    assert case.labels.tolist() == [0, 1] and torch.equal(case.inputs, inputs[:2])
    np.savez(tmp_path / "wrong.npz", pictures=images)
    with pytest.raises(SystemExit, match="lacks images and labels"):
        read_images(tmp_path / "wrong.npz")


def test_superdeepfool_reaches_the_nearest_boundary_of_a_linear_network() -> None:
    draw = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    network[1].weight.data = torch.randn(4, 12, generator=draw)
    network[1].bias.data = torch.zeros(4)
    inputs = torch.rand(8, 3, 2, 2, generator=draw) * 0.2 + 0.4
    logits = network(inputs).detach()
    labels = logits.argmax(dim=1)
    weight = network[1].weight.detach()
    gaps = (logits.gather(1, labels[:, None]) - logits) / (weight[labels][:, None] - weight).norm(dim=2)
    expected = gaps.scatter(1, labels[:, None], torch.inf).amin(dim=1)
    found = superdeepfool(network, inputs, labels)
    assert (network(found).argmax(dim=1) != labels).all()
    torch.testing.assert_close((found - inputs).flatten(1).norm(dim=1), expected, rtol=5e-3, atol=1e-5)

"""A network with published weights becomes a run without an epoch, which can be attacked towards a named class."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from intriguing.checkpoints import load_model
from intriguing.models import TorchvisionModel
from intriguing.runs.records import read_run

TENCH, OSTRICH, JUNCO = "n01440764", "n01518878", "n01534433"
SIDE = 33


def _folder(root: Path) -> Path:
    draws = torch.Generator().manual_seed(0)
    for synset in (TENCH, OSTRICH, JUNCO):
        (root / "val" / synset).mkdir(parents=True)
        pixels = torch.randint(0, 256, (40, 50, 3), generator=draws, dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(root / "val" / synset / "0.png")
    return root


def _weights(file: Path) -> Path:
    torch.manual_seed(0)
    given = {"label": "net", "input_shape": [3, SIDE, SIDE], "num_classes": 1000}
    torch.save(TorchvisionModel(architecture="squeezenet1_1", **given).network.model.state_dict(), file)
    return file


def _log(run: Path) -> str:
    return (run / "train.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_weights_of_a_file_are_evaluated_and_attacked(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    folder, weights = _folder(tmp_path / "imagenet"), _weights(tmp_path / "weights.pth")
    given = ("model=torchvision", "model.settings.architecture=squeezenet1_1", "data=imagenet", "logger=csv")
    given += ("trainer.max_epochs=0", f"data.size={SIDE}")
    status, _, err = run_script("train.py", *given, f"model.settings.weights={weights}", f"data.folder={folder}")
    assert status == 0, err
    (made,) = (tmp_path / "runs" / "train").iterdir()
    assert "test images right, as many as by chance with 1000 classes" in _log(made)
    record = read_run(made)
    assert made.name.startswith("imagenet_squeezenet1_1_full_seed0") and record.result["errors"]["test"][1] == 3
    saved = load_model(made / "model.ckpt")
    assert saved.num_classes == 1000 and saved.trained_on is not None
    assert saved.trained_on["names"][9] == "ostrich" and saved.trained_on["classes"][13] == JUNCO
    state = torch.load(weights, weights_only=True)
    assert torch.equal(saved.network.model.classifier[1].weight, state["classifier.1.weight"])

    moved = shutil.move(weights, tmp_path / "moved.pth")  # where files lie is no part of what a run is
    shutil.move(folder, tmp_path / "elsewhere")
    status, _, err = run_script(
        "train.py", *given, f"model.settings.weights={moved}", f"data.folder={tmp_path / 'elsewhere'}"
    )
    assert status == 0 and len(list((tmp_path / "runs" / "train").iterdir())) == 1, err
    attack = ("attack=nearest", "attack.effort=fast", "subset=test", "limit=2", "order=label", "logger=csv")
    attack += (f"checkpoints={made}", f"data.folder={tmp_path / 'elsewhere'}")
    status, _, err = run_script("attack.py", *attack, "attack.targets=ostrich")
    assert status == 0, err
    (crafted,) = (tmp_path / "runs" / "attack").iterdir()
    assert read_run(crafted).result["num"] == 2 and "_ostrich_" in crafted.name
    status, _, err = run_script("attack.py", *attack, "attack.targets=emu")
    assert status == 1 and "no class is called emu" in err


def test_convolutions_alone_are_said_not_to_classify(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    state = torch.load(_weights(tmp_path / "weights.pth"), weights_only=True)
    torch.save({name: value for name, value in state.items() if name.startswith("features")}, tmp_path / "part.pth")
    status, _, err = run_script(
        *("train.py", "model=torchvision", "model.settings.architecture=squeezenet1_1", "trainer.max_epochs=0"),
        *("model.settings.features=part.pth", "data=blank", f"data.shape=[3,{SIDE},{SIDE}]", "data.num_classes=4"),
        "logger=csv",
    )
    assert status == 0, err
    (made,) = (tmp_path / "runs" / "train").iterdir()
    assert "do not fill classifier.1, which is random: the network cannot tell 4 classes" in _log(made)
    saved = load_model(made / "model.ckpt")
    assert torch.equal(saved.network.model.features[0].weight, state["features.0.weight"])

"""A page of several networks that stops keeps the finished ones, with their pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import intriguing as ig
from intriguing.analysis.card import RobustnessCard
from intriguing.analysis.card.page import page
from intriguing.errors import UserError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def card() -> RobustnessCard:
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(10, 64, generator=generator))
    images = torch.rand(16, 1, 8, 8, generator=generator)
    return ig.robustness_card(network, images, network(images).argmax(1), name="made", minutes=5)


def test_a_page_that_was_stopped_goes_on_with_the_network_that_it_lacks(
    run_script: Run, tmp_path: Path, card: RobustnessCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        typed = ("model=fc10", "data=digits", "trainer.max_epochs=0", "logger=csv", f"seed={seed}", f"name=net{seed}")
        assert run_script("train.py", *typed)[0] == 0
    measured: list[str] = []

    def measure(subject: Any, **more: Any) -> RobustnessCard:
        measured.append(subject.name)
        if len(measured) == 2:
            raise UserError("the second network cannot be measured today")
        return replace(card, name=f"{len(measured)}")

    monkeypatch.setattr("intriguing.analysis.card.run.measure_card", measure)
    nets = f"card.checkpoint=[{tmp_path}/runs/train/net0,{tmp_path}/runs/train/net1]"
    typed = ("analyze.py", "study=card", nets, "name=both", "logger=csv")
    folder = tmp_path / "runs" / "analyze" / "both"
    status, _, err = run_script(*typed)
    assert status == 1 and "cannot be measured today" in err
    assert [file.name for file in (folder / "parts").iterdir()] == ["0.safetensors"]
    assert not (folder / "card.html").exists()
    status, _, err = run_script(*typed)
    assert status == 0, err
    assert len(measured) == 3 and measured[1] == measured[2] != measured[0]
    assert not (folder / "parts").exists()
    expected = page([replace(card, name="1"), replace(card, name="3")], command="")
    assert (folder / "card.html").read_text().count("<svg") == expected.count("<svg") > 0


def test_a_card_of_parts_has_its_pictures(tmp_path: Path, card: RobustnessCard) -> None:
    from intriguing.analysis.card.kept import keep, kept

    keep(card, tmp_path / "0.safetensors")
    found = kept(tmp_path / "0.safetensors")
    assert found is not None and found.to_dict() == card.to_dict()
    for one, other in zip(found.examples, card.examples, strict=True):
        assert torch.equal(one.image, other.image) and torch.equal(one.adversarial, other.adversarial)
    assert page([found]) == page([card])
    content = bytearray((tmp_path / "0.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "0.safetensors").write_bytes(content)
    assert kept(tmp_path / "0.safetensors") is None
    assert kept(tmp_path / "missing") is None

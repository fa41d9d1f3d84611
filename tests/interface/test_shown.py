"""What a notebook or a prompt shows of the public objects is one short line that says what they hold."""

from __future__ import annotations

import inspect

import pytest
import torch

import intriguing as ig
from intriguing.results import Figure

IMAGES = torch.full((3, 1, 2, 2), 0.4)


def _square(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum(1)


def _network(images: torch.Tensor) -> torch.Tensor:
    """Class 1 where the first pixel is above a half."""
    first = images.flatten(1)[:, 0]
    return torch.stack([0.5 - first, first - 0.5], dim=1)


def test_objects_say_in_one_line_what_they_hold() -> None:
    net = ig.models.FullyConnected(widths=[3], input_shape=[1, 2, 2], num_classes=2, label="FC3")
    found = ig.craft(_network, IMAGES, [0, 0, 1])
    table = ig.transfer_table({"net": _network}, {"net": found})
    shown = {
        "Table(Transfer: 2 x 2)": table,
        "Figure(Figure 7 · Examples)": Figure(
            key="a", number="Figure 7", title="Examples", caption="", alt="", png=b"x"
        ),
        "MinimizeResult(2 x 4: 2 of 2 converged; 2 GRADIENT)": ig.minimize_box(
            _square, torch.full((2, 4), 0.5), lower=0.0, upper=1.0
        ),
        "Subset(3 images of shape (1, 2, 2))": ig.data.from_tensors((IMAGES, [0, 1, 0])).train.take(),
        "ImageData(tensors, images of shape (1, 2, 2), 2 classes, 3 to train on and 0 to test on)": (
            ig.data.from_tensors((IMAGES, [0, 1, 0]))
        ),
    }
    made = "nearest of _network: 3 of 3 images of shape (1, 2, 2) succeeded, mean distortion 0.03333"
    assert repr(found) == f"AdversarialSet({made})"
    for text, one in shown.items():
        assert repr(one) == text
    assert repr(ig.Certifier(net, (1, 2, 2))).startswith("Certifier(LipSDP; product of the layers' bounds ")
    assert repr(ig.nearest(_network, IMAGES, torch.tensor([0, 0, 1]))).startswith("AttackResult(3 of 3 succeeded")


def test_a_table_prints_as_aligned_text() -> None:
    found = ig.craft(_network, IMAGES, [0, 0, 1])
    lines = str(ig.transfer_table({"net": _network}, {"net": found})).splitlines()
    assert lines[0] == "Transfer" and set(lines[2]) == {"-"}
    assert lines[1].split() == ["examples", "made", "for", "net", "av.", "distortion"]
    assert lines[3].startswith("net ") and "100.0 [43.9 to 100.0]" in lines[3]
    assert lines[3].index("]") == lines[4].index("]")


@pytest.mark.parametrize("name", [name for name in ig.__all__ if callable(getattr(ig, name))])
def test_every_public_function_and_class_explains_its_arguments(name: str) -> None:
    public = getattr(ig, name)
    text = inspect.getdoc(public) or ""
    first = text.splitlines()[0]
    assert first.endswith(".") and first[0].isupper()
    if inspect.isfunction(public):
        assert "Args:" in text and ("Returns:" in text)
        for argument in inspect.signature(public).parameters:
            assert argument in text, f"{name} does not explain {argument}"

"""Networks saved as programs: their logits and gradients are the network's, in batches of any size."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_networks import Functional, Named
from torch import nn

from intriguing.attacks import gaussian, lbfgs
from intriguing.models import ProgramClassifier

GREY: dict[str, Any] = {"input_shape": (1, 8, 8), "num_classes": 10}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    folder = tmp_path_factory.mktemp("programs")
    torch.manual_seed(0)
    net, images = Functional((1, 8, 8), 10).eval(), torch.rand(4, 1, 8, 8)
    named = Named((1, 8, 8), 10).eval()
    named.load_state_dict(net.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about formats to come
        free = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(net, (images,), dynamic_shapes=free), folder / "free.pt2")
        torch.export.save(torch.export.export(net, (images,)), folder / "fixed.pt2")
        torch.export.save(torch.export.export(named, (images,)), folder / "named.pt2")
        torch.jit.trace(net, images).save(folder / "traced.ts")
        torch.jit.script(net).save(folder / "scripted.ts")
    return net, folder


@pytest.mark.parametrize("name", ["free.pt2", "fixed.pt2", "named.pt2", "traced.ts", "scripted.ts"])
def test_logits_and_gradients_are_the_networks(saved: tuple[nn.Module, Path], name: str) -> None:
    net, folder = saved
    output = "scores" if name == "named.pt2" else None
    model = ProgramClassifier(folder / name, output=output, **GREY).eval()
    assert model.label == name.partition(".")[0] and not model.is_trainable
    for count in (1, 4, 7):
        images = torch.rand(count, 1, 8, 8, requires_grad=True)
        logits, expected = model(images), net(images)
        torch.testing.assert_close(logits, expected)
        one, two = (torch.autograd.grad(out.square().sum(), images)[0] for out in (logits, expected))
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)
    again = ProgramClassifier(folder / name, **{k: v for k, v in model.hparams.items() if k != "path"})
    again.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="is not the file"):
        ProgramClassifier(folder / name, program={"name": "x", "sha256": "0" * 64}, **GREY)


def test_an_attack_of_a_program_for_batches_of_one_size_is_that_of_the_network(saved: tuple[nn.Module, Path]) -> None:
    net, folder = saved
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    targets = (net(images).argmax(1) + 1) % 10
    model = ProgramClassifier(folder / "fixed.pt2", **GREY).eval()
    one, two = (lbfgs(network, images, targets, max_iter=20) for network in (model, net))
    assert one.success.all() and two.success.all()
    torch.testing.assert_close(one.distortion, two.distortion, rtol=0.05, atol=1e-3)
    assert gaussian(images, 0.1).shape == images.shape


def test_what_is_no_program_or_would_run_code_is_refused(saved: tuple[nn.Module, Path], tmp_path: Path) -> None:
    net, folder = saved
    torch.save(net, tmp_path / "pickled.pt")
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.pt2").write_text("no")
    hostile = io.BytesIO()
    torch.save(net, hostile)  # imports a class when it is read
    for name, content in (("zip.pt2", hostile.getvalue()), ("raw.pt2", pickle.dumps(Functional))):
        with zipfile.ZipFile(folder / "free.pt2") as source, zipfile.ZipFile(tmp_path / name, "w") as target:
            for entry in source.namelist():
                target.writestr(entry, content if entry.endswith("sample_inputs/model.pt") else source.read(entry))
    for name, words in (
        ("pickled.pt", "a pickled module is not read"),
        ("weights.pt", "model=module model._target_=<class> model.weights="),
        ("text.pt2", "no program of torch.export or TorchScript"),
        ("nowhere.pt2", "there is no file"),
        ("zip.pt2", "holds pickled objects"),
        ("raw.pt2", "holds pickled objects"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            ProgramClassifier(tmp_path / name, **GREY)
        assert "\n" not in str(caught.value)

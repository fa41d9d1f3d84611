"""What a result says of itself is what it holds; it survives files; saved images are judged as they are saved."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attack_networks import curved_network, images, linear_network
from PIL import Image
from torch import Tensor

from intriguing.adversarial_set import AdversarialSet
from intriguing.attacks import ATTACKS, AttackResult, as_attack, lbfgs, nearest
from intriguing.attacks.drawing import fooled_curve
from intriguing.attacks.levels import to_grid
from intriguing.attacks.progress import portion, report, watching
from intriguing.errors import UserError


def _result(sizes: list[float], **changes: Any) -> AttackResult:
    """A result of planted distortions: inf failed, 0 was misclassified unperturbed."""
    distortion = torch.tensor(sizes)
    success = distortion.isfinite()
    inputs = torch.full((len(sizes), 1, 2, 2), 0.5)
    adv_inputs = inputs + torch.where(success, distortion, 0.0).view(-1, 1, 1, 1)
    count = torch.arange(len(sizes))
    labels = torch.zeros(len(sizes), dtype=torch.int64)
    return replace(AttackResult(adv_inputs, success, distortion, None, count, count + 1, inputs, labels), **changes)


def test_no_interval_begins_below_zero() -> None:
    found = _result([0.001, 0.3]).summary()
    assert found["low"] == 0.0 and found["high"] > 0.3
    assert "(0 to " in repr(_result([0.001, 0.3]))


def test_the_frame_has_a_row_an_image() -> None:
    frame = _result([0.1, math.inf, 0.0], c=torch.tensor([1.0, math.nan, math.inf])).to_frame()
    expected = ["label", "success", "distortion", "c", "num_forwards", "num_backwards"]
    assert [*frame.columns] == expected and frame["success"].tolist() == [True, False, True]
    assert frame["num_backwards"].tolist() == [1, 2, 3]
    targets = torch.ones(3, dtype=torch.int64)
    assert [*_result([0.1, 0.1, 0.1], targets=targets).to_frame().columns][:2] == ["label", "target"]


def test_a_file_gives_the_result_back(tmp_path: Path) -> None:
    network, inputs = curved_network(dtype=torch.float64), images(3)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    for result in (nearest(network, inputs, labels), lbfgs(network, inputs, (labels + 1) % 4), _result([0.1])):
        result.save(tmp_path / "result.safetensors")
        loaded = AttackResult.load(tmp_path / "result.safetensors")
        assert (loaded.c is None) == (result.c is None) and (loaded.targets is None) == (result.targets is None)
        assert all(torch.equal(value, loaded.tensors()[name]) for name, value in result.tensors().items())
        assert loaded.tensors().keys() == result.tensors().keys()
    made = AdversarialSet.from_result(_result([0.1]))
    made.save(tmp_path / "set.safetensors")
    with pytest.raises(UserError):
        AttackResult.load(tmp_path / "set.safetensors")
    with pytest.raises(UserError):
        AttackResult.load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("name", [*ATTACKS, "function"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_result_becomes_a_set_without_further_words(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    network, inputs = curved_network(dtype=dtype), images(3, dtype=dtype)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    attack = as_attack(lambda m, x, y: nearest(m, x, y).adv_inputs) if name == "function" else ATTACKS[name]
    settings = {"gaussian": {"stddev": 0.3}, "adam_l1": {"num_steps": 20}, "lbfgs": {"search_steps": 4}}
    result = attack(network, inputs, labels, **settings.get(name, {}))
    made = AdversarialSet.from_result(result)
    assert torch.equal(made.inputs, inputs.float()) and torch.equal(made.labels, labels)
    assert torch.equal(made.success, result.success) and made.metadata["attack"] == {"name": "attack"}
    assert made.metadata["clip"] == (name != "gaussian") and bool(made.c.isnan().any()) == (result.c is None)
    made.save(tmp_path / "set.safetensors")
    assert torch.equal(AdversarialSet.load(tmp_path / "set.safetensors").adv_inputs, made.adv_inputs)
    named = AdversarialSet.from_result(result, metadata={"attack": {"name": name}, "seed": 3})
    assert (named.metadata["attack"]["name"], named.metadata["seed"]) == (name, 3)


def test_a_result_without_its_images_needs_them_for_a_set() -> None:
    bare = _result([0.1], inputs=None)
    with pytest.raises(ValueError, match="inputs: the result does not hold them; give inputs="):
        AdversarialSet.from_result(bare)
    assert len(AdversarialSet.from_result(bare, torch.full((1, 1, 2, 2), 0.5))) == 1


def test_the_curve_counts_what_is_fooled_at_each_distortion() -> None:
    sizes, shares = fooled_curve(torch.tensor([0.3, 0.0, 0.1]), num=4)  # one of the four was never fooled
    torch.testing.assert_close(sizes, torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64), atol=1e-7, rtol=0)
    assert shares.tolist() == [0.25, 0.5, 0.75]


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4), (4, 4), (16,)])
def test_a_result_draws_itself(shape: tuple[int, ...]) -> None:
    inputs = torch.rand(5, *shape) * 0.5
    sizes = torch.tensor([0.1, 0.2, 0.3, math.inf, 0.0])
    adv_inputs = inputs + torch.where(sizes.isfinite(), sizes, 0.0).view(-1, *[1] * len(shape))
    count = torch.zeros(5, dtype=torch.int64)
    figure = AttackResult(adv_inputs, sizes.isfinite(), sizes, None, count, count, inputs).plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    drawn = [axes for axes in figure.get_axes() if axes.images]
    assert len(drawn) == (0 if len(shape) == 1 else 9)  # three perturbed examples in three rows
    if drawn:
        shown = inputs[0].movedim(0, -1) if len(shape) == 3 else inputs[0]
        np.testing.assert_allclose(np.asarray(drawn[0].images[0].get_array()), shown.squeeze().numpy())
        last = np.asarray(drawn[8].images[0].get_array())  # the largest difference fills the range
        np.testing.assert_allclose(last, 1.0, atol=1e-6)
    curve = figure.get_axes()[0].lines[0]
    np.testing.assert_allclose(curve.get_ydata(), [20, 40, 60, 80, 80])


def test_a_result_without_success_draws_itself() -> None:
    assert _result([math.inf, math.inf]).plot()._repr_png_()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_saved_images_are_the_rounded_ones_and_are_judged_as_such(tmp_path: Path, bits: int, channels: int) -> None:
    levels = 2**bits
    inputs = torch.rand(6, channels, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def network(x: Tensor) -> Tensor:  # class 1 where the mean exceeds 0.6
        mean = x.flatten(1).mean(1) - 0.6
        return torch.stack([-mean, mean], dim=1)

    labels = network(inputs).argmax(1)
    result = nearest(network, inputs, labels)
    saved = result.save_images(tmp_path / "images", bits=bits, model=network)
    rounded = to_grid(result.adv_inputs, levels)
    survived = network(rounded).argmax(1) != labels
    assert (saved.num_saved, saved.num_adversarial) == (6, int(survived.sum()))
    assert saved.mean_distortion == pytest.approx(float(result.distortion.mean()))
    size = (rounded - inputs).flatten(1).square().mean(1).sqrt()
    assert saved.mean_distortion_saved == pytest.approx(float(size.mean()))
    assert f"{int(survived.sum())} of them still adversarial" in str(saved)
    assert sorted(file.name for file in saved.folder.iterdir()) == [f"{row:06d}.png" for row in range(6)]
    if bits == 8 or channels == 1:
        for row in range(6):
            with Image.open(tmp_path / "images" / f"{row:06d}.png") as image:
                read = torch.from_numpy(np.asarray(image).astype(np.float64)).view(3, 5, channels).movedim(2, 0)
            assert torch.equal(read, (rounded[row] * (levels - 1)).round())
    with pytest.raises(UserError, match=r"000000\.png exists already; give another folder"):
        result.save_images(tmp_path / "images", bits=bits)


def test_all_examples_of_a_grid_survive_its_files(tmp_path: Path) -> None:
    network, inputs = curved_network(), to_grid(images(6, dtype=torch.float32), 256)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    saved = nearest(network, inputs, labels, levels=256).save_images(tmp_path, model=network)
    assert saved.num_adversarial == saved.num_saved == 6
    assert saved.mean_distortion == pytest.approx(saved.mean_distortion_saved)


def test_failed_attacks_are_not_saved(tmp_path: Path) -> None:
    saved = _result([0.1, math.inf, 0.2]).save_images(tmp_path)
    assert saved.num_saved == 2 and saved.num_adversarial is None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["000000.png", "000002.png"]


@pytest.mark.parametrize(
    ("result", "settings", "words"),
    [
        (_result([0.1]), {"bits": 12}, "expected bits as 8 or 16, got 12"),
        (_result([0.1], labels=None), {"model": linear_network()}, "expected a result with labels or targets"),
        (_result([0.9]), {}, r"expected images in \[0, 1\] for PNG files"),
        (_result([0.1], adv_inputs=torch.zeros(1, 2, 2, 2), inputs=None), {}, "expected images .* for PNG files, got"),
    ],
)
def test_what_cannot_be_saved_gets_one_line(
    tmp_path: Path, result: AttackResult, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        result.save_images(tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


def test_shares_of_parts_add_up_and_never_fall() -> None:
    told: list[float] = []
    with watching(told.append):
        with portion(0, 0.5):
            report(0.5)
            report(0.2)
            with portion(0.5, 1):
                report(0.5)
        with portion(0.5, 1):
            report(0)
            report(0.5)
    assert told == [0.25, 0.375, 0.5, 0.75, 1.0]
    report(0.1)
    assert len(told) == 5


@pytest.mark.parametrize("name", ["lbfgs", "adam_l1", "nearest"])
def test_attacks_report_their_progress(name: str) -> None:
    network, inputs = curved_network(), images(4, dtype=torch.float32)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    settings = {"num_steps": 20} if name == "adam_l1" else {}
    told: list[float] = []
    with watching(told.append):
        ATTACKS[name](network, inputs, labels, targets=(labels + 1) % 4, **settings)
    assert len(told) >= 3 and told == sorted(told) and told[-1] == 1.0

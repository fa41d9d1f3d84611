"""Distances of planted networks with and without an autoencoder, whose ratio is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis import CraftedSet, Network, analyze
from intriguing.attacks import AttackResult
from intriguing.results import AnalysisResult

IMAGES = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.zeros(40, dtype=torch.long)


class Ones(nn.Module):
    """Takes every image for class 1."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.0, 1.0]).expand(len(images), 2)


def network(label: str, name: str, wrong: int, seed: int, **settings: object) -> Network:
    model = {"name": name, "label": label, "settings": settings}
    config = {"seed": seed, "data": {"name": "digits"}, "model": model, "split": {"name": "full"}}
    return Network.in_memory(label, Ones(), name=f"{label}_{seed}", errors={"test": (wrong, 1000)}, config=config)


def crafted(source: Network, factor: float, first: int) -> CraftedSet:
    """Examples of 30 images from ``first`` on, each at ``factor`` times an image's own distance."""
    rows = torch.arange(first, first + 30)
    sizes = 0.01 * (1 + rows % 7)
    adv_inputs = IMAGES[rows] + factor * sizes[:, None, None, None]
    passes = torch.ones(30, dtype=torch.long)
    found = AttackResult(
        adv_inputs=adv_inputs,
        success=passes.bool(),
        distortion=factor * sizes,
        c=passes.float(),
        num_forwards=passes,
        num_backwards=passes,
    )
    metadata = {
        "source": {"name": source.name, "label": source.label, "split": "full", "seed": source.seed}
        | {"checkpoint_sha256": ""},
        "data": {"name": "digits", "subset": "train"},
        "attack": {"name": "nearest", "targets": "closest"},
    }
    made = AdversarialSet.from_result(found, IMAGES[rows], LABELS[:30], metadata=metadata, indices=rows)
    return CraftedSet.in_memory(f"nearest_{source.name}", made)


def result(*parts: tuple[Network, float, int]) -> AnalysisResult:
    networks = [one for one, *_ in parts]
    return analyze(networks, [crafted(*part) for part in parts], title="t", sections=("autoencoders",), settings={})


@pytest.fixture(scope="module")
def made() -> AnalysisResult:
    return result(
        *((network("AE30-10", "sparse_autoencoder", 20, seed, units=30), 3.0, 0) for seed in (0, 1)),
        *((network("FC30-10", "fully_connected", 90, seed, widths=[30]), 2.0, 5) for seed in (0, 1)),
        *((network("FC20-10", "fully_connected", 25, seed, widths=[20]), 1.5, 10) for seed in (0, 1)),
    )


def test_ratios_are_of_the_same_images_beside_the_same_shape_and_beside_the_nearest_error(made: AnalysisResult) -> None:
    table = made.table("autoencoders")
    assert table.rows == ("AE30-10", "FC30-10", "FC20-10")
    shape, error = table.cells["AE30-10", "ratio, same shape"], table.cells["AE30-10", "ratio, nearest test error"]
    assert shape.value == pytest.approx(1.5, rel=1e-4) and (shape.n, shape.images) == (50, 25)
    assert error.value == pytest.approx(2.0, rel=1e-4) and (error.n, error.images) == (40, 20)
    assert shape.interval is not None and shape.interval.low == pytest.approx(1.5, rel=1e-4)  # equal for all images
    assert table.cells["AE30-10", "test error"].value == pytest.approx(2.0)
    sizes = 0.01 * (1 + torch.arange(30) % 7)
    assert table.cells["AE30-10", "distance"].value == pytest.approx(float(sizes.mean()) * 3 * math.sqrt(16), rel=1e-4)
    assert not {("FC30-10", "ratio, same shape"), ("FC20-10", "ratio, nearest test error")} & set(table.cells)
    first, second = made.summary[-2:]
    assert (
        "same shape" in first
        and "1.50 (1.50 to 1.50) times as far for AE30-10 as for FC30-10 (test errors 2.0 and 9.0 %)" in first
    )
    assert "nearest test error" in second and "2.00 (2.00 to 2.00) times as far for AE30-10 as for FC20-10" in second
    assert [figure.key for figure in made.figures] == ["autoencoders"]


def test_without_an_autoencoder_or_without_another_network_there_is_no_table() -> None:
    labels_alone = (network("FC30-10", "fully_connected", 90, 0, widths=[30]), 2.0, 0)
    autoencoder = (network("AE30-10", "sparse_autoencoder", 90, 0, units=30), 2.0, 0)
    for part in (labels_alone, autoencoder):
        assert not result(part).tables


def test_networks_without_a_test_error_or_common_images_have_no_ratio() -> None:
    unknown = network("AE30-10", "sparse_autoencoder", 0, 0, units=30)
    unknown.record.result["errors"].clear()
    other = network("FC31-10", "fully_connected", 9, 0, widths=[31])
    table = result((unknown, 2.0, 0), (other, 1.0, 0)).table("autoencoders")
    assert [column for row, column in table.cells if row == "AE30-10"] == ["distance"]
    seeds_apart = network("FC30-10", "fully_connected", 9, 1, widths=[30])
    table = result((network("AE30-10", "sparse_autoencoder", 9, 0, units=30), 2.0, 0), (seeds_apart, 1.0, 0)).table(
        "autoencoders"
    )
    assert ("AE30-10", "ratio, same shape") not in table.cells

"""The sections on half-spaces, whose transfer, dimension, distance and agreement are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis import CraftedSet, Network, analyze
from intriguing.analysis.controls.classifiers import ControlSettings
from intriguing.analysis.controls.equal_norm import COLUMNS, TransferNormSettings
from intriguing.analysis.controls.likelihood import LikelihoodSettings
from intriguing.analysis.controls.noise_distance import QUOTIENT, NoiseDistanceSettings
from intriguing.analysis.controls.pockets import ALIGNED, RANDOM, PocketSettings
from intriguing.analysis.controls.seeds import SeedSettings
from intriguing.attacks import nearest
from intriguing.data import Subset
from intriguing.results import AnalysisResult

PIXELS = 36
IMAGES = 0.5 + 0.02 * torch.randn(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))
NORMAL = torch.randn(PIXELS, generator=torch.Generator().manual_seed(1))
NORMAL = NORMAL / NORMAL.norm()
ORTHOGONAL = torch.randn(PIXELS, generator=torch.Generator().manual_seed(2))
ORTHOGONAL = ORTHOGONAL - (ORTHOGONAL @ NORMAL) * NORMAL
ORTHOGONAL = ORTHOGONAL / ORTHOGONAL.norm()
MANY = 0.5 + 0.02 * torch.randn(8000, 1, 6, 6, generator=torch.Generator().manual_seed(3))


def _labels(images: torch.Tensor) -> torch.Tensor:
    return (images.flatten(1) @ NORMAL > 0.5 * NORMAL.sum()).long()


LABELS = _labels(IMAGES)


def network(label: str, normal: torch.Tensor, *, seed: int = 0, hidden: bool = False) -> Network:
    """Class 1 beyond the plane through grey that a normal stands on; with hidden units that change nothing."""
    linear = nn.Linear(PIXELS, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([-normal, normal]))
        linear.bias.copy_(torch.stack([0.5 * normal.sum(), -0.5 * normal.sum()]))
    module = nn.Sequential(nn.Flatten(), linear)
    if hidden:
        both = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            both.weight.copy_(4 * torch.eye(2))
        module = nn.Sequential(nn.Flatten(), linear, nn.Sigmoid(), both)
    return Network.in_memory(
        label,
        module.eval(),
        name=f"{label}_{seed}",
        errors={"test": (1, 100)},
        config={"seed": seed, "data": {"name": "digits"}, "model": {"label": label}, "split": {"name": "full"}},
    )


def crafted(source: Network, labels: torch.Tensor) -> CraftedSet:
    found = nearest(source.module, IMAGES, labels)
    described = {"name": source.name, "label": source.label, "split": "full", "seed": source.seed}
    metadata = {
        "source": described | {"checkpoint_sha256": ""},
        "data": {"name": "digits", "subset": "train"},
        "attack": {"name": "nearest", "targets": "closest"},
    }
    made = AdversarialSet.from_result(found, IMAGES, labels, metadata=metadata, indices=torch.arange(len(IMAGES)))
    return CraftedSet.in_memory(f"nearest_{source.name}", made)


def subsets(network: Network, subset: str) -> Subset:
    if subset != "train":
        return Subset(IMAGES, LABELS, torch.arange(len(IMAGES)))
    return Subset(MANY, _labels(MANY), torch.arange(len(MANY)) + len(IMAGES))


SETTINGS: dict[str, Any] = {
    "controls": ControlSettings(limit=30, kinds=("linear_svm", "knn"), train_limit=500),
    "likelihood": LikelihoodSettings(
        limit=30, densities=("mixture", "neighbours"), hits=1, multiples=(1.1, 20.0), train_limit=300
    ),
    "transfer_norms": TransferNormSettings(limit=60, sizes=(0.001, 0.02, 0.3), train_limit=8000),
    "noise_distance": NoiseDistanceSettings(limit=25, stddevs=(0.01, 0.05, 0.2), draws=200),
    "pockets": PocketSettings(limit=4, radius=2.5, most=12, draws=10),
    "seeds": SeedSettings(limit=8),
}


@pytest.fixture(scope="module")
def result() -> AnalysisResult:
    networks = [
        network("A", NORMAL),
        network("B", NORMAL),
        network("C", ORTHOGONAL),
        network("D", NORMAL, hidden=True),
        network("D", NORMAL, hidden=True, seed=1),
    ]
    sets = [crafted(one, one.module(IMAGES).argmax(1)) for one in networks]
    return analyze(networks, sets, title="t", sections=tuple(SETTINGS), settings=SETTINGS, subsets=subsets, seed=0)


def test_every_section_has_a_table_a_figure_and_sentences(result: AnalysisResult) -> None:
    tables, figures = {table.key for table in result.tables}, {figure.key for figure in result.figures}
    for key in ("likelihood", "likelihood_hits", "transfer_norms", "noise_distance", "pockets", "seeds"):
        assert key in tables and key in figures
    assert {"controls_own", "controls_equal", "controls_equal_excess_noise"} <= tables and "controls" in figures
    assert len(result.summary) >= 12
    assert not any("nan" in line for line in result.summary)


def test_an_equal_half_space_is_fooled_like_its_own_and_an_orthogonal_one_is_not(result: AnalysisResult) -> None:
    table = result.table("transfer_norms")
    over, rest, target, gradients, moves = COLUMNS
    assert table.cells["A → B", target].value == 100
    assert table.cells["A → B", over].value > 30
    assert table.cells["A → B", gradients].value == pytest.approx(1, abs=1e-4)
    assert table.cells["A → B", moves].value == pytest.approx(1, abs=1e-3)
    assert abs(table.cells["A → C", gradients].value) < 1e-3
    assert abs(table.cells["A → C", moves].value) < 0.05
    assert table.cells["A → C", over].value < table.cells["A → B", over].value - 20
    assert table.cells["A → B", rest].value < table.cells["A → B", over].value - 20  # what is shared is linear


def test_own_examples_fool_at_their_own_norm(result: AnalysisResult) -> None:
    table = result.table("controls_own")
    for label in ("A", "B", "C"):
        cell = table.cells[label, label]
        assert cell.value == 100 and cell.own
    assert table.cells["linear SVM", "linear SVM"].value == 100
    assert ("k-NN", "A") not in table.cells and ("A", "k-NN") in table.cells


def test_a_half_spaces_distance_is_predicted_from_noise(result: AnalysisResult) -> None:
    table = result.table("noise_distance")
    assert table.cells["A", QUOTIENT].value == pytest.approx(1, abs=0.15)


def test_the_dimension_of_a_half_space_is_the_square_of_the_radius(result: AnalysisResult) -> None:
    table = result.table("pockets")
    assert table.cells["A", ALIGNED].value == pytest.approx(6, abs=0.3)  # floor(2.5^2)
    assert table.cells["A", RANDOM].value < 4


def test_noise_hits_a_half_space_rarely_at_its_distance_and_often_far_beyond(result: AnalysisResult) -> None:
    table = result.table("likelihood_hits")
    near, far = (table.cells["A", f"log10 p at {multiple} x"].value for multiple in (1.1, 20))
    assert near < -4 and far > -0.7
    for cell in result.table("likelihood").cells.values():
        assert 0 <= cell.value <= 1 and cell.interval is not None


def test_equal_networks_of_two_seeds_agree_in_all(result: AnalysisResult) -> None:
    table = result.table("seeds")
    assert table.rows == ("D",)
    for column in ("CKA", "matched units", "gradients", "perturbations"):
        assert table.cells["D", column].value == pytest.approx(1, abs=1e-3), column


def test_nothing_is_made_without_sets() -> None:
    made = analyze([network("A", NORMAL)], [], title="t", sections=tuple(SETTINGS), subsets=subsets)
    assert not made.tables and not made.figures

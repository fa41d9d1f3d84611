"""The stability section on networks with planted constants, and Table 5 with the misprint's factor."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from intriguing.analysis import CraftedSet, Network, SectionInputs, analyze
from intriguing.analysis.stability import measure, tables
from intriguing.analysis.stability.section import section
from intriguing.analysis.stability.settings import StabilitySettings
from intriguing.analysis.stability.summary import certified_pairs
from intriguing.analysis.stability.table_5 import CORRECTED, FORMULA, PRINTED, exact_norm, table_5
from intriguing.attacks import nearest
from intriguing.data import Subset
from intriguing.metrics import distortion
from intriguing.models import AlexNet, TorchvisionModel
from intriguing.spectral import operator_norm
from intriguing.statistics.tests import sign_p

IMAGES = torch.rand(40, 1, 3, 3, generator=torch.Generator().manual_seed(0))


def network(label: str, *, seed: int = 0, strength: float = 0.0, scale: float = 1.0, epochs: int = 60) -> Network:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Sigmoid(), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        module[3].weight.mul_(scale)
        module[3].bias.sub_(module(IMAGES).mean(0))
    penalty = {"spectral_penalty": {"kind": "log_product", "value": strength}} if strength else {}
    return Network.in_memory(
        label=label,
        name=f"{label}_seed{seed}_{epochs}".replace(" ", "_"),
        module=module,
        errors={"test": (3, 100)},
        config={
            "seed": seed,
            "data": {"name": "digits"},
            "split": {"name": "full"},
            "trainer": {"max_epochs": epochs},
            **penalty,
        },
    )


def crafted(source: Network, attack: str = "nearest", *, size: float | None = None) -> CraftedSet:
    """Its nearest examples; or, as if another attack had made them, images that are `size` brighter or darker."""
    labels = source.module(IMAGES).argmax(1)
    adv_inputs = (
        nearest(source.module, IMAGES, labels).adv_inputs if size is None else IMAGES - size * IMAGES.sub(0.5).sign()
    )
    metadata = {
        "source": {"name": source.name, "label": source.label, "split": "full", "seed": source.seed},
        "data": {"name": "digits", "subset": "test"},
        "attack": {"name": attack, "targets": "closest"},
        "amplify": None,
    }
    value: Any = SimpleNamespace(
        inputs=IMAGES,
        adv_inputs=adv_inputs,
        labels=labels,
        targets=torch.full_like(labels, -1),
        success=torch.ones_like(labels, dtype=torch.bool),
        distortion=distortion(IMAGES, adv_inputs),
        metadata=metadata,
    )
    return CraftedSet.in_memory(f"{attack}_{source.name}", value)


def subsets(network: Network, subset: str) -> Subset:
    return Subset(IMAGES, torch.zeros(len(IMAGES), dtype=torch.long), torch.arange(len(IMAGES)))


@pytest.fixture(scope="module")
def result():
    networks = [network("A", seed=s, scale=4.0) for s in (0, 1)]
    networks += [network("A penalty 0.1", seed=s, strength=0.1) for s in (0, 1)]
    settings = {"stability": StabilitySettings(radius=0.2)}
    sets = [crafted(one) for one in networks]
    return analyze(networks, sets, title="t", sections=("stability",), settings=settings, subsets=subsets)


def test_bounds_enclose_and_seeds_are_pooled(result) -> None:
    table = result.table("stability")
    assert table.rows == ("A", "A penalty 0.1")
    for row in table.rows:
        low, middle, high = (table.cells[row, c].value for c in (tables.JACOBIAN, tables.CERTIFIED, tables.PRODUCT))
        assert low <= middle <= high
        assert table.cells[row, tables.PRODUCT].interval.low < table.cells[row, tables.PRODUCT].interval.high
        assert table.cells[row, tables.RADIUS].value <= table.cells[row, tables.DISTANCE].value
        assert table.cells[row, tables.TEST].k == 6
    # the same weights but for the last layer, four times smaller
    ratio = table.cells["A", tables.PRODUCT].value / table.cells["A penalty 0.1", tables.PRODUCT].value
    assert ratio == pytest.approx(4, rel=1e-5)


def test_other_epochs_are_other_networks_and_distances_are_of_one_attack(monkeypatch) -> None:
    """One attack on all three networks is compared, though another comes nearer to two of them."""
    monkeypatch.setattr(measure, "Certifier", lambda *given: SimpleNamespace(constant=lambda: 1.0, method="LipSDP"))
    networks = [network("A", scale=4.0), network("A", scale=2.0, epochs=12), network("A penalty 0.1", strength=0.1)]
    sets = [crafted(one, "lbfgs", size=0.2) for one in networks]
    sets += [crafted(one, "nearest", size=0.1) for one in networks[:2]]
    settings = {"stability": StabilitySettings(pairs=False, limit=10)}
    result = analyze(networks, sets, title="t", sections=("stability",), settings=settings, subsets=subsets)
    table = result.table("stability")
    assert table.rows == ("A, 12 epochs", "A, 60 epochs", "A penalty 0.1")
    for one, row in zip((networks[1], networks[0], networks[2]), table.rows, strict=True):
        distance = table.cells[row, tables.DISTANCE]
        assert distance.runs == (one.name, f"lbfgs_{one.name}")
        assert table.cells[row, tables.TEST].n == 100
    assert "Distances found by lbfgs, closest targets on test images, for every network." in table.notes
    grown = [line for line in result.summary if "with a penalty" in line]
    assert len(grown) == 1 and grown[0].startswith("A, 60 epochs with a penalty of 0.1")


def test_no_certificate_is_broken_and_the_fall_is_said(result) -> None:
    assert any("0 of" in line and "exceed the adversarial distance" in line for line in result.summary)
    assert any(
        "A with a penalty of 0.1" in line and "4.0 times" in line and "distance found grows" in line
        for line in result.summary
    )
    assert {figure.key for figure in result.figures} == {"amplification", "certificates", "penalty"}


def test_certified_shares_are_compared_image_by_image(result) -> None:
    words = "20.0 % of images are certified at 0.2 (without 20.0 %; 40 images, 2 seeds, none differs)."
    assert any(line.endswith(words) for line in result.summary)

    def measured(seed: int, images: str, radii: list[float]) -> Any:
        return SimpleNamespace(network=SimpleNamespace(seed=seed), images=tuple(images), radii=torch.tensor(radii))

    plain = [measured(0, "abc", [0.1, 0.3, 0.1]), measured(1, "ab", [0.1, 0.1])]
    other = [measured(1, "bad", [0.3, 0.3, 0.3]), measured(0, "ab", [0.3, 0.1]), measured(2, "ab", [0.3, 0.3])]
    differences, seeds = certified_pairs(plain, other, 0.2)
    assert (sorted(differences), seeds) == ([0, 2], 2)  # b: -1 + 1; a: 1 + 1
    assert sign_p([1, 1, 1, 1, 1, 0, 0]) == pytest.approx(2 / 32)  # McNemar's of one seed: 5 against 0
    assert sign_p([2, 2, -1, 0]) == pytest.approx(1.0)  # an image counts once, whatever the number of seeds
    assert sign_p([0, 0]) is None


def test_the_sign_test_rejects_no_more_often_than_it_says_where_networks_do_not_differ() -> None:
    """Images differ much in how easily they are certified, and two seeds share them: neither makes it too sure."""
    generator = np.random.default_rng(0)
    easy = generator.beta(0.5, 0.5, size=(600, 60, 1))
    certified = (generator.random((600, 60, 4)) < easy).astype(int)
    differences = certified[..., :2].sum(-1) - certified[..., 2:].sum(-1)
    found = np.array([sign_p(row.tolist()) or 1.0 for row in differences])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(found <= level) <= level + 0.04


def test_figures_of_one_network_a_label_name_its_seed(result) -> None:
    for key in ("amplification", "certificates"):
        (figure,) = (one for one in result.figures if one.key == key)
        assert "One network a label, of seed 0." in figure.caption


def test_layers_are_listed_with_their_bounds(result) -> None:
    table = result.table("stability_layers")
    assert [row.split(" ", 2)[-1] for row in table.rows if row.startswith("A:")] == ["Linear", "Sigmoid", "Linear"]
    assert table.cells["A: 2 Sigmoid", CORRECTED].value == 0.25


def test_a_network_that_is_not_fully_connected_has_the_product_alone() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)).eval()
    one = Network.in_memory(label="conv", name="conv", module=module, errors={}, config={"data": {"name": "digits"}})
    made = section(SectionInputs(networks=[one], subsets=subsets, settings=StabilitySettings()))
    (table,) = [t for t in made.tables if t.key == "stability"]
    assert ("conv", tables.CERTIFIED) not in table.cells and ("conv", tables.PRODUCT) in table.cells


def _alexnet(size: int, *, architecture: str = "", seed: int = 0, **config: Any) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        common = {"label": "AlexNet", "input_shape": [3, size, size], "num_classes": 5}
        if architecture:
            module = TorchvisionModel(architecture=architecture, weight_decay=[0.0] * 8, **common)
        else:
            module = AlexNet(weight_decay=[0.0] * 8, **common)
    config = {"data": {"name": "blank"}, "trainer": {"max_epochs": 0}, "seed": seed, **config}
    return Network.in_memory("AlexNet", module.eval(), name=f"alexnet_seed{seed}", errors={}, config=config)


@pytest.mark.slow
def test_table_5_shows_the_misprint_and_the_pools() -> None:
    """From the lowest seed of an untrained AlexNet without images, of which nothing else is made."""
    networks = [_alexnet(96, seed=seed, model={"name": "alexnet"}) for seed in (1, 0)]
    result = analyze(networks, [], title="t", sections=("table1", "stability"), subsets=subsets)
    (table,) = result.tables
    assert table.key == "table5" and table.runs == ("alexnet_seed0",) and not result.figures
    assert "Krizhevsky's AlexNet with the random weights it starts from" in table.caption
    assert [run.name for run in result.runs] == ["alexnet_seed1", "alexnet_seed0"]
    cell = {place: c.value for place, c in table.cells.items()}
    first, product, whole = table.rows[0], *table.rows[-2:]
    assert cell[first, CORRECTED] / cell[first, FORMULA] == pytest.approx(4, rel=0.05)
    assert cell[product, PRINTED] == pytest.approx(7.9e5, rel=0.01)
    weighted = math.prod(cell[row, CORRECTED] for row in table.rows[:-2])
    assert cell[product, CORRECTED] == pytest.approx(weighted)
    assert cell[whole, PRINTED] / cell[product, PRINTED] == pytest.approx(8)


@pytest.mark.slow
def test_table_5_of_torchvisions_network_has_its_layers_too() -> None:
    model = {"name": "torchvision", "settings": {"architecture": "alexnet", "weights": "default"}}
    table = table_5(_alexnet(64, architecture="alexnet", model=model))
    assert len(table.rows) == 10 and "torchvision's AlexNet with its published weights" in table.caption


def test_the_exact_norm_is_that_of_the_dense_matrix_and_below_the_bound() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    columns = torch.eye(2 * 6 * 6).view(-1, 2, 6, 6)
    with torch.no_grad():
        matrix = (layer(columns) - layer(torch.zeros(1, 2, 6, 6))).flatten(1).T
    wanted = float(torch.linalg.matrix_norm(matrix.double(), 2))
    assert exact_norm(layer, (2, 6, 6)) == pytest.approx(wanted, rel=1e-4)
    assert wanted <= operator_norm(layer, (2, 6, 6), padding="zeros")


@pytest.mark.slow
def test_of_convolutions_from_a_file_table_5_has_no_linear_layer() -> None:
    """The linear layers of such a network are random."""
    model = {"name": "torchvision", "settings": {"architecture": "alexnet", "features": "features.pth"}}
    table = table_5(_alexnet(64, architecture="alexnet", model=model))
    assert [row.split()[0] for row in table.rows] == ["conv1", "conv2", "conv3", "conv4", "conv5", "product", "product"]
    assert "the five convolutions of torchvision's AlexNet with trained weights" in table.caption
    assert table.cells[table.rows[-2], PRINTED].value == pytest.approx(2.75 * 10 * 7 * 7.5 * 11)
    assert any("this network's are conv1 3x11x11x64" in note for note in table.notes)

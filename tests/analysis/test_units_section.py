"""The section "units" on networks whose answer is known: units that are labels, and units that are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from intriguing.analysis import Made, Material, Network
from intriguing.analysis.units import UnitSettings, section
from intriguing.data import Subset
from intriguing.errors import UserError
from intriguing.units import random_rotation

K = 6
QUICK: dict[str, Any] = {"columns": 5, "rows": 3, "bases": ["pca"], "sweeps": 4, "sets": 500, "ablated": 3}


def _images(num: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """An image of class c has pixel c at 1 and the others anywhere below 0.9: hardly a rotation keeps classes apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num) % K
    images = 0.9 * torch.rand(num, 1, 1, K, generator=generator)
    images[torch.arange(num), 0, 0, labels] = 1.0
    return images, labels


def _network(label: str, seed: int = 0, *, turned: bool = False) -> Network:
    """Reads the pixels off one by one, or after a rotation that the last layer takes back: the same function."""
    torch.manual_seed(seed)
    rotation = random_rotation(K, generator=torch.Generator().manual_seed(seed)).float() if turned else torch.eye(K)
    first, last = nn.Linear(K, K), nn.Linear(K, K)
    with torch.no_grad():
        first.weight.copy_(rotation)
        first.bias.fill_(3.0)  # the nonlinearity then changes nothing
        last.weight.copy_(rotation.T)
        last.bias.zero_()
    return Network(
        label=label,
        name=f"{label}_seed{seed}",
        module=nn.Sequential(nn.Flatten(), first, nn.ReLU(), last),
        errors={"test": (0, 400)},
        config={"seed": seed, "data": {"name": "mnist"}, "split": {"name": "full"}},
    )


def _made(networks: list[Network], /, batch_size: int = 1024, **settings: Any) -> Made:
    material = Material(
        networks=networks, images=lambda network, subset: _images(), settings=QUICK | settings, batch_size=batch_size
    )
    return section(material)


def _cell(made: Made, table: str, row: str, column: str) -> float:
    return next(t for t in made.tables if t.key == table).cells[row, column].value


def test_units_that_are_labels_score_one_beat_random_bases_and_fall_along_the_rotation() -> None:
    made = _made([_network("labels", seed) for seed in (0, 1)])
    assert _cell(made, "units_labels", "layer 2 · units", "purity") == 1
    row = "labels · layer 2 · purity"
    assert _cell(made, "units_tests", row, "effect size") > 0.5
    assert _cell(made, "units_tests", row, "p") == pytest.approx(2 / 1000)
    assert _cell(made, "units_tests", row, "q") < 0.05
    assert _cell(made, "units_chance", "labels · layer 2 · units", "purity") == 100
    assert "What does not hold" in made.summary[1] and "units of labels are more meaningful" in made.summary[1]
    keys = [figure.key for figure in made.figures]
    assert keys == ["units_labels_layer_2", "units_sweep", "units_scores", "units_ablation", "units_seeds"]
    assert all(figure.png.startswith(b"\x89PNG") for figure in made.figures)


def test_the_same_space_in_a_rotated_basis_is_the_same_space_and_no_longer_the_same_units() -> None:
    """The paper's point, planted: what both networks compute is equal, so CKA is 1, and no unit is left."""
    made = _made([_network("turned", seed, turned=True) for seed in (0, 1, 2)])
    row = "turned · layer 2"
    assert _cell(made, "units_seeds", row, "linear CKA") == pytest.approx(1, abs=1e-5)
    assert _cell(made, "units_seeds", row, "Procrustes") == pytest.approx(1, abs=1e-5)
    assert _cell(made, "units_seeds", row, "matched units") < 0.9
    assert _cell(made, "units_turned", "layer 2 · units", "purity") < 1
    assert _cell(made, "units_tests", "turned · layer 2 · purity", "q") > 0.05
    assert made.summary[1].startswith("That units and random bases differ was not shown")


def test_nothing_depends_on_the_batches_and_images_in_folders_are_read_as_they_are_needed() -> None:
    class Lazy:
        """A subset that hands out nothing but single reads."""

        def __init__(self) -> None:
            self.whole = Subset(*_images(), torch.arange(400))

        def __len__(self) -> int:
            return len(self.whole)

        def __getattr__(self, name: str) -> Any:
            assert name in ("read", "batches", "labels"), name
            return getattr(self.whole, name)

    plain = _made([_network("labels")], batch_size=1000)
    lazy: Any = Lazy()
    again = section(
        Material(
            networks=[_network("labels")],
            images=lambda network, subset: pytest.fail("read whole"),
            subsets=lambda network, subset: lazy,
            settings=QUICK,
            batch_size=7,
        )
    )
    for one, two in zip(plain.tables, again.tables, strict=True):
        assert one.cells == two.cells or one.tidy() == two.tidy()
    assert [figure.png for figure in plain.figures] == [figure.png for figure in again.figures]


def test_what_is_asked_for_is_made() -> None:
    networks = [_network("labels"), _network("other", turned=True)]
    made = _made(networks, networks=["lab*"], untrained=False, whitened=False, bases=[], ablated=0, sweeps=0, limit=100)
    assert {table.key for table in made.tables} == {"units_tests", "units_labels", "units_chance"}
    rows = next(t for t in made.tables if t.key == "units_labels").rows
    assert rows == ("layer 2 · units", "layer 2 · random directions")
    assert "N = 100 test images" in made.tables[0].sample
    columns = next(t for t in made.tables if t.key == "units_labels").columns
    assert "similarity in features" in columns  # by the other network
    assert "similarity in features" not in _made(networks[:1]).tables[1].columns
    assert _made([]) == Made()


def test_only_seeds_are_pooled() -> None:
    """A half's network has the label of the whole's, but is not another seed of it."""
    whole = _network("labels")
    half = replace(_network("labels"), name="half", config={**whole.config, "split": {"name": "p1"}})
    keys = {table.key for table in _made([whole, half], untrained=False, sweeps=0, ablated=0).tables}
    assert keys == {"units_tests", "units_labels", "units_labels_on_p1", "units_chance"}


def test_networks_of_other_settings_are_not_pooled_as_seeds() -> None:
    first, second = _network("labels"), _network("labels", 1)
    second = replace(second, config={**second.config, "trainer": {"max_epochs": 1}})
    made = _made([first, second], untrained=False, sweeps=0, ablated=0)
    rows = {row.split(" · ")[0] for table in made.tables if table.key == "units_tests" for row in table.rows}
    assert rows == {"labels, max_epochs=null", "labels, max_epochs=1"}


def test_a_network_without_units_is_passed_over() -> None:
    bare = _network("bare")
    bare.module[2] = nn.Identity()  # type: ignore[index]
    assert _made([bare]) == Made()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": ["conv9"]}, r"names no layer; labels has 0, 1, 2, 3"),
        ({"networks": ["fc*"]}, r"names no network of this analysis; there are labels"),
        ({"limit": 5}, "too few for rows of 5"),
        ({"bases": ["fourier"]}, "settings.units.bases"),
        ({"aggregate": "median"}, "settings.units.aggregate"),
        ({"rows": 0}, "settings.units.rows"),
        ({"colums": 3}, r"unknown settings\.units\.colums"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        _made([_network("labels")], **settings)


def test_the_configs_settings_are_those_the_section_reads(composed: Any) -> None:
    given = composed("analyze", "study=units")["settings"]["units"]
    assert set(given) == set(UnitSettings.__dataclass_fields__) and not any(given.values())

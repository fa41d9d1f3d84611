"""Figures 5 and 6 and their table, and the share of examples that ends in the target's class, from planted networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from planted import IMAGES, LABELS, SIDE, crafted_set, planted_network

from intriguing.analysis import CraftedSet, Network, analyze
from intriguing.analysis.gallery import mosaic
from intriguing.analysis.paper import OSTRICH_DISTORTION
from intriguing.analysis.paper_tables import one_target
from intriguing.analysis.paper_tables.transfer import transfer_tables
from intriguing.metrics import distortion

TARGET = 3
NAMES = [f"digit {number}, the {number}" for number in range(10)]


def _towards(
    source: Network, pixels: dict[int, int], *, forwards: int = 5, seconds: float = 80.0, **more: Any
) -> CraftedSet:
    """A set in which pixel p of the first `pixels[p]` images shows `TARGET`."""
    crafted = crafted_set(source, {}, subset="test", **more)
    value: Any = crafted.load()
    for pixel, count in pixels.items():
        value.adv_inputs.flatten(1)[:count, pixel] = TARGET / 10
    value.targets = torch.full_like(LABELS, TARGET)
    value.num_forwards = torch.full((IMAGES,), forwards)
    value.num_backwards = torch.full((IMAGES,), forwards - 1)
    value.distortion = torch.where(value.success, distortion(value.inputs, value.adv_inputs), torch.inf)
    info = {**crafted.record.info, "result": {"seconds": seconds}}
    return CraftedSet(record=replace(crafted.record, info=info), load=lambda: value)


@pytest.fixture(scope="module")
def networks() -> list[Network]:
    return [planted_network(name, pixel, data__names=NAMES) for name, pixel in (("first", 0), ("second", 1))]


def test_the_table_counts_success_size_and_work(networks: list[Network]) -> None:
    sets = [_towards(networks[0], {0: IMAGES}, failed=4), _towards(networks[1], {1: IMAGES}, forwards=9)]
    result = analyze(networks, sets, title="t", sections=["one_target"])
    table = result.table("one_target")
    row = "first · lbfgs, random targets"
    assert table.rows == (row, "second · lbfgs, random targets", one_target.PRINTED)
    success = table.cells[row, one_target.SUCCESS]
    assert (success.k, success.n, success.value) == (36, 40, 90)
    sizes = (LABELS[:36] - TARGET).abs().double() / 10 / SIDE  # one of 16 pixels moves
    assert table.cells[row, one_target.MEAN_SIZE].value == pytest.approx(float(sizes.mean()), rel=1e-5)
    assert table.cells[row, one_target.MEDIAN].value == pytest.approx(float(sizes.median()), rel=1e-5)
    assert table.cells[row, one_target.PASSES].value == 9 and table.cells[row, one_target.SECONDS].value == 2
    assert table.cells["second · lbfgs, random targets", one_target.PASSES].value == 17
    assert table.cells[one_target.PRINTED, one_target.MEAN_SIZE].value == OSTRICH_DISTORTION
    assert "(digit 3)" in table.caption  # the first of the class's names
    means = sorted(table.cells[one, one_target.MEAN_SIZE].value for one in table.rows[:2])
    ends = [f"{mean:.4f}".removeprefix("0") for mean in means]
    (sentence,) = (one for one in result.summary if one.startswith("Towards one class"))
    assert f"between {ends[0]} and {ends[1]} (2 pairs" in sentence and "AlexNet needed .0065" in sentence


def test_a_figure_shows_originals_differences_and_examples(networks: list[Network], monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(one_target, "gallery", lambda panels: drawn.extend(panels) or _gallery(panels))
    from intriguing.analysis.gallery import gallery as _gallery

    one = _towards(networks[0], {0: IMAGES})
    settings = {"one_target": one_target.OneTargetSettings(images=4, gain=2.0)}
    result = analyze(networks, [one], title="t", sections=["one_target"], settings=settings)
    assert [figure.key for figure in result.figures] == ["figure5_first"]
    (panel,) = drawn
    assert panel.rows == ("original", "difference ×2", "adversarial") and len(panel.tiles[0]) == 4
    value: Any = one.load()
    for column, row in enumerate((0, 13, 26, 39)):
        original, adversarial = value.inputs[row], value.adv_inputs[row]
        assert panel.columns[column].startswith(f"digit {row % 10}\n")
        wanted = [original, (0.5 + 2 * (adversarial - original)).clamp(0, 1), adversarial]
        for tiles, image in zip(panel.tiles, wanted, strict=True):
            torch.testing.assert_close(tiles[column], image)
    assert mosaic(panel.tiles)[0].shape[0] > 3 * SIDE and "taken for digit 3" in result.figures[0].note


def test_a_difference_too_small_to_see_is_shown_larger_too(networks: list[Network]) -> None:
    one = _towards(networks[0], {0: IMAGES})
    value: Any = one.load()
    value.adv_inputs = value.inputs + 0.00099
    result = analyze(networks, [CraftedSet(record=one.record, load=lambda: value)], title="t", sections=["one_target"])
    assert "×10 and ×500" in result.figures[0].note


def test_sets_of_several_targets_or_scaled_ones_are_left_out(networks: list[Network]) -> None:
    several = crafted_set(networks[0], {0: IMAGES}, subset="test")
    scaled = _towards(networks[1], {1: IMAGES}, amplify=0.1)
    result = analyze(networks, [several, scaled], title="t", sections=["one_target"])
    assert not result.tables and not result.figures


def test_the_share_in_the_targets_class_is_counted_for_every_pair(networks: list[Network]) -> None:
    """The first network's examples also carry the target on the second one's pixel, of 10 images."""
    sets = [_towards(networks[0], {0: IMAGES, 1: 10}), _towards(networks[1], {1: IMAGES})]
    result = analyze(networks, sets, title="t", sections=["transfer"])
    table = result.table("transfer_full_test_target")
    already = int((LABELS[10:] == TARGET).sum())
    assert {place: (cell.k, cell.n) for place, cell in table.cells.items()} == {
        ("first", "first"): (40, 40),
        ("first", "second"): (10 + already, 40),
        ("second", "first"): (4, 40),
        ("second", "second"): (40, 40),
    }
    assert table.notes == ("Of the images without a perturbation, in that class: first 10.0 %; second 10.0 %.",)
    errors = result.table("transfer_full_test").cells["first", "second"]
    assert (errors.k, errors.n) == (9, 40)  # of the ten images, one is a 3 anyway


def test_tables_2_and_4_have_no_further_table_and_attacks_without_targets_none(networks: list[Network]) -> None:
    untargeted = _towards(networks[0], {0: IMAGES})
    value: Any = untargeted.load()
    value.targets = torch.full_like(LABELS, -1)
    sets = [crafted_set(networks[1], {1: IMAGES}), CraftedSet(record=untargeted.record, load=lambda: value)]
    result = analyze(networks, sets, title="t", sections=["table2", "transfer"])
    assert not [table.key for table in result.tables if table.key.endswith("_target")]
    assert transfer_tables(networks, [], keys=["transfer"]) == []

"""Cells from known counts and values, and the labels and words around them."""

from __future__ import annotations

import pytest
import torch
from planted import crafted_set, planted_network

from intriguing.analysis import paper
from intriguing.analysis.cells import (
    display_labels,
    distortion_cell,
    error_cell,
    excess_cell,
    method,
    one_attack,
    sample_text,
    variants,
)
from intriguing.analysis.measure import MeasuredSet, measure
from intriguing.results import DISTORTION, ERROR, EXCESS, Cell, Quantity
from intriguing.statistics.counts import Count, PairedCounts
from intriguing.statistics.intervals import Interval, excess_interval, mean_interval, wilson_interval


def test_an_error_cell_pools_the_seeds_and_names_their_counts() -> None:
    cell = error_cell(
        [(3, Count(4, 10)), (0, Count(1, 10))], ("table1", "AE400-10", paper.TEST_ERROR), runs=["b", "a", "b"]
    )
    assert cell is not None and cell.quantity == ERROR
    assert (cell.k, cell.n, cell.num_images, cell.value) == (5, 20, 10, 25)
    # only the counts are known: as if both seeds agreed on every image
    assert cell.interval == pytest.approx([100 * end for end in wilson_interval(2.5, 10)])
    assert cell.by_seed == ((0, Count(1, 10)), (3, Count(4, 10)))
    assert cell.runs == ("b", "a")
    assert (cell.paper, cell.meets) == (1.9, False)
    shown = error_cell([(0, Count(1, 10))], ("table1", "AE400-10", paper.TEST_ERROR), judge=False)
    assert shown is not None and (shown.paper, shown.meets, shown.by_seed) == (1.9, None, ())
    assert error_cell([(0, Count(0, 0))]) is None
    assert error_cell([]) is None


def test_an_excess_cell_is_the_net_difference_in_points() -> None:
    counts = [PairedCounts(1, 3, 1, 5), PairedCounts(0, 4, 0, 6)]
    indices = torch.arange(10)
    first = torch.tensor([0, 1, 1, 1, -1, 0, 0, 0, 0, 0])
    second = torch.tensor([0, 1, 1, 1, 1, 0, 0, 0, 0, 0])
    cell = excess_cell(counts, by_image=[(first, indices), (second, indices + 10)])
    assert cell is not None and cell.quantity == EXCESS
    assert (cell.k, cell.n, cell.num_images) == (6, 20, 20)
    assert cell.value == pytest.approx(30)
    assert cell.interval == pytest.approx([100 * end for end in excess_interval(PairedCounts(1, 7, 1, 11))])
    assert cell.text(1).value == "+30.0"
    assert excess_cell([]) is None


def test_a_distortion_cell_is_a_mean_with_students_interval() -> None:
    values = torch.tensor([0.05, 0.07, 0.06, 0.1])
    place = ("table1", "AE400-10", paper.DISTORTION)
    cell = distortion_cell([values], place, indices=[torch.arange(4)])
    assert cell is not None and cell.quantity == DISTORTION
    assert cell.value == pytest.approx(0.07)
    mean, std = float(values.double().mean()), float(values.double().std())
    assert cell.interval == pytest.approx(mean_interval(mean, std, 4))
    low, high = mean_interval(0.086, std, 256)
    assert cell.paper_interval == pytest.approx((low - 0.0005, high + 0.0005))
    unknown = distortion_cell([values, values], place)  # as if two networks agreed on every image
    assert unknown is not None and (unknown.n, unknown.num_images) == (8, 4)
    one = distortion_cell([values[:1]], indices=[torch.zeros(1)])
    assert one is not None and (one.interval, one.paper) == (None, None)
    norm = Quantity(name="L2 norm")
    other = distortion_cell([values], quantity=norm)
    assert other is not None and other.quantity == norm
    assert distortion_cell([]) is None


@pytest.mark.parametrize(
    ("quantity", "value", "decimals", "text", "interval"),
    [
        (ERROR, 12.345, 1, "12.3", "11.3 to 13.3"),
        (ERROR, 12.345, 2, "12.35", "11.35 to 13.35"),
        (EXCESS, 12.345, 1, "+12.3", "+11.3 to +13.3"),
        (EXCESS, -0.04, 1, "0.0", "−1.0 to +1.0"),
        (DISTORTION, 1.06218, 4, "1.0622", ".0622 to 2.0622"),
        (Quantity(name="bound"), 1234.6, 0, "1235", "1234 to 1236"),
        (Quantity(name="bound"), -0.5, 3, "−0.500", "−1.500 to 0.500"),
        (Quantity(name="bound"), 2e7, 1, "2.00e+07", "2.00e+07 to 2.00e+07"),
        (Quantity(name="bound"), float("nan"), 1, "–", "– to –"),
    ],
)
def test_a_quantity_writes_its_numbers_and_intervals(
    quantity: Quantity, value: float, decimals: int, text: str, interval: str
) -> None:
    assert quantity.text(value, decimals) == text
    assert quantity.interval_text(Interval(value - 1, value + 1), decimals) == interval


def sets(*attacks: dict, subset: str = "train", changed: int = 40) -> list[MeasuredSet]:
    net = planted_network("FC10(1)", 0)
    crafted = [
        crafted_set(net, {0: changed}, attack=attack, subset=subset, name=f"{i}_{subset}")
        for i, attack in enumerate(attacks)
    ]
    return [measure(one, [net], seed=0, batch_size=64) for one in crafted]


def test_variants_are_the_attacks_with_the_papers_first_named_by_what_differs() -> None:
    made = sets(
        {"name": "nearest", "targets": "closest"},
        {"name": "lbfgs", "targets": "random", "settings": {"max_iter": 5}},
        {"name": "lbfgs", "targets": "random", "max_iter": 20, "seed": 7},
        {"name": "lbfgs", "targets": "random", "max_iter": 20, "seed": 8},
    )
    noise = crafted_set(None, {}, attack={"name": "gaussian", "stddev": 0.1})
    made.append(measure(noise, [], seed=0, batch_size=64))
    assert [(name, len(members)) for name, members in variants(made)] == [
        ("lbfgs, random targets (max_iter=20)", 2),
        ("lbfgs, random targets (max_iter=5)", 1),
        ("nearest, closest targets", 1),
    ]


def test_one_attack_is_the_nearest_of_those_with_most_networks() -> None:
    far, near = sets({"name": "lbfgs"}, changed=40), sets({"name": "nearest"}, subset="test", changed=10)
    near[0].distortion.mul_(0.1)
    assert one_attack([*far, *near]) == near
    assert one_attack([]) == []


def test_labels_are_equal_for_seeds_alone_and_may_repeat_between_pools() -> None:
    networks = [
        planted_network("FC100-100-10", 0, name="a"),
        planted_network("FC100-100-10", 0, name="b", seed=1),
        planted_network("FC100-100-10", 0, name="c", trainer__max_epochs=3),
        planted_network("FC100-100-10", 0, name="half", split="p1"),
    ]
    assert display_labels(networks) == {
        "a": "FC100-100-10, 60 epochs",
        "b": "FC100-100-10, 60 epochs",
        "c": "FC100-100-10, 3 epochs",
        "half": "FC100-100-10",
    }


def test_the_words_of_a_sample_count_distinct_images() -> None:
    def cell(n: int, images: int | None = None) -> Cell:
        return Cell(quantity=ERROR, value=0, interval=None, n=n, images=images)

    assert sample_text([cell(256), cell(256)], [0, 0]) == "N = 256 images a cell, seed 0"
    assert sample_text([cell(768, 256), cell(60_000)], [2, 0]) == "N = 256 to 60,000 distinct images a cell, seeds 0, 2"
    assert method("words", [cell(256)]) == "words"
    assert method("words", [cell(768, 256)]).startswith("words, the answers of several seeds")

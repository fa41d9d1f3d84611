"""``ig.transfer_table``: its counts are brute force's, its intervals the project's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import intriguing as ig
from intriguing.errors import UserError
from intriguing.statistics.counts import paired_counts
from intriguing.statistics.intervals import excess_interval, t_interval, wilson_interval

TYPES = {"one": torch.float32, "two": torch.float64, "three": torch.bfloat16}


@pytest.fixture(scope="module")
def nets() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {name: nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).to(dtype) for name, dtype in TYPES.items()}


@pytest.fixture(scope="module")
def sets(nets: Mapping[str, nn.Module]) -> dict[str, ig.AdversarialSet]:
    """Sets of different images, some of which the networks get wrong, and one with failed attacks."""
    images = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    labels = nets["one"](images).argmax(1)
    made = {name: ig.craft(net, images, labels, limit=30, seed=3) for name, net in nets.items()}
    gone = made["three"].success.clone()
    gone[:7] = False
    kept = gone[:, None, None, None]
    made["three"] = replace(
        made["three"],
        success=gone,
        adv_inputs=torch.where(kept, made["three"].adv_inputs, made["three"].inputs),
        distortion=torch.where(gone, made["three"].distortion, torch.inf),
    )
    made["Gaussian .2"] = ig.craft(None, images, labels, attack="gaussian", stddev=0.2)
    return made


def _wrong(net: nn.Module, name: str, images: Tensor, labels: Tensor) -> Tensor:
    return net(images.to(TYPES[name])).argmax(1) != labels


def test_every_cell_is_brute_forces(nets: dict[str, nn.Module], sets: dict[str, ig.AdversarialSet]) -> None:
    table = ig.transfer_table(nets, sets)
    assert table.rows == (*sets, "unperturbed images") and table.columns == (*nets, "av. distortion")
    for row, one in sets.items():
        keep = one.success
        for column, net in nets.items():
            cell = table.cells[row, column]
            wrong = _wrong(net, column, one.adv_inputs[keep], one.labels[keep])
            assert (cell.k, cell.n) == (int(wrong.sum()), int(keep.sum()))
            assert cell.interval == wilson_interval(cell.k, cell.n).percent
            assert cell.own == (row == column)
        size = table.cells[row, "av. distortion"]
        interval = t_interval(one.distortion[keep])
        assert interval is not None and size.interval == pytest.approx((max(0, interval.low), interval.high))
        assert size.value == pytest.approx(float(one.distortion[keep].mean()))
    everything = sets["Gaussian .2"]  # holds all images, the others some of them
    for column, net in nets.items():
        cell = table.cells["unperturbed images", column]
        assert (cell.k, cell.n) == (int(_wrong(net, column, everything.inputs, everything.labels).sum()), 40)


@pytest.mark.parametrize("baseline", ["clean", "noise"])
def test_an_excess_is_paired_image_by_image(
    nets: dict[str, nn.Module], sets: dict[str, ig.AdversarialSet], baseline: str
) -> None:
    table = ig.transfer_table(nets, sets, excess_over=baseline)  # pyright: ignore[reportArgumentType]
    assert table.columns == tuple(nets) and table.rows == tuple(sets)
    assert table.detail.startswith("excess over")
    if baseline == "noise":  # drawn by the seed
        assert table.cells == ig.transfer_table(nets, sets, excess_over="noise").cells
        assert table.cells != ig.transfer_table(nets, sets, excess_over="noise", seed=1).cells
        return
    one = sets["two"]
    counts = paired_counts(_wrong(nets["one"], "one", one.adv_inputs, one.labels),
                           _wrong(nets["one"], "one", one.inputs, one.labels))  # fmt: skip
    assert table.cells["two", "one"].value == pytest.approx(100 * counts.excess)
    assert table.cells["two", "one"].interval == excess_interval(counts).percent


def test_notes_say_what_was_left_out_and_what_counts_anyway(
    nets: dict[str, nn.Module], sets: dict[str, ig.AdversarialSet]
) -> None:
    notes = ig.transfer_table(nets, sets).notes
    already = int((sets["two"].distortion == 0).sum())
    assert already and "three: 7 of 30 attacks failed; those images are left out." in notes
    assert notes[0].startswith("Unperturbed images that already") and f"{already} of those for two" in notes[0]
    swapped = ig.transfer_table({"one": nets["two"], "two": nets["one"]}, {"one": sets["one"], "two": sets["two"]})
    assert any(note.startswith("two: the network of this name gets") for note in swapped.notes)


def test_sets_of_networks_that_are_not_shown_are_rows(
    nets: dict[str, nn.Module], sets: dict[str, ig.AdversarialSet]
) -> None:
    alone = ig.transfer_table({"one": lambda images: {"logits": nets["one"](images)}}, sets)
    assert alone.columns == ("one", "av. distortion") and not alone.cells["two", "one"].own
    assert alone.cells["two", "one"] == ig.transfer_table(nets, sets).cells["two", "one"]


def test_it_shows_itself(nets: dict[str, nn.Module], sets: dict[str, ig.AdversarialSet]) -> None:
    table = ig.transfer_table(nets, sets)
    frame = table.to_frame()
    assert len(frame) == len(table.cells) and set(frame["column"]) == set(table.columns)
    assert "Gaussian .2" in table._repr_html_()


def _set(shape: tuple[int, ...] = (1, 6, 6), label: int = 0) -> ig.AdversarialSet:
    return ig.craft(None, torch.full((2, *shape), 0.5), [label] * 2, attack="gaussian", stddev=0.1)


def _net(pixels: int = 36, num_classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, num_classes))


@pytest.mark.parametrize(
    ("nets", "sets", "message"),
    [
        ({}, {"a": _set()}, "expected networks and adversarial sets, got 0 and 1"),
        ({"a": _net(), "b": _net(num_classes=4)}, {"a": _set()}, "different numbers of classes: a 3, b 4"),
        ({"a": _net(pixels=25)}, {"a": _set()}, r"a does not take images of shape \(1, 6, 6\), which the sets hold"),
        ({"a": _net()}, {"a": _set(), "b": _set((1, 9, 4))}, r"different shapes: a \(1, 6, 6\), b \(1, 9, 4\)"),
        ({"a": _net()}, {"a": _set(label=3)}, r"the labels of sets\['a'\] reach 3, but the networks have 3 classes"),
        ({"a": nn.Flatten(0)}, {"a": _set()}, r"a must return logits \(N, K\), got \(72,\) for 2 images"),
        ({"a": _net()}, {"a": torch.zeros(2)}, r"sets\['a'\] must be an AdversarialSet \(ig.craft makes one\)"),
        ({"a": 3}, {"a": _set()}, r"nets\['a'\] must be a torch module or a function, got int"),
        ({"av. distortion": _net()}, {"a": _set()}, "give another name"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(nets: dict, sets: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ig.transfer_table(nets, sets)
    assert "\n" not in str(caught.value)


def test_networks_of_the_project_say_their_shape() -> None:
    net = ig.models.FullyConnected(label="FC3", input_shape=[1, 2, 2], num_classes=3, widths=[])
    with pytest.raises(UserError, match=r"a takes images of shape \(1, 2, 2\), the sets hold \(1, 6, 6\)"):
        ig.transfer_table({"a": net}, {"a": _set()})
    with pytest.raises(UserError, match="excess_over must be None, 'clean' or 'noise', got 'cleam'"):
        ig.transfer_table({"a": net}, {"a": _set((1, 2, 2))}, excess_over="cleam")  # pyright: ignore[reportArgumentType]

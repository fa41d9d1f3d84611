"""The values that the figures of the paper's sections plot, from known inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from intriguing.analysis import paper
from intriguing.analysis.measure import measure
from intriguing.analysis.paper_tables.charts import agreement_figure, distortion_figure, lambda_figure
from intriguing.analysis.paper_tables.pictures import (
    Figure7Settings,
    difference_gain,
    figure_7,
    grid_figure,
    observe_noise,
)
from intriguing.analysis.paper_tables.weight_decay import lambda_curves, lambda_table
from intriguing.analysis.sections import SectionInputs
from intriguing.results import ERROR, Cell, Table
from intriguing.statistics.intervals import Interval, wilson_interval


def bars(axes: Axes, index: int) -> np.ndarray:
    """(M, 2) ends of the vertical bars of the index-th series with error bars."""
    segments = axes.containers[index].lines[2][-1].get_segments()
    return np.array([[low, high] for (_, low), (_, high) in segments])


def test_agreement_plots_printed_against_measured_rates_by_whether_they_meet(canvases) -> None:
    def cell(value: float, printed: float, theirs: Interval, own: bool = False) -> Cell:
        ours = Interval(value - 1, value + 2)
        return Cell(quantity=ERROR, value=value, interval=ours, n=100, paper=printed, paper_interval=theirs, own=own)

    cells = {
        ("a", "x"): cell(10, 11, Interval(9, 12)),
        ("b", "x"): cell(30, 40, Interval(38, 43)),
        ("a", "a"): cell(100, 100, Interval(99, 101), own=True),
        ("b", "y"): Cell(quantity=ERROR, value=5, interval=None, n=10),
    }
    words = {"title": "", "caption": "", "row_header": "", "sample": "", "method": ""}
    table = Table(key="table2", number="Table 2", rows=("a", "b"), columns=("x", "y", "a"), cells=cells, **words)
    figure = agreement_figure([table])
    assert figure is not None and "The intervals meet in 1 of 2 cells" in figure.caption
    (axes,) = canvases[0].axes
    _, meeting, apart = axes.lines
    assert (meeting.get_xdata().tolist(), meeting.get_ydata().tolist()) == ([11], [10])
    assert (apart.get_xdata().tolist(), apart.get_ydata().tolist()) == ([40], [30])
    across, up = axes.collections[:2]
    assert np.allclose(across.get_segments(), [[[9, 10], [12, 10]]])
    assert np.allclose(up.get_segments(), [[[11, 9], [11, 12]]])
    assert agreement_figure([]) is None


def test_the_lambda_curve_plots_pooled_errors_and_distortions_with_their_intervals(canvases, network, crafted) -> None:
    nets = [
        network(
            *("FC10", 0),
            name=f"{decay}_{seed}",
            seed=seed,
            weight_decay=[decay],
            errors={"full": (k, 100), "test": (k + 1, 50)},
        )
        for decay, k in ((1e-2, 2), (1.0, 9))
        for seed in (0, 1)
    ]
    sets = [measure(crafted(net, {0: 40}), nets, seed=0, batch_size=64) for net in nets[:2]]
    curves = lambda_curves(nets, sets)
    figure = lambda_figure(curves, comparable=False, runs=())
    assert figure is not None
    left, right = canvases[0].axes
    assert left.get_xscale() == "log"
    train, test = (container.lines[0] for container in left.containers)
    assert (train.get_xdata().tolist(), train.get_ydata().tolist()) == ([1e-2, 1.0], [2, 9])
    assert test.get_ydata().tolist() == [6, 20]
    # two seeds count as if they agreed on every image
    low, high = wilson_interval(3, 50)
    assert bars(left, 1)[0].tolist() == pytest.approx([100 * low, 100 * high])
    point = right.containers[0].lines[0]
    assert point.get_xdata().tolist() == [1e-2]
    assert point.get_ydata().tolist() == pytest.approx([float(sets[0].distortion.mean())])
    assert not any(line.get_markersize() == 11 for line in left.lines)  # other data: no circles of the paper
    assert lambda_figure([], comparable=True, runs=()) is None


def test_a_sweep_under_a_spectral_penalty_is_a_curve_of_its_facts_whatever_the_labels(canvases, network) -> None:
    """Each kind and strength of penalty, and none, is one curve over lambda; its name comes from the settings."""
    nets = [
        network(
            label,
            0,
            name=f"run{i}",
            weight_decay=[decay],
            spectral_penalty=penalty,
            errors={"full": (k, 100), "test": (k, 100)},
        )
        for i, (label, decay, penalty, k) in enumerate(
            [
                ("FC10(1e-4) margin 0.1", 1e-4, {"kind": "margin", "value": 0.1}, 1),
                ("FC10(1e-2) margin 0.1", 1e-2, {"kind": "margin", "value": 0.1}, 2),
                ("FC10 any words", 1e-4, {"kind": "log_product", "value": 0.1}, 3),
                ("FC10(1)", 1.0, {"kind": "log_product", "value": 0.1}, 4),
                ("FC10(1e-4)", 1e-4, None, 5),
                ("FC10(1e-2)", 1e-2, None, 6),
                ("FC10(1)", 1.0, {"kind": "margin", "value": 0.5}, 7),  # alone with its strength: no sweep
            ]
        )
    ]
    curves = lambda_curves(nets, [])
    assert [curve.name for curve in curves] == ["FC10", "FC10 margin 0.1", "FC10 penalty 0.1"]
    table = lambda_table(curves)
    assert table is not None
    assert table.rows[2:4] == ("FC10 margin 0.1, λ = 0.0001", "FC10 margin 0.1, λ = 0.01")
    lambda_figure(curves, comparable=False, runs=())
    (left,) = canvases[0].axes  # no attack, so no panel of distortions
    lines = {container.get_label(): container.lines[0] for container in left.containers}
    shown = {name: (line.get_xdata().tolist(), line.get_ydata().tolist()) for name, line in lines.items()}
    assert shown["FC10: test"] == ([1e-4, 1e-2], [5, 6])
    assert shown["FC10 margin 0.1: test"] == ([1e-4, 1e-2], [1, 2])
    assert shown["FC10 penalty 0.1: train"] == ([1e-4, 1.0], [3, 4])


def test_the_papers_points_are_plotted_where_they_are_comparable(canvases, network) -> None:
    nets = [network(f"FC10({name})", 0, errors={"full": (5, 100), "test": (5, 100)}) for name in ("1e-4", "1")]
    lambda_figure(lambda_curves(nets, []), comparable=True, runs=())
    (left,) = canvases[0].axes
    circles = [line.get_ydata().tolist() for line in left.lines if line.get_markersize() == 11]
    assert circles == [[6.7, 7.4, 21.2, 20]]


def test_distortions_are_histograms_with_the_mean_and_the_papers_mean(canvases, network, crafted) -> None:
    net = network("FC10(1)", 0)
    one = measure(crafted(net, {0: 40, 1: 10}), [net], seed=0, batch_size=64)
    assert distortion_figure([one], [net], comparable=True) is not None
    (axes,) = canvases[0].axes
    counts, edges, _ = axes.patches[0].get_data()
    expected, _ = np.histogram(one.distortion.numpy(), edges)
    assert np.allclose(counts, expected / 40)
    assert edges[-1] == pytest.approx(1.01 * float(one.distortion.max()))
    mean, theirs = axes.lines
    assert mean.get_xdata() == pytest.approx([float(one.distortion.mean())] * 2)
    assert theirs.get_xdata() == [0.14]
    assert distortion_figure([], [net], comparable=True) is None


def test_a_grid_shows_originals_adversarial_images_and_differences_by_a_factor_that_it_tells(
    canvases, network, crafted
) -> None:
    net = network("FC10(1)", 0)
    one = measure(crafted(net, {0: 40}), [net], seed=0, batch_size=64)
    figure = grid_figure(one, "FC10(1)")
    assert figure is not None and figure.heading == "Examples · FC10(1)"
    (axes,) = canvases[0].axes
    assert axes.images[0].get_array().shape[-1] == 4
    shown = axes.images[0].get_array()[..., 0] / 255
    pitch = 4 + 1
    assert shown.shape == (3 * pitch - 1, 10 * pitch - 1)
    for column, digit in enumerate(range(10)):
        original, adversarial, difference = (shown[row * pitch, column * pitch] for row in range(3))
        wrong = (digit + 1) % 10 / 10
        assert original == pytest.approx(digit / 10, abs=0.003)
        assert adversarial == pytest.approx(wrong, abs=0.003)
        # one pixel of sixteen differs, in nine images of ten by .1
        assert difference == pytest.approx(np.clip(0.5 + 5 * (wrong - digit / 10), 0, 1), abs=0.003)
        assert shown[1, column * pitch] == pytest.approx(digit / 10, abs=0.003)  # another pixel
    words = [text.get_text() for text in axes.texts]
    assert words[:3] == ["original", "adversarial", "difference ×5"]
    assert words[3:5] == ["0 → 1\n.025", "1 → 2\n.025"]
    assert "times 5" in figure.alt and "lbfgs" in figure.note and "lbfgs" not in figure.caption


def test_the_factor_of_a_difference_is_the_largest_round_one_that_keeps_its_pixels_grey() -> None:
    for size, gain in ((0.5, 1.0), (0.3, 1.5), (0.05, 10.0), (0.04, 12.0), (1.0, 0.5), (0.9, 0.5), (3e-4, 1500.0)):
        difference = size * torch.linspace(-1, 1, 10_001).sign().view(1, 1, 1, -1)
        assert difference_gain(difference) == pytest.approx(gain), size
    assert difference_gain(torch.zeros(1, 1, 2, 2)) == 1.0
    one_in_many = torch.zeros(1, 1, 100, 100)
    one_in_many[..., 0, 0] = 0.25
    assert difference_gain(one_in_many) == 2.0  # all others are equal
    outlier = torch.full((1, 1, 100, 100), 0.01)
    outlier[..., 0, 0] = 1.0
    assert difference_gain(outlier) == 50.0


def test_figure_7_pairs_originals_with_adversarial_examples_and_counts_answers_under_noise(
    canvases, network, crafted
) -> None:
    nets = [network("FC10(1e-4)", 0), network("FC200-200-10", 1)]
    crafts = [crafted(net, {i: 40}) for i, net in enumerate(nets)]
    sets = [measure(one, nets, seed=0, batch_size=64) for one in crafts]
    settings = Figure7Settings()
    before = SectionInputs(networks=nets, settings=settings, seed=0, batch_size=7)
    observed = {one.name: observe_noise(c.load(), one, before) for c, one in zip(crafts, sets, strict=True)}
    assert observed[sets[0].name] is None  # of the linear network's set
    figure = figure_7(replace(before, sets=sets, observed=observed))
    assert figure is not None and figure.number == "Figure 7"
    (axes,) = canvases[0].axes
    linear, deep, noise = (image.get_array()[..., 0] / 255 for image in axes.images)
    # odd columns are originals: digits 0, 2, 4, 6 and 8 in the first column; even ones show the next digit in one pixel
    assert linear[::5, 0].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8], abs=0.003)
    assert linear[::5, 5].tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9], abs=0.003)
    assert linear[::5, 6].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8], abs=0.003)
    assert deep[::5, 6].tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9], abs=0.003)
    inputs = crafts[1].load().inputs
    noisy = inputs + torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
    assert noise[0, 5] == pytest.approx(float(noisy[0, 0, 0, 0].clamp(0, 1)), abs=0.003)
    right = int((nets[0].module(noisy).argmax(1) == crafts[1].load().labels).sum())
    assert f"FC10(1e-4) {100 * right / 40:.1f} % (" in figure.caption
    assert f"{paper.NOISE_ACCURACY} %" in figure.caption
    assert figure_7(SectionInputs(networks=nets[:1], sets=sets[:1], settings=settings)) is None

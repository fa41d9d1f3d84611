"""The values that the figures of units, stability and back-feeding plot, from known inputs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from planted import planted_network
from scipy import stats

from intriguing.analysis import Network
from intriguing.analysis.back_feeding.arms import Arm
from intriguing.analysis.back_feeding.figures import curves_figure, scatter_figure
from intriguing.analysis.identity import Penalty
from intriguing.analysis.stability import figures as stability
from intriguing.analysis.units import figures as units
from intriguing.analysis.units.evidence import Agreement
from intriguing.analysis.units.measure import LayerScores, Loss
from intriguing.statistics.counts import Count


def xy(line: Any) -> tuple[list[float], list[float]]:
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


# -- stability ------------------------------------------------------------------------------------------------------


def stable(
    *, seed: int = 0, penalty: Penalty | None = None, constant: float = 8.0, wrong: int = 5, **more: Any
) -> SimpleNamespace:
    """What the figures read of one network."""
    return SimpleNamespace(
        network=SimpleNamespace(seed=seed, error=lambda subset: Count(wrong, 100)),
        penalty=penalty,
        kind=penalty.kind if penalty else "",
        strength=penalty.strength if penalty else 0.0,
        family=("FC",),
        constant=constant,
        distances=torch.tensor([1.0, 2.0]),
        radii=torch.tensor([0.25, 0.5]),
        layers=("Linear", "Sigmoid"),
        adversarial=(3.0, 0.5),
        random=(1.0, 0.2),
        bounds=(4.0, 1.0),
        runs=("run",),
        **more,
    )


def test_amplification_is_plotted_after_each_layer_beside_the_bounds(canvases) -> None:
    assert stability.amplification_figure({"FC": stable(seed=3)}) is not None  # pyright: ignore[reportArgumentType]
    (axes,) = canvases[0].axes
    bounds, adversarial, random = axes.lines
    assert xy(bounds) == ([1, 2], [4, 1])
    assert xy(adversarial) == ([1, 2], [3, 0.5])
    assert xy(random) == ([1, 2], [1, 0.2])
    assert axes.get_yscale() == "log" and axes.get_title() == "FC, seed 3"
    assert stability.amplification_figure({}) is None


def test_at_most_six_networks_are_plotted_evenly_chosen(canvases) -> None:
    many = {f"N{i}": stable() for i in range(11)}
    stability.certificate_figure(many)  # pyright: ignore[reportArgumentType]
    assert [axes.get_title() for axes in canvases[0].axes] == [f"N{i}, seed 0" for i in (0, 2, 4, 6, 8, 10)]


def test_certified_radii_are_plotted_against_the_distances_found(canvases) -> None:
    stability.certificate_figure({"FC": stable()})  # pyright: ignore[reportArgumentType]
    (axes,) = canvases[0].axes
    diagonal, points = axes.lines
    assert xy(diagonal) == ([0, 2.1], [0, 2.1])
    assert xy(points) == ([1, 2], [0.25, 0.5])
    assert axes.texts[0].get_text() == "25 % of the\ndistance"


def test_the_penaltys_curve_starts_without_it_and_has_the_range_over_seeds(canvases) -> None:
    groups = {
        "FC": [stable(seed=0, constant=8.0), stable(seed=1, constant=10.0)],
        "FC margin 0.5": [stable(penalty=Penalty("margin", 0.5), constant=4.0, wrong=7)],
        "FC margin 0.1": [stable(penalty=Penalty("margin", 0.1), constant=6.0, wrong=6)],
    }
    assert stability.penalty_figure(groups, radius=0.3) is not None  # pyright: ignore[reportArgumentType]
    constant, error, distance, share = canvases[0].axes
    assert xy(constant.containers[0].lines[0]) == ([0, 0.1, 0.5], [9, 6, 4])
    segments = constant.containers[0].lines[2][0].get_segments()
    assert segments[0][:, 1].tolist() == [8, 10] and segments[1][:, 1].tolist() == [6, 6]
    assert xy(error.containers[0].lines[0])[1] == [5, 6, 7]
    assert xy(distance.containers[0].lines[0])[1] == [1.5, 1.5, 1.5]
    assert xy(share.containers[0].lines[0])[1] == [50, 50, 50]
    assert constant.get_xlabel() == "radius of the margin (L2)"
    assert stability.penalty_figure({"FC": groups["FC"]}, radius=0.3) is None  # pyright: ignore[reportArgumentType]


# -- back-feeding ---------------------------------------------------------------------------------------------------


def arm(name: str, errors: dict[int, int], curves: dict[int, list[float]], sizes: dict[int, float]) -> Arm:
    def one(seed: int) -> Network:
        made = planted_network("FC", 0, seed=seed, name=f"{name}{seed}", errors={"test": (errors[seed], 100)})
        return replace(made, curves={"curve/test_error": curves[seed]} if seed in curves else {})

    sets: dict[int, Any] = {
        seed: [
            SimpleNamespace(
                name=f"set{seed}", attack={"name": "nearest"}, num_success=2, distortion=torch.full((2,), d)
            )
        ]
        for seed, d in sizes.items()
    }
    return Arm(name, {seed: one(seed) for seed in errors}, sets)


def test_test_error_over_training_is_a_mean_with_a_band_over_seeds(canvases) -> None:
    arms = [
        arm("plain", {0: 3, 1: 5}, {0: [0.3, 0.2], 1: [0.5, 0.4, 0.1]}, {}),
        arm("pools", {0: 1}, {0: [0.2, 0.1]}, {}),
        arm("no curve", {0: 1}, {}, {}),
    ]
    assert curves_figure("key", "", arms) is not None
    (axes,) = canvases[0].axes
    plain, pools = axes.lines
    assert np.allclose(xy(plain), ([1, 2], [40, 30]))  # as far as all seeds go
    assert np.allclose(xy(pools), ([1, 2], [20, 10]))
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((20, 50))
    assert curves_figure("key", "", arms[1:]) is None


def test_robustness_has_a_point_for_each_attacked_run(canvases) -> None:
    arms = [arm("plain", {0: 3, 1: 5, 2: 6}, {}, {0: 0.1, 2: 0.3}), arm("pools", {0: 1}, {}, {0: 0.5})]
    assert scatter_figure("key", "", arms) is not None
    (axes,) = canvases[0].axes
    plain, pools, limit = axes.lines
    assert np.allclose(xy(plain), ([3, 6], [0.1, 0.3]))
    assert np.allclose(xy(pools), ([1], [0.5]))
    assert xy(limit)[0] == [1.2, 1.2]
    assert scatter_figure("key", "", [arm("plain", {0: 3}, {}, {})]) is None


# -- units ----------------------------------------------------------------------------------------------------------


def scores(unit: list[float], random: list[list[float]], **more: Any) -> LayerScores:
    """One layer whose only score is the purity; the random directions basis by basis."""
    directions = torch.tensor(random)
    return LayerScores(
        layer="network.relu1",
        channels=len(unit),
        silent=0,
        scores={"units": {"purity": torch.tensor(unit)}, "random directions": {"purity": directions.flatten()}},
        random_means={"purity": directions.mean(1)},
        p_rows={},
        **{"sweep": {}, "top": {}, "shown": torch.tensor([4, 7]), **more},
    )


def test_scores_are_dots_with_intervals_hollow_before_training(canvases) -> None:
    measured = {"FC": [[scores([0.5, 0.9], [[0.2, 0.4], [0.4, 0.4]])]]}
    controls = {"FC": [[scores([0.1, 0.3], [[0.1, 0.1], [0.3, 0.3]])]]}
    assert units.score_figure(measured, controls, ["run"]) is not None
    (axes,) = canvases[0].axes
    dots = [line for line in axes.lines if line.get_marker() in ("o", "D")]
    assert [xy(line)[0][0] for line in dots] == pytest.approx([0.7, 0.35, 0.2, 0.2])
    assert [xy(line)[1][0] for line in dots] == [0, -1, -2, -3]
    assert [line.get_markerfacecolor() == "white" for line in dots] == [False, False, True, True]
    assert axes.get_xscale() == "linear"


def test_an_axis_is_logarithmic_where_one_number_would_hide_the_others(canvases) -> None:
    measured = {"FC": [[scores([0.5, 0.9], [[0.2, 0.4], [0.4, 0.4]])]]}
    controls = {"FC": [[scores([90.0, 110.0], [[0.1, 0.1], [0.3, 0.3]])]]}
    units.score_figure(measured, controls, ["run"])
    (axes,) = canvases[0].axes
    assert axes.get_xscale() == "symlog"
    low, high, far = axes.transData.transform([(value, 0) for value in (0.2, 0.7, 100.0)])[:, 0]
    assert (high - low) / (far - low) > 0.02  # .005 on a linear axis
    half = stats.t.ppf(0.975, 1) * 0.2  # of two values that lie .4 apart, standard error .2
    assert xy(axes.lines[0]) == ([pytest.approx(0.7 - half), pytest.approx(0.7 + half)], [0, 0])
    half = stats.t.ppf(0.975, 1) * 0.05  # of random directions over the means of their bases, .3 and .4
    assert xy(axes.lines[2])[0] == pytest.approx([0.35 - half, 0.35 + half])
    assert axes.get_yticklabels()[0].get_text() == "FC relu1: units"


def test_the_sweep_starts_at_the_units_and_pools_rotations(canvases) -> None:
    sweep = {"purity": torch.tensor([[0.6, 0.2], [0.8, 0.4]])}
    measured = {"FC": [[scores([0.5, 0.9], [[0.2]], sweep=sweep)]]}
    assert units.sweep_figure(measured, [0.5, 1.0], ["run"]) is not None
    (axes,) = canvases[0].axes
    assert np.allclose(xy(axes.containers[0].lines[0]), ([0, 0.5, 1], [0.7, 0.7, 0.3]))
    segments = axes.containers[0].lines[2][0].get_segments()
    half = stats.t.ppf(0.975, 1) * 0.1
    assert len(segments[0]) == 0 or np.isnan(segments[0]).any()  # one network: no interval of the units
    assert segments[-1][:, 1].tolist() == pytest.approx([0.3 - half, 0.3 + half])
    assert units.sweep_figure({"FC": [[scores([0.5], [[0.2]])]]}, [0.5], ["run"]) is None


def test_ablation_plots_units_against_random_directions_in_points(canvases) -> None:
    loss = Loss(unit=torch.tensor([0.01, 0.03]).double(), random=torch.tensor([0.02, 0.0]).double())
    assert units.ablation_figure({"FC": [[scores([0.5], [[0.2]], loss=loss)]]}, ["run"]) is not None
    (axes,) = canvases[0].axes
    _, points, mean = axes.lines
    assert np.allclose(xy(points), ([2, 0], [1, 3]))
    assert np.allclose(xy(mean), ([1], [2]))
    assert units.ablation_figure({"FC": [[scores([0.5], [[0.2]])]]}, ["run"]) is None


def test_agreement_of_seeds_has_its_range_over_pairs(canvases) -> None:
    one = Agreement(
        label="FC",
        layer="network.relu1",
        cka=(0.9, 0.8, 0.95),
        procrustes=(0.7, 0.7, 0.7),
        matched=(0.5, 0.4, 0.6),
        turned=(0.3, 0.2, 0.4),
        pairs=3,
    )
    assert units.agreement_figure([one], ["run"]) is not None
    (axes,) = canvases[0].axes
    assert [xy(container.lines[0])[1][0] for container in axes.containers] == [0.9, 0.7, 0.5, 0.3]
    assert axes.containers[0].lines[2][0].get_segments()[0][:, 1].tolist() == pytest.approx([0.8, 0.95])
    assert units.agreement_figure([], ["run"]) is None


def test_a_sheet_shows_the_top_images_of_units_and_of_random_directions(canvases) -> None:
    images = {
        "units": torch.arange(6.0).view(2, 3, 1, 1, 1) / 10,
        "sheet": torch.arange(6.0).flip(0).view(2, 3, 1, 1, 1) / 10,
    }
    figure = units.sheet("FC", "run", scores([0.5, 0.9], [[0.2, 0.4]]), images, "")
    assert figure.heading == "Top images · FC, relu1"
    assert "units 0.700, random directions 0.300" in figure.note
    (axes,) = canvases[0].axes
    left, right = (image.get_array()[..., 0] / 255 for image in axes.images)
    assert np.allclose(left[::2, ::2], [[0, 0.1, 0.2], [0.3, 0.4, 0.5]], atol=0.003)
    assert np.allclose(right[0, ::2], [0.5, 0.4, 0.3], atol=0.003)
    words = [text.get_text() for text in axes.texts]
    assert words == ["4", "7", "units", "v1", "v2", "random directions"]  # the units by their indices

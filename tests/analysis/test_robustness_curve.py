"""The robustness curve counts planted distances: wrong images at 0, failed attacks never."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas

from intriguing.analysis import analyze
from intriguing.analysis.robustness_curve import ON_GRID, UNROUNDED, WITHOUT, RobustnessCurveSettings
from intriguing.results import AnalysisResult
from intriguing.statistics.intervals import wilson_interval

# A planted image has 16 pixels. A change of one pixel by .1 is an RMS of .025 and an L2 norm of .1; of a 9 into a 0,
# every tenth image, it is nine times as large.
SETTINGS = RobustnessCurveSettings(rms=(0.02, 0.03, 0.3), l2=(0.09, 0.11))


def _analysed(networks: list, sets: list) -> AnalysisResult:
    settings = {"robustness_curve": SETTINGS}
    return analyze(networks, sets, title="t", sections=["robustness_curve"], settings=settings)


def test_the_shares_are_those_of_the_planted_distances(network: Callable, crafted: Callable) -> None:
    net = network("FC10(1e-4)", 0, confused=[3])  # every 3 is wrong: 4 of 40 images, among them none of the last five
    table = _analysed([net], [crafted(net, {0: 40}, failed=5)]).table("robustness_curve")
    (row,) = table.rows
    assert row == "FC10(1e-4), lbfgs, random targets, train images"
    assert table.columns == (WITHOUT, "RMS .02", "RMS .03", "RMS .3", "L2 .09", "L2 .11")
    counts = {column: (table.cells[row, column].k, table.cells[row, column].n) for column in table.columns}
    # of 35 successes, images 0 to 34: three are a 9 (9, 19, 29) and four a 3, one more 3 is none
    assert counts == {
        WITHOUT: (4, 40), "RMS .02": (4, 40), "L2 .09": (4, 40),
        "RMS .03": (32, 40), "L2 .11": (32, 40), "RMS .3": (35, 40),
    }  # fmt: skip
    cell = table.cells[row, "RMS .03"]
    assert cell.interval == pytest.approx([100 * end for end in wilson_interval(32, 40)])
    assert cell.runs[0].startswith("lbfgs")


def test_a_failed_attack_on_a_wrong_image_counts_as_wrong(network: Callable, crafted: Callable) -> None:
    net = network("FC10(1e-4)", 0, confused=[8])
    table = _analysed([net], [crafted(net, {0: 40}, failed=40)]).table("robustness_curve")
    assert {cell.k for cell in table.cells.values()} == {4}


def test_seeds_are_pooled_attacks_kept_apart_and_noise_left_out(
    network: Callable, crafted: Callable, canvases: list[Canvas]
) -> None:
    nets = [network("FC10(1e-4)", 0, seed=seed) for seed in (0, 1)]
    sets = [crafted(net, {0: 40}) for net in nets]
    sets.append(crafted(nets[0], {0: 40}, attack={"name": "nearest", "targets": "closest"}))
    sets.append(crafted(nets[0], {0: 40}, amplify=0.1))
    sets.append(crafted(None, {0: 5}, attack={"name": "gaussian", "stddev": 0.1}))
    result = _analysed(nets, sets)
    table = result.table("robustness_curve")
    assert table.rows == (
        "FC10(1e-4), lbfgs, random targets, train images",
        "FC10(1e-4), nearest, closest targets, train images",
    )
    pooled, single = (table.cells[row, "RMS .03"] for row in table.rows)
    assert (pooled.k, pooled.n, single.n) == (72, 80, 40)
    assert pooled.interval == single.interval  # both seeds saw the same images and agree on each
    assert [figure.key for figure in result.figures] == ["robustness_curve", "robustness_curve_2"]
    line = canvases[0].axes[0].get_lines()[0]
    shares = np.asarray(line.get_ydata())
    assert (shares[0], shares[-1]) == (100, 0)  # the robust accuracy
    assert result.figures[0].title == "Security curve: robust accuracy against distortion"
    assert _analysed(nets, []).tables == ()


def test_distortions_on_a_grid_stand_beside_the_unrounded_ones(network: Callable, crafted: Callable) -> None:
    nets = [network("FC10(1e-4)", 0, seed=seed) for seed in (0, 1)]
    attack = {"name": "nearest", "targets": "closest", "settings": {"levels": 256}}
    sets = [crafted(net, {0: 40}, attack=attack, failed=5) for net in nets]
    for one in sets:
        examples = one.load()
        examples.unrounded_distortion = examples.distortion / 2
        examples.unrounded_distortion[0] = math.inf  # nothing was found before the search on the grid
    sets.append(crafted(nets[0], {0: 40}))
    table = _analysed(nets, sets).table("robustness_curve_grid")
    (row,) = table.rows
    assert row == "FC10(1e-4), nearest, closest targets, train images" and table.columns == (ON_GRID, UNROUNDED)
    on_grid, unrounded = (table.cells[row, column] for column in table.columns)
    assert on_grid.value == pytest.approx(2 * unrounded.value)
    assert (on_grid.n, on_grid.images, unrounded.n) == (68, 34, 68)
    assert _analysed(nets, sets[2:]).tables[0].key == "robustness_curve" and len(_analysed(nets, sets[2:]).tables) == 1


def test_attacks_of_other_effort_or_starts_have_curves_of_their_own(network: Callable, crafted: Callable) -> None:
    net = network("FC10(1e-4)", 0)
    given = [("default", "train"), ("thorough", "train"), ("default", "batch"), ("fast", "none")]
    attacks = [{"name": "nearest", "targets": "closest", "settings": {"effort": e}, "starts": s} for e, s in given]
    table = _analysed([net], [crafted(net, {0: 40}, attack=attack, name=str(attack)) for attack in attacks]).tables[0]
    assert sorted(table.rows) == [
        "FC10(1e-4), nearest, closest targets, train images",
        "FC10(1e-4), nearest, fast, without starts, closest targets, train images",
        "FC10(1e-4), nearest, starts of the batch, closest targets, train images",
        "FC10(1e-4), nearest, thorough, closest targets, train images",
    ]

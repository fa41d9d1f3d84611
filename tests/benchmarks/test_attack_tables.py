"""The numbers of the tables, against the definitions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from attack_tables import MEAN, curves, optimality, table, with_means
from measurements import Measurement

BEST = np.array([0.5, 1.0, 2.0, 1.5])


def _area(distances: np.ndarray, largest: float) -> float:
    """Return the area under the robust accuracy, as a Riemann sum."""
    sizes = np.linspace(0, largest, 200_001)
    return float(np.mean([(distances > size).mean() for size in sizes[::100]]) * largest)


def test_optimality_is_the_ratio_of_areas() -> None:
    attack = np.array([0.6, np.inf, 2.5, 1.5])
    expected = (2 - _area(attack, 2.0)) / (2 - _area(BEST, 2.0))
    assert optimality(attack, BEST) == pytest.approx(expected, abs=2e-3)
    assert optimality(BEST, BEST) == 1
    assert optimality(np.full(4, np.inf), BEST) == 0
    assert np.isnan(optimality(np.ones(3), np.ones(3)))


def test_optimality_is_attackbenchs() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own imports
        attackbench = pytest.importorskip("attackbench", reason="attackbenchlib is not installed", exc_type=ImportError)
    draws = np.random.default_rng(0)
    for _ in range(20):
        several = draws.gamma(2.0, size=(3, 30))
        several[0, draws.random(30) < 0.2] = np.inf
        best = several.min(axis=0)
        for one in several:
            assert optimality(one, best) == pytest.approx(attackbench.eval_optimality(one, best, 1.0), abs=1e-12)


def _row(method: str, *distances: float, network: str = "a", budget: int | None = None) -> Measurement:
    row = Measurement(network, "untargeted", method, len(distances), "cpu", budget=budget, propagations=7)
    return row.found(torch.tensor(distances), pixels=4)


def test_a_row_is_compared_with_the_best_of_all_attacks_on_the_same_images() -> None:
    rows = [
        _row("x", 1.0, 2.0, 4.0),
        _row("y", 1.005, torch.inf, 3.0),
        _row("z", 0.1),
        _row("x", 9.0, 9, 9, network="b"),
    ]
    frame = table(rows).set_index(["network", "method"])
    x, y = frame.loc[("a", "x")], frame.loc[("a", "y")]
    assert (x["success"], y["success"]) == (1, pytest.approx(2 / 3))
    assert (x["mean_l2"], x["median_l2"], y["median_l2"]) == pytest.approx((7 / 3, 2.0, 3.0))
    assert x["distortion"] == pytest.approx(7 / 3 / 2)
    assert x["above_best_percent"] == pytest.approx(100 * (7 / 6 - 1))
    assert y["above_best_percent"] == pytest.approx(100 * (4.005 / 4 - 1))  # of its successes
    assert (x["within_1_percent"], y["within_1_percent"]) == pytest.approx((2 / 3, 2 / 3))
    assert y["optimality"] == pytest.approx((2 - 0.005) / (2 + 1))
    assert frame.loc[("b", "x")]["above_best_percent"] == 0


def test_means_are_of_methods_measured_on_all_networks() -> None:
    rows = [_row("x", 1.0, 2.0), _row("y", 1.0, 1.0), _row("x", 3.0, 4.0, network="b")]
    rows += [_row("x", 5.0, 6.0, network=network, budget=60) for network in "ab"]
    frame = with_means(table(rows))
    assert frame["budget"].dropna().tolist() == [60] * 3 and frame["budget"].dtype == "Int64"
    means = frame[frame["budget"].isna()].query("network == @MEAN")
    assert means["method"].tolist() == ["x"]
    assert means["mean_l2"].tolist() == [2.5]
    assert MEAN not in set(with_means(table(rows[:2]))["network"])


def test_the_picture_is_drawn_of_rows_with_a_budget(tmp_path) -> None:
    curves(table([_row("DDN-100", 1.0)]), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    both = (("nearest", 2.0), ("DDN", 3.0))
    rows = [_row(name, 1.0, second, budget=budget) for budget in (60, 300) for name, second in both]
    curves(table(rows), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000

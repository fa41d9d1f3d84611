"""Tables and pictures of benchmarks/attacks.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from measurements import Measurement
from peers import LBFGS_OF_FEW, WITH_STARTS

MEAN = "mean of all"
ACCENT = "tab:red"
OURS = {"nearest, fast": "o", "nearest, default": "s", "nearest, thorough": "D", "lbfgs": "^"}
OURS |= {f"{WITH_STARTS}, fast": ".", f"{WITH_STARTS}, default": "*", f"{WITH_STARTS}, thorough": "d"}
PEERS = {
    "SciPy L-BFGS-B": ("v", "0.45"),
    "DDN-100": ("o", "tab:blue"),
    "DDN-1000": ("s", "tab:blue"),
    "ALMA-1000": ("D", "tab:green"),
    "C&W 9x1000": ("P", "tab:purple"),
    "FAB-100": ("X", "tab:brown"),
    "FMN-1000": ("*", "tab:olive"),
    "PDGD-1000": ("p", "tab:cyan"),
    "PDPGD-1000": ("h", "tab:cyan"),
    "SuperDeepFool": ("<", "tab:pink"),
    "APGD 14x100": (">", "0.3"),
    "exact QP": ("|", "black"),
}
FAMILIES = {
    "DDN": "tab:blue",
    "ALMA": "tab:green",
    "C&W": "tab:purple",
    "FAB": "tab:brown",
    "FMN": "tab:olive",
    "PDGD": "tab:cyan",
    "PDPGD": "0.6",
    "SuperDeepFool": "tab:pink",
    "APGD": "0.2",
}
ABOVE_AND_OPTIMALITY = ("above_best_percent", "optimality")
AVERAGED = ("ms_per_image", "success", "propagations", "mean_l2", "median_l2")
AVERAGED += ("above_best_percent", "within_1_percent", "optimality")
TOP = 15.0  # percent above the best; what lies higher is drawn at the edge


def optimality(distances: np.ndarray, best: np.ndarray) -> float:
    """Compare an attack with the best of all attacks, as AttackBench does.

    Cina, Rony, Pintor, Demetrio, Demontis, Biggio, Ben Ayed & Roli, "AttackBench: Evaluating Gradient-based Attacks for
    Adversarial Examples" (arXiv 2404.19460), equations 4 and 5: with the areas A and A* under the curves of robust
    accuracy against the size of perturbations, from 0 to the size e0 at which the best of all attacks leaves none,
    (r e0 - A) / (r e0 - A*), for an accuracy r without an attack. Here r = 1, as all images are correctly classified,
    and 1 - A / e0 is a mean over images, so that the areas need no curve.

    Args:
        distances: (N,), of the attack; inf where it failed.
        best: (N,), of the best of all attacks for each image; images that none fools count for neither.

    Returns:
        A number in [0, 1]; 1 where the attack is the best on each image, nan where the best distances are all equal.
    """
    largest = best[np.isfinite(best)].max(initial=0.0)
    gained, possible = (np.maximum(largest - some, 0).sum() for some in (distances, best))
    return float(min(gained / possible, 1.0)) if possible > 0 else math.nan


def table(rows: Sequence[Measurement]) -> pd.DataFrame:
    """A row for each measurement, beside the best of all attacks on its network, and means over the networks."""
    frame = pd.DataFrame([{**asdict(row), **_beside(row, _best(row, rows))} for row in rows])
    frame = frame.drop(columns=["l2", "error"])
    frame["budget"] = frame["budget"].astype("Int64")
    frame["most_propagations"] = frame["most_propagations"].astype("Int64")
    return frame


def with_means(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the mean over the networks, of each method that was measured on all of them."""
    networks = set(frame["network"])
    groups = _groups(frame, "mode", "method", "budget")
    means = [
        {"network": MEAN, **key, **{name: float(np.mean([row[name] for row in rows])) for name in AVERAGED}}
        for key, rows in groups
        if {row["network"] for row in rows} == networks and len(networks) > 1
    ]
    if not means:
        return frame
    both = pd.concat([frame, pd.DataFrame(means, columns=frame.columns)], ignore_index=True)
    return both.astype({"budget": "Int64", "images": "Int64"})


def _groups(frame: pd.DataFrame, *columns: str) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return rows with equal entries of some columns, in the order of the frame."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in frame.to_dict("records"):
        key = tuple(None if pd.isna(row[name]) else row[name] for name in columns)
        groups.setdefault(key, []).append({str(name): value for name, value in row.items()})
    return [(dict(zip(columns, key, strict=True)), rows) for key, rows in groups.items()]


def rounded(frame: pd.DataFrame) -> pd.DataFrame:
    digits = {"ms_per_image": 3, "success": 4, "distortion": 5, "evaluations": 0, "propagations": 1, "mean_l2": 4}
    digits |= {"median_l2": 4, "above_best_percent": 2, "within_1_percent": 3, "optimality": 4}
    return frame.round({name: number for name, number in digits.items() if name in frame})


def _best(row: Measurement, rows: Sequence[Measurement]) -> np.ndarray | None:
    """Return the smallest distance of each image among all attacks on the same images."""
    alike = (row.network, row.mode, row.images)
    known = [_distances(other) for other in rows if (other.network, other.mode, other.images) == alike and other.l2]
    return np.minimum.reduce(known) if known else None


def _distances(row: Measurement) -> np.ndarray:
    return np.array([math.inf if one is None else one for one in row.l2 or ()])


def _beside(row: Measurement, best: np.ndarray | None) -> dict[str, float]:
    """Compare the distances of one attack with the best ones; distances above the best are of its successes."""
    if row.l2 is None or best is None:
        return {}
    distances = _distances(row)
    found = np.isfinite(distances)
    above = distances[found].sum() / max(best[found].sum(), 1e-30) - 1 if found.any() else math.nan
    return {
        "mean_l2": float(distances[found].mean()) if found.any() else math.nan,
        "median_l2": float(np.median(distances)),
        "above_best_percent": 100 * float(above),
        "within_1_percent": float(np.mean(found & (distances <= 1.01 * best))),
        "optimality": optimality(distances, best),
    }


def _measured_by_all(frame: pd.DataFrame) -> list[str]:
    """Return the networks on which the most attacks were measured at the most budgets."""
    cells: dict[str, int] = {}
    for key, rows in _groups(frame, "method", "budget"):
        if key["budget"] is not None:
            for network in {str(row["network"]) for row in rows}:
                cells[network] = cells.get(network, 0) + 1
    most = max(cells.values(), default=0)
    return sorted(network for network, count in cells.items() if count == most)


def curves(frame: pd.DataFrame, path: Path) -> None:
    """Draw the distance above the best, and the optimality, against propagations: means over the networks."""
    points: dict[str, list[dict[str, float]]] = {}
    names = _measured_by_all(frame)
    for key, rows in _groups(pd.DataFrame(frame[frame["network"].isin(names)]), "method", "budget"):
        if key["budget"] is not None:
            means = {name: float(np.mean([row[name] for row in rows])) for name in (*ABOVE_AND_OPTIMALITY, "budget")}
            points.setdefault(key["method"], []).append(means | {"success": min(row["success"] for row in rows)})
    if not points:
        return
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4))
    for method, line in points.items():
        line.sort(key=lambda one: one["budget"])
        ours = method in ("nearest", WITH_STARTS)
        style: dict[str, Any] = {"color": ACCENT if ours else FAMILIES[method], "linewidth": 2.6 if ours else 1.3}
        style["linestyle"] = "--" if method == WITH_STARTS else "-"
        style["zorder"] = 3 if ours else 2
        for axis, column in zip(axes, ABOVE_AND_OPTIMALITY, strict=True):
            label = method if axis is axes[0] else None
            axis.plot([one["budget"] for one in line], [one[column] for one in line], label=label, **style)
            for one in line:
                fill = "full" if one["success"] > 0.999 else "none"
                axis.plot(one["budget"], one[column], "o", fillstyle=fill, markersize=6, **style)
    budgets = sorted({one["budget"] for line in points.values() for one in line})
    for axis in axes:
        axis.set(xscale="log", xlabel="propagations an image (forward + backward)", xticks=budgets)
        axis.set_xticklabels([f"{budget:.0f}" for budget in budgets])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
    axes[0].set_yscale("symlog", linthresh=1)
    ticks = [0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500]
    axes[0].set(yticks=ticks, yticklabels=[f"{tick:g}" for tick in ticks], ylim=(0, None))
    axes[0].set_ylabel("mean L2 distance above the best of all attacks, %")
    axes[1].set_ylabel("optimality (AttackBench)")
    networks = f"{len(names)} networks" if len(names) > 1 else names[0]
    axes[0].set_title(f"{networks}; open: some images fail, which do not count here", fontsize=10)
    axes[1].set_title("a failure counts as the largest distance", fontsize=10)
    figure.legend(loc="lower center", ncols=10, fontsize=9, frameon=False, handlelength=2, columnspacing=1)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def times(frame: pd.DataFrame, path: Path) -> None:
    """Time per image against distance above the best of the panel; a method that sometimes fails is open."""
    panels = {
        (key["network"], key["mode"]): {row["method"]: row for row in rows if pd.isna(row["budget"])}
        for key, rows in _groups(frame, "network", "mode")
    }
    networks = list(dict.fromkeys(network for (network, _), rows in panels.items() if len(rows) > 2))
    if not networks:
        return
    figure, axes = plt.subplots(2, len(networks), figsize=(3.4 * len(networks), 6.4), squeeze=False, sharey=True)
    handles: dict[str, Any] = {}
    for column, network in enumerate(networks):
        for line, mode in enumerate(("targeted", "untargeted")):
            axis = axes[line][column]
            _draw(axis, panels.get((network, mode), {}), handles)
            axis.set(title=f"{network}, {mode}", xscale="log", xlim=(0.2, 2000), ylim=(-0.8, TOP + 0.8))
            axis.grid(alpha=0.25)
        axes[1][column].set_xlabel("ms per image, one thread")
    for line in (0, 1):
        axes[line][0].set_ylabel("mean distortion above the best, %")
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _draw(axis: Any, rows: dict[str, dict[str, Any]], handles: dict[str, Any]) -> None:
    few = rows.pop(LBFGS_OF_FEW, None)
    if few and {"lbfgs", "SciPy L-BFGS-B"} <= rows.keys():  # SciPy's few images, brought to the scale of all
        rows["SciPy L-BFGS-B"]["distortion"] *= rows["lbfgs"]["distortion"] / few["distortion"]
    best = min((row["distortion"] for row in rows.values() if row["success"] > 0.999), default=math.nan)
    for method, row in rows.items():
        if method not in OURS and method not in PEERS:
            continue
        marker, colour = (OURS[method], ACCENT) if method in OURS else PEERS[method]
        above = min(100 * (row["distortion"] / best - 1), TOP)
        filled = row["success"] > 0.999
        axis.plot(
            row["ms_per_image"], above, marker, color=colour, markersize=8, fillstyle="full" if filled else "none"
        )
        if method not in handles:
            handles[method] = Line2D([], [], linestyle="", marker=marker, color=colour, markersize=8)

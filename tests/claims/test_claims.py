"""Every number of README's tables of claims and results is found again in results/."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial

import pandas as pd
import pytest
from sources import ROOT, cell, frame, number, short, with_interval

README = (ROOT / "README.md").read_text(encoding="utf-8")
NETWORKS = "benchmarks/attacks_networks"
back_feeding = partial(cell, "back_feeding/tables/back_feeding", column="test error, %")
stability = partial(cell, "stability/tables/stability")
cars = partial(cell, "quocnet/tables/two_classes", column="balanced error")


def paper() -> list[str]:
    cells = frame("paper/tables/all")
    judged = cells[cells["table"].isin(["table1", "table2", "table3", "table4"]) & (cells["quantity"] == "error")]
    judged = judged[judged["meets"].notna() & ~judged["own"]]
    own = cells[cells["own"] & cells["table"].isin(["table2", "table4"])]
    means = cells[(cells["quantity"] == "distortion") & cells["paper"].notna()]
    means = means[means["table"].isin(["table1", "table3"])]
    close = (means["distortion"] / means["paper"] - 1).abs() <= 0.25
    assert close.all() and len(own) == len(means) == 9 and (own["k"] == own["n"]).all() and (own["n"] == 3 * 256).all()
    return [f"{judged['meets'].sum()}", f"{len(judged)}", f"{int(own['k'].sum()):,}"]


def tables_1_to_4() -> list[str]:
    met, judged, succeeded = paper()
    rows = frame("benchmarks/paper_causes").query("table == 'all' and quantity == 'error'").set_index("cause")
    training, configured = rows.loc["one training of each network"], rows.loc["as configured"]
    assert f"{configured['met']}" == met and f"{training['cells']}" == judged
    return [met, judged, f"{training['met']}", succeeded]


def _pairs() -> pd.DataFrame:
    """Excess over noise of pairs of different networks, amplified examples too."""
    cells = frame("paper/tables/all")
    pairs = cells[cells["table"].str.fullmatch("table[24]_excess_noise")]
    return pairs[pairs["row"].str.partition(",")[0] != pairs["column"]]


def transfer() -> list[str]:
    pairs = _pairs()
    return [f"{len(pairs)}", f"{(pairs['low'] > 0).sum()}"]


def pools() -> list[str]:
    rows = ("all pools", "weight decay", "weight decay, rate x 4, decay / 4")
    first, second, third = (back_feeding(row) for row in rows)
    return [with_interval(first, between=" % "), with_interval(second), with_interval(third)]


def rectified() -> list[str]:
    table = "back_feeding_relu/tables/back_feeding"
    best = cell(table, "all pools, PGD-3, dropout", "test error, %")
    return [*pools(), with_interval(best), {10: "ten"}[int(best["n"])]]


def units() -> list[str]:
    tests = frame("units/tables/units_tests").pivot(index="row", columns="column", values="value")
    connected = tests[tests.index.str.startswith("FC100")]
    assert len(connected) == 12 and connected["q"].nunique() == 1
    higher = tests[(tests["q"] < 0.05) & (tests["effect size"] > 0)]
    (convolutions,) = {sum(f"pool{layer}" in row for row in higher.index) for layer in (1, 2)}
    return [short(float(connected["q"].iloc[0]), 1), {1: "one", 2: "two"}[convolutions]]


def certified() -> list[str]:
    plain, penalty = "FC100-100-10", "FC100-100-10 penalty 7e-2"
    constants = [number(stability(one, "certified constant")) for one in (plain, penalty)]
    errors = [number(stability(one, "test error")) for one in (plain, penalty)]
    distances = [number(stability(one, "distance found")) for one in (plain, penalty)]
    ratio, points = constants[0] / constants[1], errors[1] - errors[0]
    return [
        f"{ratio:.1f}", short(constants[0]), short(constants[1], 2), short(points, 2), *(short(d) for d in distances)
    ]  # fmt: skip


def quocnet() -> list[str]:
    return [with_interval(cars("QuocNet"), 1, between=" % "), with_interval(cars("Linear"), 1)]


def attacks() -> list[str]:
    rows = json.loads((ROOT / f"results/{NETWORKS}.json").read_text())
    every = [row for row in rows if row["method"].startswith("nearest") and row["mode"] == "untargeted"]
    assert {row["images"] for row in every} == {64} and {row["success"] for row in every} == {1.0}
    table = frame(NETWORKS)
    single = table[(table["network"] != "mean of all") & (table["mode"] == "untargeted")]
    means = single.groupby(["method", "budget"], dropna=False)["optimality"].mean().reset_index()
    peers = means[~means["method"].str.startswith(("nearest", "lbfgs"))]
    ours = means[means["budget"].isna()].set_index("method")["optimality"]
    best = peers.groupby("budget")["optimality"].max()
    assert peers[peers["budget"].notna()]["method"].nunique() == 8
    return [
        f"{len({row['network'] for row in every})}",
        *(short(ours[f"nearest, {effort}"]) for effort in ("fast", "default", "thorough")),
        *(short(best[budget]) for budget in (60, 300, 2000)),
    ]


def succeeded() -> list[str]:
    return paper()[2:]


def pairs_of(table: str) -> Callable[[], list[str]]:
    def counted() -> list[str]:
        pairs = _pairs()
        pairs = pairs[pairs["table"] == f"{table}_excess_noise"]
        return [f"{(pairs['low'] > 0).sum()}", f"{len(pairs)}"]

    return counted


def shapes() -> list[str]:
    pairs = frame("natural/tables/transfer_full_test_excess_noise")
    pairs = pairs[pairs["row"].str.partition(",")[0] != pairs["column"]]
    return [*pairs_of("table2")(), f"{(pairs['low'] > 0).sum()}", f"{len(pairs)}"]


def noise() -> list[str]:
    cells = frame("paper/tables/all")
    excess = cells[(cells["table"] == "table2_excess_clean") & (cells["row"] == "Gaussian .1")]
    shown = excess[(excess["low"] > 0) | (excess["high"] < 0)]
    assert len(excess) == 6 and len(shown) == 1
    (one,) = (row for _, row in shown.iterrows())
    far = number(cell("paper/tables/all", one["column"], "av. distortion", table="table1"))
    assert 0.045 < far < 0.055  # half of .1
    ends = [f"{value:.1f}" for value in (number(one), one["low"], one["high"])]
    return [ends[0], one["column"], *ends[1:], {5: "five"}[len(excess) - len(shown)]]


def directions() -> list[str]:
    chance = frame("units/tables/units_chance")
    chance = chance[(chance["column"] == "purity") & chance["row"].str.contains("random directions")]
    shares = chance[chance["row"].str.contains("relu3|FC100", regex=True)]["value"]
    return [f"{shares.min():.0f}", f"{shares.max():.0f}", units()[0]]


def training() -> list[str]:
    return [*pools()[:2], with_interval(back_feeding("dropout"))]


def hidden() -> list[str]:
    tests = partial(cell, "back_feeding/tables/back_feeding_tests", "all pools against input pool")
    gain, p = tests("less test error, points"), tests("p, corrected")
    ends = [f"{one:.3f}"[1:] for one in (number(gain), gain["low"], gain["high"])]
    return [f"{ends[0]} points ({ends[1]} to {ends[2]})", short(number(p), 2)]


def stable() -> list[str]:
    _, before, after, points, near, far = certified()
    return [before, after, near, far, points]


def natural() -> list[str]:
    table = frame("natural/tables/one_target")
    success, far = (table[table["column"] == name] for name in ("success", "av. distortion"))
    far = far[~far["row"].str.startswith("the paper")]
    assert len(far) == len(success) == 6 and (success["k"] == success["n"]).all() and (success["n"] == 64).all()
    pairs = frame("natural/tables/transfer_full_test_excess_noise")
    pairs = pairs[pairs["row"].str.partition(",")[0] != pairs["column"]]
    assert not (pairs["low"] > 0).any()
    tests = partial(cell, "natural/tables/units_tests", column="effect size")
    last, first = (number(tests(f"alexnet · features.{layer} · similarity by LPIPS")) for layer in (11, 1))
    ends = [f"{far['distortion'].min():.4f}"[1:], f"{far['distortion'].max():.4f}"[1:]]
    return [*ends, f"{len(pairs)}", f"{last:.2f}", f"-{-first:.2f}".replace("0.", ".")]


CLAIMS: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "Tables 1 to 4": (
        "{} of {} error rates meet the paper's intervals, {} where one more training may vary as the seeds do; all {} "
        "attacks succeed; all nine mean distortions within 25 %",
        tables_1_to_4,
    ),
    "transfer": (
        "{} pairs | in {}, examples fool another network more than noise of equal norm (interval of the excess above "
        "zero)",
        transfer,
    ),
    "back-feeding": (
        "{} test error; weight decay {}, at the pools' step size {}; the paper below 1.2 and 1.6; rectified units, "
        "dropout beside the pools: {}, {} seeds",
        rectified,
    ),
    "units": (
        "in FC100-100-10 units score higher than random bases by all six scores (q = {}); in the ConvNet's "
        "convolutions by {}",
        units,
    ),
    "stability": (
        "a penalty divides the certified constant by {} ({} to {}) for {} points of error; examples move from L2 {} to "
        "{}",
        certified,
    ),
    "QuocNet": (
        '"car" against the rest without fine-tuning: balanced error {}, a linear classifier on pixels {}; 64 of 64 '
        "attacks succeed",
        quocnet,
    ),
    "natural images": (
        "towards the ostrich 64 of 64 at mean distortions of {} to {} (the paper's AlexNet .0065); no transfer in {} "
        "pairs; units lead random directions in AlexNet's last convolution (LPIPS, effect size {}), not in its first "
        "({})",
        natural,
    ),
    "attacks": (
        "{} networks of other authors, 64 images each | `nearest` fools every image; AttackBench's optimality {}, {} "
        "and {} within 60, 300 and 2,000 passes an image; the best of eight published attacks {}, {} and {}",
        attacks,
    ),
}  # fmt: skip


def fooled_controls() -> list[str]:
    pairs = frame("controls/tables/controls_equal_excess_noise")
    pairs = pairs[pairs["column"].isin(["linear SVM", "RBF SVM", "k-NN", "random forest", "gradient boosting"])]
    pairs = pairs[~pairs["row"].isin(["linear SVM", "RBF SVM"])]
    return [f"{(pairs['low'] > 0).sum()}", f"{len(pairs)}"]


def _ends(entry: pd.Series, digits: int) -> str:
    value, low, high = (f"{one:.{digits}f}".removeprefix("0") for one in (number(entry), entry["low"], entry["high"]))
    return f"{value} ({low} to {high})"


def likelihood() -> list[str]:
    row = "FC100-100-10 · {} · k-NN distance"
    found = (cell("controls/tables/likelihood", row.format(place), "adversarial") for place in ("input", "layer 4"))
    return [_ends(one, 3) for one in found]


def hits() -> list[str]:
    below = frame("controls/tables/likelihood_hits")
    four, eight = (below[below["column"] == f"below at {multiple} x"] for multiple in (4, 8))
    return [f"{four['k'].sum():.0f}", f"{four['n'].sum():.0f}", f"{eight['k'].sum():.0f}"]


def autoencoders() -> list[str]:
    ratio = partial(cell, "controls/tables/autoencoders", column="ratio, same shape")
    return [_ends(ratio(f"{kind}400-10"), 2) for kind in ("AE", "CAE", "VAE")]


def equal_norm() -> list[str]:
    cells, counts = frame("controls/tables/transfer_norms"), []
    for column in ("error over noise", "over noise, without the linear part"):
        found = cells[cells["column"] == column]
        counts += [f"{(found['low'] > 0).sum()}", f"{len(found)}"]
    return counts


def _range(table: str, column: str, digits: int) -> list[str]:
    values = frame(f"controls/tables/{table}")
    values = values[values["column"] == column]["value"]
    return [f"{end:.{digits}f}".removeprefix("0") for end in (values.min(), values.max())]


ASKED: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "is it the network?": (
        "examples of networks fool SVMs, k-NN and trees more than noise does in {} of {} pairs, at one norm",
        fooled_controls,
    ),
    "are they unlikely?": (
        "FC100-100-10, k-NN distance, area under the ROC curve: images {}, second hidden layer {}",
        likelihood,
    ),
    "a dense set of negligible probability?": (
        "at 4 times the norm of the perturbation noise hits with a probability below 1e-6 for {} of {} images, at 8 "
        "times for {}",
        hits,
    ),
    "do autoencoders resist because they model the data?": (
        "distance beside the same shape trained by labels: sparse {}, contractive {}, variational {}",
        autoencoders,
    ),
    "transfer or norm?": (
        "at one norm above noise in {} of {} pairs of networks, without the shared linear part in {} of {}",
        equal_norm,
    ),
    "does noise predict distance?": (
        "examples lie at {} to {} times the predicted distance",
        partial(_range, "noise_distance", "found / predicted", 2),
    ),
    "how large are the pockets?": (
        "of random perturbations of 4 times the norm {} to {} % keep an example adversarial",
        partial(_range, "pockets", "kept at 4 x", 0),
    ),
    "other seed, other units?": (
        "matched units correlate at {} to {}, linear CKA is {} to {}",
        lambda: [*_range("seeds", "matched units", 2), *_range("seeds", "CKA", 2)],
    ),
}
PAPERS: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "every network has adversarial examples a small distortion away": (
        "all {} attacks succeed; all nine mean distortions lie within 25 % of the paper's",
        succeeded,
    ),
    "they fool networks of other shapes and other decays": (
        "more than noise of equal norm does in {} of {} pairs, of networks trained on all images; in {} of {} pairs of "
        "three networks of ImageNet",
        shapes,
    ),
    "they fool networks trained on other images": (
        "in {} of {} pairs, of networks trained on two halves",
        pairs_of("table4"),
    ),
    "they are no noise": (
        "noise of per-pixel deviation .1 adds {} points to the error of {} ({} to {}) and none that is shown to {} "
        "others; adversarial examples of half that size always fool it",
        noise,
    ),
    "random directions mean as much as units": (
        "top images of {} to {} % of random directions in fully connected layers are purer than chance; units of "
        "FC100-100-10 score higher than random bases by all six scores (q = {})",
        directions,
    ),
    "training on examples of all layers lowers the error below 1.2 %": (
        "{}, five seeds; weight decay {}, dropout {}",
        training,
    ),
    "examples of hidden layers help more than those of the input": (
        "all pools gain {} over the input's, p = {} after Holm's correction",
        hidden,
    ),
    "Table 5 bounds the layers of a convolutional network": (
        "the printed formula understates the first layer by its stride: 2.27 for an operator of norm 9.08 "
        "([Table 5](docs/results/natural.md#table-5))",
        list,
    ),
    "penalising the bounds should make networks more stable": (
        "the certified constant falls from {} to {}, the distance of examples grows from L2 {} to {}, the error by {} "
        "points",
        stable,
    ),
}
ALL = {**CLAIMS, **PAPERS, **ASKED}


def _rows() -> dict[str, str]:
    """README's rows of results by their first cell."""
    part = README.partition("## The paper's claims")[2].partition("\n## Documentation")[0]
    rows = [line.strip().strip("|").split("|", 1) for line in part.splitlines() if line.startswith("|")]
    rows = [row for row in rows if row[0].strip() not in ("claim", "question")]
    return {first.strip(): rest for first, rest in rows if first.strip(" -")}


@pytest.mark.parametrize("row", list(ALL))
def test_the_numbers_of_a_row_are_those_of_the_results(row: str) -> None:
    text, numbers = ALL[row]
    assert text.format(*numbers()) in _rows()[row]


def test_every_row_is_checked_and_its_last_cell_whole() -> None:
    rows = _rows()
    assert set(rows) == set(ALL)
    for row, cells in rows.items():
        claim = ALL[row][0].rpartition(" | ")[2]
        pattern = re.escape(claim).replace(r"\{\}", ".+?")
        assert re.fullmatch(pattern, cells.rpartition("|")[2].strip()), row


@pytest.mark.parametrize("row", list(ALL))
def test_another_digit_is_found(row: str) -> None:
    text, numbers = ALL[row]
    expected = text.format(*numbers())
    for place, letter in enumerate(expected):
        if letter.isdigit():
            changed = f"{expected[:place]}{(int(letter) + 1) % 10}{expected[place + 1 :]}"
            assert changed not in _rows()[row]


@pytest.mark.parametrize("question", list(ASKED))
def test_the_page_of_the_controls_has_the_same_numbers(question: str) -> None:
    rows = (ROOT / "docs/results/controls.md").read_text(encoding="utf-8").splitlines()
    (row,) = [one for one in rows if one.lower().startswith(f"| {question.lower()} |")]
    found = set(re.findall(r"\d*\.?\d+", row))
    assert {one for text in ASKED[question][1]() for one in re.findall(r"\d*\.?\d+", text)} <= found

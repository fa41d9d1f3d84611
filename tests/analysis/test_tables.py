import math

import pytest
import torch

from intriguing.analysis import analyze, paper
from intriguing.analysis.measure import BLOCK, measure
from intriguing.errors import UserError
from intriguing.metrics import distortion
from intriguing.results import DISTORTION
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import wilson_interval

TABLES = ("table1", "table2", "table3", "table4", "transfer", "lambda")
GAUSSIAN = {"name": "gaussian", "stddev": 0.1}


def values(table):
    return {place: (cell.k, cell.n) for place, cell in table.cells.items() if cell.quantity != DISTORTION}


def test_table_2_holds_the_planted_counts(network, crafted):
    one, two = network("FC10(1e-4)", 0), network("FC100-100-10", 1, confused=[9])
    sets = [
        crafted(one, {0: 40, 1: 13}),
        crafted(two, {1: 40}),
        crafted(None, {0: 5}, attack=GAUSSIAN),
    ]
    result = analyze([two, one], sets, title="planted", sections=TABLES)

    table = result.table("table2")
    assert table.rows == ("FC10(1e-4)", "FC100-100-10", "Gaussian .1")
    assert table.columns == ("FC10(1e-4)", "FC100-100-10", paper.DISTORTION)
    # `two` takes every 9 for a 0: the first 13 images are wrong because of the change (one of them a 9), and the other
    # three nines anyway.
    assert values(table) == {
        ("FC10(1e-4)", "FC10(1e-4)"): (40, 40),
        ("FC10(1e-4)", "FC100-100-10"): (13 + 3, 40),
        ("FC100-100-10", "FC10(1e-4)"): (0, 40),
        ("FC100-100-10", "FC100-100-10"): (40, 40),
        ("Gaussian .1", "FC10(1e-4)"): (5, 40),
        ("Gaussian .1", "FC100-100-10"): (4, 40),
    }
    cell = table.cells["FC10(1e-4)", "FC100-100-10"]
    assert cell.value == pytest.approx(40)
    assert cell.interval == pytest.approx([100 * end for end in wilson_interval(16, 40)])
    assert cell.paper == 2
    # "2 %" of 256 images are 4, 5 or 6 of them
    low, high = wilson_interval(4, 256).low, wilson_interval(6, 256).high
    assert cell.paper_interval == pytest.approx((100 * low, 100 * high))
    assert cell.meets is False
    assert cell.sign == "≠"
    assert [table.cells[label, label].own for label in table.rows[:2]] == [True, True]
    # one pixel of 16 changed by .1 (and by .9 where 9 becomes 0), and a second pixel on 13 images
    assert table.cells["FC100-100-10", paper.DISTORTION].value == pytest.approx((0.9 * 0.1 + 0.1 * 0.9) / 4)

    clean = values(result.table("table2_excess_clean"))
    assert clean["FC10(1e-4)", "FC100-100-10"] == (16 - 4, 40)
    assert clean["FC100-100-10", "FC100-100-10"] == (36, 40)
    assert clean["Gaussian .1", "FC10(1e-4)"] == (5, 40)
    assert "Gaussian .1" not in result.table("table2_excess_noise").rows


def test_seeds_are_paired_and_summed(network, crafted):
    networks = [network(label, pixel, seed=seed) for seed in (0, 3) for label, pixel in (("A", 0), ("B", 1))]
    sets = [crafted(networks[0], {0: 40, 1: 4}), crafted(networks[2], {0: 40, 1: 6}, failed=10)]
    # for noise, "full" means all training images
    sets.append(crafted(None, {1: 7}, attack=GAUSSIAN, seed=3, subset="full"))
    sets.append(crafted(None, {1: 2}, attack={"name": "gaussian", "stddev": 0.3}, seed=99))
    table = analyze(networks, sets, title="seeds", sections=["table2"]).table("table2")
    assert values(table) == {
        ("A", "A"): (70, 70),  # 40 of seed 0, 30 successes of seed 3
        ("A", "B"): (10, 70),
        ("Gaussian .1", "A"): (0, 40),  # noise of seed 3 is shown to the networks of seed 3
        ("Gaussian .1", "B"): (7, 40),
        ("Gaussian .3", "A"): (0, 80),  # and noise of a seed nobody has to all
        ("Gaussian .3", "B"): (4, 80),
    }
    assert table.cells["A", "B"].by_seed == ((0, Count(4, 40)), (3, Count(6, 30)))
    assert any("10 of 80 attacks failed" in note for note in table.notes)
    assert "seeds 0, 3" in table.sample


def test_seeds_on_the_same_images_are_no_further_images(network, crafted):
    """Two seeds that answer alike on the same 40 images give the interval of 40 images; on other images that of 80."""
    networks = [network(label, pixel, seed=seed) for seed in (0, 3) for label, pixel in (("A", 0), ("B", 1))]
    tables = {}
    for first in (0, 35, 40):
        indices = [torch.arange(40), torch.arange(first, first + 40)]
        sets = [crafted(networks[2 * s], {0: 40, 1: 14}, indices=indices[s]) for s in (0, 1)]
        tables[first] = analyze(networks, sets, title="seeds", sections=["table1", "table2"])
    shared, few, other = (result.table("table2") for result in tables.values())
    cells = [table.cells["A", "B"] for table in (shared, few, other)]
    assert [(c.k, c.n, c.num_images) for c in cells] == [(28, 80, 40), (28, 80, 75), (28, 80, 80)]
    assert cells[0].interval == pytest.approx([100 * end for end in wilson_interval(14, 40)], rel=2e-2)
    assert cells[2].interval == pytest.approx([100 * end for end in wilson_interval(28, 80)])
    assert cells[0].sample == "28 of 80, on 40 images" and cells[2].sample == "28 of 80"
    assert [("share all." in " ".join(t.notes), "share 5 of 40." in " ".join(t.notes)) for t in (shared, few)] == [
        *((True, False), (False, True)),
    ]
    assert "share none." in " ".join(other.notes)
    assert "the answers of several seeds on one image being one draw" in shared.method
    one = tables[40].table("table1")
    assert "as if they agreed on every image" in one.method and "that is conservative" in one.method
    assert shared.sample.startswith("N = 40 distinct images a cell")
    excess = [tables[key].table("table2_excess_clean").cells["A", "B"].interval for key in (0, 40)]
    assert excess[0].high - excess[0].low > 1.3 * (excess[1].high - excess[1].low)
    sizes = [table.cells["A", paper.DISTORTION].interval for table in (shared, other)]
    assert sizes[0].high - sizes[0].low > 1.3 * (sizes[1].high - sizes[1].low)
    # recorded errors are counts of one test set
    assert tables[40].table("table1").cells["A", paper.TEST_ERROR].num_images == 40


def test_how_a_set_was_amplified_is_said(network, crafted):
    nets = [network("FC100-100-10", 0, split="p1"), network("FC100-100-10'", 1, split="p2")]
    sets = [crafted(nets[0], {0: 40}, subset="test")]
    for by in ("set", "image"):
        attack = {"name": "lbfgs", "targets": "random", "amplify_by": by}
        sets.append(crafted(nets[0], {0: 40}, subset="test", amplify=0.1, attack=attack, name=by))
    (table,) = [t for t in analyze(nets, sets, title="halves", sections=["table4"]).tables if t.key == "table4"]
    one, each = "FC100-100-10, amplified to .1", "FC100-100-10, amplified to .1 image by image"
    assert set(table.rows) == {"FC100-100-10", one, each}
    assert table.cells[one, "FC100-100-10'"].paper == 43
    assert table.cells[each, "FC100-100-10'"].paper is None  # the paper's sets were scaled by one factor
    assert table.cells[one, paper.DISTORTION].interval is None  # scaled to it, not found
    assert table.cells["FC100-100-10", paper.DISTORTION].interval is not None
    assert "draw" not in table.method  # of several seeds, where there is one
    for words in ("each set by one factor,", "each image by another factor"):
        assert sum(words in note for note in table.notes) == 1


def test_tables_1_and_3_read_the_recorded_errors(network, crafted):
    full = [network("AE400-10", 0, seed=s, errors={"full": (s, 60_000), "test": (190, 10_000)}) for s in (0, 1)]
    half = network("FC100-100-10'", 1, split="p2")
    sets = [crafted(full[0], {0: 40}), crafted(half, {1: 40}, subset="test")]
    result = analyze([*full, half], sets, title="errors", sections=["table1", "table3"])

    one = result.table("table1")
    assert values(one) == {
        ("AE400-10", paper.TRAIN_ERROR): (1, 120_000),
        ("AE400-10", paper.TEST_ERROR): (380, 20_000),
    }
    assert one.cells["AE400-10", paper.TEST_ERROR].meets is True
    assert one.cells["AE400-10", paper.TRAIN_ERROR].meets is False
    assert one.cells["AE400-10", paper.DISTORTION].n == 40
    assert one.agreement() == Count(1, 2)
    three = result.table("table3")
    assert values(three) == {
        ("FC100-100-10'", paper.P1_ERROR): (1, 30),
        ("FC100-100-10'", paper.P2_ERROR): (2, 30),
        ("FC100-100-10'", paper.TEST_ERROR): (2, 40),
    }


def test_table_4_orders_rows_as_the_paper_and_judges_amplified_ones(network, crafted):
    nets = [network("FC100-100-10", 0, split="p1"), network("FC100-100-10'", 1, split="p2")]
    sets = [
        crafted(nets[1], {1: 40}, subset="test"),
        crafted(nets[0], {0: 39, 1: 20}, subset="test", amplify=0.1),
        crafted(nets[0], {0: 40}, subset="test"),
        crafted(None, {}, subset="test", attack={"name": "gaussian", "stddev": 0.06}),
        crafted(None, {}, subset="test", attack=GAUSSIAN),
    ]
    table = analyze(nets, sets, title="halves", sections=["table4"]).table("table4")
    assert table.rows == (
        *("FC100-100-10", "FC100-100-10'", "Gaussian .06", "FC100-100-10, amplified to .1", "Gaussian .1"),
    )
    amplified = table.cells["FC100-100-10, amplified to .1", "FC100-100-10"]
    assert (amplified.own, amplified.k, amplified.paper) == (False, 39, 100)
    assert table.cells["FC100-100-10, amplified to .1", "FC100-100-10'"].meets is True  # 50 % of 40 against 43 %


def test_attacks_are_kept_apart(network, crafted):
    net = network("FC10(1)", 0)
    slow = {"name": "lbfgs", "targets": "random", "settings": {"max_iter": 50}}
    fast = {"name": "lbfgs", "targets": "random", "max_iter": 5}
    other = {"name": "adam_l1", "targets": "random"}
    sets = [crafted(net, {0: 40}, attack=a, name=str(i)) for i, a in enumerate((other, slow, fast))]
    keys = [t.key for t in analyze([net], sets, title="attacks", sections=["table2"]).tables if "excess" not in t.key]
    assert keys == [
        *("table2", "table2_lbfgs_random_targets_max_iter_50", "table2_adam_l1_random_targets"),
    ]


def test_the_same_thing_twice_is_refused(network, crafted):
    net = network("FC10(1)", 0)
    with pytest.raises(
        UserError, match=r"two adversarial sets are of FC10\(1\), train images, seed 0: first and second"
    ):
        analyze([net], [crafted(net, {0: 40}, name=n) for n in ("first", "second")], title="twice")


def test_networks_of_one_label_and_seed_are_not_pooled(network, crafted):
    one, two = network("FC10(1)", 0), network("FC10(1)", 1, name="other")
    table = analyze([one, two], [crafted(one, {0: 40})], title="labels", sections=["table2"]).table("table2")
    assert values(table) == {
        ("FC10(1) [fc10(1)_full_seed0]", "FC10(1) [fc10(1)_full_seed0]"): (40, 40),
        ("FC10(1) [fc10(1)_full_seed0]", "FC10(1) [other]"): (0, 40),
    }


def test_other_combinations_have_tables_without_the_papers_numbers(network, crafted):
    net = network("FC10(1)", 0)
    result = analyze([net], [crafted(net, {0: 40}, subset="test")], title="other", sections=["transfer"])
    table = result.table("transfer_full_test")
    assert values(table) == {("FC10(1)", "FC10(1)"): (40, 40)}
    assert table.agreement() == Count(0, 0)


def test_lambda_curve_runs_over_the_layer_that_varies(network, crafted):
    nets = [
        network(f"FC100-100-10({a:g})", 0, weight_decay=[1e-5, a, 1e-6], errors={"full": (k, 100), "test": (k + 1, 50)})
        for a, k in ((1e-1, 9), (1e-3, 2))
    ]
    nets.append(network("AE400-10", 1, weight_decay=[1e-6]))
    table = analyze(nets, [crafted(nets[1], {0: 40})], title="sweep", sections=["lambda"]).table("lambda")
    first, second = table.rows
    assert "0.001" in first
    assert "0.1" in second
    assert (table.cells[first, paper.TRAIN_ERROR].k, table.cells[second, paper.TEST_ERROR].k) == (2, 10)
    assert (first, paper.DISTORTION) in table.cells
    assert (second, paper.DISTORTION) not in table.cells


def test_noise_has_the_norm_of_each_perturbation_and_no_result_depends_on_the_batch_size(network, crafted):
    net = network("FC10(1)", 0)
    one = crafted(net, {0: 40, 3: 20}, failed=3)
    seen = []

    net.module.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].clone()))
    whole = measure(one, [net], seed=1, batch_size=BLOCK)
    adversarial, clean, noisy = seen
    torch.testing.assert_close(distortion(clean, noisy), distortion(clean, adversarial))
    seen.clear()
    pieces = measure(one, [net], seed=1, batch_size=7)
    assert max(len(batch) for batch in seen) == 7
    assert pieces.outcomes == whole.outcomes
    assert measure(one, [net], seed=2, batch_size=7).num_success == 37


def test_an_attack_that_always_failed_leaves_empty_cells(network, crafted):
    net = network("FC10(1)", 0)
    result = analyze([net], [crafted(net, {}, failed=40)], title="failed")
    assert [t.key for t in result.tables] == ["table1"]
    assert "0 of 40 attacks succeeded" in result.summary[0]


def test_each_of_several_attacks_has_its_share_and_its_name_in_the_titles(network, crafted):
    net = network("FC10(1)", 0)
    first, second = {"name": "lbfgs", "targets": "random"}, {"name": "nearest", "targets": None}
    sets = [
        crafted(net, {0: 40}, attack=attack, name=name, failed=failed)
        for name, attack, failed in (("a", first, 10), ("b", second, 20))
    ]
    result = analyze([net], sets, title="two", sections=("table2",))
    assert "lbfgs, random targets: 30 of 40 attacks succeeded (75.0 %); nearest" in result.summary[0]
    assert "20 of 40 attacks succeeded (50.0 %)." in result.summary[0]
    assert all(t.detail.startswith(("lbfgs, random targets", "nearest")) for t in result.tables)
    apart = [sets[0], crafted(net, {0: 40}, attack=second, name="c", subset="test")]
    pages = analyze([net], apart, title="apart", sections=("table2", "transfer", "examples"))
    assert {t.detail.partition(":")[0] for t in pages.tables} == {"lbfgs, random targets", "nearest"}
    examples = {f.detail for f in pages.figures if f.title == "Examples"}
    assert examples == {"FC10(1), lbfgs, random targets", "FC10(1), nearest"}
    alone = analyze([net], sets[:1], title="one", sections=("table2",))
    assert "attacked with lbfgs, random targets: 30 of 40 attacks" in alone.summary[0]
    assert alone.tables[0].detail == ""


def test_table_1_says_which_images_its_distortions_want(network, crafted):
    net = network("FC10(1)", 0)
    (table,) = analyze([net], [crafted(net, {0: 40}, subset="test")], title="t", sections=("table1",)).tables
    assert table.notes == (
        "The distortions of this table are of train images (attack.py subset=train); the adversarial sets here are of "
        "test images.",
    )
    (table,) = analyze([net], [crafted(net, {0: 40})], title="t", sections=("table1",)).tables
    assert table.notes == ()


def test_the_summary_says_which_images_and_which_networks_were_only_evaluated(network):
    folder = {"data__name": "image_folder", "data__classes": ["cat", "dog"]}
    trained = network("Net", 0, **folder)
    summary = analyze([trained], [], title="folder").summary[0]
    assert summary == "1 network trained on a folder of images of 2 classes (seed 0); no attack was measured."
    taken = network("Net", 0, name="taken", trainer__max_epochs=0, **folder)
    assert "1 network evaluated on a folder of images of 2" in analyze([taken], [], title="taken").summary[0]
    both = analyze([trained, taken], [], title="both").summary[0]
    assert "2 networks trained on a folder of images of 2 classes (seed 0, 1 of them evaluated only)" in both


def test_wrong_calls_say_what_came(network, crafted):
    net = network("FC10(1)", 0)
    with pytest.raises(ValueError, match="table7"):
        analyze([net], [], title="", sections=["table7"])
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        analyze([net], [], title="", batch_size=0)
    with pytest.raises(ValueError, match="more than once"):
        analyze([net, net], [], title="")


def test_summary_counts_what_agrees(network, crafted):
    net = network("FC10(1)", 0, errors={"full": (21_200, 100_000), "test": (0, 100)})
    result = analyze([net], [crafted(net, {0: 40})], title="sum", sections=TABLES)
    assert "1 of 2 cells (50 %; Table 1 1 of 2)" in result.summary[1]
    elsewhere = analyze([network("FC10(1)", 0, data="digits")], [], title="sum", sections=TABLES)
    assert not elsewhere.comparable
    assert "for orientation" in elsewhere.summary[1]


def test_printed_forms(network, crafted):
    table = analyze([network("AE400-10", 0, errors={"test": (57, 10_000)})], [], title="t").table("table1")
    text = table.text("AE400-10", paper.TEST_ERROR)
    assert text is not None and (text.value, text.paper, text.interval) == ("0.57", "1.9", "0.44 to 0.74")
    assert math.isclose(table.cells["AE400-10", paper.TEST_ERROR].value, 0.57)


def test_every_cell_names_the_runs_it_came_from(network, crafted):
    first, other = network("FC10(1e-4)", 0), network("FC100-100-10", 1)
    half = network("FC100-100-10", 2, split="p1")
    result = analyze(
        [first, other, half],
        [crafted(first, {0: 40}), crafted(half, {2: 40}, subset="test"), crafted(None, {0: 4}, attack=GAUSSIAN)],
        title="t",
        sections=["table1", "table2", "table3"],
    )
    made = "lbfgs_fc10(1e-4)_full_seed0_train"
    table = result.table("table2")
    assert table.cells["FC10(1e-4)", "FC100-100-10"].runs == (made, other.name)
    assert table.cells["FC10(1e-4)", "av. distortion"].runs == (made, first.name)
    assert table.cells["Gaussian .1", "FC10(1e-4)"].runs == ("gaussian_0.1_train", first.name)
    excess = result.table("table2_excess_clean")
    assert excess.cells["FC10(1e-4)", "FC100-100-10"].runs == (made, other.name)
    assert result.table("table1").cells["FC100-100-10", "test error"].runs == (other.name,)
    assert result.table("table3").cells["FC100-100-10", "test error"].runs == (half.name,)
    known = {run.name for run in result.runs}
    assert all(
        table.runs_of(cell) and set(table.runs_of(cell)) <= known
        for table in result.tables
        for cell in table.cells.values()
    )


def test_a_set_belongs_to_the_network_whose_weights_made_it(network, crafted):
    made_for = network("FC10(1)", 0, sha256="aa" * 32)
    again = network("FC10(1)", 1, sha256="bb" * 32)  # trained again under the name of the first
    result = analyze([again], [crafted(made_for, {0: 40})], title="t", sections=["table1", "table2"])
    assert paper.DISTORTION not in {column for _, column in result.table("table1").cells}
    table = result.table("table2")
    (row,) = table.rows
    assert row == "FC10(1) [fc10(1)_full_seed0, sha256 aaaaaaaa]"
    cell = table.cells[row, "FC10(1)"]
    assert (cell.k, cell.own, cell.paper) == (0, False, None)
    assert any("no network of this analysis has" in note for note in table.notes)

    renamed = network("FC10(1)", 0, sha256="aa" * 32, name="moved")
    result = analyze([renamed, again], [crafted(made_for, {0: 40})], title="t", sections=["table1", "table2"])
    of_set = [c.runs for (_, column), c in result.table("table1").cells.items() if column == paper.DISTORTION]
    assert of_set == [("lbfgs_fc10(1)_full_seed0_train", "moved")]
    table = result.table("table2")
    assert table.cells["FC10(1) [moved]", "FC10(1) [moved]"].k == 40
    assert not table.notes


@pytest.mark.parametrize("key", ["folder", "classes"])
def test_two_folders_of_images_are_two_data_sets(network, crafted, key):
    first, second = ({"folder": "a", "classes": ["ant", "bee"]}[key], {"folder": "b", "classes": ["bee", "cow"]}[key])
    one, two = (network("FC10(1)", i, name=str(i), **{f"data__{key}": v}) for i, v in enumerate((first, second)))
    noise = crafted(None, {0: 40}, attack=GAUSSIAN, data="mnist")
    result = analyze([one, two], [crafted(one, {0: 40, 1: 40}), noise], title="t", sections=["table2"])
    label = {"folder": "FC10(1) on a", "classes": "FC10(1) on ant, bee"}[key]
    assert values(result.table("table2")) == {(label, label): (40, 40)}


def test_noise_of_two_data_sets_is_told_apart(network, crafted):
    nets = [network("FC10(1)", i, data__name=name, name=name) for i, name in enumerate(("mnist", "digits"))]
    noise = [crafted(None, {i: 4}, attack=GAUSSIAN, data=n.name, name=f"n{i}") for i, n in enumerate(nets)]
    table = analyze(nets, [*noise, crafted(nets[0], {0: 40})], title="t", sections=["table2"]).table("table2")
    assert {place: k for place, (k, _) in values(table).items() if "Gaussian" in place[0]} == {
        ("Gaussian .1 on mnist", "FC10(1) on mnist"): 4,
        ("Gaussian .1 on digits", "FC10(1) on digits"): 4,
    }


def test_networks_of_other_settings_are_told_apart_and_each_is_judged(network, crafted):
    long = network("FC10(1)", 0, name="long", errors={"test": (20, 100)})
    short = network("FC10(1)", 1, name="short", seed=1, trainer__max_epochs=1, errors={"test": (90, 100)})
    table = analyze([long, short], [], title="t", sections=["table1"]).table("table1")
    assert values(table) == {
        ("FC10(1), 60 epochs", paper.TEST_ERROR): (20, 100),
        ("FC10(1), 1 epoch", paper.TEST_ERROR): (90, 100),
    }
    assert [cell.meets for cell in table.cells.values()] == [False, True]
    assert {cell.paper for cell in table.cells.values()} == {20}


def test_the_summary_counts_pairs_of_different_networks(network, crafted):
    first, second = network("FC100-100-10", 0, split="p1"), network("FC123-456-10", 1, split="p1")
    sets = [crafted(n, {0: 40, 1: 40}, subset="test", amplify=a) for n in (first, second) for a in (None, 0.1)]
    said = analyze([first, second], sets, title="t", sections=["table4"]).summary[-1]
    assert "in 4 of 4 pairs" in said

    again = network("FC123-456-10", 1, split="p1", name="again")  # the second's settings and seed
    sets += [crafted(again, {0: 40, 1: 40}, subset="test", amplify=a) for a in (None, 0.1)]
    result = analyze([first, second, again], sets, title="t", sections=["table4"])
    assert "in 8 of 8 pairs" in result.summary[-1]
    table = result.table("table4")
    twins = ("FC123-456-10 [fc123-456-10_p1_seed0]", "FC123-456-10 [again]")
    assert {table.cells[a, b].own for a in twins for b in twins} == {True}


@pytest.mark.parametrize("penalty", [None, {"kind": "margin", "value": 0.1}, {"kind": "log_product", "value": 0.1}])
def test_a_sweep_under_a_penalty_has_its_curve(network, crafted, penalty):
    more = {"spectral_penalty": penalty} if penalty else {}
    suffix = {None: "", "margin": " margin 0.1", "log_product": " penalty 0.1"}[penalty and penalty["kind"]]
    nets = [network(f"FC10({a}){suffix}", 0, weight_decay=[float(a)], **more) for a in ("1e-4", "1e-2")]
    table = analyze(nets, [], title="t", sections=["lambda"]).table("lambda")
    assert table.rows == (f"FC10{suffix}, λ = 0.0001", f"FC10{suffix}, λ = 0.01")
    assert (table.cells[table.rows[0], paper.TEST_ERROR].paper is None) is bool(penalty)


def test_a_curve_holds_networks_that_differ_in_lambda_alone(network, crafted):
    long = [network(f"FC10({a})", 0, name=f"long{a}") for a in ("1e-3", "1e-1")]
    short = [network(f"FC10({a})", 0, name=f"short{a}", trainer__max_epochs=1) for a in ("1e-3", "1e-2")]
    twin = network("FC10(1e-1)", 0, name="twin")
    table = analyze([*long, *short], [], title="t", sections=["lambda"]).table("lambda")
    assert [table.cells[row, paper.TEST_ERROR].runs for row in table.rows] == [
        *[("short1e-3",), ("short1e-2",), ("long1e-3",), ("long1e-1",)],
    ]
    assert table.rows[0] == "FC10, 1 epoch, λ = 0.001"
    table = analyze([*long, twin], [], title="t", sections=["lambda"]).table("lambda")
    assert table.rows == ("FC10, λ = 0.001 [long1e-3]", "FC10, λ = 0.1 [long1e-1]", "FC10, λ = 0.1 [twin]")


def test_a_single_image_has_no_interval_and_no_bar(network, crafted):
    nets = [network(f"FC10({a})", 0) for a in ("1e-4", "1e-2")]
    sets = [crafted(net, {0: 40}, failed=39) for net in nets]
    result = analyze(nets, sets, title="one", sections=["table1", "table2", "lambda"])
    cell = result.table("lambda").cells["FC10, λ = 0.01", paper.DISTORTION]
    assert (cell.num_images, cell.interval) == (1, None)
    assert result.figure("lambda").png


def test_distortions_of_a_curve_are_of_one_attack(network, crafted):
    nets = [network(f"FC10({a})", 0) for a in ("1e-4", "1e-2", "1")]
    near = {"name": "nearest", "targets": "closest"}
    sets = [crafted(nets[0], {0: 40}), *(crafted(n, {0: 40}, attack=near) for n in nets[1:])]
    table = analyze(nets, sets, title="t", sections=["lambda"]).table("lambda")
    places = [row for row, column in table.cells if column == paper.DISTORTION]
    assert places == ["FC10, λ = 0.01", "FC10, λ = 1"]
    assert table.notes == ("FC10: distortions of nearest, closest targets on train images.",)


def test_attacks_of_other_settings_are_kept_apart_where_each_network_saw_one(network, crafted):
    nets = [network("FC10(1)", 0, seed=seed) for seed in (0, 1)]
    attacks = [{"name": "lbfgs", "targets": "random", "settings": {"max_iter": n}} for n in (5, 50)]
    sets = [crafted(n, {0: 40}, attack=a) for n, a in zip(nets, attacks, strict=True)]
    tables = analyze(nets, sets, title="t", sections=["table2"]).tables
    assert [values(t) for t in tables if "excess" not in t.key] == [{("FC10(1)", "FC10(1)"): (40, 40)}] * 2


def test_transfer_to_other_networks_is_counted_in_the_summary_by_the_rows_sources(network, crafted):
    """Neither a network on its own examples nor on its own amplified ones is a pair."""
    nets = [network("FC100-100-10", 0, split="p1"), network("FC123-456-10", 1, split="p1")]
    sets = [
        crafted(nets[0], {0: 40, 1: 40}, subset="test"),
        crafted(nets[0], {0: 40}, subset="test", amplify=0.1),
        crafted(nets[1], {1: 40}, subset="test"),
        crafted(None, {}, subset="test", attack=GAUSSIAN),
    ]
    result = analyze(nets, sets, title="t", sections=["table4"])
    table = result.table("table4")
    assert table.sources == {
        "FC100-100-10": "FC100-100-10",
        "FC100-100-10, amplified to .1": "FC100-100-10",
        "FC123-456-10": "FC123-456-10",
    }
    assert (table.heading, table.number) == (
        "Table 4 · Transfer between networks trained on disjoint halves",
        "Table 4",
    )
    assert result.table("table4_excess_noise").detail == "excess over equal-norm noise"
    (sentence,) = [line for line in result.summary if line.startswith("Table 4")]
    # fooled: the second network by the first's examples; not by the amplified ones, nor the first by the second's
    assert "in 1 of 3 pairs of networks" in sentence


def test_transfer_beyond_the_papers_tables_is_counted_in_one_sentence(network, crafted):
    nets = [network("one", 0), network("two", 1)]
    made = [(0, {0: 40, 1: 40}, {}), (0, {0: 40}, {"amplify": 0.1}), (1, {1: 40}, {})]
    sets = [crafted(nets[which], fooled, subset="test", **more) for which, fooled, more in made]
    result = analyze(nets, sets, title="t", sections=["transfer"])
    (sentence,) = [line for line in result.summary if "pairs of networks" in line]
    assert sentence.startswith("Other transfer: in 1 of 3 pairs of networks")

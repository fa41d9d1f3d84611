"""The section "units" on networks whose answer is known: units that are labels, and units that are none."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from planted import rerecorded
from scipy import stats
from torch import nn

from intriguing.analysis import Network, SectionInputs, SectionOutput
from intriguing.analysis.settings import settings_of
from intriguing.analysis.units import evidence, figures, tables
from intriguing.analysis.units.evidence import Comparison, corrected
from intriguing.analysis.units.measure import LayerScores, ScoredImages, measure_layers, null_sets
from intriguing.analysis.units.section import section
from intriguing.analysis.units.settings import UnitSettings, rotations_for
from intriguing.analysis.units.summary import summarize
from intriguing.cli.study import with_study_settings
from intriguing.data import Subset
from intriguing.errors import UserError
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import Interval
from intriguing.statistics.tests import least_p
from intriguing.units import random_rotation
from intriguing.units.chance import null_scores

K = 6
QUICK: dict[str, Any] = {
    "columns": 5,
    "rows": 3,
    "bases": ["pca"],
    "sweeps": 4,
    "sets": 500,
    "ablated": 3,
    "rotations": 99,
}


def _images(num: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """An image of class c has pixel c at 1 and the others anywhere below 0.9: hardly a rotation keeps classes apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num) % K
    images = 0.9 * torch.rand(num, 1, 1, K, generator=generator)
    images[torch.arange(num), 0, 0, labels] = 1.0
    return images, labels


def _network(label: str, seed: int = 0, *, turned: bool = False) -> Network:
    """Reads the pixels off one by one, or after a rotation that the last layer takes back: the same function."""
    torch.manual_seed(seed)
    rotation = random_rotation(K, generator=torch.Generator().manual_seed(seed)).float() if turned else torch.eye(K)
    first, last = nn.Linear(K, K), nn.Linear(K, K)
    with torch.no_grad():
        first.weight.copy_(rotation)
        first.bias.fill_(3.0)  # the nonlinearity then changes nothing
        last.weight.copy_(rotation.T)
        last.bias.zero_()
    return Network.in_memory(
        label=label,
        name=f"{label}_seed{seed}",
        module=nn.Sequential(nn.Flatten(), first, nn.ReLU(), last),
        errors={"test": (0, 400)},
        config={"seed": seed, "data": {"name": "mnist"}, "split": {"name": "full"}},
    )


def _made(networks: list[Network], /, batch_size: int = 1024, **settings: Any) -> SectionOutput:
    return section(
        SectionInputs(
            networks=networks,
            subsets=lambda network, subset: _subset(),
            settings=_settings(**settings),
            batch_size=batch_size,
        )
    )


def _settings(**given: Any) -> UnitSettings:
    return settings_of(UnitSettings, "settings.units", QUICK | given)


def _subset() -> Subset:
    images, labels = _images()
    return Subset(images, labels, torch.arange(len(labels)))


def _cell(made: SectionOutput, table: str, row: str, column: str) -> float:
    return next(t for t in made.tables if t.key == table).cells[row, column].value


def test_units_that_are_labels_score_one_beat_random_bases_and_fall_along_the_rotation() -> None:
    made = _made([_network("labels", seed) for seed in (0, 1)])
    assert _cell(made, "units_labels", "layer 2 · units", "purity") == 1
    row = "labels · layer 2 · purity"
    assert _cell(made, "units_tests", row, "effect size") > 0.5
    assert _cell(made, "units_tests", row, "p") == pytest.approx(2 / 100)
    assert _cell(made, "units_tests", row, "q") < 0.05
    assert _cell(made, "units_chance", "labels · layer 2 · units", "purity") == 100
    assert "not equally meaningful" in made.summary[1] and "units of labels are more meaningful" in made.summary[1]
    keys = [figure.key for figure in made.figures]
    assert keys == ["units_labels_layer_2", "units_sweep", "units_scores", "units_ablation", "units_seeds"]
    assert all(figure.png.startswith(b"\x89PNG") for figure in made.figures)


def test_the_same_space_in_a_rotated_basis_is_the_same_space_and_no_longer_the_same_units() -> None:
    """The paper's point, planted: what both networks compute is equal, so CKA is 1, and no unit is left."""
    made = _made([_network("turned", seed, turned=True) for seed in (0, 1, 2)])
    row = "turned · layer 2"
    assert _cell(made, "units_seeds", row, "linear CKA") == pytest.approx(1, abs=1e-5)
    assert _cell(made, "units_seeds", row, "Procrustes") == pytest.approx(1, abs=1e-5)
    assert _cell(made, "units_seeds", row, "matched units") < 0.9
    assert _cell(made, "units_turned", "layer 2 · units", "purity") < 1
    assert _cell(made, "units_tests", "turned · layer 2 · purity", "q") > 0.05
    assert made.summary[1].startswith("No difference between units and random bases was shown")


def test_nothing_depends_on_the_batches_and_images_in_folders_are_read_as_they_are_needed() -> None:
    class Lazy:
        """A subset that hands out nothing but single reads."""

        def __init__(self) -> None:
            self.whole = Subset(*_images(), torch.arange(400))

        def __len__(self) -> int:
            return len(self.whole)

        def __getattr__(self, name: str) -> Any:
            assert name in ("read", "batches", "labels"), name
            return getattr(self.whole, name)

    plain = _made([_network("labels")], batch_size=1000)
    lazy: Any = Lazy()
    again = section(
        SectionInputs(
            networks=[_network("labels")],
            subsets=lambda network, subset: lazy,
            settings=_settings(),
            batch_size=7,
        )
    )
    for one, two in zip(plain.tables, again.tables, strict=True):
        assert one.cells == two.cells or one.tidy() == two.tidy()
    assert [figure.png for figure in plain.figures] == [figure.png for figure in again.figures]


def test_what_is_asked_for_is_made() -> None:
    networks = [_network("labels"), _network("other", turned=True)]
    made = _made(networks, networks=["lab*"], untrained=False, whitened=False, bases=[], ablated=0, sweeps=0, limit=100)
    assert {table.key for table in made.tables} == {"units_tests", "units_labels", "units_chance"}
    rows = next(t for t in made.tables if t.key == "units_labels").rows
    assert rows == ("layer 2 · units", "layer 2 · random directions")
    assert "N = 100 test images" in made.tables[0].sample
    columns = next(t for t in made.tables if t.key == "units_labels").columns
    assert "similarity in features" in columns  # by the other network
    assert "similarity in features" not in _made(networks[:1]).tables[1].columns
    assert _made([]) == SectionOutput()


def test_only_seeds_are_pooled() -> None:
    """A half's network has the label of the whole's, but is not another seed of it."""
    whole = _network("labels")
    half = rerecorded(_network("labels"), name="half", config={**whole.config, "split": {"name": "p1"}})
    keys = {table.key for table in _made([whole, half], untrained=False, sweeps=0, ablated=0).tables}
    assert keys == {"units_tests", "units_labels", "units_labels_on_p1", "units_chance"}


def test_networks_of_other_settings_are_not_pooled_as_seeds() -> None:
    first, second = _network("labels"), _network("labels", 1)
    second = rerecorded(second, config={**second.config, "trainer": {"max_epochs": 1}})
    made = _made([first, second], untrained=False, sweeps=0, ablated=0)
    rows = {row.split(" · ")[0] for table in made.tables if table.key == "units_tests" for row in table.rows}
    assert rows == {"labels, max_epochs=null", "labels, 1 epoch"}


def test_a_network_without_units_is_passed_over() -> None:
    bare = _network("bare")
    bare.module[2] = nn.Identity()  # type: ignore[index]
    assert _made([bare]) == SectionOutput()


def test_fitted_bases_are_scored_on_images_that_they_were_not_fitted_to() -> None:
    """On noise no direction has a kurtosis but 0; FastICA finds one of several units in the sample it is given."""
    generator = torch.Generator().manual_seed(0)
    data = {name: torch.randn(150, 1, 1, 24, generator=generator) for name in ("train", "test")}
    labels = torch.randint(K, (150,), generator=generator)

    def read(name: str) -> Any:
        return lambda: [(data[name], labels)]

    settings = UnitSettings(bases=("ica",), rotations=19, sweeps=0, whitened=False, ablated=0)
    module = nn.Sequential(nn.Flatten(), nn.Identity())
    for fit in (read("train"), None):  # None: a half of the images is set apart
        looked = ScoredImages(read=read("test"), few=read("test"), labels=labels, num_classes=K, rows={}, fit=fit)
        null = null_scores(labels, {}, null_sets(looked, settings, seed=0))
        (one,) = measure_layers(module, ["1"], looked, null, settings, seed=0)
        assert abs(float(one.scores["ICA"]["kurtosis"].mean())) < 0.3
    cheat = ScoredImages(read=read("test"), few=read("test"), labels=labels, num_classes=K, rows={}, fit=read("test"))
    (one,) = measure_layers(module, ["1"], cheat, null, settings, seed=0)
    assert float(one.scores["ICA"]["kurtosis"].mean()) > 0.6


def test_no_image_is_both_fitted_to_and_scored() -> None:
    asked: list[str] = []

    def subsets(network: Network, subset: str) -> Subset:
        asked.append(subset)
        return _subset()

    quick: dict[str, Any] = {"ablated": 0, "sweeps": 0, "untrained": False, "rotations": 19}
    for scored, fitted in (("test", "train"), ("train", "test"), ("full", "test")):
        asked.clear()
        settings = _settings(subset=scored, **quick)
        made = section(SectionInputs(networks=[_network("labels")], subsets=subsets, settings=settings))
        assert set(asked) == {scored, fitted}
        assert f"are fitted to up to 5,000 {fitted} images and scored on the {scored} images" in made.tables[0].notes[0]


def test_without_training_images_a_half_of_the_images_is_set_apart() -> None:
    """As with weights that were trained elsewhere: their folder holds images to look at alone."""

    def empty(network: Network, subset: str) -> Subset:
        return _subset() if subset == "test" else _subset().take(torch.arange(0))

    def changed(network: Network, subset: str) -> Subset:
        if subset != "test":
            raise UserError("the train files are not those that the network was trained on")
        return _subset()

    quick = _settings(sweeps=0, untrained=False, rotations=19)
    for subsets in (empty, changed):
        made = section(SectionInputs(networks=[_network("labels")], subsets=subsets, settings=quick))
        assert "N = 200 test images" in made.tables[0].sample
        assert "the other half of the test images and scored on the test images" in made.tables[0].notes[0]
        assert _cell(made, "units_labels", "layer 2 · units", "purity") == 1


def test_too_few_bases_are_said_to_show_nothing_and_enough_show_the_difference() -> None:
    def planted(p: float, bases: int) -> list[Comparison]:
        common: dict[str, Any] = {"label": "A", "layer": "1", "unit": 3.0, "random": 0.0, "effect": 3.0}
        plain: dict[str, Any] = {"effect": 0.0}
        common |= {"effect_interval": Interval(2.0, 4.0), "num": 24, "bases": bases}
        return corrected(
            [Comparison(score="kurtosis", p=p, **common)]
            + [Comparison(score=score, p=0.5, **(common | plain)) for score in ("purity",) * 11]
        )

    one = LayerScores(
        layer="1",
        channels=2,
        silent=0,
        scores={},
        random_means={},
        p_rows={basis: {"purity": torch.ones(4)} for basis in ("units", "random directions")},
        sweep={},
        top={},
        shown=torch.arange(2),
    )
    few, enough = planted(2 / 100, 99), planted(2 / 1000, 999)
    assert few[0].floor == pytest.approx(0.24) == pytest.approx(few[0].q)
    words = " ".join(summarize({"A": [[one]]}, few, [], []))
    assert "no difference between the two was shown in 12 of 12" in words
    assert "No difference between units and random bases was shown, which does not show that they are alike" in words
    assert "the q of a single difference is at least 0.24" in words and "the test could not have shown it" in words
    assert "effect size +3.00, +2.00 to +4.00" in words
    assert planted(2 / 481, 480)[0].q < 0.05  # as many as the sentence asks for
    assert "settings.units.rotations=480 or more" in words
    words = " ".join(summarize({"A": [[one]]}, enough, [], []))
    assert "more meaningful than random bases in 1 and less meaningful in 0" in words and "could not have" not in words


@pytest.mark.parametrize("rows", [1, 12, 30, 39])
def test_the_default_number_of_bases_can_show_a_single_difference(rows: int) -> None:
    assert rows * least_p(rotations_for(rows)) < 0.05


def test_the_reference_network_is_of_another_architecture_and_is_named() -> None:
    """A half, a suffixed label, another seed or rate is no other architecture; wider layers are."""
    own = _network("FC")
    half = rerecorded(_network("FC on P1", 1), config={**own.config, "split": {"name": "p1"}})
    rate = rerecorded(_network("a slow FC", 2), config={**own.config, "optimizer": {"lr": 1}})
    wide = _network("Z", 3)
    wide.module[1], wide.module[3] = nn.Linear(K, 2 * K), nn.Linear(2 * K, K)  # type: ignore[operator]
    settings: dict[str, Any] = {
        "networks": ["FC_seed0"],
        "untrained": False,
        "sweeps": 0,
        "ablated": 0,
        "rotations": 19,
    }
    notes = _made([own, half, rate, wide], **settings).tables[0].notes
    assert notes[1] == "Similarity in features: cosines in the last hidden layer of Z (Z_seed3), another architecture."
    notes = _made([own, half, rate], **settings).tables[0].notes
    assert notes[1].endswith("of a slow FC (a slow FC_seed2), another run of one architecture.")


@pytest.mark.parametrize("num", [3, 5])
def test_the_sweeps_bars_cover_as_often_as_they_say_and_one_value_has_none(num: int) -> None:
    sweep = torch.randn(800, num, generator=torch.Generator().manual_seed(num))
    common: dict[str, Any] = {"layer": "1", "channels": 4, "silent": 0, "random_means": {}, "p_rows": {}, "top": {}}
    covered = []
    for row in sweep:
        one = LayerScores(
            scores={"units": {"purity": torch.zeros(4)}},
            sweep={"purity": row[:, None]},
            shown=torch.arange(4),
            **common,
        )
        means, bars = figures._points([one], "purity")
        assert math.isnan(bars[0])
        covered.append(abs(means[1]) <= bars[1])
    assert 0.925 <= sum(covered) / len(covered) <= 0.975
    several = [
        LayerScores(
            scores={"units": {"purity": torch.full((4,), float(i))}},
            sweep={"purity": torch.tensor([[i - 0.1], [i + 0.1]])},
            shown=torch.arange(4),
            **common,
        )
        for i in range(3)
    ]
    _, bars = figures._points(several, "purity")  # rotations of one network are no further networks
    assert bars == pytest.approx([stats.t.ppf(0.975, 2) / math.sqrt(3)] * 2)


def test_intervals_of_effects_and_shares_cover_as_often_as_they_say() -> None:
    """Units whose spread is three times that of random directions, and rows of which 30 % are beyond chance."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(20_000, generator=generator)
    spread = math.sqrt((31 * 9 + 19_999) / 20_030)
    covered, shares = [], []
    for _ in range(500):
        unit = 1 + 3 * torch.randn(32, generator=generator)
        interval = evidence._effect_interval("purity", unit, torch.zeros(32, dtype=torch.int64), random)
        assert interval is not None
        covered.append(interval.low <= 1 / spread <= interval.high)
        beyond = torch.rand(40, 8, generator=generator) < 0.3
        rows = {name: {"purity": torch.where(beyond, 0.01, 0.9).flatten()} for name in ("units", "random directions")}
        rows["units"] = {"purity": rows["units"]["purity"][:8]}
        one = LayerScores(
            layer="1",
            channels=8,
            silent=0,
            scores={},
            random_means={},
            p_rows=rows,
            sweep={},
            top={},
            shown=torch.arange(2),
        )
        count, found = tables.share_beyond([one], "random directions", "purity")
        assert found is not None and count == Count(int(beyond.sum()), 320)
        shares.append(found.low <= 0.3 <= found.high)
    assert 0.92 <= sum(covered) / 500 <= 0.99
    assert 0.92 <= sum(shares) / 500 <= 0.98


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": ["conv9"]}, r"names no layer; labels has 0, 1, 2, 3"),
        ({"networks": ["fc*"]}, r"names no network of this analysis; there are labels"),
        ({"limit": 5}, "too few for rows of 5"),
        ({"bases": ["fourier"]}, "settings.units.bases"),
        ({"aggregate": "median"}, "settings.units.aggregate"),
        ({"rows": 0}, "settings.units.rows"),
        (
            {"colums": 3},
            r"settings\.units\.colums is no setting of settings\.units; did you mean settings\.units\.columns\? it has",
        ),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        _made([_network("labels")], **settings)


def test_the_configs_settings_are_the_defaults_of_the_section(composed: Any) -> None:
    typed = ["study=quickstart", "settings.units.rows=5"]
    given = with_study_settings(composed("analyze", *typed), typed)["settings"]["units"]
    chosen = settings_of(UnitSettings, "settings.units", given)
    study = {"networks": ("*fc100_100_10_full*",), "bases": ("pca",), "sweeps": 3, "whitened": False}
    assert chosen == replace(UnitSettings(), rows=5, **study)  # the command line before the study before the defaults
    assert set(given) == set(UnitSettings.__dataclass_fields__)


def _photographs(folder: Path, classes: int = 3, each: int = 8) -> Path:
    """Images of one colour a class, with noise."""
    generator = torch.Generator().manual_seed(0)
    for label in range(classes):
        place = folder / "val" / f"class{label}"
        place.mkdir(parents=True)
        for number in range(each):
            pixels = torch.randint(0, 60, (3, 20, 20), generator=generator, dtype=torch.uint8)
            pixels[label] += 150
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(place / f"{number}.png")
    return folder


def test_images_of_a_folder_take_the_place_of_the_networks_and_are_compared_by_lpips(tmp_path: Path) -> None:
    """Also for a network without images; the units are the three colours, each of which is a class."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    weights = tmp_path / "features.pth"
    torch.save({name: w for name, w in alexnet().state_dict().items() if name.startswith("features.")}, weights)
    module = nn.Sequential(nn.AvgPool2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).eval()
    module.input_shape = [3, 10, 10]  # pyright: ignore[reportArgumentType]
    network = Network.in_memory("net", module, errors={}, config={"data": {"name": "blank"}})
    assert not network.has_images
    settings = settings_of(
        UnitSettings,
        "settings.units",
        QUICK
        | {"folder": str(_photographs(tmp_path / "images")), "lpips": str(weights), "untrained": False, "columns": 2},
    )
    made = section(SectionInputs(networks=[], imageless=[network], settings=settings))
    table = next(one for one in made.tables if one.key == "units_net")
    assert table.cells["layer 1 · units", "purity"].value == 1
    assert table.cells["layer 1 · units", "similarity by LPIPS"].value > 0.1
    assert "N = 12 test images of images" in table.sample and any("3 classes" in note for note in table.notes)
    assert not any(one.key == "units_ablation" for one in made.tables)  # its classes are not the network's
    with pytest.raises(UserError, match=r"settings.units.lpips: there is no file"):
        section(
            SectionInputs(
                networks=[], imageless=[network], settings=replace(settings, lpips=str(tmp_path / "none.pth"))
            )
        )

"""Sections beyond the paper's tables: called with what they may use, only where they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch

from intriguing.analysis import SECTIONS, CraftedSet, Network, Section, SectionInputs, SectionOutput, analyze
from intriguing.analysis.settings import settings_of
from intriguing.data import Subset
from intriguing.errors import UserError
from intriguing.results import Cell, Quantity, Table
from intriguing.statistics.intervals import Interval

TABLE = Table(
    key="norms",
    title="Norms",
    caption="",
    row_header="layer",
    rows=("a",),
    columns=("bound",),
    cells={("a", "bound"): Cell(quantity=Quantity(name="bound"), value=12.345, interval=Interval(10.0, 1e7), n=3)},
    sample="",
    method="",
)


@dataclass(frozen=True)
class NormSettings:
    count: int = 7
    rows: int = 5


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[SectionInputs]:
    """Register a section whose inputs are kept."""
    inputs: list[SectionInputs] = []

    def make(given: SectionInputs) -> SectionOutput:
        inputs.append(given)
        settings: NormSettings = given.settings
        return SectionOutput(tables=(TABLE,), summary=(f"{settings.count} of {settings.rows}",))

    norms = Section(
        make=make,
        settings=NormSettings,
        observe=lambda examples, one, given: (len(examples.inputs), one.num, given.settings),
        reads_images=True,
    )
    monkeypatch.setitem(SECTIONS, "norms", norms)
    return inputs


def subsets(network: Network, subset: str) -> Subset:
    return Subset(torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64), torch.arange(3))


def test_a_section_is_made_where_it_is_named(seen: list[SectionInputs]) -> None:
    settings = {"norms": NormSettings(count=3)}
    result = analyze([], [], title="t", sections=("table1", "norms"), settings=settings, subsets=subsets, seed=5)
    assert result.table("norms") is TABLE
    assert result.summary[-1] == "3 of 5"
    assert seen[0].seed == 5


def test_a_section_is_not_made_unasked(seen: list[SectionInputs]) -> None:
    with pytest.raises(KeyError):
        analyze([], [], title="t", subsets=subsets).table("norms")
    assert not seen


def test_images_are_needed(seen: list[SectionInputs]) -> None:
    with pytest.raises(ValueError, match="section norms reads images: give subsets"):
        analyze([], [], title="t", sections=("norms",))


def test_a_section_observes_each_set_once_and_reads_the_first_images(
    seen: list[SectionInputs], network: Callable[..., Network], crafted: Callable[..., CraftedSet]
) -> None:
    one = network("FC10(1)", 0)
    sets = [crafted(one, {0: 5}), crafted(one, {0: 5}, subset="test", failed=3)]
    loads = Counter[str]()
    counted = [replace(s, load=lambda s=s: loads.update([s.name]) or s.load()) for s in sets]
    analyze([one], counted, title="t", sections=("table1", "figure7", "norms"), subsets=subsets)
    assert loads == Counter({s.name: 1 for s in sets})
    assert seen[0].observed == {s.name: (40, 40, NormSettings()) for s in sets}
    assert seen[0].images(one, "test", 2).shape == (2, 1, 2, 2) and len(seen[0].images(one, "test", 9)) == 3


def test_names_must_differ(network: Callable[..., Network], crafted: Callable[..., CraftedSet]) -> None:
    one = network("FC10(1)", 0)
    for networks, sets in (([one, one], []), ([one], [crafted(one, {0: 5})] * 2)):
        with pytest.raises(ValueError, match=r"of different names, got .* more than once"):
            analyze(networks, sets, title="t")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"count": 3}, r"s\.count is no setting of s; it has low, share, flag, words, names, most"),
        ({"low": 0}, "s.low must be a whole number of at least 1, got 0"),
        ({"low": True}, "s.low must be a whole number"),
        ({"low": None}, "s.low must be a whole number"),
        ({"share": 0}, "s.share must be a finite number above 0, got 0"),
        ({"flag": 1}, "s.flag must be true or false, got 1"),
        ({"words": "x"}, "unknown s.words 'x'; known: a, b"),
        ({"names": {"a": 1}}, "s.names must be a list, got {'a': 1}"),
        ({"names": [None]}, "s.names must be a text, got None"),
        ({"names": None}, "s.names must be a list, got None"),
    ],
)
def test_settings_are_checked_by_their_types(given: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        settings_of(Settings, "s", given)


def test_settings_become_values_of_their_types() -> None:
    given = {"low": 2.0, "share": 1, "flag": False, "names": 4, "most": None}
    found = settings_of(Settings, "s", given)
    assert found == Settings(low=2, share=1.0, flag=False, names=("4",))
    assert type(found.low) is int and type(found.share) is float
    assert settings_of(Settings, "s", {"names": ["x", "y"], "most": 3}) == Settings(names=("x", "y"), most=3)


@dataclass(frozen=True)
class Settings:
    low: int = field(default=1, metadata={"low": 1})
    share: float = field(default=0.5, metadata={"above": 0})
    flag: bool = True
    words: str = field(default="a", metadata={"choices": ("a", "b")})
    names: tuple[str, ...] = ()
    most: int | None = field(default=None, metadata={"low": 2})


def test_a_number_of_any_kind_is_shown_to_three_digits():
    text = TABLE.text("a", "bound")
    assert text is not None and (text.value, text.interval) == ("12.3", "10.0 to 1.00e+07")
    assert TABLE.tidy()[0]["value"] == 12.345
    for value, shown in ((float("inf"), "∞"), (0.01234, "0.0123")):
        cell = Cell(quantity=Quantity(name="bound"), value=value, interval=None, n=1)
        one = replace(TABLE, cells={("a", "bound"): cell}).text("a", "bound")
        assert one is not None and one.value == shown

"""How the budget of a card is spent."""

from __future__ import annotations

import math

import pytest

from intriguing.analysis.card.budget import Clock, slice_end, spend


class Fake:
    """Take fixed seconds for a slice on a clock that only slices move."""

    def __init__(self, name: str, seconds: float, widths: list[float], time: list[float]) -> None:
        self.name, self.seconds, self.widths, self.time, self.slices = name, seconds, widths, time, 0

    @property
    def started(self) -> bool:
        return self.slices > 0

    @property
    def done(self) -> bool:
        return self.slices >= len(self.widths)

    def predicted(self) -> float:
        return self.seconds

    def width(self) -> float:
        return self.widths[self.slices - 1]

    def step(self) -> None:
        self.time[0] += self.seconds
        self.slices += 1


def _clock(seconds: float, time: list[float]) -> Clock:
    return Clock(seconds, now=lambda: time[0])


def test_every_part_gets_a_slice_and_then_the_widest_interval_gets_the_next() -> None:
    time = [0.0]
    wide = Fake("wide", 1.0, [0.9, 0.5, 0.3, 0.1], time)
    narrow = Fake("narrow", 1.0, [0.4, 0.2, 0.05], time)
    order: list[str] = []
    assert spend([narrow, wide], _clock(100, time), lambda what, share: order.append(what)) == []
    assert order == ["narrow", "wide", "wide", "wide", "narrow", "wide", "narrow"]


def test_what_does_not_fit_is_named_and_the_budget_is_kept() -> None:
    time = [0.0]
    small, large = Fake("small", 1.0, [1.0] * 100, time), Fake("large", 50.0, [1.0], time)
    clock = _clock(10, time)
    (missing,) = spend([small, large], clock, lambda what, share: None)
    assert missing.part == "large"
    assert "62 s would be needed, and 9.0 s were left" in missing.reason
    assert 7 <= small.slices <= 9
    assert clock.spent <= 10
    assert clock.by_part["small"] == pytest.approx(small.slices)


def test_the_main_interval_has_two_ends_before_a_costly_part_begins() -> None:
    time = [0.0]
    main = Fake("main", 5.0, [math.inf, math.inf, 0.5, 0.4], time)
    cheap, costly = Fake("cheap", 1.0, [0.1], time), Fake("costly", 20.0, [0.9], time)
    order: list[str] = []
    assert spend([main, cheap, costly], _clock(100, time), lambda what, share: order.append(what), main=main) == []
    assert order == ["main", "cheap", "main", "main", "costly", "main"]
    main, costly = Fake("main", 30.0, [math.inf] * 9, time), Fake("costly", 20.0, [0.9], time)
    clock = _clock(100, time)
    (missing,) = spend([main, costly], clock, lambda what, share: None, main=main)
    assert missing.part == "costly" and clock.spent == 90  # as many as fit


def test_slices_do_not_depend_on_where_the_sample_ends() -> None:
    ends = [0]
    while ends[-1] < 500:
        ends.append(slice_end(ends[-1], 10**6, (8, 8, 16)))
    assert ends[:7] == [0, 8, 16, 32, 64, 96, 128]
    assert slice_end(32, 40, (8, 8, 16)) == 40

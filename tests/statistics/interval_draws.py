"""Simulate the intervals and p-values that a page prints, where the truth is known.

Networks, images and their errors are drawn from a model whose truth is known, the very functions that fill the tables'
cells make an interval of each draw, and the share of draws is counted whose interval holds the truth. An image has a
hardness that all networks share: a network errs where the sum of that and of its own share exceeds a limit, so that two
seeds tend to err on the same images. The likeness is the correlation of these sums. With a likeness of .5 and errors on
2 % of the images, the errors of two seeds correlate at .2; with .85 at .5. Of a p-value the share of draws with
p <= .05 is counted where there is no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from intriguing.analysis.cells import distortion_cell, error_cell, excess_cell, printed_interval, printed_mean_interval
from intriguing.results import Cell
from intriguing.statistics.counts import Count, paired_counts
from intriguing.statistics.intervals import (
    Interval,
    bootstrap_interval,
    intervals_meet,
    t_interval,
    wilson_interval,
)
from intriguing.statistics.tests import paired_p, permutation_p, rotation_p, sign_p

_NOWHERE_NEAR = Interval(float("nan"), float("nan"))  # holds nothing
Draw = Callable[[np.random.Generator], tuple[Interval, float]]
"""Draws once: the interval and the truth, in one unit."""


class Scenario(NamedTuple):
    """One line of the table: which interval, of what sample, and how to draw it."""

    interval: str
    sample: str
    draw: Draw


def coverage(scenario: Scenario, repeats: int, seed: int = 0) -> float:
    """Share of draws whose interval holds the truth."""
    generator = np.random.default_rng(seed)
    held = 0
    for _ in range(repeats):
        interval, truth = scenario.draw(generator)
        held += interval.low <= truth <= interval.high
    return held / repeats


def scenarios() -> Iterator[Scenario]:
    """All that the tables print, at the sizes that the studies have."""
    for n, seeds, error, likeness in (
        *((256, 1, error, 0.0) for error in (0.02, 0.1, 0.5)),
        *((128, 3, 0.1, 0.5), (256, 3, 0.02, 0.85), (256, 3, 0.1, 0.5), (256, 5, 0.1, 0.85), (256, 3, 0.5, 0.85)),
    ):
        sample = _sample(n, seeds, likeness, f"error {100 * error:g} %")
        yield Scenario("error, by image", sample, _error(n, seeds, error, likeness, by_image=True))
    yield Scenario("error, by image", "256 images each of 3 seeds, drawn anew, error 10 %", _other_images(256, 3, 0.1))
    for n, seeds, error, likeness in (
        *((10_000, 1, 0.016, 0.0), (360, 3, 0.1, 0.5), (10_000, 3, 0.016, 0.5), (10_000, 3, 0.016, 0.85)),
        (10_000, 3, 0.016, 1.0),
    ):
        sample = _sample(n, seeds, likeness, f"error {100 * error:g} %")
        yield Scenario("error, counts only", sample, _error(n, seeds, error, likeness, by_image=False))
    for n, seeds, clean, adversarial, likeness in (
        *((256, 1, 0.02, 0.02, 0.5), (256, 1, 0.02, 0.2, 0.5), (128, 1, 0.05, 0.5, 0.5)),
        *((256, 3, 0.02, 0.1, 0.85), (256, 3, 0.02, 0.3, 0.5), (128, 3, 0.05, 0.5, 0.5)),
    ):
        sample = _sample(n, seeds, likeness, f"errors {100 * adversarial:g} and {100 * clean:g} %")
        yield Scenario("excess", sample, _excess(n, seeds, clean, adversarial, likeness))
    for n, seeds, likeness in ((128, 1, 0.0), (256, 1, 0.0), (32, 3, 0.85), (256, 3, 0.5), (256, 3, 0.85)):
        yield Scenario("mean distortion", _sample(n, seeds, likeness, "lognormal"), _distortion(n, seeds, likeness))
    for n, error, digits in ((256, 0.05, 0), (256, 0.2, 1), (10_000, 0.016, 2), (60_000, 0.001, 0)):
        sample = f"{n:,} images, error {100 * error:g} %, printed with {digits} decimals"
        yield Scenario("the paper's error", sample, _printed(n, error, digits))
    yield Scenario("the paper's distortion", "256 images, lognormal, printed with 3 decimals", _printed_mean())
    yield Scenario("two intervals meet (✓)", "256 images on either side, error 10 %", _meeting(256, 0.1))


def tests() -> Iterator[Scenario]:
    """All p-values that a page prints, where there is no effect: the draw's "interval" holds 0 where p <= .05."""
    for num in (99, 999):
        yield Scenario("rotation test, two-sided", f"the units among {num} random bases", _rotation(num))
    yield Scenario("random image sets, one-sided", "one row among 999 sets, scores with ties", _image_sets())
    for seeds in (3, 5):
        yield Scenario("paired t-test, two-sided", f"{seeds} seeds", _paired(seeds))
    for seeds in (1, 3):
        yield Scenario(
            "sign test of certified shares", f"256 images, {seeds} seeds, 20 % certified", _signs(256, seeds)
        )


def more_scenarios() -> Iterator[Scenario]:
    """Means over directions of a layer, over random bases, and over seeds."""
    for what, draw in (
        ("normal", lambda g: g.standard_normal(32)),
        ("exponential, less its mean", lambda g: g.exponential(size=32) - 1),
        ("shares of nine, less their mean", lambda g: g.binomial(9, 0.5, size=32) / 9 - 0.5),
    ):
        yield Scenario("mean over directions", f"32 directions, {what}", _directions(draw))
    for n in (3, 5):
        yield Scenario("mean over bases or seeds", f"{n} of them", _few(n))


def _directions(sample: Callable[[np.random.Generator], np.ndarray]) -> Draw:
    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        found = bootstrap_interval(torch.from_numpy(sample(generator)), num=400, seed=int(generator.integers(2**31)))
        return found or _NOWHERE_NEAR, 0

    return draw


def _few(n: int) -> Draw:
    return lambda generator: (t_interval(torch.from_numpy(generator.standard_normal(n))) or _NOWHERE_NEAR, 0)


def _rotation(num: int) -> Draw:
    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        scores = torch.from_numpy(generator.standard_normal(num + 1))
        return _rejected(rotation_p(float(scores[0]), scores[1:]))

    return draw


def _image_sets() -> Draw:
    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        scores = torch.from_numpy(generator.binomial(9, 0.3, size=1000) / 9)
        return _rejected(float(permutation_p(scores[:1], scores[1:])))

    return draw


def _paired(seeds: int) -> Draw:
    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        first, second = generator.standard_normal((2, seeds)) + generator.standard_normal(seeds)
        return _rejected(paired_p(first.tolist(), second.tolist()))

    return draw


def _signs(n: int, seeds: int) -> Draw:
    limit = float(stats.norm.isf(0.2))

    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        certified = (_latent(generator, n, 2 * seeds, 0.5) > limit).astype(int)
        return _rejected(sign_p((certified[:seeds] - certified[seeds:]).sum(0).tolist()))

    return draw


def _rejected(p: float | None) -> tuple[Interval, float]:
    return (Interval(0, 0) if p is not None and p <= 0.05 + 1e-9 else _NOWHERE_NEAR), 0


def _sample(n: int, seeds: int, likeness: float, what: str) -> str:
    same = f"the same {n:,} images for {seeds} seeds, likeness {likeness:g}" if seeds > 1 else f"{n:,} images"
    return f"{same}, {what}"


def _latent(generator: np.random.Generator, n: int, seeds: int, likeness: float) -> np.ndarray:
    """(seeds, n) standard normal, correlated between the seeds."""
    image, own = generator.standard_normal(n), generator.standard_normal((seeds, n))
    return np.sqrt(likeness) * image + np.sqrt(1 - likeness) * own


def _error(n: int, seeds: int, error: float, likeness: float, *, by_image: bool) -> Draw:
    limit = float(stats.norm.isf(error))
    indices = torch.arange(n)

    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        wrong = torch.from_numpy(_latent(generator, n, seeds, likeness) > limit)
        counts = [(seed, Count.of(row)) for seed, row in enumerate(wrong)]
        known = [(row, indices) for row in wrong] if by_image else []
        return _interval(error_cell(counts, by_image=known)), 100 * error

    return draw


def _other_images(n: int, seeds: int, error: float) -> Draw:
    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        wrong = torch.from_numpy(generator.random((seeds, n)) < error)
        counts = [(seed, Count.of(row)) for seed, row in enumerate(wrong)]
        known = [(row, n * seed + torch.arange(n)) for seed, row in enumerate(wrong)]
        return _interval(error_cell(counts, by_image=known)), 100 * error

    return draw


def _excess(n: int, seeds: int, clean: float, adversarial: float, likeness: float) -> Draw:
    limits, indices = stats.norm.isf([adversarial, clean]), torch.arange(n)

    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        image = _latent(generator, n, 2 * seeds, likeness)
        first, second = torch.from_numpy(image[:seeds] > limits[0]), torch.from_numpy(image[seeds:] > limits[1])
        counts = [paired_counts(a, b) for a, b in zip(first, second, strict=True)]
        known = [(a.int() - b.int(), indices) for a, b in zip(first, second, strict=True)]
        return _interval(excess_cell(counts, by_image=known)), 100 * (adversarial - clean)

    return draw


def _distortion(n: int, seeds: int, likeness: float) -> Draw:
    indices, spread = [torch.arange(n)] * seeds, 0.4  # of the logarithm; adversarial distortions have .3 to .45
    truth = 0.06 * float(np.exp(spread**2 / 2))

    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        sizes: Tensor = torch.from_numpy(0.06 * np.exp(spread * _latent(generator, n, seeds, likeness)))
        return _interval(distortion_cell(list(sizes), indices=indices)), truth

    return draw


def _printed(n: int, error: float, digits: int) -> Draw:
    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        percent = 100 * generator.binomial(n, error) / n
        return printed_interval(round(percent, digits) if digits else round(percent), n), 100 * error

    return draw


def _printed_mean() -> Draw:
    """The paper's mean is of other images than those that its spread is taken from."""
    spread = 0.4
    truth = 0.06 * float(np.exp(spread**2 / 2))

    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        theirs, ours = 0.06 * np.exp(spread * generator.standard_normal((2, 256)))
        return printed_mean_interval(round(float(theirs.mean()), 3), float(ours.std(ddof=1))), truth

    return draw


def _meeting(n: int, error: float) -> Draw:
    """Whether our interval and one as the paper's meet where the truth is one: the interval holds 0 where they do."""

    def draw(generator: np.random.Generator) -> tuple[Interval, float]:
        ours = Interval(*(100 * end for end in wilson_interval(generator.binomial(n, error), n)))
        theirs = printed_interval(round(100 * generator.binomial(n, error) / n, 1), n)
        return Interval(0, 0) if intervals_meet(ours, theirs) else Interval(1, 1), 0

    return draw


def _interval(cell: Cell | None) -> Interval:
    assert cell is not None and cell.interval is not None
    return cell.interval

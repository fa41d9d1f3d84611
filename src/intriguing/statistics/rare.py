"""Estimate small probabilities under a Gaussian by multilevel splitting."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from intriguing.statistics.intervals import Interval, mean_interval
from intriguing.validation import whole_number


@dataclass(frozen=True)
class RareProbability:
    """Hold an estimate of a small probability.

    Attributes:
        value: mean over independent runs.
        interval: 95 % interval, Student's t over the runs, cut at 0 and 1.
        runs: (R,) float64, the estimate of each run; 0 where a run met no hit above ``lowest``.
        lowest: the probability below which runs stop.
        num_scores: draws whose score was computed.
    """

    value: float
    interval: Interval
    runs: Tensor
    lowest: float
    num_scores: int

    @property
    def is_below(self) -> bool:
        """Whether the estimate is below the probability at which runs stop."""
        return self.value < self.lowest


def rare_probability(
    score: Callable[[Tensor], Tensor],
    num_values: int,
    *,
    lowest: float = 1e-6,
    num_runs: int = 4,
    num_draws: int = 500,
    num_steps: int = 10,
    keep: float = 0.1,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> RareProbability:
    """Estimate P(score(Z) <= 0) for Z ~ N(0, I) by multilevel splitting (Au and Beck 2001, "subset simulation").

    The event is the last of nested events score(Z) <= level. Each level is the score that a share ``keep`` of the draws
    reaches, and the draws beyond it are multiplied by Markov chains that leave the Gaussian unchanged
    (z' = sqrt(1 - b^2) z + b w). The estimate is a product of conditional shares. Independent runs give its error.

    Args:
        score: (M, D) draws to (M,) finite scores; the event is a score of at most 0.
        num_values: D.
        lowest: runs stop once their estimate is below this.
        num_runs: R, independent runs, at least 2.
        num_draws: draws of each run on each level, at least 20.
        num_steps: steps of each chain on each level.
        keep: share of the draws from which the next level starts, in (0, 0.5].
        generator: of the draws, on the CPU; None uses PyTorch's global one.
        dtype: of the draws.

    Returns:
        The estimate with its interval.

    Raises:
        ValueError: a setting out of range, or scores that are not finite numbers (M,).

    Example:
        >>> import torch
        >>> found = rare_probability(lambda z: 3 - z[:, 0], 5, generator=torch.Generator().manual_seed(0))
        >>> found.interval.low < 0.00135 < found.interval.high  # P(Z > 3)
        True
    """
    whole_number("num_values", num_values, 1)
    whole_number("num_runs", num_runs, 2)
    whole_number("num_draws", num_draws, 20)
    whole_number("num_steps", num_steps, 1)
    if not (0 < keep <= 0.5 and 0 < lowest < 1):
        raise ValueError(f"keep must lie in (0, 0.5] and lowest in (0, 1), got {keep} and {lowest}")
    kept = max(2, round(keep * num_draws))
    estimates = torch.zeros(num_runs, dtype=torch.float64)
    factor, running = 1.0, torch.arange(num_runs)
    draws = torch.randn(num_runs, num_draws, num_values, generator=generator, dtype=dtype)
    scores, used = _scores(score, draws), num_runs * num_draws
    width = torch.full((num_runs,), 0.5)
    while True:
        hits = (scores <= 0).double().mean(1)
        estimates[running] = factor * hits
        going = hits < kept / num_draws
        if not bool(going.any()) or factor * kept / num_draws < lowest:
            break
        running, draws, scores, width = running[going], draws[going], scores[going], width[going]
        factor *= kept / num_draws
        levels, order = scores.sort(1)
        level = levels[:, kept - 1].clamp_min(0)
        rows = order[:, torch.arange(num_draws) % kept]  # each of the best draws starts equally many chains
        draws, scores = draws.gather(1, rows[:, :, None].expand_as(draws)), scores.gather(1, rows)
        for _ in range(num_steps):
            noise = torch.randn(draws.shape, generator=generator, dtype=dtype)
            step = width.to(dtype)[:, None, None]
            moved = (1 - step.square()).sqrt() * draws + step * noise
            found = _scores(score, moved)
            accepted = found <= level[:, None]
            draws, scores = torch.where(accepted[:, :, None], moved, draws), torch.where(accepted, found, scores)
            width = (width * torch.exp(accepted.float().mean(1) - 0.3)).clamp(0.01, 0.99)
            used += accepted.numel()
    mean = float(estimates.mean())
    low, high = mean_interval(mean, float(estimates.std()), num_runs)
    return RareProbability(mean, Interval(max(0.0, low), min(1.0, high)), estimates, lowest, used)


def _scores(score: Callable[[Tensor], Tensor], draws: Tensor) -> Tensor:
    """Compute the scores (R, M) of draws (R, M, D)."""
    found = score(draws.flatten(0, 1)).detach().cpu().double()
    if found.shape != (math.prod(draws.shape[:2]),) or not bool(found.isfinite().all()):
        raise ValueError(f"score must return one finite number for each draw, got shape {tuple(found.shape)}")
    return found.view(draws.shape[:2])

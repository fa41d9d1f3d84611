"""Whether the attack is strong: two efforts, and the usual signs of masked gradients (Carlini et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from intriguing.analysis.card.numbers import Number, mean_number, share
from intriguing.analysis.card.parts.distances import Attack, attacked
from intriguing.analysis.card.parts.sliced import Sliced
from intriguing.analysis.card.subject import Subject
from intriguing.analysis.card.values import Sign, Strength
from intriguing.metrics import equal_norm_gaussian
from intriguing.nn import evaluating, frozen, pick_output
from intriguing.statistics.counts import paired_counts
from intriguing.statistics.intervals import excess_interval

GREATER = {"fast": "default", "default": "thorough"}
_STEPS = 10  # of the iterative attack
_DRAWS = 10  # of random noise
_LARGER = 4.0  # times the norm, at which the attack must fool no fewer images
_TRY = 0.05  # times the norm: a step that must lower the margin
_SEVERAL = 0.05  # share of images from which a sign counts


class Efforts(Sliced):
    """Attack some of the images again, with a greater effort."""

    name = "attack strength"
    sizes = (4, 4, 8)

    def __init__(self, subject: Subject, attack: Attack) -> None:
        super().__init__(subject, lambda: (7 if attack.effort == "default" else 5) * attack.pace)
        self.attack = attack
        self.l2 = torch.zeros(0, dtype=torch.float64)

    @property
    def most(self) -> int:
        """Images that were attacked with the smaller effort, at most 64; none where there is no greater effort."""
        return min(64, self.attack.rows) if self.attack.effort in GREATER else 0

    def measure(self, start: int, end: int) -> None:
        """Attack rows."""
        result = attacked(self.subject, start, end, effort=GREATER[self.attack.effort])
        self.l2 = torch.cat([self.l2, result.l2.double().cpu()])

    def width(self) -> float:
        """Return the length of the interval of the mean share."""
        found = self.strength()
        return 1.0 if found is None else min(1.0, found.shorter.width)

    def strength(self) -> Strength | None:
        """Compare the distances; None for fewer than two images that are right."""
        before = self.attack.l2[: self.rows]
        right = before > 0
        if int(right.sum()) < 2:
            return None
        first, second = before[right], torch.minimum(before, self.l2)[right]
        shorter = torch.where(first.isinf(), second.isfinite().double(), 1 - second / first)
        found = mean_number(shorter)
        bounded = Number(found.value, max(0.0, found.low), min(1.0, found.high), found.n)
        return Strength(GREATER[self.attack.effort], bounded, float(shorter.max()))


class Found(NamedTuple):
    """Hold what the tests found on some images: (N,) bool each, and the nearest distance of these attacks."""

    zero: Tensor
    descends: Tensor
    one_step: Tensor
    iterative: Tensor
    larger: Tensor
    noise: Tensor
    nearer: Tensor


class Signs(Sliced):
    """Try simple attacks at one norm, and look at the gradients."""

    name = "signs of masked gradients"

    def __init__(self, subject: Subject, attack: Attack, guess: Callable[[], float]) -> None:
        super().__init__(subject, guess)
        self.attack = attack
        self.found: list[Found] = []

    @property
    def most(self) -> int:
        """Images that were attacked, at most 128; none where no example gave a norm."""
        return 0 if self.attack.norm is None else min(128, self.attack.rows)

    def measure(self, start: int, end: int) -> None:
        """Test the rows that are right."""
        norm = self.attack.norm
        assert norm is not None
        rows = (self.attack.l2[start:end] > 0).nonzero().flatten() + start
        images, labels = self.subject.images[rows], self.subject.labels[rows]
        if not len(rows):
            return
        for some in torch.arange(len(rows)).split(self.subject.batch_size):
            part, classes = images[some].to(self.subject.device), labels[some].to(self.subject.device)
            noise = self.subject.generator("signs", start, int(some[0]))
            self.found.append(_tested(self.subject, part, classes, norm, self.attack.l2[rows[some]], noise))

    def width(self) -> float:
        """Return the mean length of the intervals."""
        found = self.signs()
        return sum(one.value.width for one in found) / len(found) if found else 1.0

    def signs(self) -> tuple[Sign, ...]:
        """List the signs, each with its number."""
        if not sum(len(one.zero) for one in self.found):
            return ()
        found = Found(*(torch.cat(one) for one in zip(*self.found, strict=True)))
        at = f"L2 {self.attack.norm:g}"
        right = self.attack.l2[self.attack.l2 > 0]
        unbounded = share(right.isinf())
        one, ten, noise, larger = (share(part) for part in (found.one_step, found.iterative, found.noise, found.larger))
        zero, flat, nearer = share(found.zero), share(~found.descends & ~found.zero), share(found.nearer)

        def beats(first: Tensor, second: Tensor) -> bool:
            return excess_interval(paired_counts(first, second)).low > 0

        def percent(number: Number) -> str:
            return f"{100 * number.value:.0f} %"

        return (
            Sign("zero_gradient", f"{percent(zero)} of the images have a gradient of zero; none should", zero,
                 zero.value >= _SEVERAL),
            Sign("no_descent", f"for {percent(flat)} a small step along the gradient does not lower the margin; for "
                 "nearly all it should", flat, flat.value >= _SEVERAL),
            Sign("unbounded", f"without a limit the attack leaves {percent(unbounded)} of the images unfooled; it "
                 "should fool all", unbounded, unbounded.value > 0),
            Sign("one_step", f"at {at} one step along the gradient fools {percent(one)}, ten steps {percent(ten)}; ten "
                 "should fool more", one, beats(found.one_step, found.iterative)),
            Sign("noise", f"at {at} the best of ten random perturbations fools {percent(noise)}, ten steps along the "
                 f"gradient {percent(ten)}; the gradient should fool more", noise, beats(found.noise, found.iterative)),
            Sign("larger", f"at {_LARGER:g} times this norm ten steps fool {percent(larger)}; it should be more",
                 larger, beats(found.iterative, found.larger)),
            Sign("nearer", f"these simple attacks find a nearer example than the strong one for {percent(nearer)}; for "
                 "nearly none they should", nearer, nearer.value >= _SEVERAL),
        )  # fmt: skip


def _tested(
    subject: Subject, images: Tensor, labels: Tensor, norm: float, nearest: Tensor, noise: torch.Generator
) -> Found:
    gradient = _gradients(subject, images, labels)
    sizes = gradient.flatten(1).norm(dim=1)
    zero = ~(sizes > 0) | ~sizes.isfinite()
    clean = _margins(subject, images, labels)
    small = _moved(images, gradient, images, _TRY * norm)
    descends = _margins(subject, small, labels) < clean
    single = _moved(images, gradient, images, norm)
    one = _margins(subject, single, labels) < 0
    best = torch.where(one, (single - images).flatten(1).norm(dim=1), torch.inf)
    iterative, distance = _iterated(subject, images, labels, norm)
    best = torch.minimum(best, distance)
    larger, distance = _iterated(subject, images, labels, _LARGER * norm)
    best = torch.minimum(best, distance)
    by_noise = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    rms = torch.full((len(images),), norm / math.sqrt(images[0].numel()))
    for _ in range(_DRAWS):
        noisy = equal_norm_gaussian(images.cpu(), rms, generator=noise).to(images.device).clamp(0, 1)
        fooled = _margins(subject, noisy, labels) < 0
        by_noise |= fooled
        best = torch.minimum(best, torch.where(fooled, (noisy - images).flatten(1).norm(dim=1), torch.inf))
    nearer = best.cpu().double() < nearest * (1 - 1e-4)
    return Found(*(part.cpu() for part in (zero, descends, one, iterative, larger, by_noise, nearer)))


def _iterated(subject: Subject, images: Tensor, labels: Tensor, norm: float) -> tuple[Tensor, Tensor]:
    """Take steps along the gradient of the margin within a ball (projected gradient descent).

    Returns:
        Which images are fooled, and the distances of these examples, inf where there is none.
    """
    moved, best = images.clone(), torch.full((len(images),), torch.inf, device=images.device)
    for _ in range(_STEPS):
        moved = _moved(moved, _gradients(subject, moved, labels), images, norm, step=2.5 * norm / _STEPS)
        fooled = _margins(subject, moved, labels) < 0
        best = torch.minimum(best, torch.where(fooled, (moved - images).flatten(1).norm(dim=1), torch.inf))
    return best.isfinite(), best


def _moved(images: Tensor, gradient: Tensor, centre: Tensor, norm: float, step: float | None = None) -> Tensor:
    """Step against the gradient, back into the ball around the centre, and into [0, 1]."""
    shape = (-1, *[1] * (images.dim() - 1))
    size = gradient.flatten(1).norm(dim=1).clamp(min=1e-30).view(shape)
    moved = images - (norm if step is None else step) * torch.nan_to_num(gradient / size)
    away = moved - centre
    length = away.flatten(1).norm(dim=1).clamp(min=1e-30).view(shape)
    return (centre + away * (norm / length).clamp(max=1.0)).clamp(0, 1)


def _margins(subject: Subject, images: Tensor, labels: Tensor) -> Tensor:
    """Return the label's logit minus the largest other one (N,)."""
    return _margin(subject.logits(images).to(labels.device), labels)


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)


def _gradients(subject: Subject, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradients of the margins with respect to the images (N, ...); zeros where there are none."""
    subject.passes.forwards += len(images)
    subject.passes.backwards += len(images)
    with torch.enable_grad(), evaluating(subject.model), frozen(subject.model):
        x = images.detach().clone().requires_grad_()
        logits = pick_output(subject.model(x.clone()))
        if not logits.requires_grad:
            return torch.zeros_like(images)
        (found,) = torch.autograd.grad(_margin(logits, labels).sum(), x, allow_unused=True)
    return torch.zeros_like(images) if found is None else found.detach()

"""Count what random noise does to a network: hits at a norm, errors at a standard deviation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from intriguing.metrics import wrong
from intriguing.nn import evaluating, pick_output
from intriguing.statistics.noise import predicted_distance
from intriguing.statistics.rare import RareProbability, rare_probability

_BATCH = 2048  # images per forward pass


def margins(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Compute the logit of the label minus the largest other logit: (N,), at most 0 where the network errs.

    Args:
        model: images (N, ...) to logits (N, K), K at least 2.
        images: (N, ...).
        labels: (N,) integers.
    """
    found = []
    with torch.no_grad(), evaluating(model):
        for some, label in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
            logits = pick_output(model(some))
            own = logits.gather(1, label[:, None]).squeeze(1)
            found.append(own - logits.scatter(1, label[:, None], -torch.inf).amax(1))
    return torch.cat(found)


def hit_probability(
    model: nn.Module,
    image: Tensor,
    label: int,
    norm: float,
    *,
    lowest: float = 1e-6,
    num_runs: int = 4,
    num_draws: int = 250,
    num_steps: int = 8,
    generator: torch.Generator | None = None,
) -> RareProbability:
    """Estimate the probability that random noise of a norm makes a network err on an image, by multilevel splitting.

    The paper guesses that adversarial examples are a dense set of negligible probability, like rational numbers
    (section 6); this makes a number of it. The direction of the noise is uniform, and nothing is clipped to [0, 1].

    Args:
        model: images (N, ...) to logits (N, K).
        image: (...), one image without a batch dimension.
        label: its class.
        norm: L2 norm of the noise.
        lowest: runs stop below this probability.
        num_runs: independent runs, from which the interval is made.
        num_draws: draws of each run on each level.
        num_steps: steps of each chain on each level.
        generator: random generator on the CPU.

    Returns:
        The probability with its interval.

    Example:
        >>> import torch
        >>> def network(images):  # class 1 where the first pixel is above 0.1
        ...     first = images.flatten(1)[:, 0]
        ...     return torch.stack([0.1 - first, first - 0.1], dim=1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> found = hit_probability(network, torch.zeros(1, 1, 2), 0, 0.2, generator=generator)
        >>> found.interval.low < 1 / 3 < found.interval.high  # a third of the circle of radius 0.2
        True
    """

    def score(draws: Tensor) -> Tensor:
        directions = draws / draws.norm(dim=1, keepdim=True).clamp_min(torch.finfo(draws.dtype).tiny)
        images = image + norm * directions.to(image).view(-1, *image.shape)
        return margins(model, images, torch.full((len(draws),), label, device=image.device))

    return rare_probability(
        score,
        image.numel(),
        lowest=lowest,
        num_runs=num_runs,
        num_draws=num_draws,
        num_steps=num_steps,
        generator=generator,
    )


def noise_errors(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    stddev: float,
    *,
    num_draws: int = 200,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Compute the share of draws of Gaussian noise under which a network errs, image by image.

    Args:
        model: images (N, ...) to logits (N, K).
        images: (N, ...).
        labels: (N,) integers.
        stddev: standard deviation of the noise in every pixel; nothing is clipped.
        num_draws: draws for each image.
        generator: random generator on the CPU.

    Returns:
        (N,) float64.
    """
    shares = []
    with torch.no_grad(), evaluating(model):
        for image, label in zip(images, labels, strict=True):
            count = 0
            for size in _sizes(num_draws):
                noise = torch.randn(size, *image.shape, generator=generator).to(image)
                count += int(wrong(pick_output(model(image + stddev * noise)), label.expand(size)).sum())
            shares.append(count / num_draws)
    return torch.tensor(shares, dtype=torch.float64)


def noise_distance(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    stddevs: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4),
    num_draws: int = 200,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Predict the L2 distance of each image to the nearest error from a network's error in noise (Ford et al. 2019).

    The prediction uses the smallest standard deviation at which at least 2 % of the draws err.

    Args:
        model: images (N, ...) to logits (N, K).
        images: (N, ...).
        labels: (N,) integers.
        stddevs: standard deviations of the noise, tried from the smallest on.
        num_draws: draws for each image and standard deviation.
        generator: random generator on the CPU.

    Returns:
        (N,) float64: 0 where half of the draws or more err, nan where at every standard deviation fewer than 2 % err.

    Example:
        >>> import torch
        >>> def network(images):  # class 1 where the first pixel is above 0.5
        ...     first = images.flatten(1)[:, 0]
        ...     return torch.stack([0.5 - first, first - 0.5], dim=1)
        >>> images, labels = torch.full((1, 1, 2, 2), 0.3), torch.tensor([0])
        >>> found = noise_distance(network, images, labels, num_draws=4000, generator=torch.Generator().manual_seed(0))
        >>> round(found.item(), 1)
        0.2
    """
    found = torch.full((len(images),), torch.nan, dtype=torch.float64)
    for stddev in sorted(stddevs):
        rows = found.isnan().nonzero().flatten()
        if not len(rows):
            break
        errors = noise_errors(model, images[rows], labels[rows], stddev, num_draws=num_draws, generator=generator)
        enough = errors >= 0.02
        found[rows[enough]] = predicted_distance(errors[enough], stddev)
    return found


def _sizes(count: int) -> list[int]:
    return [min(_BATCH, count - done) for done in range(0, count, _BATCH)]

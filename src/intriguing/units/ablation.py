"""Measure the accuracy lost when a direction of a layer is removed: a unit, or a random direction of equal variance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from intriguing.metrics import wrong
from intriguing.nn import evaluating
from intriguing.nn.evaluation import count_wrong
from intriguing.statistics.counts import Count
from intriguing.units.activations import Batches

_COPIES = 2**25  # activations in memory while several directions are removed together


def equal_variance_directions(
    covariance: Tensor, variances: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw random directions along which activations have given variances.

    Each direction is a Gaussian vector in the principal axes, weighted by the s-th power of the principal standard
    deviations: s = 0 gives the isotropic direction, a larger s prefers axes with more variance. Bisection finds the s
    that gives the variance, so the direction deviates from the isotropic one no more than necessary.

    Args:
        covariance: (C, C), covariance of the activations.
        variances: (M,), each between the smallest and the largest principal variance.
        generator: random generator; None uses PyTorch's global one.

    Returns:
        (M, C), rows v of length 1 with v' covariance v = variance; outside the range, the variance at its nearest end.
    """
    values, axes = torch.linalg.eigh(covariance.double())
    values = values.clamp_min(float(values.max()) * 1e-12)
    squares = torch.randn(len(variances), len(values), generator=generator, dtype=torch.float64)
    required, logs = variances.double(), values.log()
    low, high = (torch.full_like(required, end) for end in (-200.0, 200.0))
    for _ in range(100):
        middle = (low + high) / 2
        weights = _weights(squares, logs, middle)
        more = (weights.square() @ values) < required
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return (_weights(squares, logs, (low + high) / 2) @ axes.T).float()


def _weights(gauss: Tensor, logs: Tensor, powers: Tensor) -> Tensor:
    """Compute rows of length 1 (M, C): gauss * values^(s / 2), without overflow."""
    exponent = 0.5 * powers[:, None] * logs
    rows = gauss * (exponent - exponent.amax(1, keepdim=True)).exp()
    return rows / rows.norm(dim=1, keepdim=True)


@dataclass(frozen=True)
class Ablation:
    """Hold the numbers of errors of a network on one set of images, whole and with one direction removed.

    Attributes:
        whole: images that the whole network misclassifies.
        removed: (M,) number of images that it misclassifies without each direction.
    """

    whole: Count
    removed: Tensor

    @property
    def drop(self) -> Tensor:
        """Return the decrease in accuracy (M,), as a fraction; negative where accuracy increases."""
        return (self.removed - self.whole.k).double() / self.whole.n


def ablate(model: nn.Module, layer: str, batches: Batches, directions: Tensor, mean: Tensor) -> Ablation:
    """Count errors with each direction removed in turn: a - (<a, v> - <mean, v>) v at every position.

    The mean along the direction remains, so that the layers above see no unfamiliar offset. The layers below run once
    for all directions.

    Args:
        model: images to logits (N, K), each image independently of the others. It runs in evaluation mode.
        layer: name of the module whose output (N, C), (N, tokens, C) or (N, C, H, W) is changed; the network must call
            it once per forward pass.
        batches: images, which are not modified, and labels of any integer dtype.
        directions: (M, C) of length 1.
        mean: (C,) mean activation.

    Returns:
        The numbers of errors.

    Raises:
        TypeError: labels or logits have a wrong type.
        ValueError: the layer is unknown, directions or mean do not fit its channels, a logit is nan, or there is no
            image.
    """
    modules = dict(model.named_modules())
    if layer not in modules:
        raise ValueError(f"no layer {layer}; known: {', '.join(name for name in modules if name)}")
    if directions.dim() != 2 or mean.shape != directions.shape[1:]:
        raise ValueError(f"directions must be (M, C) and mean (C,), got {tuple(directions.shape)}, {tuple(mean.shape)}")
    whole = Count(0, 0)
    removed = torch.zeros(len(directions), dtype=torch.int64)
    for images, labels in batches:
        with torch.no_grad(), evaluating(model):
            # A module may write to its input, so each pass gets a copy.
            whole += count_wrong(model, [(images.clone(), labels)])
            with _size_of(layer, modules[layer]) as size:
                model(images[:1].clone())
            per_pass = max(1, _COPIES // max(1, size[0]) // max(1, len(labels)))
            for first in range(0, len(directions), per_pass):
                part = directions[first : first + per_pass]
                with _removing(modules[layer], part, mean):
                    errors = wrong(model(images.clone()), labels.repeat(len(part)))
                removed[first : first + per_pass] += errors.view(len(part), len(labels)).sum(1).cpu()
    if whole.n == 0:
        raise ValueError("expected at least one image")
    return Ablation(whole, removed)


@contextmanager
def _size_of(layer: str, module: nn.Module) -> Iterator[list[int]]:
    """Record, inside the context, the number of values that the module returns.

    Raises:
        ValueError: the output has a wrong shape, or the module was not called exactly once.
    """
    sizes: list[int] = []

    def record(module: nn.Module, inputs: tuple, output: object) -> None:
        """Check the module's output and record its size."""
        if not isinstance(output, Tensor) or output.dim() not in (2, 3, 4):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"the layer {layer} must return (N, C), (N, tokens, C) or (N, C, H, W), got {got}")
        sizes.append(output.numel())

    handle = module.register_forward_hook(record)
    try:
        yield sizes
    finally:
        handle.remove()
    if len(sizes) != 1:
        raise ValueError(f"the network must call its layer {layer} once per forward pass, got {len(sizes)} calls")


@contextmanager
def _removing(module: nn.Module, directions: Tensor, mean: Tensor) -> Iterator[None]:
    """Make the module, inside the context, return M copies of its output, each without one direction: (M * N, ...)."""

    def remove(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        """Replace the module's output."""
        channels_last = output.movedim(1, -1) if output.dim() == 4 else output
        if channels_last.shape[-1] != directions.shape[1]:
            raise ValueError(f"directions have {directions.shape[1]} channels, the layer {channels_last.shape[-1]}")
        shape = (len(directions), *[1] * (channels_last.dim() - 1), directions.shape[1])
        values = channels_last.to(torch.promote_types(output.dtype, torch.float32))
        rows, offset = directions.to(values), mean.to(values)
        along = torch.einsum("...c,mc->m...", values - offset, rows)
        remaining = (values - along[..., None] * rows.view(shape)).to(output.dtype)
        remaining = remaining.flatten(0, 1)
        return remaining.movedim(-1, 1) if output.dim() == 4 else remaining

    handle = module.register_forward_hook(remove)
    try:
        yield
    finally:
        handle.remove()

"""What a network loses when a direction of a layer is taken away: a unit, or a random direction of equal variance."""

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

_COPIES = 2**25  # activations held at once while several directions are removed side by side


def equal_variance_directions(
    covariance: Tensor, variances: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Random directions along which activations vary as much as they are told to.

    Each is a Gaussian vector g in the principal axes, weighted by the s-th power of the principal variances: s = 0 is
    the isotropic direction, a larger s leans towards where activations vary more, and the s is taken (by bisection)
    that gives the wanted variance. So it leans no more than it must.

    Args:
        covariance: (C, C).
        variances: (M,), each between the smallest and the largest principal variance.
        generator: source of randomness.

    Returns:
        (M, C) of length 1; v' covariance v = variances (at the nearest end where it lies outside the range).
    """
    values, axes = torch.linalg.eigh(covariance.double())
    values = values.clamp_min(float(values.max()) * 1e-12)
    squares = torch.randn(len(variances), len(values), generator=generator, dtype=torch.float64)
    wanted, logs = variances.double(), values.log()
    low, high = (torch.full_like(wanted, end) for end in (-200.0, 200.0))
    for _ in range(100):
        middle = (low + high) / 2
        weights = _weights(squares, logs, middle)
        more = (weights.square() @ values) < wanted
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return (_weights(squares, logs, (low + high) / 2) @ axes.T).float()


def _weights(gauss: Tensor, logs: Tensor, powers: Tensor) -> Tensor:
    """(M, C) of length 1: gauss * values^(s / 2), without overflow."""
    exponent = 0.5 * powers[:, None] * logs
    rows = gauss * (exponent - exponent.amax(1, keepdim=True)).exp()
    return rows / rows.norm(dim=1, keepdim=True)


@dataclass(frozen=True)
class Ablation:
    """Hold the errors of a network on the same images, whole and with one direction removed.

    Attributes:
        whole: images that the whole network gets wrong.
        removed: (M,) number of images that it gets wrong without each direction.
    """

    whole: Count
    removed: Tensor

    @property
    def drop(self) -> Tensor:
        """(M,) fall of accuracy, as a fraction; negative where it rises."""
        return (self.removed - self.whole.k).double() / self.whole.n


def ablate(model: nn.Module, layer: str, batches: Batches, directions: Tensor, mean: Tensor) -> Ablation:
    """Counts errors with each direction removed in turn: a - (<a, v> - <mean, v>) v at every position.

    What is left of the direction is its mean, so that the layers above see no offset they do not know. The layers below
    are passed once for all directions.

    Args:
        model: images to logits (N, K); every image must be treated on its own. Evaluated in evaluation mode.
        layer: name of the module whose output (N, C), (N, tokens, C) or (N, C, H, W) is changed; it must be called
            once in a pass.
        batches: images, which are not written to, and labels of any integer dtype.
        directions: (M, C) of length 1.
        mean: (C,) mean activation.

    Raises:
        TypeError: labels or logits of a wrong type.
        ValueError: an unknown layer, directions or a mean that do not fit its channels, logits that are nan, or no
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
            # A module may write to what it is given: each pass gets a copy.
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
    """Inside, the list gets the number of values that the module gives; ValueError at the end if it cannot be used."""
    sizes: list[int] = []

    def look(module: nn.Module, inputs: tuple, output: object) -> None:
        if not isinstance(output, Tensor) or output.dim() not in (2, 3, 4):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"the layer {layer} must give (N, C), (N, tokens, C) or (N, C, H, W), got {got}")
        sizes.append(output.numel())

    handle = module.register_forward_hook(look)
    try:
        yield sizes
    finally:
        handle.remove()
    if len(sizes) != 1:
        raise ValueError(f"the network must call its layer {layer} once in a pass, it calls it {len(sizes)} times")


@contextmanager
def _removing(module: nn.Module, directions: Tensor, mean: Tensor) -> Iterator[None]:
    """Inside, the module gives M copies of its output, each without one direction: (M * N, ...)."""

    def remove(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        channels_last = output.movedim(1, -1) if output.dim() == 4 else output
        if channels_last.shape[-1] != directions.shape[1]:
            raise ValueError(f"directions have {directions.shape[1]} channels, the layer {channels_last.shape[-1]}")
        shape = (len(directions), *[1] * (channels_last.dim() - 1), directions.shape[1])
        values = channels_last.to(torch.promote_types(output.dtype, torch.float32))
        rows, offset = directions.to(values), mean.to(values)
        along = torch.einsum("...c,mc->m...", values - offset, rows)
        left = (values - along[..., None] * rows.view(shape)).to(output.dtype)
        left = left.flatten(0, 1)
        return left.movedim(-1, 1) if output.dim() == 4 else left

    handle = module.register_forward_hook(remove)
    try:
        yield
    finally:
        handle.remove()

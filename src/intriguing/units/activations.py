"""Stream the activations phi(x) of layers, given by name, over images in blocks of one fixed size.

A convolution has one activation vector per position, so a direction v of activation space has one response
<phi(x), v> per position. ``AGGREGATES`` lists the ways to reduce them to one response per image.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from intriguing.nn import evaluating
from intriguing.validation import whole_number

AGGREGATES: tuple[str, ...] = ("max", "mean", "center", "flatten")
"""Ways to reduce the responses at all positions to the response of an image:

``max``      the largest response over all positions,
``mean``     the response to the mean activation over all positions,
``center``   the response at the central position, which has a fixed receptive field,
``flatten``  every pair of position and channel is a separate unit: phi(x) is the whole feature map, as in the paper.
"""
BLOCK: int = 128
"""Number of images per forward pass; fixed, so that no response depends on the batches of the caller. Larger images go
in smaller blocks, see `_PIXELS`."""

_NONLINEARITIES = tuple(
    kind
    for kind in vars(nn.modules.activation).values()
    if isinstance(kind, type)
    and kind.__module__ == nn.modules.activation.__name__
    and kind is not nn.MultiheadAttention
)
_PIXELS = (
    2**20
)  # values of the images of a block at most, for 8 images or more: larger blocks of photographs are slower
_ELEMENTS = 2**20  # responses in memory while the maximum over positions is computed; they fit in a cache

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images (N, C, H, W) and labels (N,), batch by batch."""


def hidden_layers(model: nn.Module) -> list[str]:
    """List the names of all nonlinearities (nn.ReLU, nn.Sigmoid and the like), in the order of the model's modules."""
    return [name for name, module in model.named_modules() if isinstance(module, _NONLINEARITIES)]


def find_layers(model: nn.Module, patterns: Sequence[str] | None) -> list[str]:
    """Find layers by name.

    Args:
        model: any module.
        patterns: names as in ``model.named_modules()``, globs (``*relu*``), or either for the end of a name
            (``relu2`` for ``network.relu2``); None selects ``hidden_layers``.

    Returns:
        Names in the order of the model's modules; empty if no pattern matches.
    """
    if patterns is None:
        return hidden_layers(model)
    names = [name for name, _ in model.named_modules() if name]
    return [name for name in names if any(_fits(name, pattern) for pattern in patterns)]


def _fits(name: str, pattern: str) -> bool:
    """Return whether a pattern matches a name or its end."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")


def to_vectors(output: Tensor, aggregate: str = "max") -> Tensor:
    """Convert the output of a layer to vectors (N, P, C): P positions, C channels.

    Args:
        output: (N, C), (N, tokens, C) or (N, C, H, W); half precision becomes float32.
        aggregate: see ``AGGREGATES``. All but ``max`` return one position.

    Returns:
        (N, P, C), at least float32.

    Raises:
        ValueError: the aggregate is unknown, or the output has another shape or no real numbers.
    """
    if aggregate not in AGGREGATES:
        raise ValueError(f"unknown aggregate '{aggregate}'; known: {', '.join(AGGREGATES)}")
    if not isinstance(output, Tensor) or output.dim() not in (2, 3, 4) or not output.is_floating_point():
        shape = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"a layer must return (N, C), (N, tokens, C) or (N, C, H, W) real numbers, got {shape}")
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    if output.dim() == 2:
        return output.unsqueeze(1)
    if aggregate == "flatten":
        return output.flatten(1).unsqueeze(1)
    if output.dim() == 4:
        if aggregate == "center":
            return output[:, :, output.shape[2] // 2, output.shape[3] // 2].unsqueeze(1)
        output = output.flatten(2).transpose(1, 2)
    if aggregate == "center":
        return output[:, output.shape[1] // 2].unsqueeze(1)
    return output.mean(1, keepdim=True) if aggregate == "mean" else output


def respond(vectors: Tensor, directions: Tensor) -> Tensor:
    """Compute the responses <phi(x), v> of images to directions, the maximum over positions.

    Args:
        vectors: (N, P, C), see ``to_vectors``.
        directions: (M, C).

    Returns:
        (N, M), in the finer dtype of the two and at least float32.

    Raises:
        ValueError: the numbers of channels differ.
    """
    if vectors.dim() != 3 or directions.dim() != 2 or vectors.shape[2] != directions.shape[1]:
        raise ValueError(
            f"vectors must be (N, P, C) and directions (M, C), got {tuple(vectors.shape)} and {tuple(directions.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(vectors.dtype, directions.dtype), torch.float32)
    vectors, directions = vectors.to(dtype), directions.to(vectors.device, dtype)
    if vectors.shape[1] == 1:
        return vectors[:, 0] @ directions.T
    size = max(1, _ELEMENTS // (vectors.shape[0] * vectors.shape[1]))
    return torch.cat([(vectors @ part.T).amax(1) for part in directions.split(size)], dim=1)


def stream(
    model: nn.Module, layers: Sequence[str], batches: Batches, *, aggregate: str = "max"
) -> Iterator[tuple[dict[str, Tensor], Tensor, int]]:
    """Run images through the model and yield the activations of layers, block by block.

    Args:
        model: a module in any mode; it runs in evaluation mode, and its mode is restored after each block.
        layers: names of modules. If a module is called several times per forward pass, its last output counts.
        batches: images and labels, in batches of any size; only one block is held in memory.
        aggregate: see ``AGGREGATES``.

    Yields:
        (vectors (N, P, C) by layer, labels (N,), index of the block's first image), N at most ``BLOCK``, and fewer for
        large images.

    Raises:
        ValueError: a layer is unknown, is not called, or its output has no channels.
    """
    known = dict(model.named_modules())
    if unknown := [layer for layer in layers if layer not in known]:
        raise ValueError(f"no layer {', '.join(unknown)}; known: {', '.join(name for name in known if name)}")
    first = 0
    for images, labels in _blocks(batches):
        with torch.no_grad(), evaluating(model), _recording(known, layers) as outputs:
            model(images)
        if missing := [layer for layer in layers if layer not in outputs]:
            raise ValueError(f"the network does not call its layer {', '.join(missing)}")
        yield {layer: to_vectors(outputs[layer], aggregate) for layer in layers}, labels, first
        first += len(labels)


@contextmanager
def _recording(modules: dict[str, nn.Module], layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect, inside the context, the outputs of layers by name."""
    outputs: dict[str, Tensor] = {}

    def keep(layer: str):
        """Make a hook that stores the output of a layer."""
        # An in-place nonlinearity above the layer would change the stored tensor.
        return lambda module, inputs, output: outputs.__setitem__(
            layer, output.detach().clone() if isinstance(output, Tensor) else output
        )

    handles = [modules[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _blocks(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Regroup batches into blocks of ``BLOCK`` images, of large ones fewer; the last one may be smaller."""
    block = BLOCK
    images: list[Tensor] = []
    labels: list[Tensor] = []
    held = 0
    for batch_images, batch_labels in batches:
        if len(batch_images) != len(batch_labels):
            raise ValueError(
                f"expected as many labels as images in a batch, got {len(batch_labels)} and {len(batch_images)}"
            )
        if len(batch_images):
            block = max(8, min(BLOCK, _PIXELS // batch_images[0].numel()))
        while len(batch_labels):
            take = min(block - held, len(batch_labels))
            images.append(batch_images[:take])
            labels.append(batch_labels[:take])
            batch_images, batch_labels, held = batch_images[take:], batch_labels[take:], held + take
            if held == block:
                yield torch.cat(images), torch.cat(labels)
                images, labels, held = [], [], 0
    if held:
        yield torch.cat(images), torch.cat(labels)


def sample_vectors(
    model: nn.Module,
    layers: Sequence[str],
    batches: Batches,
    *,
    aggregate: str = "max",
    per_image: int = 4,
    limit: int = 5000,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Sample activation vectors, to fit a basis to, from all positions of the images.

    Args:
        model: see ``stream``.
        layers: see ``stream``.
        batches: see ``stream``.
        aggregate: see ``stream``.
        per_image: positions sampled per image (with replacement); a layer without positions gives its one vector.
        limit: largest number of vectors, sampled uniformly over all images.
        seed: seed of both samplings.

    Returns:
        (S, C) by layer, S at most ``limit``.

    Raises:
        TypeError: a setting is not a number.
        ValueError: a setting is not a whole number of at least 1; otherwise see ``stream``.
    """
    per_image, limit = whole_number("per_image", per_image, 1), whole_number("limit", limit, 1)
    generator = torch.Generator().manual_seed(seed)
    kept: dict[str, Tensor] = {}
    keys: dict[str, Tensor] = {}
    for vectors, labels, _ in stream(model, layers, batches, aggregate=aggregate):
        for layer, block in vectors.items():
            if block.shape[1] > 1:
                place = torch.randint(block.shape[1], (len(labels), per_image), generator=generator)
                block = block.gather(1, place.to(block.device)[:, :, None].expand(-1, -1, block.shape[2]))
            block = block.flatten(0, 1).cpu()
            key = torch.rand(len(block), generator=generator, dtype=torch.float64)
            rows = torch.cat([kept[layer], block]) if layer in kept else block
            order = torch.cat([keys[layer], key]) if layer in keys else key
            # The rows with the smallest random keys are a uniform sample of all rows so far.
            chosen = order.argsort()[:limit]
            kept[layer], keys[layer] = rows[chosen], order[chosen]
    return kept


def collect(
    model: nn.Module, layers: Sequence[str], batches: Batches, *, aggregate: str = "max"
) -> tuple[dict[str, Tensor], Tensor]:
    """Collect the units' responses to all images; N numbers per unit must fit in memory, the images need not.

    Args:
        model: see ``stream``.
        layers: see ``stream``.
        batches: see ``stream``.
        aggregate: see ``stream``.

    Returns:
        ((N, C) by layer, labels (N,)), on the CPU.

    Raises:
        ValueError: there is no image; otherwise see ``stream``.
    """
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    labels: list[Tensor] = []
    for vectors, batch_labels, _ in stream(model, layers, batches, aggregate=aggregate):
        labels.append(batch_labels.cpu())
        for layer, block in vectors.items():
            parts[layer].append(block.amax(1).cpu())
    if not labels:
        raise ValueError("expected at least one image")
    return {layer: torch.cat(rows) for layer, rows in parts.items()}, torch.cat(labels)

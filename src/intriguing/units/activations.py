"""phi(x): the activations of a layer by name, streamed over images in blocks of one fixed size.

A convolution has one activation vector a position, so a direction v of activation space has one response <phi(x), v> a
position too, and what "the" response of an image is must be chosen: see `AGGREGATES`.
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
"""What the response of an image is, where a layer has positions:

``max``      the largest response over all positions (where the image excites the direction most),
``mean``     the response of the mean over all positions,
``center``   the response at the central position, whose receptive field is the same for every image,
``flatten``  every pair of position and channel is a unit of its own: phi(x) is the whole map, as the paper writes it.
"""
BLOCK: int = 128
"""Images that pass through the network together. Fixed, so that no response depends on the batches images come in."""

_NONLINEARITIES = tuple(
    kind
    for kind in vars(nn.modules.activation).values()
    if isinstance(kind, type)
    and kind.__module__ == nn.modules.activation.__name__
    and kind is not nn.MultiheadAttention
)
_ELEMENTS = 2**20  # responses held at once while a maximum over positions is taken: what a cache holds

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images (N, C, H, W) and labels (N,), batch by batch."""


def hidden_layers(model: nn.Module) -> list[str]:
    """Names of all nonlinearities (nn.ReLU, nn.Sigmoid and the like), in the order in which the model holds them."""
    return [name for name, module in model.named_modules() if isinstance(module, _NONLINEARITIES)]


def find_layers(model: nn.Module, patterns: Sequence[str] | None) -> list[str]:
    """Layers by name.

    Args:
        model: any module.
        patterns: names as in ``model.named_modules()``, globs (``*relu*``), or either for the end of a name
            (``relu2`` for ``network.relu2``); None: `hidden_layers`.

    Returns:
        Names in the model's own order; empty where no pattern fits.
    """
    if patterns is None:
        return hidden_layers(model)
    names = [name for name, _ in model.named_modules() if name]
    return [name for name in names if any(_fits(name, pattern) for pattern in patterns)]


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")


def to_vectors(output: Tensor, aggregate: str = "max") -> Tensor:
    """The output of a layer as vectors (N, P, C): P positions, C channels.

    Args:
        output: (N, C), (N, tokens, C) or (N, C, H, W); half precision becomes float32.
        aggregate: see `AGGREGATES`. All but ``max`` leave one position.

    Raises:
        ValueError: an unknown aggregate, or an output of another shape.
    """
    if aggregate not in AGGREGATES:
        raise ValueError(f"unknown aggregate '{aggregate}'; known: {', '.join(AGGREGATES)}")
    if not isinstance(output, Tensor) or output.dim() not in (2, 3, 4) or not output.is_floating_point():
        shape = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"a layer must give (N, C), (N, tokens, C) or (N, C, H, W) real numbers, got {shape}")
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
    """Responses <phi(x), v> of images to directions, the largest over positions.

    Args:
        vectors: (N, P, C), see `to_vectors`.
        directions: (M, C).

    Returns:
        (N, M), in the finer dtype of the two and at least float32.

    Raises:
        ValueError: the channels do not fit.
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
    """Passes images through the model and gives what the layers made of them, block by block.

    Args:
        model: in whatever mode; it is evaluated in evaluation mode and given its own mode back after each block.
        layers: names of modules. A module that is called several times in one pass shows its last output.
        batches: images and labels, in batches of any size; nothing but one block is held.
        aggregate: see `AGGREGATES`.

    Yields:
        (vectors (N, P, C) by layer, labels (N,), index of the block's first image), N at most `BLOCK`.

    Raises:
        ValueError: an unknown layer, or one whose output has no channels.
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
    outputs: dict[str, Tensor] = {}

    def keep(layer: str):
        # An in-place nonlinearity further on would change what is kept.
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
    """The same images, `BLOCK` at a time."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    held = 0
    for some, theirs in batches:
        if len(some) != len(theirs):
            raise ValueError(f"expected as many labels as images in a batch, got {len(theirs)} and {len(some)}")
        while len(theirs):
            take = min(BLOCK - held, len(theirs))
            images.append(some[:take])
            labels.append(theirs[:take])
            some, theirs, held = some[take:], theirs[take:], held + take
            if held == BLOCK:
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
    """Activation vectors to fit a basis to, drawn from all positions of the images.

    Args:
        model, layers, batches, aggregate: see `stream`.
        per_image: positions drawn of each image (with replacement); a layer without positions gives its one vector.
        limit: vectors kept at most, drawn evenly over all images.
        seed: of both draws.

    Returns:
        (S, C) by layer, S at most `limit`.

    Raises:
        TypeError, ValueError: see `stream`; a number that is not whole or below 1.
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
            # The rows with the smallest random keys are an even draw of all that went by.
            chosen = order.argsort()[:limit]
            kept[layer], keys[layer] = rows[chosen], order[chosen]
    return kept


def collect(
    model: nn.Module, layers: Sequence[str], batches: Batches, *, aggregate: str = "max"
) -> tuple[dict[str, Tensor], Tensor]:
    """The units' responses to all images, whole: N numbers a unit must fit in memory, the images need not.

    Args:
        model, layers, batches, aggregate: see `stream`.

    Returns:
        ((N, C) by layer, labels (N,)), on the CPU.

    Raises:
        ValueError: see `stream`.
    """
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    labels: list[Tensor] = []
    for vectors, theirs, _ in stream(model, layers, batches, aggregate=aggregate):
        labels.append(theirs.cpu())
        for layer, block in vectors.items():
            parts[layer].append(block.amax(1).cpu())
    if not labels:
        raise ValueError("expected at least one image")
    return {layer: torch.cat(rows) for layer, rows in parts.items()}, torch.cat(labels)

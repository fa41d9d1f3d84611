"""Attack by the paper's method: box-constrained L-BFGS on a penalty, and a search for its constant c for each image."""

from __future__ import annotations

from torch import Tensor

from intriguing.attacks.base import attack_in_chunks
from intriguing.attacks.chunk import ChunkResult, Goal
from intriguing.attacks.network import Model, Network
from intriguing.attacks.penalty import Settings, search, search_from_box_points
from intriguing.attacks.result import AttackResult


def lbfgs(
    model: Model,
    inputs: Tensor,
    targets: Tensor | int,
    *,
    c_start: float = 0.1,
    c_min: float = 1e-8,
    c_max: float = 1e8,
    c_factor: float = 10.0,
    c_tolerance: float = 1e-2,
    search_steps: int = 40,
    max_iter: int = 100,
    tolerance: float = 3e-2,
    history_size: int = 5,
    max_evaluations: int = 400,
    levels: int | None = None,
    chunk_size: int | None = None,
) -> AttackResult:
    """Find adversarial examples by the paper's section 4.1, for all images at once.

    For each image x and its target l, minimise::

        c |r|_2^2 + cross_entropy(f(x + r), l)   subject to  x + r in [0, 1]^n,

    with the *largest* c for which the network assigns the minimiser to l. (The paper says "minimum c"; c multiplies
    ``|r|``, so a larger c gives a smaller r. ``|r|`` is read as the squared L2 norm, which fits its numbers.) The
    search multiplies or divides c by ``c_factor`` until c is bracketed, then narrows the bracket to ``c_tolerance``;
    each minimisation starts from the previous minimiser and keeps its curvature. The result is the smallest successful
    perturbation among all evaluated points.

    The minimiser for a given c is local. Where no minimisation from the image succeeds (networks with vanishing or
    misleading gradients), the search starts again from a successful point elsewhere in the box, moved to the decision
    boundary; it first takes the c at which that point is stationary along its ray, and goes back to the last successful
    minimiser after each c that fails.

    Args:
        model: images in [0, 1] of any shape to logits (N, K).
        inputs: (N, ...) in [0, 1]; one image (C, H, W) if the class is a single number.
        targets: (N,) integers in 0..K-1. An image that is already in its target class is returned unchanged, with
            distortion 0.
        c_start: first c.
        c_min: smallest c; an image without success at this c has failed.
        c_max: largest c.
        c_factor: ratio of consecutive values of c until one has succeeded and one has failed.
        c_tolerance: width of the final bracket, relative to c. (c_factor=2, c_tolerance=1 is the coarse grid of factors
            of two; its distortions are about a tenth larger.)
        search_steps: largest number of values of c per image.
        max_iter: largest number of L-BFGS iterations per value of c.
        tolerance: a minimisation ends when the norm of its projected gradient is below this fraction of the norm of the
            penalty's gradient.
        history_size: number of pairs that L-BFGS stores.
        max_evaluations: largest number of forward passes per image, and of backward passes, those of ``levels`` aside;
            100 at least. Where it is reached before ``c_tolerance``, the result is the best so far.
        levels: number of values k / (levels - 1) that a pixel may have, 256 for files with 8 bits (see
            ``levels.search_grid``); None for any value in [0, 1].
        chunk_size: images per chunk; None chooses as many as fit in the memory of the device.

    Returns:
        AttackResult, with the c of each image.

    Raises:
        TypeError: an argument has a wrong type, or the network does not return logits.
        ValueError: a shape or a value is wrong, or the network cannot be attacked.

    Example:
        >>> import torch
        >>> def network(images):  # class 1 where the first pixel is above 0.5
        ...     first = images.flatten(1)[:, 0]
        ...     return torch.stack([0.5 - first, first - 0.5], dim=1)
        >>> images = torch.tensor([[[[0.3, 0.8], [0.1, 0.6]]]])
        >>> result = lbfgs(network, images, targets=torch.tensor([1]))
        >>> result.success.tolist(), round(result.distortion.item(), 2)  # one pixel of four moves by 0.2
        ([True], 0.1)
    """
    settings = Settings(
        c_start=c_start,
        c_min=c_min,
        c_max=c_max,
        c_factor=c_factor,
        c_tolerance=c_tolerance,
        search_steps=search_steps,
        max_iter=max_iter,
        tolerance=tolerance,
        history_size=history_size,
        max_evaluations=max_evaluations,
    )

    def attack(net: Network, origin: Tensor, goal: Goal, _: Tensor) -> ChunkResult:
        found = search(net, origin, goal.classes, settings)
        rows = (~found.success).nonzero().squeeze(1)
        if len(rows):
            _replace_rows(found, rows, search_from_box_points(net, origin[rows], goal.take(rows), settings))
        return found

    return attack_in_chunks(
        attack,
        model,
        inputs,
        targets,
        name="targets",
        chunk_size=chunk_size,
        levels=levels,
        floats_per_pixel=4 * settings.history_size + 20,
        has_c=True,
    )


def _replace_rows(found: ChunkResult, rows: Tensor, part: ChunkResult) -> None:
    """Replace the results of some rows and add up their passes."""
    assert found.c is not None and part.c is not None
    found.x[rows], found.success[rows], found.c[rows] = part.x, part.success, part.c
    found.num_forwards[rows] += part.num_forwards  # pyright: ignore[reportIndexIssue]
    found.num_backwards[rows] += part.num_backwards  # pyright: ignore[reportIndexIssue]

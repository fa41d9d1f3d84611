"""Find minimal L2 perturbations: short descents to the decision boundary, walks along it, and restarts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from torch import Tensor

from intriguing.attacks.base import attack_in_chunks
from intriguing.attacks.chunk import ChunkResult, Goal
from intriguing.attacks.effort import EFFORTS, Effort, choose_effort
from intriguing.attacks.network import Model, Network
from intriguing.attacks.result import AttackResult
from intriguing.attacks.search import Search
from intriguing.attacks.starts import Pool, check_starts, classify
from intriguing.errors import did_you_mean
from intriguing.validation import whole_number

_FLOATS_PER_PIXEL = 48  # of the slopes at the image, or of the conditions of a walk, for each of three candidates


def nearest(
    model: Model,
    inputs: Tensor,
    labels: Tensor | int,
    *,
    targets: Tensor | int | None = None,
    effort: str = "default",
    starts: Tensor | str | None = None,
    budget: int | None = None,
    num_steps: int | None = None,
    num_projections: int | None = None,
    num_rivals: int | None = None,
    num_candidates: int | None = None,
    num_restarts: int | None = None,
    levels: int | None = None,
    chunk_size: int | None = None,
) -> AttackResult:
    """Find the nearest image (L2) of the target class, or of any class but the label.

    The minimiser of the paper's penalty is not the nearest image, not even for a linear softmax classifier:
    cross-entropy also pushes the image away from classes that do not compete for it. Therefore a short descent with
    decoupled direction and norm only finds a point on the decision boundary. A walk along the boundary follows: each
    step linearises the classes that are nearest to winning, projects the *original* image onto the part of the box that
    satisfies these inequalities, damps this step, and searches the ray from the original through the new point for its
    crossing with the boundary. On a linear network the first full projection is the optimum. On other networks the
    distance has many local minima, so that the rest of the budget goes into restarts: from the nearest success with
    large noise added, and from images of other classes if there are any. A restart that has not come near the best
    result after a few steps is given up.

    A factor or a number common to all logits changes nothing but roundings. An image that has no success at the end of
    its budget is searched further, in the whole box and by ``lbfgs``, before it is given up.

    Args:
        model: images in [0, 1] of any shape to logits (N, K).
        inputs: (N, ...) in [0, 1]; one image (C, H, W) if the classes are single numbers.
        labels: (N,) integers in 0..K-1, the classes to leave. Not read if targets are given.
        targets: (N,) integers in 0..K-1, or None for any class but the label. An image that already meets the goal is
            returned unchanged, with distortion 0.
        effort: "fast", "default" or "thorough": at most 60, 300 or 2,000 forward and backward passes for an image with
            a success, whatever the number of classes (the default with targets among more than 100 classes: at most
            150). It also sets the keywords that are None.
        starts: (P, ...), further images in [0, 1], of which those of another class (of the target class) are starts of
            restarts, the nearest first; "batch" for the other inputs; or None. Their classes take one forward pass for
            each of them, which the counts of the result leave out.
        budget: forward and backward passes per image.
        num_steps: steps of each descent; where it is None, those from the image have about half as many.
        num_projections: steps of each walk along the boundary.
        num_rivals: inequalities per step, for the classes nearest to beating the target. Points where many classes meet
            need more; each costs a backward pass. Without targets there is one.
        num_candidates: without targets, number of classes to descend towards: those whose linearised boundaries are
            nearest.
        num_restarts: largest number of restarts; None for as many as the budget allows.
        levels: number of values k / (levels - 1) that a pixel may have, 256 for files with 8 bits (see
            ``levels.search_grid``, whose passes come on top of the budget); None for any value in [0, 1].
        chunk_size: images per chunk; None chooses as many as fit in the memory of the device.

    Returns:
        AttackResult; its ``c`` is None.

    Raises:
        TypeError: an argument has a wrong type, or the network does not return logits.
        ValueError: a shape or a value is wrong, or the network cannot be attacked.

    Example:
        >>> import torch
        >>> def network(images):  # class 1 where the first pixel is above 0.5
        ...     first = images.flatten(1)[:, 0]
        ...     return torch.stack([0.5 - first, first - 0.5], dim=1)
        >>> images = torch.tensor([[[[0.3, 0.8], [0.1, 0.6]]]])
        >>> result = nearest(network, images, labels=torch.tensor([0]))
        >>> result.success.tolist(), round(result.distortion.item(), 2)  # one pixel of four moves by 0.2
        ([True], 0.1)
    """
    settings = NearestSettings(
        effort=effort,
        budget=budget,
        num_steps=num_steps,
        num_projections=num_projections,
        num_rivals=num_rivals,
        num_candidates=num_candidates,
        num_restarts=num_restarts,
    )
    images = check_starts(starts, inputs)
    pool: Pool | None = None

    def attack(net: Network, origin: Tensor, goal: Goal, _: Tensor) -> ChunkResult:
        nonlocal pool
        if pool is None and images is not None:
            pool = classify(net, images)
        effort = settings.resolve(net.num_classes, targeted=goal.targeted)
        return Search(net, origin, goal, effort, pool).run()

    return attack_in_chunks(
        attack,
        model,
        inputs,
        labels if targets is None else targets,
        name="labels" if targets is None else "targets",
        chunk_size=chunk_size,
        levels=levels,
        floats_per_pixel=_FLOATS_PER_PIXEL,
    )


@dataclass(frozen=True)
class NearestSettings:
    """Hold and check the settings of ``nearest``.

    Raises:
        TypeError: a setting has a wrong type.
        ValueError: a setting is out of range.
    """

    effort: str
    budget: int | None
    num_steps: int | None
    num_projections: int | None
    num_rivals: int | None
    num_candidates: int | None
    num_restarts: int | None

    def __post_init__(self) -> None:
        if not isinstance(self.effort, str):
            raise TypeError(f"expected effort as one of {', '.join(EFFORTS)}, got {self.effort!r}")
        if self.effort not in EFFORTS:
            near = did_you_mean(self.effort, EFFORTS) or ""
            raise ValueError(f"expected effort out of {', '.join(EFFORTS)}, got {self.effort!r}{near}")
        for name, low in self._lowest():
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else whole_number(name, value, low))

    @staticmethod
    def _lowest() -> Iterator[tuple[str, int]]:
        yield from {"budget": 10, "num_steps": 1, "num_projections": 0, "num_rivals": 1, "num_candidates": 1}.items()
        yield "num_restarts", 0

    def resolve(self, num_classes: int, *, targeted: bool) -> Effort:
        """Return the settings, with those of the effort where they are None."""
        chosen = choose_effort(self.effort, num_classes, targeted=targeted)
        values = {field.name: getattr(self, field.name, None) for field in fields(Effort)}
        if self.num_steps is not None:
            values["first_steps"] = self.num_steps
        return Effort(**{name: getattr(chosen, name) if value is None else value for name, value in values.items()})

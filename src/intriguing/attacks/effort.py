"""Hold the settings of each effort of the minimal-L2 attack."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Hold the settings of a search; see ``nearest``.

    Attributes:
        budget, num_candidates, num_steps, num_projections, num_rivals, num_restarts: see ``nearest``.
        patience: restarts that end at the same distance, after which an image is done.
        first_steps: steps of the descents from the image; None for num_steps. On nearly linear networks few are enough.
        num_slopes: classes whose boundaries are linearised at the image.
        change: relative change of a descent's radius, at the first and at the last step.
        noise: smallest and largest noise of a restart, in distances of the nearest success so far.
    """

    budget: int
    num_candidates: int
    num_steps: int
    num_projections: int
    num_rivals: int
    patience: int
    first_steps: int | None = None
    num_slopes: int = 9
    num_restarts: int | None = None
    change: tuple[float, float] = (0.4, 0.05)
    noise: tuple[float, float] = (3.0, 12.0)


EFFORTS = {
    "fast": Effort(
        60,
        num_candidates=1,
        num_steps=5,
        num_projections=2,
        num_rivals=2,
        patience=1,
        num_slopes=4,
        change=(0.5, 0.2),
        noise=(2.0, 4.0),
    ),
    "default": Effort(300, num_candidates=3, num_steps=14, num_projections=8, num_rivals=4, patience=1, first_steps=7),
    "thorough": Effort(
        2000, num_candidates=9, num_steps=16, num_projections=12, num_rivals=4, patience=6, first_steps=8
    ),
}
_MANY_CLASSES = 100
_TARGETS = {"fast": Effort(60, num_candidates=1, num_steps=10, num_projections=5, num_rivals=2, patience=1)}
_MANY_TARGETS = {
    "fast": Effort(60, num_candidates=1, num_steps=16, num_projections=3, num_rivals=1, patience=1),
    "default": Effort(150, num_candidates=1, num_steps=20, num_projections=8, num_rivals=4, patience=1),
}


def choose_effort(name: str, num_classes: int, *, targeted: bool) -> Effort:
    """Return the settings of an effort.

    Targets are farther than the nearest class and want a longer descent. Among more than 100 classes, on
    networks of natural images, restarts from noise have not come nearer than one longer descent.
    """
    found = EFFORTS[name]
    if targeted:
        found = _TARGETS.get(name, found)
        if num_classes > _MANY_CLASSES:
            found = _MANY_TARGETS.get(name, found)
    return found

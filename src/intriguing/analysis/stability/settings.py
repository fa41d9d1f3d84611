"""Settings of the section ``stability``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class StabilitySettings:
    """Settings of the section.

    Attributes:
        limit: images of each set, and of the data, that are used.
        radius: L2 norm at which the share of certified images is counted.
        pairs: certify by a constant for each pair of classes (slower and sharper) instead of one for all.
    """

    limit: int = field(default=256, metadata={"low": 1})
    radius: float = field(default=0.25, metadata={"above": 0})
    pairs: bool = True

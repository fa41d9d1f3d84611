"""Predict how long a slice takes from the slices before it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Pace:
    """Hold the seconds of an image, first as an estimate, then as measured in the latest slice.

    Attributes:
        seconds: of one image.
    """

    seconds: float

    def measured(self, seconds: float, images: int) -> None:
        """Take the seconds of the latest slice."""
        self.seconds = seconds / max(images, 1)

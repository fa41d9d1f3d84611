"""The quantities that a table shows, and how their numbers are written."""

from __future__ import annotations

import math
from dataclasses import dataclass

from intriguing.statistics.intervals import Interval

MANY = 5000
"""Answers from which the second decimal of a rate in percent is written."""
HUGE = 1e6
"""Size from which a number is written with a power of ten, unless its quantity has fixed decimals."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Name a measured quantity and define how its numbers are written.

    Attributes:
        name: in the data files, e.g. "error".
        unit: of its numbers, e.g. "%"; empty for a bare number.
        digits: fewest decimals in a table; None where they follow from the numbers, see `digits.decimals_of`.
        counted: whether it is a rate of counted answers, in percent or percentage points, with a second decimal from
            `MANY` answers on.
        signed: whether a positive number has a plus sign.
        column: column of its numbers in a data file: "percent", "distortion" or "value".
    """

    name: str
    unit: str = ""
    digits: int | None = None
    counted: bool = False
    signed: bool = False
    column: str = "value"

    def text(self, value: float, decimals: int | None) -> str:
        """Write a number.

        Args:
            value: the number; infinities and NaN have a sign of their own.
            decimals: how many are written; None for three significant digits and a power of ten.
        """
        if not math.isfinite(value):
            return {math.inf: "∞", -math.inf: "−∞"}.get(value, "–")
        powers = decimals is None or (self.digits is None and abs(value) >= HUGE)
        text = f"{value:.2e}" if powers else f"{value:.{decimals}f}"
        if float(text) == 0:
            text = text.removeprefix("-")
        if self.digits is not None and not self.counted:
            text = text.removeprefix("0") if "." in text else text  # ".0622", as the paper writes a distortion
        return f"+{text}" if self.signed and float(text) > 0 else text.replace("-", "−")

    def interval_text(self, interval: Interval, decimals: int | None) -> str:
        """Write an interval, "3.1 to 8.0"."""
        return " to ".join(self.text(end, decimals) for end in interval)

    def stored(self, value: float) -> float:
        """Round a number for a data file."""
        return float(f"{value:.6g}") if self.digits is None else round(value, 4 if self.counted else 6)


ERROR = Quantity(name="error", unit="%", digits=1, counted=True, column="percent")
EXCESS = Quantity(name="excess", unit="points", digits=1, counted=True, signed=True, column="percent")
DISTORTION = Quantity(name="distortion", digits=4, column="distortion")
"""Per-pixel RMS of a perturbation, .0622 as the paper writes it."""

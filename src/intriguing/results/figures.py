"""A picture of a report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, repr=False)
class Figure:
    """Hold a picture, ready to be written.

    Attributes:
        key: file name stem and anchor.
        number: its number in the paper, "Figure 7"; empty for a figure that the paper does not have.
        title: what it shows.
        detail: what distinguishes it from other figures of its title, e.g. a network; may be empty.
        caption: how to read it; equal for figures that are read alike, which a report then shows once.
        note: what holds for this figure alone, e.g. the attack; may be empty.
        alt: description for readers who cannot see it.
        png: bytes of the file, on white.
        svg: SVG markup for a page: transparent ground, colours as CSS variables with their values on white.
        pdf: bytes of the file for print, with its fonts; None where it was not made.
        runs: names of the runs behind it.
    """

    key: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: str | None = None
    pdf: bytes | None = None
    number: str = ""
    detail: str = ""
    note: str = ""
    runs: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Number, title and detail in one line."""
        return " · ".join(part for part in (self.number, self.title, self.detail) if part)

    @property
    def explanation(self) -> str:
        """Caption and note in one text."""
        return " ".join(part for part in (self.caption, self.note) if part)

    def __repr__(self) -> str:
        return f"Figure({self.heading})"

    def _repr_png_(self) -> bytes:
        """Show the figure in a notebook."""
        return self.png

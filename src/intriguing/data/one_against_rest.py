"""Make two classes of any number: one of them against the rest (QuocNet's "car", Szegedy et al., section 4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor

from intriguing.data.classes import class_number
from intriguing.data.subsets import DataSet, ImageSubset, Part
from intriguing.errors import UserError

REST = "rest"


@dataclass(frozen=True)
class OneAgainstRest:
    """Read a data set with two labels: 1 for images of one class, 0 for those of all others.

    Attributes:
        images: The data set.
        number: The class that is set against the rest.
    """

    images: DataSet
    number: int

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.images.name

    @property
    def in_memory(self) -> bool:
        """Whether reading costs nothing."""
        return self.images.in_memory

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return self.images.input_shape

    @property
    def num_classes(self) -> int:
        """2."""
        return 2

    @property
    def class_names(self) -> tuple[str, ...]:
        """The two classes in words."""
        return REST, self.images.class_names[self.number]

    @property
    def labels(self) -> dict[str, Tensor]:
        """int64 tensor (N,) by part: 1 for the class, 0 for the rest."""
        return {part: (labels == self.number).long() for part, labels in self.images.labels.items()}

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that identify the images, and the class."""
        return {**self.images.description, "one_against_rest": self.class_names[1]}

    def prepare(self) -> None:
        """Download the files that are missing."""
        self.images.prepare()

    def select(self, part: Part, indices: Tensor) -> ImageSubset:
        """Return the images of a part at indices (N,), with the two labels."""
        subset: Any = self.images.select(part, indices)
        return cast(ImageSubset, replace(subset, labels=(subset.labels == self.number).long()))


def against_rest(images: DataSet, wanted: str | int) -> OneAgainstRest:
    """Set a class of a data set against the rest.

    Args:
        images: The data set.
        wanted: The class, by its number, the name of its folder or its name in words.

    Raises:
        UserError: There is no such class, or more than one is called so.
    """
    try:
        number = class_number(wanted, getattr(images, "classes", images.class_names), images.class_names)
    except UserError as error:
        raise UserError(f"data.one_against_rest={wanted}: {error}") from error
    return OneAgainstRest(images, number)

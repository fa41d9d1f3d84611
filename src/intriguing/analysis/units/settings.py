"""Settings of the units section, with checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from intriguing.data import SUBSETS
from intriguing.errors import UserError
from intriguing.units import AGGREGATES, FITTED
from intriguing.validation import choice, flag, number, whole

FEWEST, MOST = 999, 1999
"""Limits of the default number of random bases."""


def rotations_for(rows: int) -> int:
    """Compute the number of random bases for a number of rows, between `FEWEST` and `MOST`.

    Up to 40 rows, a single row at the smallest possible p, 2 / (1 + B), then has a corrected q of .04.

    Args:
        rows: comparisons that are corrected together.
    """
    return min(MOST, max(FEWEST, 50 * rows - 1))


@dataclass(frozen=True)
class UnitSettings:
    """Hold the settings of the section, named as in conf/analyze.yaml.

    Attributes:
        networks: globs of labels or run names; None: all.
        layers: names or globs, see ``units.find_layers``; None: every hidden layer.
        subset: subset of the images.
        limit: most images, drawn by the seed; None: all.
        aggregate: response of a convolution to an image, see ``units.AGGREGATES``.
        rows: directions in a sheet.
        columns: images of a direction in a sheet, and top images that are scored.
        units: most units of a layer that are scored, drawn by the seed.
        bases: further bases, of ``units.FITTED``.
        whitened: also score units and random directions of whitened activations.
        untrained: also score the network before training, of the lowest seed.
        rotations: random bases that the units are tested against; None: as many as the rows need, see `rotations_for`.
        sweeps: random rotations along which the units are turned.
        fractions: of those rotations, 1 being the whole rotation.
        sets: random image sets that a row is tested against.
        ablated: units that are removed, one at a time.
        ablation_limit: most images on which the accuracy is counted, drawn by the seed.
    """

    networks: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None
    subset: str = "test"
    limit: int | None = None
    aggregate: str = "max"
    rows: int = 8
    columns: int = 9
    units: int = 64
    bases: tuple[str, ...] = ("pca", "ica", "nmf", "dictionary")
    whitened: bool = True
    untrained: bool = True
    rotations: int | None = None
    sweeps: int = 5
    fractions: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    sets: int = 9999
    ablated: int = 32
    ablation_limit: int = 2000

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> UnitSettings:
        """Check settings; a missing one or None keeps its default.

        Raises:
            UserError: a setting is unknown or out of range.
        """
        values = {key: value for key, value in given.items() if value is not None}
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UserError(f"unknown settings.units.{unknown[0]}; known: {', '.join(sorted(known))}")
        for key in ("networks", "layers", "bases", "fractions"):
            if key in values:
                values[key] = _several(key, values[key])
        for key in {"networks", "layers"} & values.keys():
            values[key] = tuple(map(str, values[key]))  # a layer may be called 4
        lows = {"limit": 2, "rows": 1, "columns": 2, "units": 1, "rotations": 19, "sweeps": 0, "sets": 99}
        lows |= {"ablated": 0, "ablation_limit": 1}
        for key in lows.keys() & values.keys():
            values[key] = whole(f"settings.units.{key}", values[key], lows[key])
        for key in {"whitened", "untrained"} & values.keys():
            values[key] = flag(f"settings.units.{key}", values[key])
        for key, names in (("subset", SUBSETS), ("aggregate", AGGREGATES)):
            if key in values:
                values[key] = choice(f"settings.units.{key}", values[key], names)
        for name in values.get("bases", ()):
            choice("settings.units.bases", name, FITTED)
        for value in values.get("fractions", ()):
            number("settings.units.fractions", value, 0, above=True)
        return cls(**values)


def _several(key: str, value: Any) -> tuple:
    if isinstance(value, str | int | float):
        return (value,)
    if not isinstance(value, list | tuple):
        raise UserError(f"settings.units.{key} must be a list, got {value!r}")
    return tuple(value)

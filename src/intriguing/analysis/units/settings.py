"""Settings of the units section, with checks."""

from __future__ import annotations

from dataclasses import dataclass, field

from intriguing.data import SUBSETS
from intriguing.units import AGGREGATES, FITTED, SCORES

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
        folder: a folder of images by class, as of ``data=image_folder``, that takes the place of the networks' own
            images; its classes need not be theirs, so no unit is removed. None: the networks' images.
        lpips: file of the state dict of AlexNet's convolutions (``features.0.weight``, ...), by which top images are
            also compared, see ``units.perceptual``; None: they are not.
        limit: most images that are scored, and that bases are fitted to, drawn by the seed; None: all.
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
    subset: str = field(default="test", metadata={"choices": SUBSETS})
    folder: str | None = None
    lpips: str | None = None
    limit: int | None = field(default=None, metadata={"low": 2})
    aggregate: str = field(default="max", metadata={"choices": AGGREGATES})
    rows: int = field(default=8, metadata={"low": 1})
    columns: int = field(default=9, metadata={"low": 2})
    units: int = field(default=64, metadata={"low": 1})
    bases: tuple[str, ...] = field(default=("pca", "ica", "nmf", "dictionary"), metadata={"choices": FITTED})
    whitened: bool = True
    untrained: bool = True
    rotations: int | None = field(default=None, metadata={"low": 19})
    sweeps: int = field(default=5, metadata={"low": 0})
    fractions: tuple[float, ...] = field(default=(0.25, 0.5, 0.75, 1.0), metadata={"above": 0})
    sets: int = field(default=9999, metadata={"low": 99})
    ablated: int = field(default=32, metadata={"low": 0})
    ablation_limit: int = field(default=2000, metadata={"low": 1})

    @property
    def num_scores(self) -> int:
        """Number of the scores at most."""
        return len(SCORES) - (self.lpips is None)

"""Compare units with directions (section 3): find the images that excite them most, and score these images.

Statistical tests replace inspection by eye. All functions work with any torch module; none depends on how a network was
trained or how a result is displayed.
"""

from intriguing.units.ablation import Ablation, ablate, equal_variance_directions
from intriguing.units.activations import AGGREGATES, collect, find_layers, hidden_layers, sample_vectors, stream
from intriguing.units.bases import (
    FITTED,
    Whitening,
    fitted_basis,
    fractional_rotation,
    random_bases,
    random_directions,
    random_orthonormal,
    random_rotation,
    unit_directions,
    whitening,
)
from intriguing.units.frequencies import Frequencies, concentration
from intriguing.units.perceptual import lpips_vectors, pair_distances, perceptual_similarity, published_heads
from intriguing.units.scores import SCORES
from intriguing.units.similarity import Matching, linear_cka, match_units, procrustes
from intriguing.units.top import TopImages

__all__ = [
    "AGGREGATES",
    "FITTED",
    "SCORES",
    "Ablation",
    "Frequencies",
    "Matching",
    "TopImages",
    "Whitening",
    "ablate",
    "collect",
    "concentration",
    "equal_variance_directions",
    "find_layers",
    "fitted_basis",
    "fractional_rotation",
    "hidden_layers",
    "linear_cka",
    "lpips_vectors",
    "match_units",
    "pair_distances",
    "perceptual_similarity",
    "procrustes",
    "published_heads",
    "random_bases",
    "random_directions",
    "random_orthonormal",
    "random_rotation",
    "sample_vectors",
    "stream",
    "unit_directions",
    "whitening",
]

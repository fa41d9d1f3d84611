"""Operator norms, Lipschitz bounds and certificates: pure functions of any torch module (section 4.3)."""

from intriguing.spectral.certificate import Certifier, certified_radii, product_bound
from intriguing.spectral.jacobian import jacobian_norms
from intriguing.spectral.layer_bounds import ContrastNormalization
from intriguing.spectral.lipschitz import LayerBound, layer_outputs, lipschitz_bounds
from intriguing.spectral.operator_norm import operator_norm
from intriguing.spectral.penalty import LipschitzMargin, LogProductPenalty, with_margin

__all__ = [
    "Certifier",
    "ContrastNormalization",
    "LayerBound",
    "LipschitzMargin",
    "LogProductPenalty",
    "certified_radii",
    "jacobian_norms",
    "layer_outputs",
    "lipschitz_bounds",
    "operator_norm",
    "product_bound",
    "with_margin",
]

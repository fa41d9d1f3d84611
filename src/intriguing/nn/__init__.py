"""Put networks into evaluation mode, freeze their parameters and restore both; take the logits out of an output.

Also the layers of QuocNet, which spectral bounds know: local filters, L2 pooling, local contrast normalisation.
"""

from intriguing.nn.local import L2Pool2d, LocalContrastNorm2d, LocallyConnected2d, Standardize
from intriguing.nn.outputs import PickOutput, pick_output
from intriguing.nn.state import evaluating, frozen, modules_of

__all__ = [
    "L2Pool2d",
    "LocalContrastNorm2d",
    "LocallyConnected2d",
    "PickOutput",
    "Standardize",
    "evaluating",
    "frozen",
    "modules_of",
    "pick_output",
]

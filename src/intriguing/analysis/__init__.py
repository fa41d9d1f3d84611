"""The third stage: from trained networks and adversarial sets to the paper's tables and figures."""

from intriguing.analysis.analyze import SECTIONS, analyze, check_networks
from intriguing.analysis.inputs import CraftedSet, ExampleSet, Network
from intriguing.analysis.measure import MeasuredSet, Progress, check_set, measure
from intriguing.analysis.sections import EXTRA, Images, Made, Material, Subsets

__all__ = [
    "EXTRA",
    "SECTIONS",
    "CraftedSet",
    "ExampleSet",
    "Images",
    "Made",
    "Material",
    "MeasuredSet",
    "Network",
    "Progress",
    "Subsets",
    "analyze",
    "check_networks",
    "check_set",
    "measure",
]

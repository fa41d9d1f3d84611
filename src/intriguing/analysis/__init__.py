"""The third stage: from trained networks and adversarial sets to tables, figures and the page."""

from intriguing.analysis.analyze import PAPER, SECTIONS, analyze
from intriguing.analysis.inputs import CraftedSet, Network
from intriguing.analysis.sections import Section, SectionInputs, SectionOutput

__all__ = ["PAPER", "SECTIONS", "CraftedSet", "Network", "Section", "SectionInputs", "SectionOutput", "analyze"]

"""A robustness card: what an engineer wants to know of a network's stability, with intervals, on one page."""

from intriguing.analysis.card.card import SCHEMA, RobustnessCard
from intriguing.analysis.card.measure import measure_card
from intriguing.analysis.card.numbers import Number
from intriguing.analysis.card.values import Change, Notice

__all__ = ["SCHEMA", "Change", "Notice", "Number", "RobustnessCard", "measure_card"]

"""The attack stage: a trained network in, one adversarial set out."""

from intriguing.attacking.craft import craft
from intriguing.attacking.job import AttackJob

__all__ = ["AttackJob", "craft"]

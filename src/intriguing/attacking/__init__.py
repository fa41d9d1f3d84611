"""Attack a trained network: one adversarial set a job."""

from intriguing.attacking.craft import craft
from intriguing.attacking.job import AttackJob

__all__ = ["AttackJob", "craft"]

"""The training stage: one job in, one finished run folder out."""

from intriguing.training.fit import fit
from intriguing.training.job import TrainingJob

__all__ = ["TrainingJob", "fit"]

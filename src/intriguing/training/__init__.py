"""The training stage: one job in, one finished run folder out."""

from intriguing.training.fit import fit, is_first_process
from intriguing.training.job import TrainingJob

__all__ = ["TrainingJob", "fit", "is_first_process"]

"""Minimise batches of independent functions under box constraints."""

from intriguing.optim.minimize import MinimizeResult, Status, minimize_box
from intriguing.optim.projected_lbfgs import ProjectedLbfgs

__all__ = ["MinimizeResult", "ProjectedLbfgs", "Status", "minimize_box"]

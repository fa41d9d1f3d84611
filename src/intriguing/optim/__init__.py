"""Batched box-constrained minimisation; every row of a batch is a problem of its own."""

from intriguing.optim.minimize import MinimizeResult, Status, minimize_box
from intriguing.optim.projected_lbfgs import ProjectedLbfgs

__all__ = ["MinimizeResult", "ProjectedLbfgs", "Status", "minimize_box"]

"""Attack any torch module: pure batched functions from (model, images, classes) to an AttackResult."""

from intriguing.attacks.adam_l1 import adam_l1
from intriguing.attacks.amplify import amplify
from intriguing.attacks.base import AttackResult, AttackWarning
from intriguing.attacks.gaussian import gaussian
from intriguing.attacks.lbfgs import lbfgs
from intriguing.attacks.nearest import nearest
from intriguing.attacks.registry import ATTACKS, Attack
from intriguing.attacks.targets import choose_targets, closest
from intriguing.nn import evaluating, frozen

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackResult",
    "AttackWarning",
    "adam_l1",
    "amplify",
    "choose_targets",
    "closest",
    "evaluating",
    "frozen",
    "gaussian",
    "lbfgs",
    "nearest",
]

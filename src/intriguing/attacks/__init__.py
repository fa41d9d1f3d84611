"""Attack any torch module: pure batched functions from (model, images, classes) to an AttackResult."""

from intriguing.attacks.adam_l1 import adam_l1
from intriguing.attacks.amplify import amplify
from intriguing.attacks.base import AttackWarning
from intriguing.attacks.function import FunctionAttack
from intriguing.attacks.gaussian import gaussian
from intriguing.attacks.lbfgs import lbfgs
from intriguing.attacks.nearest import nearest
from intriguing.attacks.registry import ATTACKS, Attack, as_attack
from intriguing.attacks.result import AttackResult
from intriguing.attacks.saved_images import SavedImages
from intriguing.attacks.targets import choose_targets, closest
from intriguing.nn import evaluating, frozen

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackResult",
    "AttackWarning",
    "FunctionAttack",
    "SavedImages",
    "adam_l1",
    "amplify",
    "as_attack",
    "choose_targets",
    "closest",
    "evaluating",
    "frozen",
    "gaussian",
    "lbfgs",
    "nearest",
]

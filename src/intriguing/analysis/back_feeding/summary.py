"""Summary of the back-feeding section in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intriguing.analysis.back_feeding.arms import Arm
from intriguing.analysis.back_feeding.comparisons import ArmComparison
from intriguing.analysis.back_feeding.pools import BASELINE


def summarize(name: str, arms: Sequence[Arm], tests: Sequence[ArmComparison]) -> list[str]:
    """Say how pools of every layer change the test error, and which part of the paper's claim holds.

    Args:
        name: of the network; empty where it is the only one.
        arms: its arms.
        tests: all comparisons.
    """
    return [
        " ".join(_sentences(name, arm, base, tests))
        for arm in arms
        if arm.pools is not None and arm.pools.layers is None
        for base in tests
        if base.second is arm and base.first is arm.baseline
    ]


def _sentences(name: str, arm: Arm, base: ArmComparison, tests: Sequence[ArmComparison]) -> list[str]:
    paper = "; the paper says from 1.6 to below 1.2 %" if arm.mnist else ""
    name = (f" of {name}" if name else "") + (f" ({arm.name})" if arm.name != "all pools" else "")
    parts = [
        f"Pools of adversarial examples for every layer{name} change the test error "
        f"{_from_to(base)} ({base.words}){paper}."
    ]
    others = [one for one in tests if one.second is arm and one is not base]
    matched = next((one for one in others if one.first is arm.matched), None)
    if matched is not None:
        parts.append(
            f"Their loss is {arm.scale:g} times as large; compared at a rate and decay that compensate for it, they "
            f"change the test error {_from_to(matched)} ({matched.words})."
        )
    elif arm.scale != 1:
        parts.append(
            "Their loss is larger than without pools, and no network without pools was trained at a rate and decay "
            "that compensate for it, so the part of the pools in this is not known."
        )
    inputs = [one for one in others if one is not matched]
    parts += [f"They change it {_from_to(one)} ({one.words})." for one in inputs]
    return [*parts, _claim(arm, matched or base, inputs)]


def _from_to(one: ArmComparison) -> str:
    """Write the mean errors of both arms, "from 1.71 % with weight decay alone to 1.11 %"."""
    before, after = (float(np.mean([arm.errors()[seed] for seed in one.gains])) for arm in (one.first, one.second))
    alone = " alone" if one.first.name == BASELINE else ""
    return f"from {before:.2f} % with {one.first.name}{alone} to {after:.2f} %"


def _claim(arm: Arm, fair: ArmComparison, inputs: Sequence[ArmComparison]) -> str:
    """Judge the paper's claim that examples for every layer, above all for the higher ones, lower the error."""
    where = "" if arm.scale == 1 or fair.first is arm.matched else ", at another scale of the loss"
    lower = "was shown" if fair.lower else "was not shown"
    if not inputs:
        hidden = "was not tested"
    elif all(one.lower for one in inputs):
        hidden = "was shown"
    elif any(one.lower for one in inputs):
        better = ", ".join(one.first.name for one in inputs if one.lower)
        hidden = f"was shown against {better} alone"
    else:
        hidden = "was not shown"
    return (
        f"Of the paper's claim: that {arm.name} lower the test error of {fair.first.name} {lower}{where}; "
        f"that pools of the hidden layers add to those of the input {hidden}."
    )

"""Section "back_feeding": one network trained with and without pools, arm by arm over seeds (section 4.2).

An arm is compared with the one that differs from it in the pools alone.
"""

from __future__ import annotations

from intriguing.analysis.back_feeding.arms import add_sets, families
from intriguing.analysis.back_feeding.comparisons import compare
from intriguing.analysis.back_feeding.figures import curves_figure, scatter_figure
from intriguing.analysis.back_feeding.summary import summarize
from intriguing.analysis.back_feeding.tables import arm_table, comparison_tables
from intriguing.analysis.sections import SectionInputs, SectionOutput


def section(inputs: SectionInputs) -> SectionOutput:
    """Make the arms' table, their curves, and robustness against error, for each network that was trained with pools.

    Returns:
        One of each for every network that has two arms, one of them with pools or dropout.

    Raises:
        UserError: two runs of one arm and seed.
    """
    tables, figures, sentences = [], [], []
    for key, (name, arms) in families(inputs.networks).items():
        add_sets(arms, inputs.sets)
        tests = compare(arms)
        tables += [arm_table(key, name, arms, tests), *comparison_tables(key, name, tests)]
        figures += [curves_figure(key, name, arms), scatter_figure(key, name, arms)]
        sentences += summarize(name, arms, tests)
    return SectionOutput(
        tables=tuple(tables),
        figures=tuple(figure for figure in figures if figure is not None),
        summary=tuple(sentences),
    )

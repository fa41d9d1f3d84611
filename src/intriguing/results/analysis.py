"""Everything that an analysis found, and the runs behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from intriguing.results.cells import THE_PAPER
from intriguing.results.figures import Figure
from intriguing.results.tables import Table


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Describe one finished run behind the numbers.

    Attributes:
        name: the run's name, unique.
        stage: "train" or "attack".
        label: what it is in the paper's words.
        folder: path of its folder, relative to the project.
        command: the command that made it.
        config: its resolved configuration.
        facts: short facts to show beside it, e.g. seed, commit, seconds.
    """

    name: str
    stage: str
    label: str
    folder: str = ""
    command: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AnalysisResult:
    """Hold everything an analysis found.

    Attributes:
        title: heading of the page.
        summary: plain sentences, the result in short.
        tables: in the order in which they are shown.
        figures: in the order in which they are shown.
        runs: every run that went in.
        comparable: whether the data are the paper's, so that agreement may be expected at all.
        reference: whose numbers stand beside the measured ones, such that "'s" can follow.
        provenance: facts of this analysis: commit, config, versions, times.
    """

    title: str
    summary: tuple[str, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    runs: tuple[RunSummary, ...]
    comparable: bool
    reference: str = THE_PAPER
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def table(self, key: str) -> Table:
        """Return the table called ``key``; KeyError if there is none."""
        return {table.key: table for table in self.tables}[key]

    def figure(self, key: str) -> Figure:
        """Return the figure called ``key``; KeyError if there is none."""
        return {figure.key: figure for figure in self.figures}[key]


def fact_text(value: Any) -> str:
    """Write a fact about a run or an analysis in one line: a mapping as "torch 2.15.0, numpy 2.4.6"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {fact_text(inner)}" for name, inner in value.items())
    return ", ".join(map(fact_text, value)) if isinstance(value, list | tuple) else str(value)

"""Section "stability": the paper's spectral analysis (section 4.3), and certificates beyond it."""

from __future__ import annotations

from intriguing.analysis.cells import one_attack
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.analysis.stability import figures
from intriguing.analysis.stability.measure import groups_of, measure_stability
from intriguing.analysis.stability.settings import StabilitySettings
from intriguing.analysis.stability.summary import summarize
from intriguing.analysis.stability.table_5 import convolutions_alone, has_table_5_layers, table_5, table_5_summary
from intriguing.analysis.stability.tables import bound_table, layer_table


def table_5_alone(inputs: SectionInputs) -> SectionOutput:
    """Make Table 5 from the network of the lowest seed that has its layers, with images or without.

    One whose convolutions came from a file goes before the others.
    """
    alexnets = [one for one in (*inputs.networks, *inputs.imageless) if has_table_5_layers(one.module)]
    alexnets.sort(key=lambda one: (not convolutions_alone(one), one.seed, one.name))
    tables = tuple(table_5(one) for one in alexnets[:1])
    return SectionOutput(tables=tables, summary=tuple(table_5_summary(table) for table in tables))


def section(inputs: SectionInputs) -> SectionOutput:
    """Make Table 5, bounds and certificates of every network, amplification by layer, and the curve of the penalty.

    Table 5 is left out where the section ``table5`` has made it.
    """
    settings: StabilitySettings = inputs.settings
    first = SectionOutput() if any(table.key == "table5" for table in inputs.tables) else table_5_alone(inputs)
    tables, sentences = first.tables, first.summary
    attack = one_attack(inputs.sets)
    sets = {one.source: one for one in attack}
    measured = []
    for done, network in enumerate(inputs.networks, start=1):
        measured.append(measure_stability(inputs, network, sets.get(network.name)))
        if inputs.progress:
            inputs.progress("stability", done, len(inputs.networks))
    if not measured:
        return first
    groups = groups_of(measured)
    found_by = f"{attack[0].attack_name} on {attack[0].subset} images" if attack else ""
    firsts = {label: members[0] for label, members in groups.items()}
    drawn = (
        figures.amplification_figure(firsts),
        figures.certificate_figure(firsts),
        figures.penalty_figure(groups, settings.radius),
    )
    return SectionOutput(
        tables=(*tables, layer_table(groups), bound_table(groups, settings.radius, found_by)),
        figures=tuple(figure for figure in drawn if figure is not None),
        summary=(*sentences, *summarize(groups, settings.radius)),
    )

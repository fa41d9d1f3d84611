"""Section "stability": the paper's spectral analysis (section 4.3), and certificates beyond it."""

from __future__ import annotations

from intriguing.analysis.cells import one_attack
from intriguing.analysis.sections import Made, Material
from intriguing.analysis.stability import figures
from intriguing.analysis.stability.measure import groups_of, measure_stability
from intriguing.analysis.stability.summary import summarize
from intriguing.analysis.stability.table_5 import INITIALISED, NONE, alexnet, table_5, table_5_summary
from intriguing.analysis.stability.tables import bound_table, layer_table


def section(material: Material) -> Made:
    """Make Table 5 in three columns, bounds and certificates of every network, and the figures.

    Settings:
        alexnet: the network of Table 5: ``initialised`` (the default), ``published``, a file of torchvision's weights
            (see `table_5.alexnet`), or ``none`` for no Table 5.
        limit: images of each set, and of the data, that are used (256).
        radius: L2 norm at which the share of certified images is counted (0.25).
        pairs: certify by a constant for each pair of classes instead of one for all (true).
    """
    which = str(material.setting("alexnet", INITIALISED))
    tables = [] if which == NONE else [table_5(*alexnet(which, seed=material.seed))]
    sentences = [table_5_summary(table) for table in tables]
    attack = one_attack(material.measured)
    crafted = {one.name: one for one in material.sets}
    sets = {one.source: crafted[one.name] for one in attack}
    measured = []
    for done, network in enumerate(material.networks, start=1):
        measured.append(measure_stability(material, network, sets.get(network.name)))
        if material.progress:
            material.progress("stability", done, len(material.networks))
    if not measured:
        return Made(tables=tuple(tables), summary=tuple(sentences))
    radius = float(material.setting("radius", 0.25))
    groups = groups_of(measured)
    found_by = f"{attack[0].attack_name} on {attack[0].subset} images" if attack else ""
    firsts = {label: members[0] for label, members in groups.items()}
    drawn = (
        figures.amplification_figure(firsts),
        figures.certificate_figure(firsts),
        figures.penalty_figure(groups, radius),
    )
    return Made(
        tables=(*tables, layer_table(material, groups), bound_table(groups, radius, found_by)),
        figures=tuple(figure for figure in drawn if figure is not None),
        summary=(*sentences, *summarize(groups, radius)),
    )

"""Section "units": units against directions (section 3), with statistical tests instead of inspection by eye."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from intriguing.analysis.cells import network_order
from intriguing.analysis.identity import labels_apart
from intriguing.analysis.inputs import Network
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.analysis.units import figures, tables
from intriguing.analysis.units.evidence import Agreement, Comparison, across_seeds, compare, corrected
from intriguing.analysis.units.measure import SHEET, UNIT, LayerScores, measure_layers
from intriguing.analysis.units.samples import Samples
from intriguing.analysis.units.settings import UnitSettings, rotations_for
from intriguing.analysis.units.summary import summarize
from intriguing.analysis.units.untrained import untrained_copy
from intriguing.errors import UserError
from intriguing.results import Figure, Table
from intriguing.units import collect, find_layers


def section(inputs: SectionInputs) -> SectionOutput:
    """Make sheets of top images, scores of every basis, tests, the rotation, ablation, and networks of several seeds.

    Settings: see `UnitSettings`.

    Raises:
        UserError: a setting is out of range, or no network has a layer that was asked for.
    """
    settings: UnitSettings = inputs.settings
    # Where a folder takes the place of the networks' images, a network needs none.
    chosen = _chosen([*inputs.networks, *(inputs.imageless if settings.folder is not None else ())], settings)
    if not chosen:
        return SectionOutput()
    if settings.rotations is None:  # as many as all rows need, which are corrected together
        rows = {(network.label, layer) for network, layers in chosen for layer in layers}
        settings = replace(settings, rotations=rotations_for(len(rows) * settings.num_scores))
    samples = Samples(inputs, settings)
    found = _measure(inputs, chosen, samples, settings)
    comparisons = _compared(found.measured)
    agreements = [
        one
        for label, features in found.features.items()
        for one in across_seeds(label, [r for r, _ in features], [f for _, f in features], seed=inputs.seed)
    ]
    networks = [network for network, _ in chosen]
    return SectionOutput(
        tables=tuple(_tables(found, networks, comparisons, agreements, samples, settings)),
        figures=tuple(_figures(found, networks, agreements, settings)),
        summary=summarize(found.measured, comparisons, agreements, networks),
    )


@dataclass
class _Found:
    """Collect the measurements of all networks, by label.

    Attributes:
        measured: scores of each network.
        controls: scores of the untrained copy of the first network.
        controlled: those first networks.
        features: of labels with several networks: responses of each to the scored and to the fitted images, by layer.
        sheets: figures of top images.
    """

    measured: dict[str, list[list[LayerScores]]] = field(default_factory=dict)
    controls: dict[str, list[list[LayerScores]]] = field(default_factory=dict)
    controlled: list[Network] = field(default_factory=list)
    features: dict[str, list[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]] = field(default_factory=dict)
    sheets: list[Figure] = field(default_factory=list)


def _measure(
    inputs: SectionInputs, chosen: Sequence[tuple[Network, list[str]]], samples: Samples, settings: UnitSettings
) -> _Found:
    """Measure all networks; sheets and controls are of the lowest seed of a label."""
    found = _Found()
    steps = _Steps(inputs, sum(len(layers) for _, layers in chosen))
    order = network_order([network for network, _ in chosen])
    several = {label for label, count in Counter(network.label for network, _ in chosen).items() if count > 1}
    for network, layers in sorted(chosen, key=lambda one: order[one[0].name]):
        images, null = samples.of(network)
        scores = measure_layers(network.module, layers, images, null, settings, seed=network.seed, on_layer=steps)
        if network.label not in found.measured:
            found.sheets += [_sheet(network, one, samples, settings) for one in scores]
            if settings.untrained and (untrained := untrained_copy(network.module, seed=network.seed)) is not None:
                control = measure_layers(untrained, layers, images, null, settings, seed=network.seed, control=True)
                found.controls[network.label] = [control]
                found.controlled.append(network)
        found.measured.setdefault(network.label, []).append(scores)
        if network.label in several:
            readers = images.read, samples.fit_reader(network)
            scored, fit = (collect(network.module, layers, read())[0] for read in readers)
            found.features.setdefault(network.label, []).append((scored, fit))
    return found


def _compared(measured: tables.ScoresByLabel) -> list[Comparison]:
    return corrected([one for label, results in measured.items() for one in compare(label, results)])


def _tables(
    found: _Found,
    networks: Sequence[Network],
    comparisons: Sequence[Comparison],
    agreements: Sequence[Agreement],
    samples: Samples,
    settings: UnitSettings,
) -> Iterator[Table]:
    """Yield the tables that have a cell."""
    measured, controls, controlled = found.measured, found.controls, found.controlled
    runs = {label: [n.name for n in networks if n.label == label] for label in measured}
    sample, notes = samples.sample(networks), samples.notes(networks)
    untrained = {network.label: [network.name] for network in controlled}
    if len(controlled) < len(networks) and controlled:
        seeds = ", ".join(f"{network.label} seed {network.seed}" for network in controlled)
        notes.append(f"Untrained networks are of one seed alone ({seeds}).")
    made = (
        tables.comparison_table(comparisons, runs, sample, notes),
        *tables.score_tables(measured, controls, networks, settings, sample, notes),
        tables.chance_table(measured, runs, settings, sample),
        tables.ablation_table(measured, runs, settings, sample),
        tables.agreement_table(agreements, networks, sample),
        tables.comparison_table(_compared(controls), untrained, samples.sample(controlled), notes, control=True),
    )
    yield from (table for table in made if table is not None)


def _figures(
    found: _Found, networks: Sequence[Network], agreements: Sequence[Agreement], settings: UnitSettings
) -> Iterator[Figure]:
    """Yield the figures that show something."""
    names = [network.name for network in networks]
    made = (
        *found.sheets,
        figures.sweep_figure(found.measured, settings.fractions, names),
        figures.score_figure(found.measured, found.controls, names),
        figures.ablation_figure(found.measured, names),
        figures.agreement_figure(agreements, names),
    )
    yield from (figure for figure in made if figure is not None)


def _chosen(networks: Sequence[Network], settings: UnitSettings) -> list[tuple[Network, list[str]]]:
    """Choose the networks that were asked for and have such layers, with those layers."""
    wanted = [
        network
        for network in networks
        if settings.networks is None
        or any(fnmatch.fnmatchcase(name, p) for p in settings.networks for name in (network.label, network.name))
    ]
    if settings.networks is not None and not wanted:
        raise UserError(
            f"settings.units.networks={list(settings.networks)} names no network of this analysis; there are "
            + ", ".join(network.label for network in networks)
        )
    found = [(network, find_layers(network.module, settings.layers)) for network in _relabelled(wanted)]
    if settings.layers is not None and not any(layers for _, layers in found):
        names = [name for name, _ in wanted[0].module.named_modules() if name] if wanted else []
        raise UserError(
            f"settings.units.layers={list(settings.layers)} names no layer; {wanted[0].label} has {', '.join(names)}"
        )
    return [(network, layers) for network, layers in found if layers]


def _relabelled(networks: Sequence[Network]) -> list[Network]:
    """Give the networks labels that only seeds of one network share."""
    labels = labels_apart({network.name: network.id for network in networks})
    return [replace(network, label=labels[network.name]) for network in networks]


def _sheet(network: Network, one: LayerScores, samples: Samples, settings: UnitSettings) -> Figure:
    read = samples.reader(network)
    shown = {}
    for basis in (UNIT, SHEET):
        top = one.top[basis]
        images, _ = read.subset.read(read.positions[top.flatten()])
        shown[basis] = images.view(*top.shape, *images.shape[1:])
    words = f"Network of seed {network.seed}; {settings.subset} images; response: {settings.aggregate}."
    return figures.sheet(network.label, network.name, one, shown, words)


class _Steps:
    """Report the progress of the section, layer by layer."""

    def __init__(self, inputs: SectionInputs, total: int) -> None:
        self.inputs, self.total, self.done = inputs, total, 0

    def __call__(self, layer: str) -> None:
        if self.inputs.progress is not None:
            self.inputs.progress(f"units: {layer}", self.done, self.total)
        self.done += 1

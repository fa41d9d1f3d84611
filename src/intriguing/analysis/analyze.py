"""Analyse trained networks and adversarial sets: tables, figures and sentences.

Nothing is written (see `intriguing.report`). Equal inputs give equal results, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis import filters, paper, robustness_curve, two_classes
from intriguing.analysis.back_feeding.arms import families
from intriguing.analysis.back_feeding.section import section as back_feeding
from intriguing.analysis.cells import display_labels, network_order, set_label
from intriguing.analysis.controls import (
    autoencoders,
    classifiers,
    equal_norm,
    likelihood,
    noise_distance,
    pockets,
    seeds,
)
from intriguing.analysis.controls.kept import keep
from intriguing.analysis.errata.erratum import ErrataSettings
from intriguing.analysis.errata.material import observe as errata_observations
from intriguing.analysis.errata.section import section as errata
from intriguing.analysis.inputs import CraftedSet, Network
from intriguing.analysis.measure import MeasuredSet, Progress, measure
from intriguing.analysis.paper_tables import charts, one_target, pictures
from intriguing.analysis.paper_tables.error_tables import error_table
from intriguing.analysis.paper_tables.transfer import transfer_tables
from intriguing.analysis.paper_tables.weight_decay import lambda_curves, lambda_table
from intriguing.analysis.reference import Reference
from intriguing.analysis.sections import Section, SectionInputs, SectionOutput, Subsets
from intriguing.analysis.stability.measure import observe as stability_examples
from intriguing.analysis.stability.section import section as stability
from intriguing.analysis.stability.section import table_5_alone
from intriguing.analysis.stability.settings import StabilitySettings
from intriguing.analysis.summary import comparable, summarize
from intriguing.analysis.units.section import section as units
from intriguing.analysis.units.settings import UnitSettings
from intriguing.results import THE_PAPER, AnalysisResult, Figure


def _error_table(key: str) -> Section:
    return Section(make=lambda inputs: SectionOutput.of(error_table(key, inputs.networks, inputs.sets)))


def _transfer(key: str) -> Section:
    return Section(make=lambda inputs: SectionOutput.of(*transfer_tables(inputs.networks, inputs.sets, keys=[key])))


def _agreement(inputs: SectionInputs) -> SectionOutput:
    if inputs.reference is not None:
        return SectionOutput.of(charts.agreement_figure(inputs.tables, reference=inputs.reference.name))
    return SectionOutput.of(charts.agreement_figure(inputs.tables) if comparable(inputs.networks) else None)


def _weight_decay(inputs: SectionInputs) -> SectionOutput:
    curves = lambda_curves(inputs.networks, inputs.sets)
    table = lambda_table(curves)
    runs = () if table is None else table.runs
    return SectionOutput.of(table, charts.lambda_figure(curves, comparable=comparable(inputs.networks), runs=runs))


def _distortions(inputs: SectionInputs) -> SectionOutput:
    same_data = comparable(inputs.networks)
    return SectionOutput.of(charts.distortion_figure(inputs.sets, inputs.networks, comparable=same_data))


def _controls(make: Callable[[SectionInputs], SectionOutput], settings: type) -> Section:
    return Section(make=make, settings=settings, observe=keep, reads_images=True)


SECTIONS: dict[str, Section] = {
    "table1": _error_table("table1"),
    "table2": _transfer("table2"),
    "table3": _error_table("table3"),
    "table4": _transfer("table4"),
    "transfer": _transfer("transfer"),  # every transfer matrix that the paper does not have
    "agreement": Section(make=_agreement),
    "lambda": Section(make=_weight_decay),
    "figure7": Section(
        make=lambda inputs: SectionOutput.of(pictures.figure_7(inputs)),
        settings=pictures.Figure7Settings,
        observe=pictures.observe_noise,
    ),
    "distortions": Section(make=_distortions),
    "examples": Section(make=lambda inputs: SectionOutput.of(*_example_grids(inputs.networks, inputs.sets))),
    "back_feeding": Section(make=back_feeding, check=families),
    "one_target": Section(make=one_target.section, settings=one_target.OneTargetSettings, observe=one_target.observe),
    "table5": Section(make=table_5_alone),
    "units": Section(make=units, settings=UnitSettings, reads_images=True),
    "two_classes": Section(make=two_classes.section, reads_images=True),
    "filters": Section(make=filters.section, settings=filters.FilterSettings),
    "stability": Section(make=stability, settings=StabilitySettings, observe=stability_examples, reads_images=True),
    "robustness_curve": Section(
        make=robustness_curve.section,
        settings=robustness_curve.RobustnessCurveSettings,
        observe=robustness_curve.observe,
    ),
    "controls": _controls(classifiers.section, classifiers.ControlSettings),
    "likelihood": _controls(likelihood.section, likelihood.LikelihoodSettings),
    "transfer_norms": _controls(equal_norm.section, equal_norm.TransferNormSettings),
    "autoencoders": Section(make=autoencoders.section, settings=autoencoders.AutoencoderSettings, observe=keep),
    "noise_distance": _controls(noise_distance.section, noise_distance.NoiseDistanceSettings),
    "pockets": _controls(pockets.section, pockets.PocketSettings),
    "seeds": _controls(seeds.section, seeds.SeedSettings),
    "errata": Section(make=errata, settings=ErrataSettings, observe=errata_observations),
}
"""The sections of an analysis, in the order of the page."""
PAPER: tuple[str, ...] = tuple(SECTIONS)[:10]
"""The sections of the paper, which an analysis has by default."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The inputs of an analysis, checked.

    Attributes:
        networks: trained networks, in evaluation mode.
        sections: names in `SECTIONS`.
        settings: by section, instances of its settings; sections that are missing have their defaults.
        subsets: finds the images of a network's data.
        seed: seed of the equal-norm noise and of everything random in sections.
        batch_size: images per forward pass; it changes speed and memory, not results.
        workers: threads that read images of a folder.
        progress: called with (name of the work, steps done, steps in all).
        reference: numbers that the tables compare with; None: the paper's.

    Raises:
        ValueError: an unknown section, a section without its images, a batch size below 1, or two networks of one name.
        UserError: networks that a section cannot take.
    """

    networks: Sequence[Network]
    sections: Sequence[str] = PAPER
    settings: Mapping[str, Any] = field(default_factory=dict)
    subsets: Subsets | None = field(default=None, repr=False)
    seed: int = 0
    batch_size: int = 1024
    workers: int = 0
    progress: Progress | None = field(default=None, repr=False)
    reference: Reference | None = None

    def __post_init__(self) -> None:
        if unknown := [section for section in self.sections if section not in SECTIONS]:
            raise ValueError(f"sections must be among {', '.join(SECTIONS)}, got {', '.join(unknown)}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        check_names("networks", [network.name for network in self.networks])
        for name, section in self.chosen.items():
            if section.reads_images and self.subsets is None:
                raise ValueError(f"section {name} reads images: give subsets")
            if section.check is not None:
                section.check(self.inputs(name).networks)

    @property
    def chosen(self) -> dict[str, Section]:
        """The sections by name, in the order of the page."""
        return {name: section for name, section in SECTIONS.items() if name in self.sections}

    def inputs(self, section: str) -> SectionInputs:
        """Return the inputs of a section before any set is measured."""
        return SectionInputs(
            networks=[network for network in self.networks if network.has_images],
            imageless=[network for network in self.networks if not network.has_images],
            settings=self.settings.get(section) or SECTIONS[section].settings(),
            subsets=self.subsets,
            seed=self.seed,
            batch_size=self.batch_size,
            workers=self.workers,
            progress=self.progress,
            reference=self.reference,
        )


@dataclass(frozen=True)
class Measurements:
    """The measured sets, and by section and set what the sections observed."""

    sets: tuple[MeasuredSet, ...]
    observed: Mapping[str, Mapping[str, Any]] = field(repr=False)


def check_names(what: str, names: Sequence[str]) -> None:
    """Raise ValueError where two of the names are equal."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"expected {what} of different names, got {', '.join(repeated)} more than once")


def measure_sets(request: Request, sets: Sequence[CraftedSet]) -> Measurements:
    """Read and measure every set once; memory is bounded by one set.

    Raises:
        ValueError: two sets of one name.
        UserError: a set that cannot be used, or two sets that would count images twice.
    """
    check_names("sets", [one.name for one in sets])
    observed: dict[str, dict[str, Any]] = {name: {} for name, one in request.chosen.items() if one.observe is not None}
    networks = [network for network in request.networks if network.has_images]
    measured = []

    def observe(examples: AdversarialSet, one: MeasuredSet) -> None:
        for name, found in observed.items():
            look = SECTIONS[name].observe
            assert look is not None
            found[one.name] = look(examples, one, request.inputs(name))

    for crafted in sets:
        measured.append(
            measure(
                crafted,
                networks,
                seed=request.seed,
                batch_size=request.batch_size,
                progress=request.progress,
                observe=observe,
            )
        )
    return Measurements(tuple(measured), observed)


def make_result(
    request: Request,
    measurements: Measurements,
    *,
    title: str,
    lacking: str = "",
    provenance: Mapping[str, Any] | None = None,
) -> AnalysisResult:
    """Make the sections in the order of the page.

    Args:
        request: the networks and the sections.
        measurements: of `measure_sets`.
        title: heading of the page.
        lacking: sentence about what is missing, the last of the summary; empty for none.
        provenance: facts about this analysis for the report: commit, command, versions, times.

    Raises:
        UserError: comparison numbers that stand beside no cell.
    """
    made: dict[str, SectionOutput] = {}
    for name, section in request.chosen.items():
        inputs = replace(
            request.inputs(name),
            sets=measurements.sets,
            tables=[table for one in made.values() for table in one.tables],
            observed=measurements.observed.get(name, {}),
        )
        with paper.left_out() if request.reference else nullcontext():
            made[name] = section.make(inputs)
        if request.reference:
            tables = tuple(request.reference.beside(table) for table in made[name].tables)
            made[name] = replace(made[name], tables=tables)
    if request.reference:
        request.reference.check([table for one in made.values() for table in one.tables])
    networks = [network for network in request.networks if network.has_images]
    paper_tables = [table for name, one in made.items() if name in PAPER for table in one.tables]
    return AnalysisResult(
        title=title,
        summary=(
            *(summarize(networks, measurements.sets, paper_tables, request.reference) if networks else ()),
            *(line for one in made.values() for line in one.summary),
            *([lacking] if lacking else []),
        ),
        tables=tuple(table for one in made.values() for table in one.tables),
        figures=tuple(figure for one in made.values() for figure in one.figures),
        runs=(*(network.run for network in request.networks), *(one.run for one in measurements.sets)),
        comparable=comparable(networks) or request.reference is not None,
        reference=request.reference.name if request.reference else THE_PAPER,
        provenance=dict(provenance or {}),
    )


def analyze(
    networks: Sequence[Network],
    sets: Sequence[CraftedSet],
    *,
    title: str,
    provenance: Mapping[str, Any] | None = None,
    **request: Any,
) -> AnalysisResult:
    """Measure every adversarial set on its victims and make the tables and figures.

    Args:
        networks: trained networks, in evaluation mode.
        sets: adversarial sets; each is read, measured and dropped.
        title: heading of the page.
        provenance: facts about this analysis for the report.
        request: ``sections``, ``settings``, ``subsets``, ``seed``, ``batch_size``, ``progress``, see `Request`.

    Returns:
        Tables, figures and their words. A section without its inputs is missing.

    Raises:
        ValueError: see `Request`; two sets of one name.
        UserError: a set that cannot be used, networks that a section cannot take.
    """
    asked = Request(networks=networks, **request)
    return make_result(asked, measure_sets(asked, sets), title=title, provenance=provenance)


def _example_grids(networks: Sequence[Network], sets: Sequence[MeasuredSet]) -> list[Figure | None]:
    """Make one grid for each network and attack, of its lowest seed."""
    labels = display_labels(networks)
    first: dict[tuple[str, str, str], MeasuredSet] = {}
    for one in sorted(sets, key=lambda s: s.seed):
        if not one.is_noise and one.amplify is None:
            first.setdefault((_title(labels, one), one.subset, one.attack_name), one)
    several = len({attack for _, _, attack in first}) > 1
    chosen = {one.name: f"{title}, {attack}" if several else title for (title, _, attack), one in first.items()}
    order = network_order(networks)
    shown = sorted((one for one in sets if one.name in chosen), key=lambda one: order.get(one.source or "", len(order)))
    return [pictures.grid_figure(one, chosen[one.name]) for one in shown]


def _title(labels: Mapping[str, str], one: MeasuredSet) -> str:
    """Write the source as a heading, with its split: a network of a half may have the label of one of all images."""
    label = set_label(labels, one)
    return label if one.split == "full" else f"{label}, trained on {one.split.upper()}"

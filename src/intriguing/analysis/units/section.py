"""The section "units": units against directions (section 3), with a test in the place of an eye."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from intriguing.analysis.identity import labels_apart
from intriguing.analysis.inputs import Network
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.analysis.units import figures, tables
from intriguing.analysis.units.evidence import across_seeds, compare, corrected
from intriguing.analysis.units.fresh import fresh
from intriguing.analysis.units.measure import SHEET, UNIT, Images, LayerScores, measure_layers, null_sets
from intriguing.analysis.units.settings import UnitSettings, rotations_for
from intriguing.analysis.units.summary import summarize
from intriguing.data import ImageSubset
from intriguing.errors import UserError
from intriguing.units import SCORES, collect, find_layers, hidden_layers
from intriguing.units.chance import null_scores
from intriguing.units.scores import unit_rows

__all__ = ["UnitSettings", "section"]

TRAINING = ("model.label", "model.epochs", "model.batch_size", "model.weight_decay", "model.normaliser", "model.spell")
TRAINING += tuple(
    f"model.settings.{key}"
    for key in (
        *("learning_rate", "softmax_rate", "optimizer", "schedule", "dropout", "weights"),
        *("pretrain_share", "sparsity", "sparsity_weight", "noise"),
    )
)
"""Beginnings of the settings of a model that name it or train it, and leave its architecture as it is."""

FITTED_TO, FEWEST_FITTED = 5000, 2
"""Images at most, and at least, that bases are fitted to."""
SIDE = {1: 32, 3: 16}
"""Height and width to which larger images are averaged before their pixels are compared, by channels."""


def section(inputs: SectionInputs) -> SectionOutput:
    """Sheets of top images, scores of every basis, tests, the rotation, ablation, and networks of several seeds.

    Settings: see `UnitSettings`.

    Raises:
        UserError: a setting that cannot be right, a layer that no network has.
    """
    settings: UnitSettings = inputs.settings
    chosen = _chosen(inputs.networks, settings)
    if not chosen:
        return SectionOutput()
    if settings.rotations is None:  # as many as all rows need, which are corrected together
        rows = {(network.label, layer) for network, layers in chosen for layer in layers}
        settings = replace(settings, rotations=rotations_for(len(rows) * len(SCORES)))
    looks = _Looks(inputs, settings)
    measured: dict[str, list[list[LayerScores]]] = {}
    controls: dict[str, list[list[LayerScores]]] = {}
    controlled: list[Network] = []
    features: dict[str, list[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]] = {}
    steps = _Steps(inputs, sum(len(layers) for _, layers in chosen))
    sheets = []
    for network, layers in sorted(chosen, key=lambda one: (one[0].label, one[0].seed)):
        images, null = looks.of(network)
        found = measure_layers(network.module, layers, images, null, settings, seed=network.seed, tell=steps)
        if network.label not in measured:
            sheets += [_sheet(network, one, looks, settings) for one in found]
            if settings.untrained and (untrained := fresh(network.module, seed=network.seed)) is not None:
                control = measure_layers(untrained, layers, images, null, settings, seed=network.seed, control=True)
                controls[network.label] = [control]
                controlled.append(network)
        measured.setdefault(network.label, []).append(found)
        scored, fit = (collect(network.module, layers, read())[0] for read in (images.read, looks.fit_reader(network)))
        features.setdefault(network.label, []).append((scored, fit))
    comparisons = corrected([one for label, results in measured.items() for one in compare(label, results)])
    control = corrected([one for label, results in controls.items() for one in compare(label, results)])
    agreements = [
        one
        for label, rows in features.items()
        for one in across_seeds(label, [r for r, _ in rows], [f for _, f in rows], seed=inputs.seed)
    ]
    networks = [network for network, _ in chosen]
    names, sample = [network.name for network in networks], looks.sample(networks)
    runs = {label: [n.name for n in networks if n.label == label] for label in measured}
    notes = looks.notes(networks)
    untrained = {network.label: [network.name] for network in controlled}
    if len(controlled) < len(networks) and controlled:
        seeds = ", ".join(f"{network.label} seed {network.seed}" for network in controlled)
        notes.append(f"Untrained: of one seed alone ({seeds}).")
    made_tables = [
        tables.comparison_table(comparisons, runs, sample, notes, key="units_tests"),
        *tables.score_tables(measured, controls, networks, settings, sample, notes),
        tables.chance_table(measured, runs, settings, sample),
        tables.ablation_table(measured, runs, settings, sample),
        tables.agreement_table(agreements, networks, sample),
        tables.comparison_table(control, untrained, looks.sample(controlled), notes, key="units_control"),
    ]
    made_figures = [
        *sheets,
        figures.sweep_figure(measured, settings.fractions, names),
        figures.score_figure(measured, controls, names),
        figures.ablation_figure(measured, names),
        figures.agreement_figure(agreements, names),
    ]
    return SectionOutput(
        tables=tuple(table for table in made_tables if table is not None),
        figures=tuple(figure for figure in made_figures if figure is not None),
        summary=summarize(measured, comparisons, agreements, networks),
    )


def _chosen(networks: Sequence[Network], settings: UnitSettings) -> list[tuple[Network, list[str]]]:
    """The networks that are asked for and have such layers, with those layers."""
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
    found = [(network, find_layers(network.module, settings.layers)) for network in _told_apart(wanted)]
    if settings.layers is not None and not any(layers for _, layers in found):
        names = [name for name, _ in wanted[0].module.named_modules() if name] if wanted else []
        raise UserError(
            f"settings.units.layers={list(settings.layers)} names no layer; {wanted[0].label} has {', '.join(names)}"
        )
    return [(network, layers) for network, layers in found if layers]


def _told_apart(networks: Sequence[Network]) -> list[Network]:
    """The same with labels that only seeds of one network share."""
    labels = labels_apart({network.name: network.id for network in networks})
    return [replace(network, label=labels[network.name]) for network in networks]


@dataclass(frozen=True)
class _Reader:
    """Images of a subset at some positions (N,), read anew at each iteration."""

    subset: ImageSubset
    positions: Tensor
    batch_size: int

    def __call__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for part in self.positions.split(self.batch_size):
            yield self.subset.read(part)


class _Looks:
    """The images each network is looked at with, made once for all networks of the same data."""

    def __init__(self, inputs: SectionInputs, settings: UnitSettings) -> None:
        self.inputs, self.settings = inputs, settings
        self._subsets: dict[str, ImageSubset] = {}
        self._pixels: dict[str, tuple[Tensor, Tensor]] = {}
        self._features: dict[tuple[str, str], Tensor] = {}
        self._others: dict[str, ImageSubset | None] = {}
        self.counts: list[int] = []

    def subset(self, network: Network) -> tuple[str, ImageSubset]:
        """The subset whose images are scored, and a key that equal subsets share."""
        own = self.settings.subset not in ("test", "full")  # images that the network's own split chooses
        apart = ("batch_size",) if own else ("batch_size", "validation", "only")
        data = {key: value for key, value in network.config.get("data", {}).items() if key not in apart}
        described = [data, network.config.get("split", {}) if own else None]
        key = json.dumps(described, sort_keys=True, default=str)
        if key not in self._subsets:
            self._subsets[key] = self.inputs.subset(network, self.settings.subset)
        return key, self._subsets[key]

    def reader(self, network: Network, most: int | None = None) -> _Reader:
        """All images that are scored, or as many as may be: drawn, for folders hold theirs class by class."""
        _, subset = self.subset(network)
        limits = [count for count in (self.settings.limit, most) if count is not None]
        count = len(subset) if self._other(network) is not None else -(-len(subset) // 2)
        return self._reader(subset, self._order(subset)[:count][: min([count, *limits])])

    def fit_reader(self, network: Network) -> _Reader:
        """Images to fit to, none of which is scored: of the other subset, or a half that is set apart."""
        if (other := self._other(network)) is not None:
            return self._reader(other, self._order(other)[:FITTED_TO])
        _, subset = self.subset(network)
        return self._reader(subset, self._order(subset)[-(-len(subset) // 2) :][:FITTED_TO])

    @property
    def fitted_on(self) -> str:
        """The subset to fit to: training images where held-out images are scored, else test images."""
        return "train" if self.settings.subset in ("test", "val") else "test"

    def _other(self, network: Network) -> ImageSubset | None:
        """The subset to fit to; None where it is not at hand, as with weights that were trained elsewhere."""
        if network.name not in self._others:
            try:
                found = self.inputs.subset(network, self.fitted_on)
            except UserError:  # the folder does not hold the files that it was trained on
                found = None
            self._others[network.name] = found if found is not None and len(found) >= FEWEST_FITTED else None
        return self._others[network.name]

    def _order(self, subset: ImageSubset) -> Tensor:
        return torch.randperm(len(subset), generator=torch.Generator().manual_seed(self.inputs.seed))

    def _reader(self, subset: ImageSubset, positions: Tensor) -> _Reader:
        return _Reader(subset, positions.sort().values, min(self.inputs.batch_size, 256))

    def of(self, network: Network) -> tuple[Images, dict[str, Tensor]]:
        """The images, and the scores of random sets of them."""
        key = f"{self.subset(network)[0]}, {self._other(network) is None}"
        read = self.reader(network)
        if len(read.positions) <= self.settings.columns:
            raise UserError(
                f"{network.name}: subset={self.settings.subset} has {len(read.positions)} images, too few for rows of "
                f"{self.settings.columns}"
            )
        self.counts.append(len(read.positions))
        if key not in self._pixels:
            parts = [(_small(images), labels) for images, labels in read()]
            self._pixels[key] = unit_rows(torch.cat([p for p, _ in parts])), torch.cat([y for _, y in parts])
        pixels, labels = self._pixels[key]
        rows = {"pixel_similarity": pixels}
        if other := self._independent(network):
            if (key, other.name) not in self._features:
                layer = hidden_layers(other.module)[-1]
                found, _ = collect(other.module, [layer], read(), aggregate="mean")
                self._features[key, other.name] = unit_rows(found[layer])
            rows["feature_similarity"] = self._features[key, other.name]
        images = Images(
            read=read,
            few=self.reader(network, self.settings.ablation_limit),
            labels=labels,
            num_classes=int(labels.max()) + 1,
            rows=rows,
            fit=self.fit_reader(network),
        )
        return images, null_scores(labels, rows, null_sets(images, self.settings, seed=self.inputs.seed))

    def _independent(self, network: Network) -> Network | None:
        """Another network of the same images: of another architecture where there is one, else of another seed."""
        same = [
            n
            for n in self.inputs.networks
            if n.name != network.name and self.subset(n)[0] == self.subset(network)[0] and hidden_layers(n.module)
        ]
        return min(
            same,
            key=lambda n: (not other_architecture(n, network), n.split != "full", n.seed, n.name),
            default=None,
        )

    def notes(self, networks: Sequence[Network]) -> list[str]:
        """Say what the fitted bases and the similarity in features rest on."""
        where = f"{self.fitted_on} images"
        if apart := [network.name for network in networks if self._other(network) is None]:
            half = f"the other half of the {self.settings.subset} images"
            where = half if len(apart) == len(networks) else f"{where}, or of {', '.join(apart)} {half},"
        found = [
            "What is fitted (PCA, ICA, NMF, dictionary, whitening, the variances of the ablation, over seeds the "
            f"rotation of Procrustes and the partners of units) is fitted to up to {FITTED_TO:,} {where} and scored on "
            f"the {self.settings.subset} images."
        ]
        references: dict[str, list[str]] = {}
        for network in networks:
            if (other := self._independent(network)) is None:
                continue
            kind = "another architecture" if other_architecture(other, network) else "another run of one architecture"
            references.setdefault(f"{other.label} ({other.name}), {kind}", []).append(network.name)
        for reference, names in references.items():
            of = "" if len(references) == 1 else f" of {', '.join(names)}"
            found.append(f"Similarity in features{of}: cosines in the last hidden layer of {reference}.")
        return found

    def sample(self, networks: Sequence[Network]) -> str:
        """N and the seeds in words."""
        seeds = ", ".join(str(seed) for seed in sorted({n.seed for n in networks}))
        counts = sorted(set(self.counts))
        numbers = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        seeds = f"{'seeds' if ', ' in seeds else 'seed'} {seeds}"
        return f"N = {numbers} {self.settings.subset} images; {seeds}; response: {self.settings.aggregate}"


def other_architecture(first: Network, second: Network) -> bool:
    """Whether two networks compute by different layers, whatever their labels, splits, seeds and training.

    The modules decide; where they are alike, the settings of the model that do not merely train it.
    """
    layers = [_layers(one.module) for one in (first, second)]
    settings = [{pair for pair in one.id.architecture if not pair[0].startswith(TRAINING)} for one in (first, second)]
    return layers[0] != layers[1] or settings[0] != settings[1]


def _layers(module: nn.Module) -> list[tuple[object, ...]]:
    """Kind, settings and shapes of weights of each layer, without those that only training sees."""
    return [
        (type(one).__name__, one.extra_repr(), [tuple(weight.shape) for weight in one.parameters(recurse=False)])
        for one in module.modules()
        if not isinstance(one, nn.modules.dropout._DropoutNd | nn.Identity) and not any(one.children())
    ]


def _small(images: Tensor) -> Tensor:
    """Images no larger than their pixels need to be to be compared."""
    side = SIDE.get(images.shape[1], 16)
    height, width = (min(side, length) for length in images.shape[-2:])
    return images if (height, width) == tuple(images.shape[-2:]) else F.adaptive_avg_pool2d(images, (height, width))


def _sheet(network: Network, one: LayerScores, looks: _Looks, settings: UnitSettings):
    read = looks.reader(network)
    shown = {}
    for basis in (UNIT, SHEET):
        top = one.top[basis]
        images, _ = read.subset.read(read.positions[top.flatten()])
        shown[basis] = images.view(*top.shape, *images.shape[1:])
    words = f"Network of seed {network.seed}; {settings.subset} images; response: {settings.aggregate}."
    return figures.sheet(network.label, network.name, one, shown, words)


class _Steps:
    """Tells how far the section is."""

    def __init__(self, inputs: SectionInputs, total: int) -> None:
        self.inputs, self.total, self.done = inputs, total, 0

    def __call__(self, what: str) -> None:
        if self.inputs.progress is not None:
            self.inputs.progress(f"units: {what}", self.done, self.total)
        self.done += 1

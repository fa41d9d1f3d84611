"""Section "likelihood": are adversarial examples unlikely? Densities of images and activations, and hits of noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from intriguing.analysis.cells import WILSON, error_cell, method
from intriguing.analysis.controls.kept import Group, Kept, grouped, mean_cell, runs_of
from intriguing.analysis.controls.lines import draw_lines
from intriguing.analysis.drawing import BLUE, GREEN, GREY, ORANGE, chart, lay_out, style
from intriguing.analysis.measure import mixed_seed
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.controls.densities import DENSITIES, Density, fit_density
from intriguing.controls.noise import hit_probability, margins
from intriguing.controls.perturbations import shuffled
from intriguing.metrics import distortion, equal_norm_gaussian
from intriguing.results import Cell, Figure, Quantity, Table
from intriguing.statistics.counts import Count
from intriguing.statistics.intervals import wilson_interval
from intriguing.statistics.ranking import area_under_roc
from intriguing.units import collect, hidden_layers

CLEAN, KINDS = "clean", ("adversarial", "Gaussian", "shuffled")
AREA = Quantity(name="auc", digits=2)
EXPONENT = Quantity(name="log10 probability")
INPUT = "input"


@dataclass(frozen=True)
class LikelihoodSettings:
    """Settings of the section.

    Attributes:
        limit: images of each set that are used.
        densities: names in ``intriguing.controls.DENSITIES``.
        train_limit: training images that each density is fitted to.
        layers: also the activations of every hidden layer.
        hits: images of each network for which the probability that noise hits is estimated; 0 for none.
        multiples: norms of that noise, as multiples of the perturbation found.
        lowest: smallest probability that is told from 0.
    """

    limit: int = field(default=128, metadata={"low": 2})
    densities: tuple[str, ...] = field(default=tuple(DENSITIES), metadata={"choices": tuple(DENSITIES)})
    train_limit: int = field(default=5000, metadata={"low": 10})
    layers: bool = True
    hits: int = field(default=16, metadata={"low": 0})
    multiples: tuple[float, ...] = field(default=(1.5, 2.0, 4.0, 8.0), metadata={"above": 0})
    lowest: float = field(default=1e-6, metadata={"above": 0})


Scores = dict[str, Tensor]
"""Log densities (M,) by kind of image."""
Places = dict[tuple[str, str, str], list[tuple[Kept, Scores]]]
"""By label, layer and density: each seed's examples with their log densities."""


def section(inputs: SectionInputs) -> SectionOutput:
    """Make the areas under ROC curves of every density and layer, and the probability that noise hits."""
    tables: list[Table] = []
    figures: list[Figure] = []
    summary: list[str] = []
    for group in grouped(inputs):
        found = _scores(inputs, group)
        tables.append(_area_table(group, found))
        figures.append(_score_figure(group, found))
        summary.append(_area_sentence(tables[-1]))
        if inputs.settings.hits:
            hits = _hits(inputs, group)
            tables.append(_hit_table(inputs, group, hits))
            figures.append(_hit_figure(inputs, tables[-1], group))
            summary.append(_hit_sentence(inputs, group, hits))
    return SectionOutput(tables=tuple(tables), figures=tuple(figures), summary=tuple(summary))


def _perturbed(inputs: SectionInputs, one: Kept) -> dict[str, Tensor]:
    """Return the images of each kind; all perturbations of an image have one norm."""
    generator = torch.Generator().manual_seed(mixed_seed(inputs.seed, one.run))
    size = distortion(one.inputs, one.adv_inputs)
    return {
        CLEAN: one.inputs,
        KINDS[0]: one.adv_inputs,
        KINDS[1]: equal_norm_gaussian(one.inputs, size, generator=generator),
        KINDS[2]: shuffled(one.inputs, one.adv_inputs, generator=generator),
    }


def _scores(inputs: SectionInputs, group: Group) -> Places:
    settings: LikelihoodSettings = inputs.settings
    found: Places = {}
    of_images: dict[tuple[int, str], dict[str, Density]] = {}
    for done, one in enumerate(group.kept):
        if inputs.progress:
            inputs.progress("likelihood", done, len(group.kept))
        module = one.network.module
        subset = inputs.subset(one.network, "train")
        order = torch.randperm(len(subset), generator=torch.Generator().manual_seed(mixed_seed(one.seed, "density")))
        # A density of the very images that it is asked about would find them likely, and their neighbours less so.
        asked = torch.cat([other.indices for other in group.kept if other.seed == one.seed])
        order = order[~torch.isin(subset.indices[order], asked)]
        train, labels = subset.read(order[: settings.train_limit].sort().values)
        key = one.seed, one.network.split
        if key not in of_images:
            of_images[key] = {kind: fit_density(kind, train, seed=one.seed) for kind in settings.densities}
        shown = _perturbed(inputs, one)
        for kind, density in of_images[key].items():
            rows = {name: density.log_prob(images) for name, images in shown.items()}
            found.setdefault((one.label, INPUT, kind), []).append((one, rows))
        layers = hidden_layers(module) if settings.layers else []
        if not layers:
            continue
        fit = collect(module, layers, [(train, labels)])[0]
        inside = {name: collect(module, layers, [(images, one.labels)])[0] for name, images in shown.items()}
        for layer in layers:
            for kind in settings.densities:
                density = fit_density(kind, fit[layer], seed=one.seed)
                rows = {name: density.log_prob(part[layer]) for name, part in inside.items()}
                name = layer.removeprefix("network.")
                found.setdefault((one.label, f"layer {name}", kind), []).append((one, rows))
    return found


def _area_table(group: Group, found: Places) -> Table:
    cells: dict[tuple[str, str], Cell] = {}
    rows: dict[str, None] = {}
    for (label, layer, kind), members in found.items():
        row = f"{label} · {layer} · {DENSITIES[kind]}"
        rows[row] = None
        for column in KINDS:
            clean = torch.cat([scores[CLEAN] for _, scores in members])
            other = torch.cat([scores[column] for _, scores in members])
            area = area_under_roc(clean, other, paired=True)
            cells[row, column] = Cell(
                quantity=AREA,
                value=area.value,
                interval=area.interval or wilson_interval(area.value * len(clean), len(clean)),
                n=len(clean),
                images=max(len(one.labels) for one, _ in members),
                runs=runs_of(one for one, _ in members),
            )
    return Table(
        key=f"likelihood{group.suffix}",
        title="Are adversarial examples unlikely?",
        detail=group.detail,
        caption="Area under the ROC curve by which a density, fitted to training images or their activations, ranks "
        "clean images above perturbed ones of equal norm: .5 is chance, 1 is perfect. No density is fitted to the "
        "images that it is asked about. Gaussian noise and shuffled perturbations are the controls, image by image.",
        row_header="network, layer and density",
        rows=tuple(rows),
        columns=KINDS,
        cells=cells,
        sample=group.sample,
        method="95 % interval of DeLong for pairs on the logit's scale, Wilson's where nothing overlaps; images of "
        "several seeds are counted as separate draws",
        runs=runs_of(group.kept),
    )


def _score_figure(group: Group, found: Places) -> Figure:
    """Draw the distributions of the log densities of the input, of the first network with all kinds of images."""
    label = group.labels[0]
    chosen = [(kind, members) for (name, layer, kind), members in found.items() if (name, layer) == (label, INPUT)]
    with style():
        figure, places = lay_out(len(chosen), most=3, width=3.2, height=2.8)
        for axes, (kind, members) in zip(places, chosen, strict=True):
            for name, colour in zip((CLEAN, *KINDS), (GREY, ORANGE, BLUE, GREEN), strict=True):
                values = torch.cat([scores[name] for _, scores in members])
                values = values[values.isfinite()].sort().values
                axes.plot(values, torch.linspace(0, 1, len(values)), color=colour, label=name)
            axes.set(title=DENSITIES[kind], xlabel="log density, nats")
        places[0].set_ylabel("share of images below")
        figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return chart(
        figure,
        key=f"likelihood{group.suffix}",
        title="Log density of clean and perturbed images",
        detail=", ".join(part for part in (label, group.detail) if part),
        caption="Cumulative distributions of the log density of images without a perturbation and with adversarial, "
        "Gaussian and shuffled perturbations of equal norm.",
        alt="Cumulative distributions of log densities, one panel for each density.",
        runs=runs_of(group.of(label)),
    )


def _area_sentence(table: Table) -> str:
    areas = {kind: [cell.value for (_, column), cell in table.cells.items() if column == kind] for kind in KINDS}
    adversarial = [table.cells[row, KINDS[0]] for row in table.rows]
    sure = sum(cell.interval is not None and cell.interval.low > 0.5 for cell in adversarial)
    middle = {kind: sorted(values)[len(values) // 2] for kind, values in areas.items()}
    where = f" ({table.detail})" if table.detail else ""
    return (
        f"Are they unlikely{where}? Densities rank adversarial examples below clean images in {sure} of "
        f"{len(adversarial)} cases (median area {middle[KINDS[0]]:.2f}; Gaussian noise of equal norm "
        f"{middle[KINDS[1]]:.2f}, shuffled {middle[KINDS[2]]:.2f})."
    )


Hits = dict[str, list[tuple[Kept, Tensor]]]
"""By label: each seed's examples, with probabilities (multiples, M), nan for images that were not tried."""


def _hits(inputs: SectionInputs, group: Group) -> Hits:
    settings: LikelihoodSettings = inputs.settings
    found: Hits = {}
    for done, one in enumerate(group.kept):
        if inputs.progress:
            inputs.progress("hits of noise", done, len(group.kept))
        generator = torch.Generator().manual_seed(mixed_seed(inputs.seed, f"hits {one.run}"))
        right = margins(one.network.module, one.inputs, one.labels) > 0
        table = torch.full((len(settings.multiples), len(one.labels)), torch.nan, dtype=torch.float64)
        for row in right.nonzero().flatten()[: settings.hits].tolist():
            for line, multiple in enumerate(settings.multiples):
                hit = hit_probability(
                    one.network.module,
                    one.inputs[row],
                    int(one.labels[row]),
                    multiple * float(one.norms[row]),
                    lowest=settings.lowest,
                    generator=generator,
                )
                table[line, row] = hit.value
        found.setdefault(one.label, []).append((one, table))
    return found


def _hit_table(inputs: SectionInputs, group: Group, hits: Hits) -> Table:
    settings: LikelihoodSettings = inputs.settings
    cells: dict[tuple[str, str], Cell | None] = {}
    columns = _hit_columns(settings)
    for label, members in hits.items():
        kept = [one for one, _ in members]
        for line, (mean, below) in enumerate(columns):
            logs = [_exponent(table[line], settings.lowest) for _, table in members]
            cells[label, mean] = mean_cell(logs, kept, EXPONENT)
            tried = [(one, table[line], ~table[line].isnan()) for one, table in members]
            marked = [(one, table[rows] < settings.lowest, rows) for one, table, rows in tried]
            known = all(len(one.indices) == len(one.labels) for one in kept)
            cells[label, below] = error_cell(
                [(one.seed, Count.of(part)) for one, part, _ in marked],
                by_image=[(part, one.indices[rows]) for one, part, rows in marked] if known else [],
                runs=runs_of(kept),
            )
    present = {place: cell for place, cell in cells.items() if cell is not None}
    return Table(
        key=f"likelihood_hits{group.suffix}",
        title="Probability that random noise hits",
        detail=group.detail,
        caption="Mean over images of log10 of the probability that noise of a norm in a uniform direction makes the "
        "network err, the norm being a multiple of the perturbation that the attack found; and the share of images "
        f"in percent where it is below {settings.lowest:g}, counted as {settings.lowest:g} in the mean.",
        row_header="network",
        rows=tuple(hits),
        columns=tuple(column for pair in columns for column in pair),
        cells=present,
        sample=f"up to N = {settings.hits} images of each network, {group.attack}; seeds "
        + ", ".join(map(str, group.seeds)),
        method=method(f"multilevel splitting, four runs; Student's t over images; share: {WILSON}", present.values()),
        runs=runs_of(group.kept),
    )


def _hit_columns(settings: LikelihoodSettings) -> list[tuple[str, str]]:
    return [(f"log10 p at {m:g} x", f"below at {m:g} x") for m in settings.multiples]


def _exponent(probabilities: Tensor, lowest: float) -> Tensor:
    return probabilities.clamp_min(lowest).log10()


def _hit_figure(inputs: SectionInputs, table: Table, group: Group) -> Figure:
    settings: LikelihoodSettings = inputs.settings
    with style():
        figure, (axes,) = lay_out(1, most=1, width=6.0, height=3.8)
        draw_lines(axes, table, [mean for mean, _ in _hit_columns(settings)], settings.multiples)
        axes.axhline(math.log10(settings.lowest), color=GREY, linestyle=":")
        axes.set(xscale="log", xlabel="norm of the noise / norm of the perturbation", ylabel="log10 probability")
        axes.set_xticks(list(settings.multiples), [f"{m:g}" for m in settings.multiples])
        axes.minorticks_off()
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return chart(
        figure,
        key=f"likelihood_hits{group.suffix}",
        title="Probability that random noise hits",
        detail=group.detail,
        caption="Mean log10 probability that random noise of a norm makes the network err; dotted: the smallest "
        "probability that is told from 0.",
        alt="Line chart of the probability of a hit against the norm of the noise, one line for each network.",
        runs=table.runs,
    )


def _hit_sentence(inputs: SectionInputs, group: Group, hits: Hits) -> str:
    settings: LikelihoodSettings = inputs.settings
    first = torch.cat([table[0] for members in hits.values() for _, table in members])
    first = first[~first.isnan()]
    share = 100 * float((first < settings.lowest).double().mean()) if len(first) else math.nan
    last = torch.cat([table[-1] for members in hits.values() for _, table in members])
    middle = float(last[~last.isnan()].median()) if len(first) else math.nan
    where = f" ({group.detail})" if group.detail else ""
    return (
        f"A dense set of negligible probability{where}? At {settings.multiples[0]:g} times the perturbation's norm "
        f"random noise hits with a probability below {settings.lowest:g} for {share:.0f} % of {len(first)} images, and "
        f"at {settings.multiples[-1]:g} times with a median probability of {middle:.2g}."
    )

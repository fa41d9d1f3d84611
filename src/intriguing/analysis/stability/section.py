"""Section "stability": the paper's spectral analysis (section 4.3) with its misprints shown, and what is beyond it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard, cast

import torch
from scipy import stats
from torch import Tensor, nn

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis import paper
from intriguing.analysis.cells import AS_ONE, MEAN, WILSON, distortion_cell, error_cell, method, one_attack
from intriguing.analysis.identity import labels_apart
from intriguing.analysis.inputs import Network
from intriguing.analysis.measure import Examples, MeasuredSet, mixed_seed
from intriguing.analysis.sections import SectionInputs, SectionOutput
from intriguing.analysis.stability import figures
from intriguing.analysis.stability.settings import StabilitySettings
from intriguing.errors import plural
from intriguing.metrics import equal_norm_gaussian
from intriguing.models import Classifier
from intriguing.results import Cell, SeedCount, Table
from intriguing.spectral import (
    Certifier,
    certified_radii,
    jacobian_norms,
    layer_outputs,
    lipschitz_bounds,
    operator_norm,
)
from intriguing.spectral.lipschitz import trace
from intriguing.statistics.intervals import Interval
from intriguing.statistics.tests import holm

PRINTED, FORMULA, CORRECTED = "as printed", "printed formula", "corrected"
TEST, PRODUCT, CERTIFIED, JACOBIAN = "test error", "product of bounds", "certified constant", "largest Jacobian"
DISTANCE, RADIUS, SHARE = "distance found", "certified radius", "share certified"
RANGE = "bounds: mean and range over seeds"


@dataclass(frozen=True)
class Measured:
    """What was measured of one network.

    Attributes:
        network: the network.
        product, constant, jacobian: upper bound, sharper certified upper bound (the product where the network is not
            fully connected), lower bound of its Lipschitz constant.
        distances, radii: (N,) L2 norms, found by an attack and certified, of the images the attack fooled.
        images: (N,) digests of those images, by which those of two networks are paired.
        layers: names of the layers.
        shape: (C, H, W) of one image.
        adversarial, random: (layers,) mean amplification of adversarial perturbations and of random ones of equal norm.
        bounds: (layers,) running products of the bounds.
        sharper: whether `constant` is more than the product.
        runs: of the network and of the set.
    """

    network: Network
    product: float
    constant: float
    jacobian: float
    distances: Tensor
    radii: Tensor
    layers: tuple[str, ...]
    shape: tuple[int, ...]
    adversarial: tuple[float, ...]
    random: tuple[float, ...]
    bounds: tuple[float, ...]
    sharper: bool
    runs: tuple[str, ...]
    images: tuple[str, ...] = ()

    @property
    def indices(self) -> Tensor:
        """The images as numbers (N,), equal where the images are; empty where they are not known."""
        return torch.tensor([int(digest[:15], 16) for digest in self.images], dtype=torch.int64)

    @property
    def strength(self) -> float:
        """Of the penalty that it was trained with."""
        return self.network.penalty[1] if self.network.penalty else 0.0

    @property
    def kind(self) -> str:
        """Of that penalty; empty without one."""
        return self.network.penalty[0] if self.network.penalty else ""

    @property
    def family(self) -> tuple[tuple[str, str], ...]:
        """All of its settings but the penalty's: networks that share them differ in the penalty and the seed alone."""
        return self.network.id.without("spectral_penalty.")


def section(inputs: SectionInputs) -> SectionOutput:
    """Make Table 5, bounds and certificates of every network, amplification by layer, and the curve of the penalty.

    Table 5 is made from the network of the lowest seed that has its layers, with images or without.
    """
    settings: StabilitySettings = inputs.settings
    alexnets = [one for one in (*inputs.networks, *inputs.imageless) if _has_table_5_layers(one.module)]
    tables = [table_5(one) for one in sorted(alexnets, key=lambda one: (one.seed, one.name))[:1]]
    networks, attack = list(inputs.networks), one_attack(inputs.sets)
    sets = {one.source: one for one in attack}
    measured = []
    for done, network in enumerate(networks, start=1):
        measured.append(_measure(inputs, network, sets.get(network.name)))
        if inputs.progress:
            inputs.progress("stability", done, len(networks))
    if not measured:
        return SectionOutput(tables=tuple(tables), summary=tuple(_table_5_words(tables)))
    groups = _groups(measured)
    found_by = f"{attack[0].attack_name} on {attack[0].subset} images" if attack else ""
    tables += [_layer_table(groups), _bound_table(groups, settings.radius, found_by)]
    firsts = {label: members[0] for label, members in groups.items()}
    drawn = (
        figures.amplification_figure(firsts),
        figures.certificate_figure(firsts),
        figures.penalty_figure(groups, settings.radius),
    )
    return SectionOutput(
        tables=tuple(tables),
        figures=tuple(figure for figure in drawn if figure is not None),
        summary=(*_table_5_words(tables), *_words(measured, groups, settings.radius)),
    )


def observe(examples: AdversarialSet, one: MeasuredSet, inputs: SectionInputs) -> Examples | None:
    """Keep the first successful examples of a network's set, at most ``limit``; None for noise."""
    if one.source is None:
        return None
    settings: StabilitySettings = inputs.settings
    keep = examples.success.bool().nonzero().flatten()[: settings.limit]
    columns = (examples.inputs, examples.adv_inputs, examples.labels, examples.targets, examples.distortion)
    return Examples(*(column[keep] for column in columns))


# -- Table 5 --------------------------------------------------------------------------------------------------------


def _has_table_5_layers(module: nn.Module) -> bool:
    """Whether a network has five convolutions and three linear layers, like AlexNet."""
    kinds = ["fc" if isinstance(one, nn.Linear) else "conv" for one in module.modules() if _is_weighted(one)]
    return kinds == [name.rstrip("0123456789") for name in (row.split()[0] for row in paper.TABLE_5)]


def _is_weighted(module: nn.Module | None) -> TypeGuard[nn.Linear | nn.Conv2d]:
    return isinstance(module, nn.Linear | nn.Conv2d)


def _origin(network: Network) -> str:
    """Describe the network of Table 5 by its training."""
    model, trained = network.config.get("model", {}), bool(network.config.get("trainer", {}).get("max_epochs", 1))
    settings = model.get("settings", {})
    if trained:
        return f"{network.label}, trained on {network.data}"
    if model.get("name") == "alexnet":
        return "Krizhevsky's AlexNet with the random weights it starts from (Gaussian, stddev .01), not trained"
    weights = settings.get("weights")
    words = "its published weights" if weights == "default" else weights or "random weights, not trained"
    return f"torchvision's AlexNet with {words}"


def table_5(network: Network) -> Table:
    """Make Table 5: the paper's numbers, its formula as printed, and the corrected bounds, with the products."""
    traced, names = trace(network.module, _input_shape(network.module)), list(paper.TABLE_5)
    _, height, width = _input_shape(network.module)
    shapes = dict(traced.calls)
    bounds = [layer for layer in traced.layers if layer.bound != 1 or _is_weighted(layer.module)]
    rows: list[str] = []
    cells: dict[tuple[str, str], Cell] = {}
    formula: list[float] = []
    weighted: list[float] = []
    for layer in bounds:
        if not _is_weighted(layer.module):
            continue
        row = names[len(rows)]
        rows.append(row)
        weighted.append(layer.bound)
        formula.append(_printed_formula(layer.module, shapes[layer.module], layer.bound))
        for column, value in ((PRINTED, paper.TABLE_5[row]), (FORMULA, formula[-1]), (CORRECTED, layer.bound)):
            cells[row, column] = _bound(value)
    product, whole = "product of these layers", "product with pools and normalisation"
    cells[product, PRINTED] = _bound(math.prod(paper.TABLE_5.values()))
    cells[product, FORMULA] = _bound(math.prod(formula))
    cells[product, CORRECTED] = _bound(math.prod(weighted))
    pools = math.prod(layer.bound for layer in bounds if layer.kind == "MaxPool2d")
    cells[whole, PRINTED] = _bound(math.prod(paper.TABLE_5.values()) * pools)
    cells[whole, FORMULA] = _bound(math.prod(formula) * pools)
    cells[whole, CORRECTED] = _bound(math.prod(layer.bound for layer in bounds))
    return Table(
        key="table5",
        title="Table 5 · Upper bounds of AlexNet's layers",
        caption=f"Bounds of the operator norm of each layer. The last two columns are of {_origin(network)}; the first "
        "is of the paper's own trained network, so the columns show what the misprints do, not an agreement.",
        row_header="layer",
        rows=(*rows, product, whole),
        columns=(PRINTED, FORMULA, CORRECTED),
        cells=cells,
        sample=f"{height}x{width} images",
        method="operator norms by Fourier blocks; float64",
        source="Table 5; its caption prints neither product",
        notes=(
            "The printed formula has the factor s^-2 for a convolution of stride s and circular padding; s^-1 is "
            "right, so it understates the first layer by 4.",
            "Corrected: the factor s^-1, and the layer's own zero padding, bounded by the circular norm on the torus "
            "that is large enough to hold it.",
            f"Overlapping 3x3 pools of stride 2 are no contractions, each doubles at most: a factor of {pools:g}. The "
            "last row's third column has the response norms (or the input's normalisation) in it as well.",
        ),
        runs=(network.name,),
    )


def _input_shape(module: nn.Module) -> tuple[int, ...]:
    return cast(Classifier, module).input_shape


def _printed_formula(layer: nn.Module, shape: tuple[int, ...], bound: float) -> float:
    """The paper's formula: for a convolution the circular norm with s^-2 in the place of s^-1; else the bound."""
    if isinstance(layer, nn.Conv2d):
        return operator_norm(layer, shape) / math.sqrt(math.prod(layer.stride))
    return bound


def _table_5_words(tables: Sequence[Table]) -> list[str]:
    table = next((one for one in tables if one.key == "table5"), None)
    if table is None:
        return []
    first = table.rows[0]
    ratio = table.cells[first, CORRECTED].value / table.cells[first, FORMULA].value
    return [f"Table 5: the printed formula understates the bound of AlexNet's first convolution by {ratio:.2f}."]


# -- every network --------------------------------------------------------------------------------------------------


def _measure(inputs: SectionInputs, network: Network, chosen: MeasuredSet | None) -> Measured:
    settings: StabilitySettings = inputs.settings
    images = inputs.images(network, "test", settings.limit)
    shape = tuple(images.shape[1:])
    layers = lipschitz_bounds(network.module, shape)
    product = math.prod(layer.bound for layer in layers)
    certifier = Certifier(network.module, shape)
    constant = min(product, certifier.constant())
    distances, radii, adversarial, random = torch.zeros(0), torch.zeros(0), (), ()
    digests: tuple[str, ...] = ()
    if chosen is not None:
        kept: Examples = inputs.observed[chosen.name]
        originals, adv_inputs, labels = kept.inputs, kept.adv_inputs, kept.labels
        digests = tuple(hashlib.sha256(one.contiguous().numpy().tobytes()).hexdigest() for one in originals)
        distances = (adv_inputs - originals).double().flatten(1).norm(dim=1)
        with torch.no_grad():
            logits = network.module(originals)
        if settings.pairs:
            radii = torch.maximum(certifier.radii(logits, labels), certified_radii(logits, labels, constant))
        else:
            radii = certified_radii(logits, labels, constant)
        moved = distances > 0
        noise = equal_norm_gaussian(
            originals[moved],
            (distances[moved] / math.sqrt(originals[0].numel())).float(),
            generator=torch.Generator().manual_seed(mixed_seed(inputs.seed, chosen.name)),
        )
        adversarial = _amplification(network.module, originals[moved], adv_inputs[moved])
        random = _amplification(network.module, originals[moved], noise)
    running = [math.prod(layer.bound for layer in layers[: k + 1]) for k in range(len(layers))]
    return Measured(
        network=network,
        product=product,
        constant=constant,
        jacobian=float(jacobian_norms(network.module, images).max()),
        distances=distances,
        radii=radii,
        layers=tuple(layer.kind for layer in layers),
        shape=shape,
        adversarial=adversarial,
        random=random,
        bounds=tuple(running),
        sharper=certifier.method != "product",
        runs=(network.name, *(() if chosen is None else (chosen.name,))),
        images=digests,
    )


def _amplification(module: nn.Module, inputs: Tensor, moved: Tensor) -> tuple[float, ...]:
    """Mean over images of |phi_k(x + r) - phi_k(x)| / |r|, layer by layer."""
    size = (moved - inputs).flatten(1).norm(dim=1)
    pairs = zip(layer_outputs(module, inputs), layer_outputs(module, moved), strict=True)
    return tuple(float(((b - a).flatten(1).norm(dim=1) / size).mean()) for a, b in pairs)


def _groups(measured: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Networks that are seeds of one another, by label."""
    labels = labels_apart({one.network.name: one.network.id for one in measured})
    groups: dict[str, list[Measured]] = {}
    for one in sorted(measured, key=lambda m: (m.network.id.name, m.family, m.kind, m.strength, m.network.seed)):
        groups.setdefault(labels[one.network.name], []).append(one)
    return groups


def _layer_table(groups: dict[str, list[Measured]]) -> Table:
    rows: list[str] = []
    cells: dict[tuple[str, str], Cell] = {}
    for label, members in groups.items():
        module = members[0].network.module
        traced, number = trace(module, members[0].shape), 0
        shapes = dict(traced.calls)
        for layer in traced.layers:
            if layer.bound == 1 and not _is_weighted(layer.module):
                continue
            number += 1
            row = f"{label}: {number} {layer.kind}"
            rows.append(row)
            runs = (members[0].network.name,)
            cells[row, CORRECTED] = _bound(layer.bound, runs)
            if _is_weighted(layer.module):
                formula = _printed_formula(layer.module, shapes[layer.module], layer.bound)
                cells[row, FORMULA] = _bound(formula, runs)
    return Table(
        key="stability_layers",
        title="Table 5 for these networks",
        caption="Upper bounds of the Lipschitz constants of the layers, in order; layers of bound 1 are left out. Of "
        "several seeds the lowest.",
        row_header="layer",
        rows=tuple(rows),
        columns=(FORMULA, CORRECTED),
        cells=cells,
        sample="one network a label",
        method="operator norms by singular values and Fourier blocks, 1/4 for a sigmoid; float64",
        runs=tuple(members[0].network.name for members in groups.values()),
    )


def _bound_table(groups: dict[str, list[Measured]], radius: float, attack: str = "") -> Table:
    cells: dict[tuple[str, str], Cell | None] = {}
    for label, members in groups.items():
        errors = [(m.network.seed, m.network.errors["test"]) for m in members if "test" in m.network.errors]
        counts = [SeedCount(seed, int(k), int(n)) for seed, (k, n) in errors]
        cells[label, TEST] = error_cell(counts, ("stability", label, TEST), runs=_names(members))
        cells[label, PRODUCT] = _pooled(members, lambda m: m.product)
        if all(m.sharper for m in members):
            cells[label, CERTIFIED] = _pooled(members, lambda m: m.constant)
        cells[label, JACOBIAN] = _pooled(members, lambda m: m.jacobian)
        found = [m for m in members if len(m.distances)]
        if found:
            place = ("stability", label, DISTANCE)
            cells[label, DISTANCE] = _mean(found, lambda m: m.distances)
            cells[label, RADIUS] = _mean(found, lambda m: m.radii)
            shares = [SeedCount(m.network.seed, int((m.radii >= radius).sum()), len(m.radii)) for m in found]
            certified = [(m.radii >= radius, m.indices) for m in found]
            known = certified if all(reached.shape == i.shape for reached, i in certified) else []
            cells[label, SHARE] = error_cell(shares, place, by_image=known, runs=_runs(found))
    present = {place: cell for place, cell in cells.items() if cell is not None}
    errors, shares, sizes = (
        [cell for (_, column), cell in present.items() if column in columns]
        for columns in ((TEST,), (SHARE,), (DISTANCE, RADIUS))
    )
    return Table(
        key="stability",
        title="Between the bound and the truth",
        caption="The network's Lipschitz constant lies between the largest Jacobian norm met on test images and the "
        "certified constant, which lies below the product of the layers' bounds. No perturbation of an L2 norm below "
        f"an image's certified radius changes its answer; the last column counts images certified at {radius:g}. "
        "Distances are L2 norms (28 times the distortion on MNIST).",
        row_header="network",
        rows=tuple(groups),
        columns=(TEST, PRODUCT, CERTIFIED, JACOBIAN, DISTANCE, RADIUS, SHARE),
        cells=present,
        sample=f"up to {max((len(m.radii) for ms in groups.values() for m in ms), default=0)} images a network",
        method=f"test errors: {method(WILSON, errors, seeds=AS_ONE)}; shares certified: {method(WILSON, shares)}; "
        f"{RANGE}; distances and radii: {method(MEAN, sizes)}",
        notes=(
            "Certified constant: LipSDP with one multiplier a unit (Fazlyab et al. 2019), slopes bounded over images "
            "in [0, 1]; empty where a network is not fully connected. Radii are by that constant there, or by one for "
            "each pair of classes (settings.stability.pairs), by the product of the bounds elsewhere.",
            "Shares are in percent.",
            *([f"Distances found by {attack}, for every network."] if attack else []),
        ),
        runs=tuple(dict.fromkeys(run for members in groups.values() for run in _runs(members))),
    )


def _words(measured: Sequence[Measured], groups: dict[str, list[Measured]], radius: float) -> list[str]:
    sentences = []
    certified = _certified(groups, radius)
    pairs = [(m.radii, m.distances) for m in measured if len(m.radii)]
    if pairs:
        images = sum(len(radii) for radii, _ in pairs)
        broken = sum(int((radii > distances).sum()) for radii, distances in pairs)
        sentences.append(
            f"Certificates: {broken} of {images:,} certified radii exceed the adversarial distance that was found."
        )
    for label, plain in groups.items():
        if plain[0].strength or not plain[0].sharper:
            continue
        for other, members in groups.items():
            if members[0].strength and members[0].sharper and members[0].family == plain[0].family:
                fall = _average(plain, lambda m: m.constant) / _average(members, lambda m: m.constant)
                errors = [_error(plain), _error(members)]
                name = "penalty" if members[0].kind != "margin" else "margin"
                line = (
                    f"{label} with a {name} of {members[0].strength:g}: the certified constant falls {fall:.1f} "
                    f"times, the test error is {errors[1]:.2f} % (without {errors[0]:.2f} %)"
                )
                if all(len(m.distances) for m in (*plain, *members)):
                    near = [_average(one, lambda m: float(m.distances.mean())) for one in (plain, members)]
                    line += f", the distance found grows {near[1] / near[0]:.2f} times"
                sentences.append(line + certified.get((label, other), "") + ".")
    return sentences


def certified_pairs(first: Sequence[Measured], second: Sequence[Measured], radius: float) -> tuple[list[int], int]:
    """Count, image by image, at how many seeds the second networks are certified at a radius, less the first ones.

    Args:
        first, second: networks of the same seeds, without and with a penalty.
        radius: L2 norm.

    Returns:
        The differences of all images that both were measured on, and how many seeds they share.
    """
    ours = {one.network.seed: one for one in first}
    found: dict[str, int] = {}
    seeds = 0
    for other in second:
        one = ours.get(other.network.seed)
        if one is None:
            continue
        seeds += 1
        before, after = (dict(zip(m.images, (m.radii >= radius).tolist(), strict=True)) for m in (one, other))
        for image in before.keys() & after.keys():
            found[image] = found.get(image, 0) + int(after[image]) - int(before[image])
    return list(found.values()), seeds


def sign_p(differences: Sequence[int]) -> float | None:
    """Two-sided p-value of the exact sign test; of one seed it is McNemar's. None where nothing differs.

    An image counts once, whatever the number of seeds it was looked at with, so seeds are not taken for more images.
    """
    up, down = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return float(stats.binomtest(up, up + down).pvalue) if up + down else None


def _certified(groups: dict[str, list[Measured]], radius: float) -> dict[tuple[str, str], str]:
    """What paired tests say of certified shares, by labels without and with a penalty; corrected over all (Holm)."""
    pairs: dict[tuple[str, str], tuple[str, float]] = {}
    equal: dict[tuple[str, str], str] = {}
    for label, plain in groups.items():
        for other, members in groups.items():
            if plain[0].strength or not members[0].strength or members[0].family != plain[0].family:
                continue
            differences, seeds = certified_pairs(plain, members, radius)
            if not differences:
                continue
            shares = [
                100 * float(torch.cat([m.radii >= radius for m in ms]).double().mean()) for ms in (plain, members)
            ]
            images = f"{plural(len(differences), 'image')}, {plural(seeds, 'seed')}"
            words = f"{shares[1]:.1f} % of images are certified at {radius:g} (without {shares[0]:.1f} %; {images}"
            if (p := sign_p(differences)) is None:
                equal[label, other] = f", {words}, none differs)"
            else:
                pairs[label, other] = words, p
    q = holm(torch.tensor([p for _, p in pairs.values()], dtype=torch.float64)).tolist()
    return equal | {
        labels: f", {words}, exact sign test by image: p = {p:.2g}, corrected {one:.2g})"
        for (labels, (words, p)), one in zip(pairs.items(), q, strict=True)
    }


def _error(members: Sequence[Measured]) -> float:
    counts = [m.network.errors.get("test", (0, 1)) for m in members]
    return 100 * sum(k for k, _ in counts) / sum(n for _, n in counts)


def _average(members: Sequence[Measured], value: Callable[[Measured], float]) -> float:
    return sum(map(value, members)) / len(members)


def _bound(value: float, runs: tuple[str, ...] = ()) -> Cell:
    return Cell(quantity="bound", value=value, interval=None, n=1, runs=runs)


def _pooled(members: Sequence[Measured], value: Callable[[Measured], float]) -> Cell:
    values = [value(m) for m in members]
    interval = Interval(min(values), max(values)) if len(values) > 1 else None
    mean, runs = sum(values) / len(values), _names(members)
    return Cell(quantity="bound", value=mean, interval=interval, n=len(values), runs=runs)


def _mean(members: Sequence[Measured], value: Callable[[Measured], Tensor]) -> Cell | None:
    """A mean over images and seeds, as `distortion_cell` makes it, of another unit."""
    indices = [m.indices for m in members]
    cell = distortion_cell([value(m) for m in members], ("stability", "", ""), indices=indices, runs=_runs(members))
    return None if cell is None else replace(cell, quantity="L2 norm")


def _names(members: Sequence[Measured]) -> tuple[str, ...]:
    return tuple(m.network.name for m in members)


def _runs(members: Sequence[Measured]) -> tuple[str, ...]:
    """Of the networks and of the sets."""
    return tuple(run for m in members for run in m.runs)

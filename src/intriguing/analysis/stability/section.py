"""Section "stability": the paper's spectral analysis (section 4.3) with its misprints shown, and what is beyond it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy import stats
from torch import Tensor, nn

from intriguing.analysis import paper
from intriguing.analysis.cells import AS_ONE, MEAN, WILSON, distortion_cell, error_cell, method, one_attack
from intriguing.analysis.identity import labels_apart
from intriguing.analysis.inputs import CraftedSet, Network
from intriguing.analysis.measure import mixed_seed
from intriguing.analysis.sections import Made, Material
from intriguing.analysis.stability import figures
from intriguing.errors import UserError, plural
from intriguing.metrics import equal_norm_gaussian
from intriguing.models import AlexNet, Classifier, TorchvisionModel
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

INITIALISED, PUBLISHED, NONE = "initialised", "published", "none"
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


def section(material: Material) -> Made:
    """Table 5 three times over, bounds and certificates of every network, amplification by layer, the penalty's curve.

    Settings:
        alexnet: which network Table 5 is made from: ``initialised`` (Krizhevsky's, random weights; the default),
            ``published`` (torchvision's, downloaded), a file of torchvision's weights, or ``none`` for no Table 5.
        limit: images of each set, and of the data, that are looked at (256).
        radius: L2 norm at which the share of certified images is counted (0.25).
        pairs: certify by a constant for each pair of classes instead of one for all (true).
    """
    which = str(material.setting("alexnet", INITIALISED))
    tables = [] if which == NONE else [table_5(*alexnet(which, seed=material.seed))]
    networks, attack = list(material.networks), one_attack(material.measured)
    crafted = {one.name: one for one in material.sets}
    sets = {one.source: crafted[one.name] for one in attack}
    measured = []
    for done, network in enumerate(networks, start=1):
        measured.append(_measure(material, network, sets.get(network.name)))
        if material.progress:
            material.progress("stability", done, len(networks))
    if not measured:
        return Made(tables=tuple(tables), summary=tuple(_table_5_words(tables)))
    radius = float(material.setting("radius", 0.25))
    groups = _groups(measured)
    found_by = f"{attack[0].attack_name} on {attack[0].subset} images" if attack else ""
    tables += [_layer_table(material, groups), _bound_table(groups, radius, found_by)]
    firsts = {label: members[0] for label, members in groups.items()}
    drawn = (
        figures.amplification_figure(firsts),
        figures.certificate_figure(firsts),
        figures.penalty_figure(groups, radius),
    )
    return Made(
        tables=tuple(tables),
        figures=tuple(figure for figure in drawn if figure is not None),
        summary=(*_table_5_words(tables), *_words(measured, groups, radius)),
    )


# -- Table 5 --------------------------------------------------------------------------------------------------------


def alexnet(which: str, *, seed: int) -> tuple[Classifier, str]:
    """The network of Table 5 and what the page says of it.

    Raises:
        UserError: weights that can neither be downloaded nor found.
    """
    common: dict[str, Any] = {"label": "AlexNet", "input_shape": [3, 224, 224], "num_classes": 1000}
    common["weight_decay"] = [0.0] * 8
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if which == INITIALISED:
            words = "Krizhevsky's AlexNet with the random weights it starts from (Gaussian, stddev .01), not trained"
            return AlexNet(**common).eval(), words
        try:
            weights = "default" if which == PUBLISHED else which
            network = TorchvisionModel(architecture="alexnet", weights=weights, **common)
        except ValueError as error:
            raise UserError(f"settings.stability.alexnet={which}: {error}") from error
        words = "torchvision's AlexNet with " + ("its published weights" if which == PUBLISHED else which)
        return network.eval(), words


def table_5(network: Classifier, words: str) -> Table:
    """Table 5: the paper's numbers, its formula as printed, and the corrected bounds, with the products."""
    traced, names = trace(network, network.input_shape), list(paper.TABLE_5)
    shapes = dict(traced.calls)
    bounds = [layer for layer in traced.layers if layer.bound != 1 or isinstance(layer.module, nn.Linear | nn.Conv2d)]
    rows: list[str] = []
    cells: dict[tuple[str, str], Cell] = {}
    formula: list[float] = []
    weighted: list[float] = []
    for layer in bounds:
        if not isinstance(layer.module, nn.Linear | nn.Conv2d):
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
        caption=f"Bounds of the operator norm of each layer. The last two columns are of {words}; the first is of "
        "the paper's own trained network, so the columns show what the misprints do, not an agreement.",
        row_header="layer",
        rows=(*rows, product, whole),
        columns=(PRINTED, FORMULA, CORRECTED),
        cells=cells,
        sample="224x224 images",
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
    )


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


def _measure(material: Material, network: Network, chosen: CraftedSet | None) -> Measured:
    limit = int(material.setting("limit", 256))
    images = material.images(network, "test")[0][:limit]
    shape = tuple(images.shape[1:])
    layers = lipschitz_bounds(network.module, shape)
    product = math.prod(layer.bound for layer in layers)
    certifier = Certifier(network.module, shape)
    constant = min(product, certifier.constant())
    distances, radii, adversarial, random = torch.zeros(0), torch.zeros(0), (), ()
    digests: tuple[str, ...] = ()
    if chosen is not None:
        examples = chosen.load()
        keep = examples.success.bool().nonzero().flatten()[:limit]
        inputs, adv_inputs, labels = examples.inputs[keep], examples.adv_inputs[keep], examples.labels[keep]
        digests = tuple(hashlib.sha256(one.contiguous().numpy().tobytes()).hexdigest() for one in inputs)
        distances = (adv_inputs - inputs).double().flatten(1).norm(dim=1)
        with torch.no_grad():
            logits = network.module(inputs)
        if bool(material.setting("pairs", True)):
            radii = torch.maximum(certifier.radii(logits, labels), certified_radii(logits, labels, constant))
        else:
            radii = certified_radii(logits, labels, constant)
        moved = distances > 0
        noise = equal_norm_gaussian(
            inputs[moved],
            (distances[moved] / math.sqrt(inputs[0].numel())).float(),
            generator=torch.Generator().manual_seed(mixed_seed(material.seed, chosen.name)),
        )
        adversarial = _amplification(network.module, inputs[moved], adv_inputs[moved])
        random = _amplification(network.module, inputs[moved], noise)
    running = [math.prod(layer.bound for layer in layers[: k + 1]) for k in range(len(layers))]
    return Measured(
        network=network,
        product=product,
        constant=constant,
        jacobian=float(jacobian_norms(network.module, images).max()),
        distances=distances,
        radii=radii,
        layers=tuple(layer.kind for layer in layers),
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


def _layer_table(material: Material, groups: dict[str, list[Measured]]) -> Table:
    rows: list[str] = []
    cells: dict[tuple[str, str], Cell] = {}
    for label, members in groups.items():
        module = members[0].network.module
        shape = tuple(material.images(members[0].network, "test")[0].shape[1:])
        traced, number = trace(module, shape), 0
        shapes = dict(traced.calls)
        for layer in traced.layers:
            if layer.bound == 1 and not isinstance(layer.module, nn.Linear | nn.Conv2d):
                continue
            number += 1
            row = f"{label}: {number} {layer.kind}"
            rows.append(row)
            runs = (members[0].network.name,)
            cells[row, CORRECTED] = _bound(layer.bound, runs)
            if isinstance(layer.module, nn.Linear | nn.Conv2d):
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

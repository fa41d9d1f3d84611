"""Scores of every basis of every layer of one network on the same images, with tests, rotation and ablation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from intriguing.analysis.units.settings import UnitSettings, rotations_for
from intriguing.statistics.tests import permutation_p
from intriguing.units import (
    SCORES,
    TopImages,
    ablate,
    collect,
    equal_variance_directions,
    fitted_basis,
    fractional_rotation,
    random_bases,
    random_directions,
    random_rotation,
    sample_vectors,
    stream,
    unit_directions,
    whitening,
)
from intriguing.units.activations import respond
from intriguing.units.chance import random_sets
from intriguing.units.perceptual import perceptual_similarity
from intriguing.units.scores import RunningMoments, label_entropy, label_purity, similarity

UNIT, RANDOM, SHEET = "units", "random directions", "sheet"
WHITE_UNIT, WHITE_RANDOM = "whitened units", "whitened random"
NAMES = {"pca": "PCA", "ica": "ICA", "nmf": "NMF", "dictionary": "dictionary"}
UNTRAINED = "untrained "
WHITE_BASES = 10  # random bases of whitened activations: shown beside, not tested against
TESTED = ("purity", "pixel_similarity", "feature_similarity", "lpips_similarity")
"""Scores for which a row is compared with random image sets."""

_PART = 2**12  # directions whose responses are scored at once: they fit into a cache
_RECORDED = 512  # images of a block of recorded activations
_STACK = 2**27  # numbers of random directions held at once; more are scored in several passes over the images

Reader = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Reads the images and labels from the start."""
Block = tuple[Tensor, Tensor, int]
"""Activations (N, P, C) of a layer, labels (N,), and the index of the first image."""


@dataclass(frozen=True, kw_only=True)
class ScoredImages:
    """Hold the images on which a network's directions are scored.

    Attributes:
        read: reads images and labels, batch by batch.
        few: reads fewer of them, for ablation; None where their classes are not the network's.
        labels: (N,).
        num_classes: K.
        rows: (N, D) vectors for ``units.scores.similarity``, by ``pixel_similarity`` and ``feature_similarity``; the
            latter only where there is an independent network.
        fit: reads other images, to which bases and the whitening are fitted, for scores on the fitted images would be
            biased. None: a half of these images, drawn by the seed, is set apart for it where something is fitted.
        distances: (N, N) LPIPS of all pairs, see ``units.perceptual``; None: they are not compared by it.
    """

    read: Reader
    few: Reader | None
    labels: Tensor
    num_classes: int
    rows: Mapping[str, Tensor] = field(repr=False)
    fit: Reader | None = None
    distances: Tensor | None = field(default=None, repr=False)

    def halved(self, seed: int) -> ScoredImages:
        """Return a half of the images, with the other half to fit to."""
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed))
        fit = torch.zeros(len(order), dtype=torch.bool)
        fit[order[: len(order) // 2]] = True
        return replace(
            self,
            read=_chosen(self.read, ~fit),
            labels=self.labels[~fit],
            rows={name: rows[~fit] for name, rows in self.rows.items()},
            fit=_chosen(self.read, fit),
            distances=None if self.distances is None else self.distances[~fit][:, ~fit],
        )


def _chosen(read: Reader, keep: Tensor) -> Reader:
    """Read the images for which `keep` (N,) is True."""

    def chosen() -> Iterator[tuple[Tensor, Tensor]]:
        first = 0
        for images, labels in read():
            part = keep[first : first + len(labels)]
            first += len(labels)
            yield images[part], labels[part]

    return chosen


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Hold falls of accuracy, as fractions (M,): units removed, and random directions of equal variances."""

    unit: Tensor
    random: Tensor


@dataclass(frozen=True, kw_only=True)
class LayerScores:
    """Hold the scores of one layer of one network.

    Attributes:
        layer: its name.
        channels: number of its units.
        silent: number of units that never change on the sample and are left out.
        scores: basis to score to (M,): NaN where a response never varies.
        random_means: score to (B,), the means of the random bases, each with one row for each unit.
        p_rows: basis to score to (M,), p-values against random image sets.
        sweep: score to (R, F): means along R rotations at the settings' fractions.
        top: basis (units, and independent random directions) to (rows, k) indices of the images of a sheet.
        shown: indices of the units in the sheet.
        loss: of the ablation; None for the untrained control, or where none was asked for.
    """

    layer: str
    channels: int
    silent: int
    scores: dict[str, dict[str, Tensor]]
    random_means: dict[str, Tensor]
    p_rows: dict[str, dict[str, Tensor]]
    sweep: dict[str, Tensor]
    top: dict[str, Tensor]
    shown: Tensor
    loss: Loss | None = None


def measure_layers(
    model: nn.Module,
    layers: Sequence[str],
    images: ScoredImages,
    null: Mapping[str, Tensor],
    settings: UnitSettings,
    *,
    seed: int,
    control: bool = False,
    on_layer: Callable[[str], None] = lambda layer: None,
) -> list[LayerScores]:
    """Score all bases of all layers.

    Args:
        model: images to logits.
        layers: names.
        images: images to score on and to fit to.
        null: score to (B,), the scores of random image sets.
        settings: of the section.
        seed: of the network; every seed draws other directions.
        control: score units and random directions alone, without ablation.
        on_layer: called with each layer's name.

    Returns:
        One result for each layer, in order; a layer that never varies is left out.
    """
    if images.fit is None and not control and (settings.bases or settings.whitened):
        images = images.halved(seed)
    rotations = settings.rotations or rotations_for(len(layers) * settings.num_scores)
    read = _recorded(model, layers, images, settings)
    samples = sample_vectors(model, layers, (images.fit or images.read)(), aggregate=settings.aggregate, seed=seed)
    found = []
    for layer in layers:
        on_layer(layer)
        # Each layer has a separate random stream, so that further layers do not change its directions.
        digest = hashlib.sha256(f"{seed},{layer},{control}".encode()).digest()[:7]
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        sample = samples[layer]
        live = (sample.std(0) > 1e-6 * sample.std()).nonzero().flatten()
        if not len(live):
            continue
        order = torch.randperm(len(live), generator=generator)[: settings.units]
        units = live[order.sort().values]
        directions = _directions(sample, live, units, settings, generator, control, seed)
        sizes = {name: len(rows) for name, rows in directions.items()} | {RANDOM: rotations * len(units)}
        found_of: list[tuple[Tensor, dict[str, Tensor]]] = []
        stacked = [torch.cat(list(directions.values()))]
        for count in _counts(rotations, len(units) * len(live)):
            stacked.append(random_bases(count, len(units), len(live), generator=generator).flatten(0, 1))
            found_of.append(_responses(read(layer), torch.cat(stacked), live, images, settings))
            stacked = []
        top = torch.cat([indices for indices, _ in found_of])
        moments = {name: torch.cat([values[name] for _, values in found_of]) for name in found_of[0][1]}
        values = _values(top, moments, images)
        ablated = not control and settings.ablated > 0 and images.few is not None
        found.append(
            _layer_scores(
                layer,
                sizes,
                top,
                values,
                null,
                settings,
                channels=sample.shape[1],
                silent=sample.shape[1] - len(live),
                shown=units[: settings.rows],
                loss=_loss(model, layer, sample, units, images, settings, generator) if ablated else None,
            )
        )
    return found


def _directions(
    sample: Tensor,
    live: Tensor,
    units: Tensor,
    settings: UnitSettings,
    generator: torch.Generator,
    control: bool,
    seed: int,
) -> dict[str, Tensor]:
    """Make every basis but the random ones by name, rows (M, live units); those of sweeps one after the other."""
    dim, num = len(live), len(units)
    place = torch.searchsorted(live, units)  # of the units among the live ones

    own = unit_directions(place, dim)
    rows = {UNIT: own}
    if not control:
        rows[SHEET] = random_directions(settings.rows, dim, generator=generator)
        vectors = sample[:, live]
        for name in settings.bases:
            if name != "nmf" or float(vectors.min()) >= 0:
                rows[NAMES[name]] = fitted_basis(name, vectors, num, seed=seed)
        if settings.whitened:
            white = whitening(vectors)
            random = random_bases(WHITE_BASES, num, dim, generator=generator).flatten(0, 1)
            rows[WHITE_UNIT], rows[WHITE_RANDOM] = white.matrix[place], random @ white.matrix
        turns = [random_rotation(num, generator=generator) for _ in range(settings.sweeps if num > 1 else 0)]
        powers = [fractional_rotation(turn, fraction).float() for turn in turns for fraction in settings.fractions]
        if powers:
            rows["sweep"] = torch.cat(powers) @ own
    return rows


def _counts(rotations: int, size: int) -> list[int]:
    """Divide the random bases, of ``size`` numbers each, into passes over the images."""
    most = max(1, _STACK // size)
    return [min(most, rotations - first) for first in range(0, rotations, most)]


def _recorded(
    model: nn.Module, layers: Sequence[str], images: ScoredImages, settings: UnitSettings
) -> Callable[[str], Iterable[Block]]:
    """Return what reads the blocks of a layer's activations.

    Layers with one vector for each image are all recorded in one pass; positions of many images fill the memory, so
    the other aggregates run the network for each layer.
    """
    if settings.aggregate not in ("mean", "center"):
        return lambda layer: (
            (vectors[layer], labels, first)
            for vectors, labels, first in stream(model, [layer], images.read(), aggregate=settings.aggregate)
        )
    found, labels = collect(model, layers, images.read(), aggregate=settings.aggregate)
    starts = range(0, len(labels), _RECORDED)
    return lambda layer: (
        (found[layer][first : first + _RECORDED, None], labels[first : first + _RECORDED], first) for first in starts
    )


def _responses(
    blocks: Iterable[Block], stacked: Tensor, live: Tensor, images: ScoredImages, settings: UnitSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Find the top images (M, k) of directions (M, live units), and the scores of their responses' moments."""
    parts = [(rows, TopImages(settings.columns), RunningMoments(images.num_classes)) for rows in stacked.split(_PART)]
    for vectors, labels, first in blocks:
        chosen = vectors if len(live) == vectors.shape[2] else vectors[:, :, live]
        for rows, top, sums in parts:
            responses = respond(chosen, rows)
            top.update(responses, torch.arange(first, first + len(labels)))
            sums.update(responses, labels)
    moments = [sums.finish() for _, _, sums in parts]
    return torch.cat([top.indices for _, top, _ in parts]), {
        "selectivity": torch.cat([one.selectivity for one in moments]),
        "kurtosis": torch.cat([one.kurtosis for one in moments]),
    }


def _values(top: Tensor, moments: Mapping[str, Tensor], images: ScoredImages) -> dict[str, Tensor]:
    """Compute every score (M,) of all directions; NaN where a response never varies."""
    values = {"purity": label_purity(images.labels, top), "entropy": label_entropy(images.labels, top), **moments}
    values |= {name: similarity(rows, top) for name, rows in images.rows.items()}
    if images.distances is not None:
        values["lpips_similarity"] = perceptual_similarity(images.distances, top)
    silent = moments["kurtosis"].isnan()  # the "top" images of these are just the first ones
    return {name: values[name].masked_fill(silent, torch.nan) for name in SCORES if name in values}


def _layer_scores(
    layer: str,
    sizes: Mapping[str, int],
    top: Tensor,
    values: Mapping[str, Tensor],
    null: Mapping[str, Tensor],
    settings: UnitSettings,
    *,
    channels: int,
    silent: int,
    shown: Tensor,
    loss: Loss | None,
) -> LayerScores:
    """Divide the scores of all directions by basis, and test units and random directions row by row."""
    scores: dict[str, dict[str, Tensor]] = {}
    tops: dict[str, Tensor] = {}
    first = 0
    for name, size in sizes.items():
        part = slice(first, first + size)
        scores[name], tops[name] = {score: value[part] for score, value in values.items()}, top[part]
        first += size
    tests = {
        name: {score: permutation_p(own[score], null[score]) for score in TESTED if score in own}
        for name, own in scores.items()
        if name in (UNIT, RANDOM)
    }
    num = sizes[UNIT]
    sweep = scores.pop("sweep", {})
    scores.pop(SHEET, None)
    return LayerScores(
        layer=layer,
        channels=channels,
        silent=silent,
        scores={name: scores[name] for name in (UNIT, RANDOM, *scores)},
        random_means={score: value.view(-1, num).nanmean(1) for score, value in scores[RANDOM].items()},
        p_rows=tests,
        sweep={score: value.view(-1, len(settings.fractions), num).nanmean(2) for score, value in sweep.items()},
        top={name: tops[name][: settings.rows] for name in (UNIT, SHEET) if name in tops},
        shown=shown,
        loss=loss,
    )


def _loss(
    model: nn.Module,
    layer: str,
    sample: Tensor,
    units: Tensor,
    images: ScoredImages,
    settings: UnitSettings,
    generator: torch.Generator,
) -> Loss | None:
    if settings.aggregate == "flatten" or images.few is None:
        return None  # its units are pairs of position and channel, which cannot be removed one by one
    chosen = units[: settings.ablated]
    centred = sample.double() - sample.double().mean(0)
    covariance = centred.T @ centred / len(sample)
    random = equal_variance_directions(covariance, covariance.diagonal()[chosen], generator=generator)
    both = torch.cat([unit_directions(chosen, sample.shape[1]), random])
    drop = ablate(model, layer, images.few(), both, sample.mean(0)).drop
    return Loss(unit=drop[: len(chosen)], random=drop[len(chosen) :])


def null_sets(images: ScoredImages, settings: UnitSettings, *, seed: int) -> Tensor:
    """Draw random image sets as large as a row, (B, k)."""
    generator = torch.Generator().manual_seed(seed)
    return random_sets(len(images.labels), settings.columns, settings.sets, generator=generator)

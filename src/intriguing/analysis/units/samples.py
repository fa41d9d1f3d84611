"""Images that each network is scored on, and the other images that bases are fitted to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from intriguing.analysis.inputs import Network
from intriguing.analysis.sections import SectionInputs
from intriguing.analysis.units.measure import ScoredImages, null_sets
from intriguing.analysis.units.settings import UnitSettings
from intriguing.data import ImageSubset, open_images
from intriguing.errors import UserError
from intriguing.models import Classifier
from intriguing.models.weights_file import fill, read_weights
from intriguing.units import collect, hidden_layers
from intriguing.units.chance import null_scores
from intriguing.units.perceptual import SIDE as LPIPS_SIDE
from intriguing.units.perceptual import lpips_vectors, pair_distances, published_heads
from intriguing.units.scores import unit_rows

TRAINING = (
    "model.label",
    *(f"model.settings.{key}" for key in ("dropout", "weights")),
    *(f"model.settings.{key}" for key in ("pretrain_share", "sparsity", "sparsity_weight", "noise")),
)
"""Beginnings of the settings of a model that name it or belong to its training, not to its architecture."""

FITTED_TO, FEWEST_FITTED = 5000, 2
"""Images at most, and at least, that bases are fitted to."""
MOST_COMPARED = 20_000
"""Images at most that are compared in pairs by LPIPS: 1.6 GB of distances."""
SIDE = {1: 32, 3: 16}
"""Height and width to which larger images are averaged before their pixels are compared, by channels."""


@dataclass(frozen=True)
class PositionReader:
    """Read the images of a subset at some positions (N,), again at each call."""

    subset: ImageSubset
    positions: Tensor
    batch_size: int

    def __call__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Read them batch by batch."""
        for part in self.positions.split(self.batch_size):
            yield self.subset.read(part)


class Samples:
    """Choose the images for each network, once for all networks of equal data."""

    def __init__(self, inputs: SectionInputs, settings: UnitSettings) -> None:
        self.inputs, self.settings = inputs, settings
        self._subsets: dict[str, ImageSubset] = {}
        self._pixels: dict[str, tuple[Tensor, Tensor]] = {}
        self._features: dict[tuple[str, str], Tensor] = {}
        self._distances: dict[str, Tensor] = {}
        self._others: dict[str, ImageSubset | None] = {}
        self.counts: list[int] = []

    def subset(self, network: Network) -> tuple[str, ImageSubset]:
        """Return the subset whose images are scored, and a key that equal subsets share."""
        if self.settings.folder is not None:
            return self._in_folder(network, self.settings.subset)
        own = self.settings.subset not in ("test", "full")  # images chosen by the network's split
        apart = ("batch_size",) if own else ("batch_size", "validation", "only")
        data = {key: value for key, value in network.config.get("data", {}).items() if key not in apart}
        described = [data, network.config.get("split", {}) if own else None]
        key = json.dumps(described, sort_keys=True, default=str)
        if key not in self._subsets:
            self._subsets[key] = self.inputs.subset(network, self.settings.subset)
        return key, self._subsets[key]

    def _in_folder(self, network: Network, name: str) -> tuple[str, ImageSubset]:
        """Open a subset of the folder that takes the place of the network's images, in the network's size."""
        shape = [int(side) for side in cast(Classifier, network.module).input_shape]
        key = f"{name} of {self.settings.folder}, {shape}"
        if key not in self._subsets:
            images = open_images(
                name="image_folder",
                root=".",
                folder=self.settings.folder,
                size=shape[1:],
                channels=shape[0],
                workers=self.inputs.workers,
            )
            images.prepare_data()
            self._subsets[key] = images.subset(name)
        return key, self._subsets[key]

    def reader(self, network: Network, most: int | None = None) -> PositionReader:
        """Choose the images that are scored, at random, for folders hold theirs class by class."""
        _, subset = self.subset(network)
        limits = [count for count in (self.settings.limit, most) if count is not None]
        count = len(subset) if self._other(network) is not None else -(-len(subset) // 2)
        return self._reader(subset, self._order(subset)[:count][: min([count, *limits])])

    def fit_reader(self, network: Network) -> PositionReader:
        """Choose images to fit to, none of which is scored: of the other subset, or a half that is set apart."""
        most = min(FITTED_TO, self.settings.limit or FITTED_TO)
        if (other := self._other(network)) is not None:
            return self._reader(other, self._order(other)[:most])
        _, subset = self.subset(network)
        return self._reader(subset, self._order(subset)[-(-len(subset) // 2) :][:most])

    @property
    def fitted_on(self) -> str:
        """The subset to fit to: training images where held-out images are scored, else test images."""
        return "train" if self.settings.subset in ("test", "val") else "test"

    def _other(self, network: Network) -> ImageSubset | None:
        """Return the subset to fit to; None where it is missing, as with weights that were trained elsewhere."""
        if network.name not in self._others:
            try:
                if self.settings.folder is not None:
                    found = self._in_folder(network, self.fitted_on)[1]
                else:
                    found = self.inputs.subset(network, self.fitted_on)
            except UserError:  # the folder does not hold the files that it was trained on
                found = None
            self._others[network.name] = found if found is not None and len(found) >= FEWEST_FITTED else None
        return self._others[network.name]

    def _order(self, subset: ImageSubset) -> Tensor:
        return torch.randperm(len(subset), generator=torch.Generator().manual_seed(self.inputs.seed))

    def _reader(self, subset: ImageSubset, positions: Tensor) -> PositionReader:
        return PositionReader(subset, positions.sort().values, min(self.inputs.batch_size, 256))

    def of(self, network: Network) -> tuple[ScoredImages, dict[str, Tensor]]:
        """Return a network's images, and the scores of random sets of them.

        Raises:
            UserError: there are too few images.
        """
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
        if self.settings.lpips is not None and key not in self._distances:
            self._distances[key] = self._compared(network, read)
        distances = self._distances.get(key)
        images = ScoredImages(
            read=read,
            few=None if self.settings.folder is not None else self.reader(network, self.settings.ablation_limit),
            labels=labels,
            num_classes=int(labels.max()) + 1,
            rows=rows,
            fit=self.fit_reader(network),
            distances=distances,
        )
        return images, null_scores(labels, rows, null_sets(images, self.settings, seed=self.inputs.seed), distances)

    def _compared(self, network: Network, read: PositionReader) -> Tensor:
        """Compare all pairs of images by LPIPS.

        Raises:
            UserError: there are too many, or no weights of AlexNet's convolutions in the file.
        """
        if len(read.positions) > MOST_COMPARED:
            raise UserError(
                f"{network.name}: {len(read.positions):,} images are too many to compare in pairs by LPIPS; give "
                f"settings.units.limit={MOST_COMPARED} or less"
            )
        features, heads = alexnet_features(str(self.settings.lpips)), published_heads()
        return pair_distances(torch.cat([lpips_vectors(features, heads, images) for images, _ in read()]))

    def _independent(self, network: Network) -> Network | None:
        """Find another network of equal data: of another architecture where there is one, else of another seed."""
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
        """Describe the images behind the fitted bases and the network behind the similarity in features."""
        found = self._of_folder(networks)
        where = f"{self.fitted_on} images"
        if apart := [network.name for network in networks if self._other(network) is None]:
            half = f"the other half of the {self.settings.subset} images"
            where = half if len(apart) == len(networks) else f"{where}, or of {', '.join(apart)} {half},"
        most = min(FITTED_TO, self.settings.limit or FITTED_TO)
        found += [
            "PCA, ICA, NMF, dictionary, whitening, the variances of the ablation, and over seeds the rotation of "
            f"Procrustes and the partners of units are fitted to up to {most:,} {where} and scored on the "
            f"{self.settings.subset} images."
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

    def _of_folder(self, networks: Sequence[Network]) -> list[str]:
        """Describe the folder that takes the place of the networks' images, and LPIPS; nothing without them."""
        found = []
        if self.settings.folder is not None:
            _, subset = self.subset(networks[0])
            classes = len(subset.labels.unique())
            found.append(
                f"The images are those of {Path(self.settings.folder).name} ({classes} classes), scaled to the size "
                "that each network takes; its classes are those of purity, entropy and selectivity."
            )
        if self.settings.lpips is not None:
            found.append(
                "Similarity by LPIPS (Zhang et al. 2018; of top images it predicts what people understand, Klindt et "
                f"al. 2023): 1 minus the mean distance of pairs of top images, at {LPIPS_SIDE}x{LPIPS_SIDE} pixels, "
                "over that of all pairs: 0 for images chosen at random. The distance itself is made from AlexNet's "
                "convolutions."
            )
        return found

    def sample(self, networks: Sequence[Network]) -> str:
        """Write N and the seeds."""
        seeds = ", ".join(str(seed) for seed in sorted({n.seed for n in networks}))
        counts = sorted(set(self.counts))
        numbers = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        seeds = f"{'seeds' if ', ' in seeds else 'seed'} {seeds}"
        of = "" if self.settings.folder is None else f" of {Path(self.settings.folder).name}"
        return f"N = {numbers} {self.settings.subset} images{of}; {seeds}; response: {self.settings.aggregate}"


def alexnet_features(file: str) -> nn.Sequential:
    """Build AlexNet's convolutions with weights from a file.

    Args:
        file: state dict with ``features.0.weight`` and so on, or ``0.weight``; other tensors are left out.

    Raises:
        UserError: no such file, or other weights.
    """
    from torchvision.models import alexnet

    with torch.device("meta"):
        features = alexnet().features
    features = features.to_empty(device="cpu")
    try:
        found = {
            name.removeprefix("features."): value
            for name, value in read_weights(file).items()
            if name.startswith("features.") or name.split(".")[0].isdecimal()
        }
        fill(features, found, file)
    except ValueError as error:
        raise UserError(f"settings.units.lpips: {error}") from error
    return features.eval()


def other_architecture(first: Network, second: Network) -> bool:
    """Check whether two networks have different layers, whatever their labels, splits, seeds and training.

    Networks with equal modules are compared by the settings of the model that do not belong to its training.
    """
    layers = [_layers(one.module) for one in (first, second)]
    settings = [{pair for pair in one.id.architecture if not pair[0].startswith(TRAINING)} for one in (first, second)]
    return layers[0] != layers[1] or settings[0] != settings[1]


def _layers(module: nn.Module) -> list[tuple[object, ...]]:
    """List kind, settings and shapes of weights of each layer, without layers that act in training alone."""
    return [
        (type(one).__name__, one.extra_repr(), [tuple(weight.shape) for weight in one.parameters(recurse=False)])
        for one in module.modules()
        if not isinstance(one, nn.modules.dropout._DropoutNd | nn.Identity) and not any(one.children())
    ]


def _small(images: Tensor) -> Tensor:
    """Average large images down to the size at which pixels are compared."""
    side = SIDE.get(images.shape[1], 16)
    height, width = (min(side, length) for length in images.shape[-2:])
    return images if (height, width) == tuple(images.shape[-2:]) else F.adaptive_avg_pool2d(images, (height, width))

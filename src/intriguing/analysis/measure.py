"""Counts of the victims' answers on each adversarial set, and a few images of it.

Memory is bounded by one set and one block of images: a set is loaded, measured and dropped.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from intriguing.adversarial_set import AdversarialSet
from intriguing.analysis.identity import data_set
from intriguing.analysis.inputs import CraftedSet, Network
from intriguing.errors import UserError
from intriguing.metrics import equal_norm_gaussian, wrong
from intriguing.nn.evaluation import logits
from intriguing.results import RunSummary
from intriguing.statistics.counts import PairedCounts, paired_counts

BLOCK: int = 1024
"""Images whose noise is drawn in one call. It is fixed, so that no result depends on the batch size."""
NUM_EXAMPLES: int = 10
"""Images kept of each set for the pictures: one per class on digits."""

_PIXELS = (
    2**20
)  # values of the images of one forward pass at most, of 8 or more: large photographs are slower otherwise
_AMPLIFICATION = ("amplify", "amplify_by")
_STARTS = {"batch": ", starts of the batch", "none": ", without starts"}

Progress = Callable[[str, int, int], None]
"""Called with (a name of the work, steps done, steps in all)."""


@dataclass(frozen=True)
class Outcome:
    """Hold a victim's errors on one set.

    Attributes:
        against_clean: adversarial (first) against the same images without a perturbation (second).
        against_noise: adversarial (first) against equal-norm Gaussian noise (second); None for a Gaussian set.
        answers: the errors behind the counts, image by image; None where only the counts are known.
    """

    against_clean: PairedCounts
    against_noise: PairedCounts | None
    answers: Answers | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Answers:
    """Mark the images of a set that a victim gets wrong.

    Attributes:
        indices: (N,) of the images in the data set.
        adversarial: (N,) bool, as adversarial examples.
        clean: (N,) bool, without a perturbation.
        noise: (N,) bool, under equal-norm Gaussian noise; None for a Gaussian set.
        reached: (N,) bool, marks the adversarial examples that the victim puts into the class that the attack aimed
            at; None for an attack without targets.
        reached_clean: the same of the images without a perturbation.
    """

    indices: Tensor
    adversarial: Tensor
    clean: Tensor
    noise: Tensor | None
    reached: Tensor | None = None
    reached_clean: Tensor | None = None

    def outcome(self) -> Outcome:
        """Count the answers."""
        noise = None if self.noise is None else paired_counts(self.adversarial, self.noise)
        return Outcome(paired_counts(self.adversarial, self.clean), noise, self)


@dataclass(frozen=True)
class Examples:
    """Hold a few images of a set: inputs, adv_inputs (M, C, H, W); labels, targets (M,); distortion (M,)."""

    inputs: Tensor
    adv_inputs: Tensor
    labels: Tensor
    targets: Tensor
    distortion: Tensor


@dataclass(frozen=True, kw_only=True)
class MeasuredSet:
    """Hold the counts of an adversarial set after it was measured.

    Attributes:
        name: name of the attack run.
        source: name of the network in this analysis whose weights it was made with; None for Gaussian noise, and for a
            set of another network.
        label: the network's label; "Gaussian .1" for noise.
        split: the network's split; empty for noise.
        seed: the network's seed; for noise the set's.
        subset: images it was made from: train, test or val.
        attack: the attack's parameters.
        amplify: distortion to which the perturbations were scaled, or None.
        num: images tried.
        num_success: images whose attack succeeded; only these are counted anywhere.
        distortion: (num_success,) per-pixel RMS.
        outcomes: by the name of the victim's training run.
        examples: a few images for the pictures.
        run: its provenance.
        stranger: name of the run it was made for, where that network is not in this analysis.
        data_set: name of the data set, see `identity.data_set`.
        indices: (num_success,) of the images in the data set; empty where they are not known.
    """

    name: str
    source: str | None
    label: str
    split: str
    seed: int
    subset: str
    attack: Mapping[str, Any]
    amplify: float | None
    num: int
    num_success: int
    distortion: Tensor = field(repr=False)
    outcomes: Mapping[str, Outcome]
    examples: Examples = field(repr=False)
    run: RunSummary = field(repr=False)
    stranger: str = ""
    data_set: str = ""
    indices: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64), repr=False)

    @property
    def is_noise(self) -> bool:
        """Whether it is Gaussian noise, made for no network."""
        return self.source is None and not self.stranger

    @property
    def attack_name(self) -> str:
        """The attack and its targets in words: "lbfgs, random targets"; of a user's function, its settings too.

        An effort that is not the default and images to begin from that are not the training images are named:
        "nearest, thorough, without starts, closest targets".
        """
        name, targets = str(self.attack.get("name", "unknown")), self.attack.get("targets")
        settings = self.attack.get("settings")
        effort = settings.get("effort", "default") if isinstance(settings, Mapping) else "default"
        if "function" not in self.attack:
            name += "" if effort == "default" else f", {effort}"
            name += _STARTS.get(str(self.attack.get("starts")), "")
        if "function" in self.attack and isinstance(settings, Mapping):
            name += "".join(f", {key}={value}" for key, value in settings.items())
        if "target_class" in self.attack:
            return f"{name}, target {targets}"
        return f"{name}, {str(targets).replace('_', ' ')} targets" if targets else name

    @property
    def amplified_by(self) -> str:
        """What was scaled by one factor, "set" or "image"; empty where nothing was, or it is not recorded."""
        return "" if self.amplify is None else str(self.attack.get("amplify_by", ""))

    @property
    def attack_key(self) -> str:
        """The parameters that distinguish this attack from others, as one canonical string."""
        settings = self.attack.get("settings")
        flat = {**self.attack, **(settings if isinstance(settings, Mapping) else {})}
        kept = {k: v for k, v in flat.items() if k not in ("seed", *_AMPLIFICATION, "settings", "chunk_size")}
        return json.dumps(kept, sort_keys=True, default=str)


def measure(
    crafted: CraftedSet,
    networks: Sequence[Network],
    *,
    seed: int,
    batch_size: int,
    progress: Progress | None = None,
    observe: Callable[[AdversarialSet, MeasuredSet], None] | None = None,
) -> MeasuredSet:
    """Load one set and count its victims' errors.

    A source of seed s is paired with the victims of seed s: networks that were trained together, as in the paper.
    Gaussian noise goes to the victims of its seed, or to all of them where no network has that seed. No set is shown to
    networks of another data set. The source is the network whose file has the sha256 recorded in the set, also if its
    run was renamed; a network that was trained again under the old name is another one.

    Args:
        crafted: the set.
        networks: all networks, from which the victims are chosen.
        seed: of the equal-norm Gaussian noise, mixed with the set's name.
        batch_size: images per forward pass.
        progress: called after every block of images.
        observe: called with the set and its measurement before the set is dropped.

    Returns:
        Counts over the images whose attack succeeded.

    Raises:
        UserError: the set cannot be used, or its images or labels do not fit a victim.
    """
    examples = crafted.load()
    metadata = examples.metadata
    source, maker = metadata.get("source"), _maker(metadata.get("source"), networks)
    images = _data_set(crafted, examples, maker)
    victims, set_seed = _victims(examples, images, networks)
    for victim in victims:
        _check_fit(crafted, examples, victim)
    keep = examples.success.bool().nonzero().flatten()
    shown = outcomes(
        examples,
        keep,
        {victim.name: victim.module for victim in victims},
        generator=torch.Generator().manual_seed(mixed_seed(seed, crafted.name)) if source else None,
        batch_size=batch_size,
        progress=progress,
        title=crafted.name,
    )
    attack = dict(metadata.get("attack", {}))
    distortion = examples.distortion[keep].double().cpu()
    amplify = metadata.get("amplify")
    label = maker.label if maker else _stranger(source) if source else _gaussian_label(metadata, distortion)
    run_label = label if amplify is None else f"{label}, amplified to {short(amplify)}"
    subset = _subset(metadata)
    measured = MeasuredSet(
        name=crafted.name,
        source=maker.name if maker else None,
        label=label,
        split=maker.split if maker else str(source.get("split", "full")) if source else "",
        seed=set_seed,
        subset=subset,
        attack=attack,
        amplify=None if amplify is None else float(amplify),
        num=examples.success.numel(),
        num_success=keep.numel(),
        distortion=distortion,
        outcomes=shown,
        examples=_pick(examples, keep),
        run=crafted.run(f"{run_label} ({subset} images)"),
        stranger="" if maker or not source else str(source["name"]),
        data_set=images,
        indices=image_indices(examples, keep),
    )
    if observe is not None:
        observe(examples, measured)
    return measured


def _maker(source: Mapping[str, Any] | None, networks: Sequence[Network]) -> Network | None:
    """Find the network whose weights a set was made with, by the checkpoint's sha256, or else by name."""
    if source is None:
        return None
    sha256 = source.get("checkpoint_sha256")
    for network in networks:
        known = sha256 and network.checkpoint_sha256
        if network.checkpoint_sha256 == sha256 if known else network.name == source["name"]:
            return network
    return None


def _stranger(source: Mapping[str, Any]) -> str:
    """Describe a network that is not in this analysis by its file, for another one may have its name by now."""
    sha256 = f", sha256 {source['checkpoint_sha256'][:8]}" if source.get("checkpoint_sha256") else ""
    return f"{source['label']} [{source['name']}{sha256}]"


def _data_set(crafted: CraftedSet, examples: AdversarialSet, maker: Network | None) -> str:
    return maker.data_set if maker else data_set(crafted.config.get("data") or examples.metadata.get("data", {}))


def _victims(examples: AdversarialSet, images: str, networks: Sequence[Network]) -> tuple[list[Network], int]:
    """Choose the networks that are shown a set, and return its seed."""
    source = examples.metadata.get("source")
    seed = int((source or examples.metadata).get("seed", 0) or 0)
    fitting = [n for n in networks if n.data_set == images]
    return [n for n in fitting if n.seed == seed] or (fitting if source is None else []), seed


def _check_fit(crafted: CraftedSet, examples: AdversarialSet, victim: Network) -> None:
    """Raise UserError unless a network of the project fits these images."""
    shape, num_classes = getattr(victim.module, "input_shape", None), getattr(victim.module, "num_classes", None)
    if shape is not None and tuple(examples.inputs.shape[1:]) != tuple(shape):
        raise UserError(
            f"{crafted.folder}: its images have shape {tuple(examples.inputs.shape[1:])}, but those of {victim.name} "
            f"have {tuple(shape)}; analyse runs of one data set together"
        )
    if num_classes is not None and len(examples.labels) and int(examples.labels.max()) >= num_classes:
        most = int(examples.labels.max())
        raise UserError(f"{crafted.folder}: its labels reach {most}, but {victim.name} has {num_classes} classes")


def short(value: float) -> str:
    """Write 0.1 as the paper does, ".1"."""
    return f"{value:g}".removeprefix("0") if 0 < value < 1 else f"{value:g}"


def size_text(distortion: float) -> str:
    """Write a distortion with three decimals, ".062"."""
    return f"{distortion:.3f}".removeprefix("0")


def _subset(metadata: Mapping[str, Any]) -> str:
    """Name the images a set was made from; for a network of the full split its training images are all of them."""
    subset, source = str(metadata.get("data", {}).get("subset", "test")), metadata.get("source")
    return "train" if subset == "full" and (not source or source.get("split", "full") == "full") else subset


def _gaussian_label(metadata: Mapping[str, Any], distortion: Tensor) -> str:
    """Name the row of Gaussian noise of one standard deviation, "Gaussian .1"."""
    stddev = metadata.get("attack", {}).get("stddev")
    size = short(round(float(distortion.mean() if stddev is None else stddev), 3))
    return f"Gaussian {size}, clipped" if metadata.get("clip") else f"Gaussian {size}"


def outcomes(
    examples: AdversarialSet,
    keep: Tensor,
    victims: Mapping[str, nn.Module],
    *,
    generator: torch.Generator | None = None,
    batch_size: int,
    progress: Progress | None = None,
    title: str = "",
) -> dict[str, Outcome]:
    """Show the examples of a set, and their unperturbed images, to networks.

    Args:
        examples: the set.
        keep: (M,) rows of the set to show: those whose attack succeeded.
        victims: the networks by name.
        generator: of equal-norm Gaussian noise, the control; None leaves it out.
        batch_size: images per forward pass.
        progress: called after every block of images, with ``title``.
        title: name of the work.

    Returns:
        The errors by the name of the network.
    """
    parts: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in victims}
    batch_size = min(batch_size, max(8, _PIXELS // max(1, math.prod(examples.inputs.shape[1:]))))
    num_blocks = math.ceil(keep.numel() / BLOCK)
    for done, rows in enumerate(keep.split(BLOCK) if num_blocks else (), start=1):
        inputs, adv_inputs = examples.inputs[rows], examples.adv_inputs[rows]
        wanted = torch.stack([examples.labels[rows].long(), examples.targets[rows].long()])
        shown = [adv_inputs, inputs]
        if generator is not None:
            shown.append(equal_norm_gaussian(inputs, examples.distortion[rows], generator=generator))
        for name, module in victims.items():
            parts[name].append(tuple(_wrong(module, images, wanted, batch_size) for images in shown))
        if progress:
            progress(title, done, num_blocks)
    nothing = torch.zeros(2, 0, dtype=torch.bool)
    targeted = bool((examples.targets[keep] >= 0).all())
    found = {}
    for name, blocks in parts.items():
        every = [torch.cat(one, dim=1) for one in zip(*blocks, strict=True)] if blocks else [nothing] * 3
        (adversarial, missed), (clean, missed_clean), *noise = every
        found[name] = Answers(
            image_indices(examples, keep),
            adversarial,
            clean,
            None if generator is None else noise[0][0],
            ~missed if targeted else None,
            ~missed_clean if targeted else None,
        ).outcome()
    return found


def _wrong(module: nn.Module, images: Tensor, wanted: Tensor, batch_size: int) -> Tensor:
    """Mark the images whose answers differ from each row of wanted classes (M, N): (M, N) bool."""
    batches = zip(images.split(batch_size), wanted.T.split(batch_size), strict=True)
    answers = ((outputs, classes.T) for outputs, classes in logits(module, batches))
    return torch.cat([torch.stack([wrong(outputs, one) for one in rows]).cpu() for outputs, rows in answers], dim=1)


def image_indices(examples: AdversarialSet, keep: Tensor) -> Tensor:
    """Return the indices of the images in their data set; empty where the set has none."""
    known = getattr(examples, "indices", None)
    return torch.zeros(0, dtype=torch.int64) if known is None else known[keep].cpu()


def _pick(examples: AdversarialSet, keep: Tensor) -> Examples:
    """Choose the first image of each class in the order of the labels, and then the first others."""
    labels = examples.labels[keep]
    firsts = [int((labels == label).nonzero()[0]) for label in labels.unique(sorted=True)[:NUM_EXAMPLES]]
    others = [i for i in range(min(labels.numel(), 2 * NUM_EXAMPLES)) if i not in firsts]
    rows = keep[torch.tensor((firsts + others)[:NUM_EXAMPLES], dtype=torch.long)]
    return Examples(
        examples.inputs[rows].clone(),
        examples.adv_inputs[rows].clone(),
        examples.labels[rows].clone(),
        examples.targets[rows].clone(),
        examples.distortion[rows].clone(),
    )


def mixed_seed(seed: int, name: str) -> int:
    """Derive a seed from a seed and a set's name, so that no two sets share their noise."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") >> 1

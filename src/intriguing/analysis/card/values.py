"""The numbers of a robustness card as typed values."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from intriguing.analysis.card.numbers import Number


@dataclass(frozen=True)
class Notice:
    """Say what does not fit, and the remedy.

    Attributes:
        kind: a word for programs: ``no_gradient``, ``permuted_labels``, ...
        text: what was found, with its number.
        remedy: what to do.
    """

    kind: str
    text: str
    remedy: str


@dataclass(frozen=True)
class Missing:
    """Say which part could not be measured, and why."""

    part: str
    reason: str


@dataclass(frozen=True)
class CurvePoint:
    """Hold one point of a curve.

    Attributes:
        at: the L2 norm, or the standard deviation of the noise.
        accuracy: share of images that are right, or certified.
    """

    at: float
    accuracy: Number


@dataclass(frozen=True)
class Bin:
    """Hold a bin of confidence: mean confidence, accuracy, images."""

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """Compare confidence with accuracy.

    Attributes:
        error: expected calibration error.
        overconfidence: mean confidence minus accuracy.
        bins: of confidence, those with images.
    """

    error: Number
    overconfidence: Number
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Distances:
    """Hold the minimal L2 distances of the images that the network gets right.

    Attributes:
        median, p5, p95: quantiles; null without a bound where the attack failed on too many images.
        rms: the median as per-pixel RMS.
        effort: of the attack, ``fast``, ``default`` or ``thorough``.
        failed: images without an example.
        indices: of the images, places in what was given.
        distances: their distances, in this order; null where there is none.
    """

    median: Number
    p5: Number
    p95: Number
    rms: Number
    effort: str
    failed: int
    indices: tuple[int, ...]
    distances: tuple[float, ...]


@dataclass(frozen=True)
class Example:
    """Hold an adversarial example for the page.

    Attributes:
        group: ``typical`` or ``weakest``.
        index: place of the image in what was given.
        label, answer: its class, and the class that the example is taken for.
        l2: norm of the perturbation.
        image, adversarial: (C, H, W); not in the file.
    """

    group: str
    index: int
    label: int
    answer: int
    l2: float
    image: Tensor | None = field(default=None, repr=False, metadata={"saved": False})
    adversarial: Tensor | None = field(default=None, repr=False, metadata={"saved": False})


@dataclass(frozen=True)
class Corruption:
    """Hold the accuracy under one corruption at one strength.

    Attributes:
        name: of the transform.
        strength: 1, 2 or 3.
        setting: of the transform, in words.
        accuracy: under it.
    """

    name: str
    strength: int
    setting: str
    accuracy: Number


@dataclass(frozen=True)
class Strength:
    """Compare two efforts of the attack.

    Attributes:
        effort: the greater one.
        shorter: mean share by which the greater effort's distances are shorter.
        most: largest such share.
    """

    effort: str
    shorter: Number
    most: float


@dataclass(frozen=True)
class Sign:
    """Hold one sign of masked gradients.

    Attributes:
        name: a word for programs.
        text: what was measured, and what is expected.
        value: the number.
        suspicious: whether it is a sign.
    """

    name: str
    text: str
    value: Number
    suspicious: bool


@dataclass(frozen=True)
class NoisePrediction:
    """Compare the distance that the error in noise predicts with the measured one.

    Attributes:
        stddev: of the noise.
        error: share of the images that are right without noise and wrong in it.
        predicted: distance, -stddev times the normal quantile of the error (Ford et al. 2019).
        measured: median of the measured distances.
    """

    stddev: float
    error: Number
    predicted: Number
    measured: Number


@dataclass(frozen=True)
class Transfer:
    """Hold transfer between the network and a reference at one norm.

    Attributes:
        reference: name of the other network.
        l2: norm of all perturbations.
        own: share of the images that examples of this norm, made for the network, fool it.
        to, from_: share of the examples that carry over to the reference, and from it.
        noise_to, noise_from: share of the images that noise of this norm fools.
    """

    reference: str
    l2: float
    own: Number
    to: Number
    from_: Number
    noise_to: Number
    noise_from: Number


@dataclass(frozen=True)
class Layer:
    """Hold what one layer does to perturbations.

    Attributes:
        name: of the layer.
        bound: upper bound of its operator norm (Lipschitz constant).
        adversarial, noise: mean |change of the output of the layers up to this one| / |change of the image|; null where
            it was not measured.
    """

    name: str
    bound: float
    adversarial: float
    noise: float


@dataclass(frozen=True)
class Certificate:
    """Hold how the certified radii were found.

    Attributes:
        method: ``product``, ``LipSDP`` or both.
        constant: Lipschitz constant of the logits.
        pairs: whether each pair of classes has a constant.
        contradictions: images that were fooled within their certified radius; anything but 0 is a fault.
    """

    method: str
    constant: float
    pairs: bool
    contradictions: int


@dataclass(frozen=True)
class Confusion:
    """Count images of a class that are taken for another.

    Attributes:
        label, answer: the classes.
        count: unperturbed images; where ``adversarial``, nearest adversarial examples.
        share: of the images of the class.
    """

    label: int
    answer: int
    count: int
    share: Number
    adversarial: bool


@dataclass(frozen=True)
class Cost:
    """Hold what the card took.

    Attributes:
        forwards, backwards: passes of single images.
        seconds: wall-clock time by part.
        memory: largest memory of the process, or of the GPU, in MB.
    """

    forwards: int
    backwards: int
    seconds: dict
    memory: float


@dataclass(frozen=True)
class Change:
    """Compare one number of two cards.

    Attributes:
        name: what it is.
        old, new: the numbers.
        verdict: ``worse``, ``better`` or ``as before``.
    """

    name: str
    old: Number
    new: Number
    verdict: str


@dataclass(frozen=True, kw_only=True, repr=False)
class CardValues:
    """Hold what was measured of one network.

    Attributes:
        name: of the network.
        images: images of the sample that were used, at most.
        shape: (C, H, W).
        num_classes: logits of an image.
        seed: of the sample and of all noise.
        minutes: the budget.
        accuracy: on the unperturbed images.
        calibration: of these answers.
        l2: minimal distances; None where there was no attack.
        security_curve: accuracy against L2.
        noise_curve: accuracy against the standard deviation of Gaussian noise.
        certified_curve: share that is certified against L2; None without bounds.
        certificate: how it was found.
        corruptions: accuracy under common corruptions.
        strength: two efforts of the attack.
        signs: of masked gradients.
        noise_prediction: distance that noise predicts.
        transfer: from and to a reference.
        layers: norms and amplification; None where they could not be had.
        confused: pairs of classes.
        examples: adversarial examples.
        classes: names of the classes; empty where they have none.
        cost: passes, seconds, memory.
        warnings: what does not fit.
        missing: what could not be measured.
        comparison: with an earlier card; empty without one.
        seconds: wall-clock time.
    """

    name: str
    images: int
    shape: tuple[int, ...]
    num_classes: int
    seed: int
    minutes: float
    accuracy: Number
    calibration: Calibration | None
    l2: Distances | None
    security_curve: tuple[CurvePoint, ...]
    noise_curve: tuple[CurvePoint, ...]
    certified_curve: tuple[CurvePoint, ...] | None
    certificate: Certificate | None
    corruptions: tuple[Corruption, ...]
    strength: Strength | None
    signs: tuple[Sign, ...]
    noise_prediction: NoisePrediction | None
    transfer: Transfer | None
    layers: tuple[Layer, ...] | None
    confused: tuple[Confusion, ...]
    examples: tuple[Example, ...]
    classes: tuple[str, ...]
    cost: Cost
    warnings: tuple[Notice, ...]
    missing: tuple[Missing, ...]
    comparison: tuple[Change, ...] = ()
    seconds: float

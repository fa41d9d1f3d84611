"""Notice what does not fit a network and its images, each with a number and a remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from intriguing.analysis.card.subject import Subject
from intriguing.analysis.card.values import Notice, Sign, Strength
from intriguing.nn.repeat import find_instability
from intriguing.statistics.counts import paired_counts
from intriguing.statistics.intervals import excess_interval

_FEW = 10  # images below which shares say nothing
_WEAK = 0.1  # share by which a greater effort shortens the distances, from which the attack counts as weak
_CALLED_AGAIN = 4  # images that are passed again
_LOOKED_AT = 256  # images that the tests of the input look at


@dataclass(frozen=True)
class _Scale:
    """Another scale of the images that a network may have been trained on: x -> (x - mean) / std."""

    words: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        return (images - torch.tensor(self.mean).view(shape)) / torch.tensor(self.std).view(shape)

    def fits(self, channels: int) -> bool:
        return len(self.mean) in (1, channels)

    @property
    def code(self) -> str:
        return f"intriguing.models.Normalize({list(self.mean)}, {list(self.std)})"


_SCALES = (
    _Scale("ImageNet's mean and standard deviation", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    _Scale("CIFAR-10's mean and standard deviation", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    _Scale("MNIST's mean and standard deviation", (0.1307,), (0.3081,)),
    _Scale("the scale -1 to 1", (0.5,), (0.5,)),
    _Scale("the scale 0 to 255", (0.0,), (1 / 255,)),
)


def was_training(model: nn.Module) -> bool:
    """Return whether a part of the network whose answers depend on it is in training mode."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    return bool(model.training) and any(
        isinstance(one, kinds) and one.training and getattr(one, "p", 1) > 0 for one in model.modules()
    )


def notices(subject: Subject, logits: Tensor, *, training: bool) -> list[Notice]:
    """Look at the outputs on the first images.

    Args:
        subject: network and sample.
        logits: (M, K) of the first M images.
        training: whether the network was given in training mode, see `was_training`.

    Returns:
        What does not fit; empty for nothing.
    """
    found = list(_of_outputs(subject, logits))
    if training:
        found.append(
            Notice(
                "training_mode",
                "the network was given in training mode, in which dropout and batch normalisation are random; it was "
                "measured in evaluation mode",
                "call model.eval() first, if the answers of training are not what you want to know",
            )
        )
    if len(logits) >= _FEW and not any(one.kind == "constant_outputs" for one in found):
        labels, answers = subject.labels[: len(logits)], logits.argmax(1)
        found += _of_labels(labels, answers)
        found += _of_scale(subject, labels, answers)
    found += _of_calls(subject, logits)
    return found


def _of_calls(subject: Subject, logits: Tensor) -> Iterator[Notice]:
    def call(images: Tensor) -> Tensor:  # twice, because some networks squeeze a batch of one image away
        return subject.logits(torch.cat([images, images]))[: len(images)]

    found = find_instability(call, subject.images[:_CALLED_AGAIN], logits[:_CALLED_AGAIN])
    if found is None:
        return
    share = f"{found.size:.2g} of the usual difference between the largest and the smallest"
    if found.kind == "random":
        yield Notice(
            "random_outputs",
            f"two passes of one image change the logits by {share}: the network is random in evaluation mode",
            "attack the mean of several passes, or fix the random state inside forward",
        )
    else:
        yield Notice(
            "batch_dependent",
            f"the logits of an image depend on the other images of its batch, by {share}",
            "make the network treat each image by itself, for example by batch normalisation with running statistics",
        )


def _of_outputs(subject: Subject, logits: Tensor) -> Iterator[Notice]:
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all()):
        certain = float((logits.amax(1) > 1 - 1e-6).double().mean())
        yield Notice(
            "probabilities",
            "the outputs are probabilities: between 0 and 1, and they sum to 1 for every image"
            + (f"; for {certain:.0%} of the images they are 0 and 1, where gradients vanish" if certain else ""),
            "return the logits: leave the softmax out of the network",
        )
    if len(logits) > 1 and bool((logits == logits[0]).all()):
        yield Notice(
            "constant_outputs",
            f"the outputs are equal for all {len(logits)} images that were looked at",
            "check that the weights were loaded and that the images reach the network",
        )
    elif len(logits) >= _FEW and len(logits.argmax(1).unique()) == 1 and len(subject.labels.unique()) > 1:
        yield Notice(
            "one_answer",
            f"the answer is class {int(logits[0].argmax())} for all {len(logits)} images that were looked at",
            "check that the weights were loaded, and the scale of the images",
        )


def _of_labels(labels: Tensor, answers: Tensor) -> Iterator[Notice]:
    """Notice labels that number the classes differently from the network."""
    classes = labels.unique()
    if len(classes) < 2 or len(labels) < 3 * len(classes) or float((answers == labels).double().mean()) > 0.5:
        return
    usual = torch.stack([answers[labels == k].mode().values for k in classes])
    agree = sum(int((answers[labels == k] == a).sum()) for k, a in zip(classes, usual, strict=True)) / len(labels)
    if agree >= 0.7 and len(usual.unique()) >= 0.9 * len(classes):
        some = ", ".join(f"{int(k)} is {int(a)}" for k, a in list(zip(classes, usual, strict=True))[:4])
        yield Notice(
            "permuted_labels",
            f"the labels seem to number the classes differently from the network: renumbered, {agree:.0%} of the "
            f"answers are right ({some}, ...)",
            "number the classes as in the network's training; folders of classes are numbered in the order of names",
        )


def _of_scale(subject: Subject, labels: Tensor, answers: Tensor) -> Iterator[Notice]:
    """Notice a network that is right more often on images of another scale."""
    many = min(len(labels), _LOOKED_AT)
    images, labels = subject.images[:many], labels[:many]
    wrong = answers[:many] != labels
    best: tuple[float, _Scale, float] | None = None
    for scale in _SCALES:
        if scale.fits(images.shape[1]):
            other = ~subject.right(scale.apply(images), labels)
            gain = excess_interval(paired_counts(wrong, other)).low
            if gain > 0.05 and (best is None or gain > best[0]):
                best = (gain, scale, float((~other).double().mean()))
    if best is not None:
        yield Notice(
            "normalisation",
            f"{float((~wrong).double().mean()):.0%} of {many} images are right as they are, in [0, 1], and "
            f"{best[2]:.0%} on {best[1].words}: the network seems to lack its normalisation",
            f"make it the first layer: torch.nn.Sequential({best[1].code}, network)",
        )


def of_signs(signs: Sequence[Sign]) -> list[Notice]:
    """Make one notice of the signs of masked gradients that were found."""
    seen = [one for one in signs if one.suspicious]
    if not seen:
        return []
    return [
        Notice(
            "masked_gradients",
            "; ".join(one.text for one in seen),
            "the distances may be too large: attack through a smooth stand-in for what hides the gradient, or compare "
            "with an attack that needs none",
        )
    ]


def of_strength(strength: Strength | None) -> list[Notice]:
    """Notice an attack whose distances a greater effort shortens much."""
    if strength is None or strength.shorter.value < _WEAK:
        return []
    return [
        Notice(
            "weak_attack",
            f"the effort {strength.effort} shortens the distances by {100 * strength.shorter.value:.0f} % on average, "
            "so those of this card are too long by about as much",
            f"make the card with effort={strength.effort} (card.effort={strength.effort})",
        )
    ]


def no_gradient(reason: str) -> Notice:
    """Make the notice of a network that cannot be attacked."""
    return Notice(
        "no_gradient",
        f"the network cannot be attacked: {reason}",
        "let forward compute with tensors alone, without detach, no_grad, argmax or round on the way to the logits",
    )


def contradiction(count: int) -> Notice:
    """Make the notice of certificates that the attack refutes."""
    return Notice(
        "contradiction",
        f"{count} images were fooled within their certified radius: one of the two is wrong",
        "do not use this card; report the network as a fault of the project",
    )

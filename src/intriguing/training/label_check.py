"""Find out whether a network that comes trained numbers the classes as its images do."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom
from torch import Tensor

from intriguing.data import ImageData
from intriguing.models import Classifier
from intriguing.nn.evaluation import logits

log = logging.getLogger(__name__)
CHANCE, FOUND = 1e-3, 1e-6
"""Tail probabilities of right answers by chance: above the first a network guesses, below the second it does not."""


def warn_of_labels(model: Classifier, data: ImageData, random_layers: tuple[str, ...], wrong: int, num: int) -> None:
    """Log a warning where a network that was not trained here cannot be right about its images.

    Args:
        model: the network.
        data: its images.
        random_layers: that a file of weights left as they started.
        wrong: number of test images that it gets wrong.
        num: number of test images.
    """
    if random_layers:
        log.warning("%s: %s", model.label, _of_random_layers(random_layers, data.num_classes))
    elif num and binom.sf(num - wrong - 1, num, 1 / data.num_classes) > CHANCE:
        batches = data.test.batches(data.evaluation_batch)
        outputs = [(found.argmax(1).cpu(), labels.cpu()) for found, labels in logits(model, batches)]
        predicted, labels = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        log.warning(
            "%s gets %d of %d test images right, as many as by chance with %d classes: %s",
            *(model.label, num - wrong, num, data.num_classes, explained(predicted, labels, data.class_names)),
        )


def _of_random_layers(layers: tuple[str, ...], num_classes: int) -> str:
    named = ", ".join(layers[:4]) + ", ..." * (len(layers) > 4)
    hint = "; data=imagenet numbers a folder among all 1,000 classes" if len(layers) == 1 and num_classes < 1000 else ""
    return (
        f"the weights do not fill {named}, which {'is' if len(layers) == 1 else 'are'} random: the network cannot tell "
        f"{num_classes} classes apart before it is trained, and its other layers are those of the file{hint}"
    )


def explained(predicted: Tensor, labels: Tensor, names: tuple[str, ...]) -> str:
    """Say why a network that guesses may do so: its classes have another order, or it knows nothing.

    Args:
        predicted: (N,) classes that the network gives.
        labels: (N,) classes of the images.
        names: of the K classes.

    Returns:
        A clause for a message.
    """
    order = renumbered(predicted, labels, names)
    if order is None:
        return (
            "either its weights are random, or it numbers the classes in another order, which data.classes_file=... "
            "says"
        )
    label = order.example
    return (
        f"its classes have another order, {order.words} ({order.right} of {order.num} images are right then; for "
        f"example, it calls {names[label]} {names[int(order.mapping[label])]}); data.classes_file=... says the order"
    )


@dataclass(frozen=True)
class Renumbering:
    """Another order of the classes, in which a network is right.

    Attributes:
        words: how the order was found.
        mapping: (K,) the network's number of each class, -1 where no image shows it.
        right: images that are right then.
        num: images that were counted.
    """

    words: str
    mapping: Tensor
    right: int
    num: int

    @property
    def example(self) -> int:
        """A class that has another number."""
        moved = (self.mapping >= 0) & (self.mapping != torch.arange(len(self.mapping)))
        return int(moved.nonzero()[0])


def renumbered(predicted: Tensor, labels: Tensor, names: tuple[str, ...]) -> Renumbering | None:
    """Find an order of the classes in which a network's answers are right more often than by chance.

    Two usual ones are tried: the order of the names, and numbers that are one off. Else every class is matched with the
    answer that its images get (the assignment with the most right answers), by every second image of each class, and
    the match is tried on the other images; classes with one image match nothing.

    Args:
        predicted: (N,) classes that the network gives.
        labels: (N,) classes of the images.
        names: of the K classes.

    Returns:
        The order; None where there is no sign of any.
    """
    num_classes = len(names)
    by_name = torch.tensor(sorted(range(num_classes), key=lambda i: names[i].casefold())).argsort()
    numbers = torch.arange(num_classes)
    usual = {"that of their names": by_name, "one further": (numbers + 1) % num_classes, "one back": numbers.roll(1)}
    tried = [
        Renumbering(words, mapping, int((mapping[labels] == predicted).sum()), len(labels))
        for words, mapping in usual.items()
    ]
    tried.append(_matched(predicted, labels, num_classes))
    best = max(tried, key=lambda one: one.right / max(1, one.num))
    return best if binom.sf(best.right - 1, best.num, 1 / num_classes) < FOUND else None


def _matched(predicted: Tensor, labels: Tensor, num_classes: int) -> Renumbering:
    order = labels.argsort(stable=True)
    sizes = labels.bincount(minlength=num_classes)
    turn = torch.empty_like(order)  # an image's number among those of its class
    turn[order] = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[labels[order]]
    fitted, tested = turn % 2 == 0, turn % 2 == 1
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    confusion.index_put_((labels[fitted], predicted[fitted]), torch.ones((), dtype=torch.int64), accumulate=True)
    rows, columns = linear_sum_assignment(confusion.numpy(), maximize=True)
    mapping = torch.full((num_classes,), -1)
    mapping[torch.from_numpy(rows)] = torch.from_numpy(columns)
    mapping[confusion.sum(1) == 0] = -1
    right = int((mapping[labels[tested]] == predicted[tested]).sum())
    return Renumbering("as its answers show", mapping, right, int(tested.sum()))

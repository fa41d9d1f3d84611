"""Whether robustness cards mean what they say: coverage of the intervals, planted regressions, a series of networks.

    uv run benchmarks/card.py coverage                       50 cards of one network against the truth of all images
    uv run benchmarks/card.py regressions                    10 planted regressions, and 10 pairs of seeds
    uv run benchmarks/card.py series --networks-file NETWORKS.py --data data [--squeezenet FILE --images FOLDER]

NETWORKS.py has NETWORKS, name -> data set, and load(name) -> module, see benchmark_networks.py. Each writes a JSON file
to results/cards.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmark_networks import images_of, import_file
from torch import Tensor, nn

import intriguing as ig
from intriguing.analysis.card.card import RobustnessCard
from intriguing.analysis.card.compare import WORSE
from intriguing.analysis.card.measure import Parts, card_of, measure_parts
from intriguing.analysis.card.numbers import Number
from intriguing.analysis.card.subject import Subject
from intriguing.runs.provenance import provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("coverage", "regressions", "series"))
    parser.add_argument("--out", type=Path, default=Path("results/cards"), help="folder of the files (results/cards)")
    parser.add_argument("--cards", type=int, default=50, help="of coverage (50)")
    parser.add_argument("--sample", type=int, default=100, help="images of a card of coverage (100)")
    parser.add_argument("--pairs", type=int, default=10, help="of regressions (10)")
    parser.add_argument("--minutes", type=float, default=5.0, help="budget of a card of the series (5)")
    parser.add_argument("--num", type=int, default=256, help="images of a card of the series (256)")
    parser.add_argument("--networks-file", type=Path, help="Python file of networks")
    parser.add_argument("--network", nargs="*", default=[], help="only these")
    parser.add_argument("--data", default="data", help="folder that holds MNIST/raw (data)")
    parser.add_argument("--squeezenet", type=Path, help="state dict of torchvision's SqueezeNet 1.1")
    parser.add_argument("--images", type=Path, help="folder of ImageNet's images, val/<class>/*.JPEG")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    found = {"coverage": coverage, "regressions": regressions, "series": series}[given.what](given)
    facts = {key: provenance()[key] for key in ("command", "commit", "versions", "platform", "cpus")}
    found |= {"seconds": round(time.perf_counter() - began, 1), "provenance": facts}
    (given.out / f"{given.what}.json").write_text(json.dumps(found, indent=1) + "\n")


def trained(seed: int, data: Any, *, widths: Sequence[int] = (50,), epochs: int = 15) -> nn.Module:
    """Train a small network on digits."""
    torch.manual_seed(seed)
    model = ig.models.FullyConnected(widths=list(widths))
    return ig.fit(model, data, weight_decay=1e-4, epochs=epochs, seed=seed)


def halves() -> tuple[Any, Tensor, Tensor]:
    """Split digits into a third to train on and the rest, of which cards are made."""
    digits = ig.data.digits()
    images = torch.cat([digits.train.images, digits.test.images])
    labels = torch.cat([digits.train.labels, digits.test.labels])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    first, rest = order[:400], order[400:]
    return ig.data.from_tensors((images[first], labels[first]), num_classes=10), images[rest], labels[rest]


def coverage(given: argparse.Namespace) -> dict[str, Any]:
    """Count how often the intervals of small cards hold the truth of all images.

    Every image is measured once, and the small cards are made of what was found for images drawn from all.
    """
    data, images, labels = halves()
    net = trained(0, data)
    everything = Subject("all", net, images, labels, torch.arange(len(labels)), torch.device("cpu"), seed=0)
    parts, clock, _ = measure_parts(
        everything, minutes=60, effort="fast", reference=None, report=lambda what, share: None
    )
    truth = dict(numbers(card_of(everything, parts, clock, [], 60, training=False)))
    inside: dict[str, list[bool]] = {}
    generator = torch.Generator().manual_seed(0)
    for _ in range(given.cards):
        rows = torch.randint(len(labels), (given.sample,), generator=generator)
        subject = replace(everything, images=images[rows], labels=labels[rows], indices=rows)
        card = card_of(subject, drawn(parts, subject, rows), clock, [], 60, training=False)
        for name, number in numbers(card):
            if name in truth:
                inside.setdefault(name, []).append(number.low - 1e-9 <= truth[name].value <= number.high + 1e-9)
    shares = {name: sum(held) / len(held) for name, held in inside.items() if len(held) >= given.cards / 2}
    for name, share in shares.items():
        print(f"{name}: {100 * share:.1f} %")
    mean = sum(shares.values()) / len(shares)
    print(f"all: {100 * mean:.1f} %")
    return {
        "images": len(labels),
        "sample": given.sample,
        "cards": given.cards,
        "covered": shares,
        "mean": mean,
        "truth": {name: number.value for name, number in truth.items()},
    }


def drawn(parts: Parts, subject: Subject, rows: Tensor) -> Parts:
    """Return the parts of a card as if they had measured these rows alone."""
    clean, attack = copy.copy(parts.clean), copy.copy(parts.attack)
    noise, corruptions = copy.copy(parts.noise), copy.copy(parts.corruptions)
    for part in (clean, attack, noise, corruptions):
        part.subject, part.rows = subject, len(rows)
    clean.logits, attack.l2 = parts.clean.logits[rows], parts.attack.l2[rows]
    attack.adv_inputs = [parts.attack.adv_inputs[row] for row in rows.tolist()]
    noise.right, corruptions.right = parts.noise.right[:, rows], parts.corruptions.right[:, rows]
    return replace(parts, clean=clean, attack=attack, noise=noise, corruptions=corruptions)


def numbers(card: RobustnessCard) -> Iterator[tuple[str, Number]]:
    """Yield the numbers of a card by name; those at 0 and 1 in truth are of no interest."""
    yield "accuracy", card.accuracy
    if card.calibration:
        yield "calibration error", card.calibration.error
        yield "overconfidence", card.calibration.overconfidence
    if card.l2:
        for key in ("median", "p5", "p95"):
            yield f"L2 {key}", getattr(card.l2, key)
    for title, curve in (("L2", card.security_curve), ("noise", card.noise_curve)):
        for point in curve:
            if point.at > 0 and 0 < point.accuracy.value < 1:
                yield f"{title} {point.at:g}", point.accuracy
    for one in card.corruptions:
        yield f"{one.name} {one.strength}", one.accuracy


def regressions(given: argparse.Namespace) -> dict[str, Any]:
    """Compare cards of networks with noise in their weights, and of two seeds of one training."""
    digits = ig.data.digits()
    images, labels = digits.test.images, digits.test.labels

    def card(net: nn.Module, name: str) -> RobustnessCard:
        return ig.robustness_card(net, images, labels, name=name, minutes=60)

    found: dict[str, Any] = {"planted": [], "seeds": []}
    before: RobustnessCard | None = None
    for seed in range(given.pairs + 1):
        net = trained(seed, digits, epochs=30)
        made = card(net, f"seed {seed}")
        if before is not None:
            found["seeds"].append([one.name for one in made.compare(before) if one.verdict == WORSE])
        if seed < given.pairs:
            worse = card(noisy(net, seed), f"seed {seed}, noise in the weights")
            found["planted"].append([one.name for one in worse.compare(made) if one.verdict == WORSE])
        before = made
        print(seed, found["planted"][-1:], found["seeds"][-1:], flush=True)
    for kind, rows in found.items():
        print(f"{kind}: {sum(map(bool, rows))} of {len(rows)} reported as worse")
    return found


def noisy(net: nn.Module, seed: int, size: float = 1.0) -> nn.Module:
    """Add noise to the weights, of ``size`` times the standard deviation of each layer's."""
    changed, generator = copy.deepcopy(net), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in changed.parameters():
            if weight.dim() > 1:
                weight += size * weight.std() * torch.randn(weight.shape, generator=generator)
    return changed


def series(given: argparse.Namespace) -> dict[str, Any]:
    """Make the cards of published networks, one process, and rank them by their median distance."""
    if given.networks_file is None and given.squeezenet is None:
        raise SystemExit("error: give --networks-file NETWORKS.py or --squeezenet FILE")
    rows: list[dict[str, Any]] = []
    for name, data, load in cases(given):
        images, labels = data()
        began = time.perf_counter()
        card = ig.robustness_card(load(), images, labels, name=name, minutes=given.minutes, max_images=given.num)
        card.save(given.out / f"{name}.html")
        seconds = time.perf_counter() - began
        card.save(given.out / f"{name}.json")
        rows.append(row(card, seconds))
        print(json.dumps(rows[-1]), flush=True)
    return {"minutes": given.minutes, "networks": sorted(rows, key=lambda one: -(one["median_l2"] or math.inf))}


def row(card: RobustnessCard, seconds: float) -> dict[str, Any]:
    """Return the main numbers of a card."""
    curve = {point.at: point.accuracy.value for point in card.security_curve}
    above = [p.at for p in card.certified_curve or () if p.at in curve and p.accuracy.value > curve[p.at] + 1e-12]
    return {
        "name": card.name,
        "images": card.images,
        "attacked": 0 if card.l2 is None else card.security_curve[0].accuracy.n,
        "accuracy": card.accuracy.value,
        "median_l2": None if card.l2 is None else card.l2.median.value,
        "low": None if card.l2 is None else card.l2.median.low,
        "high": None if card.l2 is None else card.l2.median.high,
        "median_rms": None if card.l2 is None else card.l2.rms.value,
        "shorter": None if card.strength is None else card.strength.shorter.value,
        "contradictions": None if card.certificate is None else card.certificate.contradictions,
        "certified_above_attack": above,
        "warnings": [one.kind for one in card.warnings],
        "missing": [one.part for one in card.missing],
        "seconds": round(seconds, 1),
    }


Case = tuple[str, Callable[[], tuple[Tensor, Tensor]], Callable[[], nn.Module]]


def cases(given: argparse.Namespace) -> Iterator[Case]:
    if given.networks_file is not None:
        file = import_file(given.networks_file)
        for name, data in file.NETWORKS.items():
            if not given.network or name in given.network:
                yield (
                    name,
                    lambda data=data: images_of(data, file, given.data, None),
                    lambda name=name: file.load(name),
                )
    if given.squeezenet is not None:
        opened = ig.data.image_folder(given.images, size=224, resize=256, channels=3)
        shape, count = list(opened.input_shape), opened.num_classes
        settings: dict[str, Any] = {"architecture": "squeezenet1_1", "weights": str(given.squeezenet)}
        yield (
            "squeezenet1_1",
            lambda: (opened.test.images, opened.test.labels),
            lambda: ig.models.TorchvisionModel(input_shape=shape, num_classes=count, **settings),
        )


if __name__ == "__main__":
    main()

"""Search settings of back-feeding: many FC100-100-10 networks are trained at once, as one batch of matrices.

    uv run benchmarks/back_feeding_search.py --data DATA [--device cuda] [--stages reference first]
    uv run benchmarks/back_feeding_search.py --data DATA [--device cuda] --stages second [--epochs 60 150]

DATA holds MNIST/raw, as torchvision keeps it. All settings are judged by 10,000 training images set apart, which no
network is trained on. ``first``: each group of ``GROUPS`` draws settings at random, two seeds each. ``second``: the
best settings of the best groups are trained again with other seeds; these rows are the ones to choose from.
``reference`` alone reads the test images: it trains two arms of ``study=back_feeding`` on all 60,000 images, so that
this program can be compared with the framework. Steps are those of ``intriguing.callbacks.PoolMixing`` with
``turns=together`` and ``keep_scale=false``. Rows are added to results/benchmarks/back_feeding_search.csv.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import math
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS = {"sigmoid": torch.sigmoid, "relu": torch.relu, "tanh": torch.tanh}
RANGES = {"sigmoid": (0.0, 1.0), "relu": (0.0, math.inf), "tanh": (-1.0, 1.0)}
STAGES = ["reference", "first", "second"]
MEASURED = ("error", "error_averaged", "train_error")
TYPES = {"str": str, "int": int, "float": float, "bool": lambda text: str(text) == "True"}

SIZES = (784, 100, 100, 10)
DRAWN = {  # settings of one network: lowest and highest value, drawn log-uniformly
    "lr": (0.05, 0.5),
    "decay": (1e-5, 4e-4),
    "input": (0.025, 0.07),
    "hidden": (0.005, 0.04),
    "weight": (0.5, 2.0),
}
# of study=back_feeding
KNOWN = {"lr": 0.25, "decay": 1e-4, "input": 0.032, "hidden": 0.01, "weight": 1.0}
KNOWN |= {"dropout_input": 0.0, "dropout_hidden": 0.0, "number": 0}


@dataclass(frozen=True)
class Group:
    """Hold what the networks of a group share: the program of their training.

    Attributes:
        activation: sigmoid, relu or tanh.
        layers: which layers have pools: none, input or all.
        attack: ``gradient``, ``pgd`` (``steps`` steps of the gradient) or ``boundary`` (``steps`` steps to the
            linearised boundary, beyond it by a tenth, at most as far as the distortion allows).
        past: batches that a pool holds.
        dropout: drawn for each network where true.
        anneal: the distortion grows from this share to all of it while training.
        floor: share of the learning rate that is left at the end.
    """

    activation: str = "sigmoid"
    layers: str = "all"
    attack: str = "gradient"
    steps: int = 1
    batch: int = 100
    epochs: int = 60
    past: int = 1
    dropout: bool = False
    anneal: float = 1.0
    floor: float = 0.0
    momentum: float = 0.9


REFERENCE = [Group(layers="none"), Group()]
GROUPS = [
    Group(),
    Group(attack="pgd", steps=3),
    Group(layers="input", attack="pgd", steps=3),
    Group(attack="boundary", steps=3),
    Group(activation="relu"),
    Group(activation="relu", attack="pgd", steps=3),
    Group(activation="tanh"),
    Group(anneal=0.3),
    Group(anneal=2.0),
    Group(past=10),
    Group(dropout=True),
    Group(dropout=True, attack="pgd", steps=3),
    Group(dropout=True, activation="relu"),
    Group(batch=50),
    Group(floor=0.1),
    Group(epochs=200),
    Group(epochs=200, dropout=True),
    Group(epochs=200, activation="relu"),
    Group(epochs=200, attack="pgd", steps=3),
]


def images(folder: Path, which: str) -> tuple[Tensor, Tensor]:
    """Read images (N, 784) in [0, 1] and labels (N,) of MNIST."""

    def read(name: str) -> bytes:
        path = folder / "MNIST" / "raw" / name
        packed = path.with_name(f"{name}.gz")
        if not path.exists() and not packed.exists():
            sys.exit(f"error: {path} is not there, nor {packed.name}; give the folder that holds MNIST/raw as --data")
        return path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())

    pixels = np.frombuffer(read(f"{which}-images-idx3-ubyte"), np.uint8, offset=16).reshape(-1, 784)
    labels = np.frombuffer(read(f"{which}-labels-idx1-ubyte"), np.uint8, offset=8)
    return torch.from_numpy(pixels / np.float32(255)), torch.from_numpy(labels.astype(np.int64))


class Networks:
    """Train M networks at once.

    Args:
        group: the program of their training.
        settings: of each network: ``seed`` and the keys of ``DRAWN``, and ``dropout_input``, ``dropout_hidden``.
        data: images (N, 784) and labels (N,), on the device.
    """

    def __init__(self, group: Group, settings: list[dict[str, float]], data: tuple[Tensor, Tensor]) -> None:
        self.group, self.images, self.labels = group, *data
        self.count, self.device = len(settings), data[0].device
        self.total = group.epochs * (len(self.images) // group.batch)

        def column(name: str) -> Tensor:
            return torch.tensor([one[name] for one in settings], device=self.device).view(-1, 1, 1)

        self.lr, self.weight = column("lr"), column("weight").view(-1)
        self.decay = [column("decay") * share * 2 / 1.25 for share in (1.0, 1.0, 0.1)]
        self.size = [column("input"), column("hidden"), column("hidden")]
        self.dropout = [column("dropout_input"), column("dropout_hidden"), column("dropout_hidden")]
        weights, biases = [], []
        for below, above in itertools.pairwise(SIZES):
            bound = math.sqrt(6 / (below + above))
            drawn = [
                torch.empty(below, above).uniform_(-bound, bound, generator=_generator(one["seed"], above))
                for one in settings
            ]
            weights.append(torch.stack(drawn).to(self.device))
            biases.append(torch.zeros(self.count, 1, above, device=self.device))
        self.parameters = [one.requires_grad_() for one in (*weights, *biases)]
        self.moments = [torch.zeros_like(one) for one in self.parameters]
        self.averages = [one.detach().clone() for one in self.parameters]
        self.layers = {"none": [], "input": [0], "all": [0, 1, 2]}[group.layers]
        kept = group.past * group.batch
        self.examples = {
            layer: torch.zeros(self.count, kept, SIZES[layer], device=self.device) for layer in self.layers
        }
        self.truth = torch.zeros(self.count, kept, dtype=torch.int64, device=self.device)
        self.step_number = torch.zeros((), dtype=torch.int64, device=self.device)
        self.order = torch.zeros(self.count, len(self.images), dtype=torch.int64, device=self.device)

    def forward(
        self, values: Tensor, layer: int = 0, pools: dict[int, Tensor] | None = None, training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute logits (M, R, 10) and the outputs of the layers from values (M, R, ...) of ``layer``."""
        outputs = []
        for k in range(layer, 3):
            outputs.append(values)
            if pools and k in pools:
                values = torch.cat([values, pools[k]], 1)
            if training and self.group.dropout:
                kept = torch.rand_like(values) >= self.dropout[k]
                values = values * kept / (1 - self.dropout[k])
            values = torch.baddbmm(self.parameters[3 + k], values, self.parameters[k])
            if k < 2:
                values = ACTIVATIONS[self.group.activation](values)
        return values, outputs

    def step(self) -> None:
        """Take a training step, with pools, and renew them."""
        group, batch = self.group, self.group.batch
        steps = len(self.images) // batch
        within = (self.step_number % steps) * batch + torch.arange(batch, device=self.device)
        rows = self.order.index_select(1, within)
        clean, labels = self.images[rows].requires_grad_(), self.labels[rows]
        time_now = self.step_number / self.total
        if group.past == 1:
            pools, truth = dict(self.examples), self.truth
        else:
            picked = torch.randint(group.past * batch, (batch,), device=self.device)
            pools = {layer: one.index_select(1, picked) for layer, one in self.examples.items()}
            truth = self.truth.index_select(1, picked)
        logits, outputs = self.forward(clean, 0, pools, training=True)
        # Row l of outputs holds the originals first, then the pools below it.
        targets = torch.cat([labels, *[truth] * len(self.layers)], 1)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
        own = losses[:, :batch].mean(1)
        started = (self.step_number >= max(round(0.05 * self.total), group.past)).to(own.dtype)
        mixed = losses[:, batch:].sum(1) / batch if self.layers else torch.zeros_like(own)
        loss = (own + started * self.weight * mixed).sum()
        wanted = [outputs[layer] for layer in self.layers]
        slopes = torch.autograd.grad(loss, [*self.parameters, *wanted])
        with torch.no_grad():
            growth = group.anneal + (1 - group.anneal) * time_now
            slot = (self.step_number % group.past) * batch + torch.arange(batch, device=self.device)
            renewed = {}
            for layer, output, slope in zip(self.layers, wanted, slopes[6:], strict=True):
                values = output[:, :batch].detach()
                renewed[layer] = self._perturbed(layer, values, labels, slope[:, :batch], self.size[layer] * growth)
            for layer, values in renewed.items():
                self.examples[layer].index_copy_(1, slot, values)
            self.truth.index_copy_(1, slot, labels)
            rate = self.lr * (group.floor + (1 - group.floor) * 0.5 * (1 + torch.cos(math.pi * time_now)))
            for k, (parameter, slope) in enumerate(zip(self.parameters, slopes[:6], strict=True)):
                if k < 3:
                    slope = slope + self.decay[k] * parameter
                moment = self.moments[k].mul_(group.momentum).add_(slope)
                parameter.sub_(rate * (slope + group.momentum * moment))
                # a mean over the last tenth of the steps so far, or thereabouts
                self.averages[k].lerp_(parameter, 10 / (10 + self.step_number.to(parameter.dtype)))
            self.step_number += 1

    def _slope(self, layer: int, values: Tensor, labels: Tensor, margin: bool) -> tuple[Tensor, Tensor]:
        """Return the gradient of the loss (or of the margin) at values (M, B, ...) of a layer, and the margin."""
        with torch.enable_grad():
            values = values.detach().requires_grad_()
            logits, _ = self.forward(values, layer)
            true = logits.gather(2, labels.unsqueeze(2)).squeeze(2)
            best = logits.scatter(2, labels.unsqueeze(2), -math.inf).amax(2)
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            total = (best - true).sum() if margin else loss
            return torch.autograd.grad(total, values)[0], (true - best).detach()

    def _perturbed(self, layer: int, values: Tensor, labels: Tensor, slope: Tensor, size: Tensor) -> Tensor:
        """Perturb values (M, B, ...) of a layer by at most ``size`` (RMS)."""
        group, length = self.group, size * math.sqrt(values.shape[2])
        lower, upper = RANGES[group.activation] if layer else (0.0, 1.0)

        def moved(start: Tensor, direction: Tensor, by: Tensor) -> Tensor:
            norm = direction.norm(dim=2, keepdim=True).clamp_min(1e-30)
            return (start + by / norm * direction).clamp(lower, upper)

        if group.attack == "gradient":
            return moved(values, slope, length)
        examples = moved(values, slope, 2 * length / group.steps) if group.attack == "pgd" else values
        for _ in range(group.steps - (group.attack == "pgd")):
            boundary = group.attack == "boundary"
            slope, margin = self._slope(layer, examples, labels, boundary)
            if boundary:
                by = 1.1 * margin.clamp_min(0).unsqueeze(2) / slope.norm(dim=2, keepdim=True).clamp_min(1e-30)
                examples = moved(examples, slope, torch.minimum(by, length.expand_as(by)))
            else:
                examples = moved(examples, slope, 2 * length / group.steps)
            away = examples - values
            examples = values + away * (length / away.norm(dim=2, keepdim=True).clamp_min(1e-30)).clamp(max=1)
        return examples

    def fit(self, seed: int) -> None:
        """Train all epochs; on a GPU a step is one graph."""
        torch.manual_seed(seed)
        steps = len(self.images) // self.group.batch
        self._shuffle()
        step = self.step
        if self.device.type == "cuda":
            saved = [one.detach().clone() for one in self._state()]
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                for _ in range(3):
                    self.step()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.step()
            with torch.no_grad():
                for one, value in zip(self._state(), saved, strict=True):
                    one.copy_(value)
            step = graph.replay
        for _ in range(self.group.epochs):
            self._shuffle()
            for _ in range(steps):
                step()

    def _shuffle(self) -> None:
        self.order.copy_(torch.rand(self.order.shape, device=self.device).argsort(dim=1))

    def _state(self) -> list[Tensor]:
        return [*self.parameters, *self.moments, *self.averages, *self.examples.values(), self.truth, self.step_number]

    @torch.no_grad()
    def error(self, data: tuple[Tensor, Tensor], averaged: bool = False) -> list[float]:
        """Return each network's error on images (N, 784), in percent."""
        own = self.parameters
        if averaged:
            self.parameters = self.averages
        wrong = torch.zeros(self.count, device=self.device)
        for rows in torch.arange(len(data[0]), device=self.device).split(2000):
            logits, _ = self.forward(data[0][rows].expand(self.count, -1, -1))
            wrong += (logits.argmax(2) != data[1][rows]).sum(1)
        self.parameters = own
        return (100 * wrong / len(data[0])).tolist()


def _generator(seed: float, which: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(seed) * 1009 + which)


def drawn(group: Group, count: int, seeds: int, random: np.random.Generator) -> list[dict[str, float]]:
    """Draw settings of ``count`` networks, each with ``seeds`` seeds."""
    settings = []
    for number in range(count):
        one = {name: float(np.exp(random.uniform(*np.log(ends)))) for name, ends in DRAWN.items()}
        one["dropout_input"] = float(random.choice([0.0, 0.05, 0.1])) if group.dropout else 0.0
        one["dropout_hidden"] = float(random.uniform(0, 0.15)) if group.dropout else 0.0
        settings += [{**one, "number": number, "seed": seed} for seed in range(seeds)]
    return settings


def rows_of(
    stage: str,
    group: Group,
    settings: list[dict[str, float]],
    train: tuple[Tensor, Tensor],
    judged: tuple[Tensor, Tensor],
) -> list[dict[str, Any]]:
    """Train the networks, return a row for each, and print the best settings."""
    start = time.perf_counter()
    networks = Networks(group, settings, train)
    networks.fit(int(settings[0]["seed"]))
    errors = zip(networks.error(judged), networks.error(judged, averaged=True), networks.error(train), strict=True)
    seconds = round(time.perf_counter() - start, 1)
    rows = [
        {"stage": stage, **asdict(group), **one, "error": a, "error_averaged": b, "train_error": c, "seconds": seconds}
        for one, (a, b, c) in zip(settings, errors, strict=True)
    ]
    print(f"{stage}, {len(rows)} networks, {seconds:.0f} s: {changes(group)}", flush=True)
    by_setting: dict[float, list[dict[str, Any]]] = {}
    for row in rows:
        by_setting.setdefault(row["number"], []).append(row)
    means = [([float(np.mean([row[k] for row in same])) for k in MEASURED], same[0]) for same in by_setting.values()]
    for (error, averaged, trained), one in sorted(means, key=lambda mean: mean[0][0])[:4]:
        own = ", ".join(f"{k} {one[k]:.3g}" for k in (*DRAWN, "dropout_input", "dropout_hidden"))
        print(f"    {error:.3f} % (averaged {averaged:.3f}, training images {trained:.3f}): {own}", flush=True)
    return rows


def changes(group: Group) -> str:
    """Name the settings of a group that are not the default."""
    return ", ".join(f"{k}={v}" for k, v in asdict(group).items() if v != asdict(Group())[k]) or "as configured"


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=STAGES)
    parser.add_argument("--networks", type=int, default=64, help="settings that a group draws in the first stage")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no further group after so long")
    parser.add_argument(
        "--groups", type=int, nargs="*", choices=range(len(GROUPS)), metavar="K", help="groups of the first stage; all"
    )
    parser.add_argument(
        "--epochs", type=int, nargs="*", default=[], help="of every group; one number for each repetition"
    )
    parser.add_argument("--best", type=int, default=4, help="groups of the second stage")
    parser.add_argument("--settings", type=int, default=6, help="settings of each of them")
    parser.add_argument("--seeds", type=int, default=8, help="seeds of each setting of the second stage")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/back_feeding_search.csv"))
    arguments = parser.parse_args()
    end = time.perf_counter() + arguments.seconds
    torch.backends.cuda.matmul.allow_tf32 = True
    pixels, labels = (one.to(arguments.device) for one in images(arguments.data, "train"))
    mixed = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0)).to(arguments.device)
    train, judged = ((pixels[part], labels[part]) for part in (mixed[10_000:], mixed[:10_000]))
    rows: list[dict[str, Any]] = list(csv.DictReader(arguments.out.open())) if arguments.out.exists() else []
    plan: list[tuple[str, Group, list[dict[str, float]]]] = []
    if "reference" in arguments.stages:
        plan += [("reference", group, [{**KNOWN, "seed": seed} for seed in range(8)]) for group in REFERENCE]
    if "first" in arguments.stages:
        chosen = range(len(GROUPS)) if arguments.groups is None else arguments.groups
        plan += [
            ("first", GROUPS[k], drawn(GROUPS[k], arguments.networks, 2, np.random.default_rng(k))) for k in chosen
        ]
    stages = [lambda: plan]
    if not plan and not any(row["stage"] == "first" for row in rows):
        sys.exit(f"error: {arguments.out} has no rows of the first stage; run --stages first before")
    if "second" in arguments.stages:
        stages.append(lambda: best_of(rows, arguments.best, arguments.settings, arguments.seeds))
    for epochs, chosen_of in itertools.product(arguments.epochs or [None], stages):
        changed = {} if epochs is None else {"epochs": epochs}
        for stage, group, settings in chosen_of():
            if time.perf_counter() > end:
                print(f"no time is left for {group}", flush=True)
                continue
            data = (train, judged)
            if stage == "reference":
                pictures, truth = images(arguments.data, "t10k")
                data = ((pixels, labels), (pictures.to(arguments.device), truth.to(arguments.device)))
            rows += rows_of(stage, replace(group, **changed), settings, *data)
            save(arguments.out, rows)


def best_of(
    rows: list[dict[str, Any]], groups: int, count: int, seeds: int
) -> list[tuple[str, Group, list[dict[str, float]]]]:
    """Return the best groups of the first stage, each with its best settings and other seeds.

    Args:
        rows: of the first stage; the mean error over the seeds of a setting counts, and a group by its best setting.
        groups: number of groups.
        count: settings of each.
        seeds: of each setting.
    """
    found: dict[Group, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        if row["stage"] == "first":
            group = Group(**{one.name: TYPES[str(one.type)](row[one.name]) for one in fields(Group)})
            found.setdefault(group, {}).setdefault(str(row["number"]), []).append(row)
    ranked = []
    for group, settings in found.items():
        means = sorted((float(np.mean([float(row["error"]) for row in same])), k) for k, same in settings.items())
        best = [settings[k][0] for _, k in means[:count]]
        own = [{k: float(one[k]) for k in (*DRAWN, "dropout_input", "dropout_hidden", "number")} for one in best]
        ranked.append((means[0][0], group, [{**one, "seed": 100 + seed} for one in own for seed in range(seeds)]))
    ranked.sort(key=lambda one: one[0])
    return [("second", group, settings) for _, group, settings in ranked[:groups]]


if __name__ == "__main__":
    main()

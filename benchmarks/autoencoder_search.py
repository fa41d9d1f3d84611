"""Search settings of AE400-10 that meet the paper's training error, test error and distortion together.

    uv run benchmarks/autoencoder_search.py --data DATA [--draws 24] [--out FILE.csv]

DATA holds MNIST/raw, as torchvision keeps it. The paper's AE400-10 errs .57 % on its training images and 1.9 % on the
test images, and needs a distortion of .086 (Table 1). Each draw trains an encoder of other settings, by the objective
of ``intriguing.models.SparseAutoencoder``, on 50,000 training images. On its frozen code the softmax is a convex
problem with one minimum for each weight decay, so it is solved by L-BFGS along a path of decays. Errors are counted on
the 50,000 images and on 10,000 training images set apart; the distortion is that of ``lbfgs`` towards random classes on
128 training images. Rows are added to results/benchmarks/autoencoder_search.csv, with a picture beside it; draws that
it holds with as many epochs are skipped.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from back_feeding_search import images
from torch import Tensor, nn

import intriguing as ig

DRAWN = {  # lowest and highest value, drawn log-uniformly
    "noise": (0.1, 1.0),
    "sparsity": (0.02, 0.3),
    "sparsity_weight": (0.02, 3.0),
}
CONFIGURED = {"noise": 0.4, "sparsity": 0.1, "sparsity_weight": 0.2}
SHORT = 12  # epochs of the draws that compare settings
DECAYS = (1e-4, 3e-5, 1e-5, 3e-6, 1e-6)


def encoder(
    pixels: Tensor, *, noise: float, sparsity: float, sparsity_weight: float, epochs: int, seed: int
) -> nn.Linear:
    """Train the autoencoder on images (N, 784), and return its encoder."""
    generator = torch.Generator(pixels.device).manual_seed(seed)
    layer = nn.Linear(784, 400)
    with torch.no_grad():
        bound = math.sqrt(6 / (784 + 400))
        layer.weight.copy_((torch.rand(400, 784, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * bound)
        layer.bias.zero_()
    layer.to(pixels.device)
    above = torch.zeros(784, device=pixels.device, requires_grad=True)
    optimizer = torch.optim.Adam([*layer.parameters(), above], lr=1e-2)
    steps = epochs * (len(pixels) // 200)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        order = torch.randperm(len(pixels), generator=generator, device=pixels.device)
        for rows in order[: len(pixels) // 200 * 200].split(200):
            clean = pixels[rows]
            drawn = torch.randn(clean.shape, generator=generator, device=pixels.device)
            code = torch.sigmoid(layer(clean + noise * drawn))
            decoded = torch.sigmoid(F.linear(code, layer.weight.t(), above))
            mean = code.mean(0).clamp(1e-6, 1 - 1e-6)
            divergence = sparsity * (sparsity / mean).log() + (1 - sparsity) * ((1 - sparsity) / (1 - mean)).log()
            loss = (decoded - clean).square().sum(1).mean() + sparsity_weight * divergence.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return layer


def path(
    layer: nn.Linear, train: tuple[Tensor, Tensor], judged: tuple[Tensor, Tensor], attacked: int
) -> list[dict[str, float]]:
    """Solve the softmax on the frozen code for each decay, and measure each network."""
    device = train[0].device
    softmax = nn.Linear(400, 10, device=device)
    nn.init.zeros_(softmax.weight)
    nn.init.zeros_(softmax.bias)
    network = nn.Sequential(nn.Flatten(), layer, nn.Sigmoid(), softmax)
    with torch.no_grad():
        code = network[:3](train[0])
    pixels, labels = train[0][:attacked].view(-1, 1, 28, 28), train[1][:attacked]
    step = torch.randint(1, 10, (attacked,), generator=torch.Generator().manual_seed(0)).to(device)
    rows = []
    for decay in DECAYS:  # each begins from the solution of the one before
        optimizer = torch.optim.LBFGS(
            softmax.parameters(), max_iter=200, history_size=20, line_search_fn="strong_wolfe"
        )

        def loss(decay: float = decay, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(softmax(code), train[1]) + decay * softmax.weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)  # type: ignore[arg-type]
        with torch.no_grad():
            wrong = [100 * float((network(one).argmax(1) != truth).float().mean()) for one, truth in (train, judged)]
        found = ig.lbfgs(network, pixels, (labels + step) % 10)
        reached = found.distortion[found.success]
        row = {"decay": decay, "train_error": wrong[0], "error": wrong[1], "distortion": float(reached.mean())}
        rows.append(row | {"success": float(found.success.float().mean()), "activation": float(code.mean())})
    return rows


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw each encoder's distortion against its training error along the decays, and the paper's network."""
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        place = (float(row["train_error"]), float(row["distortion"]))
        lines.setdefault((str(row["draw"]), str(row["epochs"])), []).append(place)
    longest = max(int(epochs) for _, epochs in lines)
    named = set()
    for (draw, epochs), places in lines.items():
        configured = draw == "0" and int(epochs) > SHORT
        style = "o-" if configured and int(epochs) == longest else "o--" if configured else "o-"
        label = f"configured settings, {epochs} epochs" if configured else f"ten settings, {epochs} epochs"
        axes.plot(
            *zip(*places, strict=True), style, markersize=3, color="#0072b2" if configured else "#9aa0a6",
            label=None if label in named else label, zorder=1 + configured,
        )  # fmt: skip
        named.add(label)
    axes.plot([0.57], [0.086], "D", color="#d55e00", label="the paper's AE400-10")
    axes.set(xlabel="error on the training images, %", ylabel="mean distortion", xlim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--draws", type=int, default=24, help="encoders; the first has the configured settings")
    parser.add_argument("--epochs", type=int, default=60, help="of an encoder")
    parser.add_argument("--attacked", type=int, default=128, help="images that are attacked")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/autoencoder_search.csv"))
    arguments = parser.parse_args()
    pixels, labels = (one.to(arguments.device) for one in images(arguments.data, "train"))
    mixed = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0)).to(arguments.device)
    train, judged = ((pixels[part], labels[part]) for part in (mixed[10_000:], mixed[:10_000]))
    rows: list[dict[str, Any]] = list(csv.DictReader(arguments.out.open())) if arguments.out.exists() else []
    done = {(int(row["draw"]), int(row["epochs"])) for row in rows}
    random = np.random.default_rng(0)
    for draw in range(arguments.draws):
        settings = {name: float(np.exp(random.uniform(*np.log(ends)))) for name, ends in DRAWN.items()}
        settings = CONFIGURED if draw == 0 else settings
        if (draw, arguments.epochs) in done:
            continue
        start = time.perf_counter()
        layer = encoder(train[0], **settings, epochs=arguments.epochs, seed=draw)
        shared = {"draw": draw, **settings, "epochs": arguments.epochs}
        found = [{**shared, **row} for row in path(layer, train, judged, arguments.attacked)]
        rows += found
        with arguments.out.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
        print(f"{draw}: {settings}, {time.perf_counter() - start:.0f} s", flush=True)
        for row in found:
            errors = f"{row['train_error']:.2f} % of the training images, {row['error']:.2f} % of those set apart"
            print(f"    decay {row['decay']:g}: {errors}, distortion {row['distortion']:.4f}", flush=True)
    picture(rows, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()

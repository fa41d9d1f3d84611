"""The bounds of all AlexNet layers at 224x224 beside a power iteration: time, memory, and how close both come.

    uv run benchmarks/spectral.py               # one thread, some minutes, nearly all of them the power iteration
    uv run benchmarks/spectral.py --only fc8    # one layer, to try it

The bound of a convolution is that with its own zero padding. The power iteration (float32, the layer's own forward pass
and its transpose) runs until its norm is within 1e-4 of where it ends: it goes on until 100 steps raise it by less than
1e-6, and the step that was first within 1e-4 of the last value is counted, with the time up to there. Each layer is a
process of its own, so that its peak memory is its own. Every measurement is kept in OUT/spectral.json as soon as it is
made, so an interrupted run goes on where it stopped; --again measures anew. Take the timings on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from intriguing.models import AlexNet
from intriguing.spectral import operator_norm
from intriguing.spectral.lipschitz import trace
from intriguing.spectral.penalty import convolve

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
TOLERANCE = 1e-4


def main() -> None:
    arguments = parse()
    path = arguments.out / "spectral.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = json.loads(path.read_text()) if path.exists() and not arguments.again else []
    for name in arguments.only:
        for method in ("bound", "power iteration"):
            key = {"layer": name, "method": method, "seed": arguments.seed}
            if any(key.items() <= row.items() for row in rows):
                continue
            print("measuring", *key.values(), flush=True)
            rows.append(key | alone(LAYERS.index(name), method, arguments))
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(rows, indent=1))
            os.replace(temporary, path)
    table = pd.DataFrame(rows)
    table.to_csv(arguments.out / "spectral.csv", index=False)
    print(table.to_string(index=False))
    summary(table.query("seed == @arguments.seed"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=LAYERS, choices=LAYERS, help="layers")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument("--most", type=int, default=20_000, help="steps of power iteration after which it is given up")
    parser.add_argument("--again", action="store_true", help="measure anew")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser.parse_args()


def alone(index: int, method: str, arguments: argparse.Namespace) -> dict[str, float]:
    """One measurement in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (index, method, arguments.seed, arguments.most))


def measure(index: int, method: str, seed: int, most: int) -> dict[str, float]:
    """Norm, CPU seconds and the peak memory that the method added to a process that holds the layer."""
    torch.set_num_threads(1)
    layer, shape = layers(seed)[index]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if method == "bound":
        start = time.process_time()
        norm = operator_norm(layer, shape, padding="zeros")
        seconds, steps, ended = time.process_time() - start, 0, 0.0
    else:
        norm, seconds, steps, ended = power_iteration(layer, shape, most)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "norm": norm,
        "seconds": round(seconds, 3),
        "steps": steps,
        "seconds to the end": round(ended, 3),
        "GiB": round(peak / 2**20, 3),
        "GiB added": round((peak - before) / 2**20, 3),
    }


def layers(seed: int) -> list[tuple[nn.Module, tuple[int, ...]]]:
    """AlexNet's layers with weights, with the shapes of their inputs at 224x224."""
    torch.manual_seed(seed)
    model = AlexNet(label="AlexNet", input_shape=[3, 224, 224], num_classes=1000, weight_decay=[0.0] * 8).eval()
    calls = trace(model, (3, 224, 224), bounds=False).calls
    return [(layer, shape) for layer, shape in calls if isinstance(layer, nn.Conv2d | nn.Linear)]


@torch.no_grad()
def power_iteration(layer: nn.Module, shape: tuple[int, ...], most: int) -> tuple[float, float, int, float]:
    """(norm, CPU seconds until within the tolerance, steps until there, CPU seconds to the end)."""
    forward, backward = maps(layer, shape)
    vector = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    norms, times = [], []
    start = time.process_time()
    while len(norms) < most:
        image = forward(vector / vector.norm())
        norms.append(float(image.norm()))
        times.append(time.process_time() - start)
        vector = backward(image)
        if len(norms) > 100 and norms[-1] - norms[-101] < 1e-6 * norms[-1]:
            break
    first = next(step for step, norm in enumerate(norms) if norm >= (1 - TOLERANCE) * norms[-1])
    return norms[-1], times[first], first + 1, times[-1]


def maps(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    if isinstance(layer, nn.Linear):
        return (lambda x: x @ layer.weight.T), (lambda y: y @ layer.weight)
    assert isinstance(layer, nn.Conv2d)

    def backward(image: Tensor) -> Tensor:
        settings: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return conv2d_input((1, *shape), layer.weight, image, *settings)

    return (lambda x: convolve(layer, x)), backward


def summary(table: pd.DataFrame) -> None:
    ours, power = (table[table["method"] == method].set_index("layer") for method in ("bound", "power iteration"))
    both = ours.join(power, rsuffix=" power")
    print(f"bounds: {ours['seconds'].sum():.1f} s of CPU, at most {ours['GiB'].max():.2f} GiB")
    print(f"power iteration to {TOLERANCE:g}: {power['seconds'].sum():.1f} s of CPU")
    print(f"faster by {power['seconds'].sum() / ours['seconds'].sum():.1f}")
    print(f"bounds above power iteration by at most {100 * (both['norm'] / both['norm power'] - 1).max():.2f} %")


if __name__ == "__main__":
    main()

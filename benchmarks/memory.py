"""Peak memory of lbfgs and nearest on images of 224x224 pixels, for batches of 1, 8 and 64.

    uv run benchmarks/memory.py                              # SqueezeNet 1.1 with random weights, one CPU thread
    uv run benchmarks/memory.py --weights squeezenet1_1.pth --folder imagenet
    uv run benchmarks/memory.py --device cuda

Each measurement is a process of its own: its peak is the largest resident memory while the attack runs (and with
--device cuda the largest that PyTorch has allocated there), less what the process held before, with the network and the
images loaded and one image classified. "rows" is the largest number of images in one call of the network, which the
attack chooses so that about half a gigabyte is enough (on a GPU 40 % of the free memory); "all at once" has it call the
network with the whole batch (chunk_size). lbfgs ends after 100 evaluations and nearest after 60: more of them take no
more memory, because lbfgs has its whole history by then and nearest all of its candidates. Results are kept in
OUT/memory.json as soon as they are made; --again measures anew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from intriguing.attacks import lbfgs, nearest
from intriguing.data import open_images
from intriguing.models import TorchvisionModel

TARGET = 9  # the ostrich
SHAPE = (3, 224, 224)
EVALUATIONS = {"lbfgs": 100, "nearest": 60}
KEYS: tuple[str, ...] = ("network", "attack", "batch", "chunk", "device")


def main() -> None:
    arguments = parse()
    path = arguments.out / "memory.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    for attack in arguments.attacks:
        for batch in arguments.batches:
            for chunk in ("chosen", "all at once") if batch > 1 else ("chosen",):
                row = dict(zip(KEYS, (arguments.architecture, attack, batch, chunk, arguments.device), strict=True))
                known = [one for one in rows if row.items() <= one.items()]
                if known and not arguments.again:
                    continue
                print("measuring", *row.values(), flush=True)
                rows = [one for one in rows if one not in known] + [row | alone(row, arguments)]
                temporary = path.with_suffix(".tmp")
                temporary.write_text(json.dumps(rows, indent=1))
                os.replace(temporary, path)
    table = pd.DataFrame(rows).sort_values(list(KEYS[::-1]), kind="stable")
    table.to_csv(arguments.out / "memory.csv", index=False)
    print(table.to_string(index=False))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--architecture", default="squeezenet1_1", help="of torchvision")
    parser.add_argument("--weights", help="a file of a state dict; random weights without one")
    parser.add_argument("--folder", help="of ImageNet's images, val/<synset>/*; random images without one")
    parser.add_argument("--attacks", nargs="+", default=["lbfgs", "nearest"], choices=["lbfgs", "nearest"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser.parse_args()


def alone(row: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender, row, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise SystemExit(f"error: the process of {row} has ended without a result") from None
    finally:
        process.join()


def child(sender: Any, row: dict[str, Any], arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    sender.send(measured(row, arguments))


def measured(row: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Attack one batch, and return its peak memory in MiB, its time and the largest batch that the network saw."""
    device = torch.device(arguments.device)
    network = TorchvisionModel(
        architecture=arguments.architecture, weights=arguments.weights, input_shape=SHAPE, num_classes=1000
    )
    network = network.eval().requires_grad_(False).to(device)
    inputs, labels = images(arguments.folder, row["batch"])
    inputs = inputs.to(device)
    seen = Largest(network)
    with torch.no_grad():
        network(inputs[:1])
    seen.rows = 0
    chunk_size = None if row["chunk"] == "chosen" else row["batch"]
    on_gpu = device.type == "cuda"
    held_on_gpu = torch.cuda.memory_allocated(device) if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    targets, most = torch.full_like(labels, TARGET).to(device), EVALUATIONS[row["attack"]]
    with Resident() as resident:
        if row["attack"] == "lbfgs":
            lbfgs(network, inputs, targets, max_evaluations=most, chunk_size=chunk_size)
        else:
            nearest(network, inputs, labels.to(device), targets=targets, budget=most, chunk_size=chunk_size)
    found = {
        "rows": seen.rows,
        "held_mib": round(resident.before, 1),
        "peak_mib": round(resident.peak - resident.before, 1),
        "seconds": round(time.perf_counter() - start, 1),
    }
    if on_gpu:
        found["gpu_peak_mib"] = round((torch.cuda.max_memory_allocated(device) - held_on_gpu) / 2**20, 1)
        found["device_name"] = torch.cuda.get_device_name(device)
    return found


def images(folder: str | None, count: int) -> tuple[Tensor, Tensor]:
    """Read the first images of another class than the target, or draw some of noise."""
    if folder is None:
        return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.zeros(count).long()
    test = open_images(name="imagenet", root=".", folder=folder).test
    chosen = test.take((test.labels != TARGET).nonzero()[:count, 0])
    return chosen.images, chosen.labels


class Largest:
    """Note the largest batch that a network is called with."""

    def __init__(self, network: nn.Module) -> None:
        self.rows = 0
        network.register_forward_pre_hook(self._see)

    def _see(self, network: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.rows = max(self.rows, len(arguments[0]))


class Resident:
    """Sample the resident memory of this process in MiB, where the system says it; else take the process's peak."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self.before = self.peak = _resident()

    def __enter__(self) -> Resident:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._end.wait(0.002):
            self.peak = max(self.peak, _resident())


def _resident() -> float:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()

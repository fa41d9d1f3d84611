"""What does back-feeding cost? An epoch with it against the same epoch without, in one process, on one thread.

    uv run benchmarks/back_feeding.py [--data digits] [--epochs 4] [--rounds 3] [--overrides data.batch_size=20 ...]

Both are the training stage as a user runs it (metrics.csv, W&B offline, a checkpoint at the end of each epoch), on
FC100-100-10, with all pools from the first step on. Rounds alternate; the table shows the median epoch. The result is
written to results/benchmarks/back_feeding.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from training import ROOT, Stopwatch, framework_epochs

from intriguing.cli.config import plain, training_job

ARMS = {
    "without": [],
    "input pool": ["callbacks=back_feeding", "callbacks.back_feeding.layers=[input]"],
    "all pools, alternate": ["callbacks=back_feeding", "callbacks.back_feeding.turns=alternate"],
    "all pools, together": ["callbacks=back_feeding", "callbacks.back_feeding.turns=together"],
    "all pools, as configured": ["callbacks=back_feeding"],
    "input pool, PGD-5": [
        "callbacks=back_feeding",
        "callbacks.back_feeding.layers=[input]",
        "callbacks.back_feeding.num_steps=5",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overrides", nargs="*", default=[], help="of train.py, for both")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks" / "back_feeding.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["WANDB_SILENT"] = "true"
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for round_number in range(arguments.rounds):
        for arm, own in ARMS.items():
            seconds[arm] += epochs(own, arguments, round_number)
    base = statistics.median(seconds["without"])
    rows = [
        {
            "training": arm,
            "data": arguments.data,
            "overrides": " ".join(arguments.overrides),
            "epoch_seconds": round(statistics.median(times), 3),
            "times_without": round(statistics.median(times) / base, 2),
            "epochs": len(times),
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        }
        for arm, times in seconds.items()
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(f"{row['training']:28} {row['epoch_seconds']:8.3f} s  {row['times_without']:.2f}x", file=sys.stdout)


def epochs(own: list[str], arguments: argparse.Namespace, round_number: int) -> list[float]:
    """Seconds of each epoch of one fit in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = [
            *(f"runs={folder}", f"data={arguments.data}", "network=fc100_100_10", "logger.mode=offline"),
            *(f"trainer.max_epochs={arguments.epochs + 1}", f"seed={round_number}", *arguments.overrides, *own),
            *(["callbacks.back_feeding.start=0"] if own else []),
        ]
        job = training_job(plain(compose("train", overrides=overrides)), (), "")
        return framework_epochs(replace(job, callbacks=(*job.callbacks, Stopwatch())))


if __name__ == "__main__":
    main()

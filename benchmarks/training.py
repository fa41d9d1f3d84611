"""What does the framework cost? An epoch of FC100-100-10 against a bare PyTorch loop, in one process, on one thread.

    uv run benchmarks/training.py [--data digits] [--epochs 6] [--rounds 3] [--batch-size 100]

Both train the same network on the same batches with the same optimiser and schedule. The framework's epoch has the
progress bar, metrics.csv, W&B offline and a checkpoint at its end. Rounds alternate; the table shows the median epoch.
The result is written to results/benchmarks/training_batch<size>.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from intriguing.cli.config import plain, training_job
from intriguing.data import BatchIndices, Subset
from intriguing.models.optimization import build_optimizer, cosine
from intriguing.training import TrainingJob, fit

ROOT = Path(__file__).parent.parent


class Stopwatch(Callback):
    """Stamps the start of every epoch; what lies between two stamps is all that an epoch costs."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stamps.append(time.perf_counter())


def bare_epochs(job: TrainingJob, epochs: int) -> list[float]:
    """Seconds of each epoch of a plain loop."""
    data = job.data.open()
    model, train = job.build_model(data), data.subset("train")
    assert isinstance(train, Subset)
    optimizer = build_optimizer(job.optimizer, model.decayed_weights(), list(model.parameters()))
    sampler = BatchIndices(len(train), data.batch_size, seed=0)
    total, step, seconds = epochs * len(sampler), 0, []
    schedule = cosine(optimizer, total)
    for epoch in range(epochs):
        start, loss_sum = time.perf_counter(), torch.zeros(())
        sampler.set_epoch(epoch)
        for indices in sampler:
            loss = F.cross_entropy(model(train.images[indices]), train.labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.detach()
            step += 1
        seconds.append(time.perf_counter() - start)
    return seconds


def framework_epochs(job: TrainingJob) -> list[float]:
    """Seconds of each epoch of the training stage."""
    (watch,) = (callback for callback in job.callbacks if isinstance(callback, Stopwatch))
    fit(job)
    return [after - before for before, after in zip(watch.stamps[:-1], watch.stamps[1:], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=100, help="the network's own is 20")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["WANDB_MODE"] = "offline"
    bare: list[float] = []
    framework: list[float] = []
    with tempfile.TemporaryDirectory() as runs, initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for number in range(options.rounds):
            overrides = [f"runs={runs}", f"data={options.data}", "network=fc100_100_10", f"name=round{number}"]
            overrides += [f"trainer.max_epochs={options.epochs + 1}", "trainer.enable_progress_bar=true"]
            overrides += [f"data.batch_size={options.batch_size}"]
            config = plain(compose("train", overrides=overrides))
            job = replace(training_job(config), callbacks=(Stopwatch(),))
            bare += bare_epochs(job, options.epochs)[1:]
            framework += framework_epochs(job)[1:]
    rows = [
        {"what": what, "median_s": statistics.median(times), "min_s": min(times), "max_s": max(times), "n": len(times)}
        for what, times in (("bare loop", bare), ("framework", framework))
    ]
    ratio = rows[1]["median_s"] / rows[0]["median_s"]
    for row in rows:
        row |= {
            "ratio": row["median_s"] / rows[0]["median_s"],
            "data": options.data,
            "batch_size": options.batch_size,
            "torch": torch.__version__,
        }
        row |= {"python": platform.python_version(), "threads": torch.get_num_threads()}
    target = ROOT / "results" / "benchmarks" / f"training_batch{options.batch_size}.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{v:.4f}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)
    print(
        f"bare loop {rows[0]['median_s']:.4f} s, framework {rows[1]['median_s']:.4f} s an epoch: {ratio:.3f}x",
        file=sys.stdout,
    )


if __name__ == "__main__":
    main()

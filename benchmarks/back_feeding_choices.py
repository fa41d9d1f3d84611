"""Choose settings of ``study=back_feeding_relu`` on 10,000 training images set apart.

    uv run benchmarks/back_feeding_choices.py [--seeds 100] [--runs runs/choices] [--only NAME ...]

Each choice changes settings of its network, trains on 50,000 images, and adds a row to
results/benchmarks/back_feeding_choices.csv: error and loss on the images set apart after the last epoch. Finished
trainings are skipped, an interrupted one goes on. One training takes 6 to 13 minutes on one core.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
from training import ROOT

POOLS = "callbacks.back_feeding."
COMMON = [
    *("network=fc100_100_10", "data=mnist", "data.validation=10000", "data.batch_size=100", "trainer.max_epochs=150"),
    *("optimizer.lr=0.05", "weight_decay.value=[2e-4,2e-4,2e-5]"),
    *("model.settings.activation=relu", "+model.settings.dropout=[0.1,0.01]"),
    *("callbacks=back_feeding", f"{POOLS}keep_scale=false"),
    *(f"{POOLS}distortion.input=0.041", f"{POOLS}distortion.hidden=0.03"),
]
SLOW = "optimizer.lr=0.025"
CHOICES = {
    "rate .0125": ["optimizer.lr=0.0125"],
    "rate .025": [SLOW],
    "rate .05": [],
    "rate .05, three steps": [f"{POOLS}num_steps=3"],
    "rate .025, three steps": [SLOW, f"{POOLS}num_steps=3"],
    "rate .025, input distortion .055": [SLOW, f"{POOLS}distortion.input=0.055"],
    "rate .025, hidden distortion .1": [SLOW, f"{POOLS}distortion.hidden=0.1"],
    "rate .025, hidden distortion .3": [SLOW, f"{POOLS}distortion.hidden=0.3"],
    "rate .025, dropout .2 of the input": [SLOW, "+model.settings.dropout=[0.2,0.01]"],
    "rate .025, 300 epochs": [SLOW, "trainer.max_epochs=300"],
}
FIELDS: list[str] = ["choice", "seed", "error", "loss", "train_error", "seconds"]


def trained(choice: str, seed: int, runs: Path) -> dict[str, str | int | float]:
    """Train a network, and return its row."""
    name = f"{choice}_seed_{seed}".replace(",", "").replace(" ", "_")
    command = ["train.py", *COMMON, f"seed={seed}", f"runs={runs}", f"name={name}", *CHOICES[choice]]
    if subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode:
        sys.exit(f"error: {choice}, seed {seed}: the training failed; see above")
    folder = runs / "train" / name
    run = json.loads((folder / "run.json").read_text())
    errors = {name: 100 * wrong / of for name, (wrong, of) in run["result"]["errors"].items()}
    judged = pd.read_csv(folder / "metrics.csv").dropna(subset="val/loss").iloc[-1]
    return {
        "choice": choice,
        "seed": seed,
        "error": f"{errors['val']:.2f}",
        "loss": f"{judged['val/loss']:.4f}",
        "train_error": f"{errors['train']:.3f}",
        "seconds": round(run["seconds"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[100])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/choices")
    parser.add_argument("--only", nargs="*", choices=list(CHOICES), default=list(CHOICES))
    parser.add_argument("--out", type=Path, default=ROOT / "results/benchmarks/back_feeding_choices.csv")
    arguments = parser.parse_args()
    rows = list(csv.DictReader(arguments.out.open())) if arguments.out.exists() else []
    for seed in arguments.seeds:
        for choice in arguments.only:
            rows = [row for row in rows if (row["choice"], row["seed"]) != (choice, str(seed))]
            rows.append({key: str(value) for key, value in trained(choice, seed, arguments.runs.resolve()).items()})
            rows.sort(key=lambda row: (list(CHOICES).index(row["choice"]), int(row["seed"])))
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            with arguments.out.open("w", newline="") as stream:
                writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()

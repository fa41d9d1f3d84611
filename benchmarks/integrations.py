"""Our attack called by AttackBench and by SecML-Torch, beside DDN in each.

    uv run --group peers benchmarks/integrations.py --networks-file networks.py --network eran_conv_small

AttackBench wraps the network into its own model, which counts passes, stops each image at 2,000 and keeps the nearest
adversarial image that the network was shown. Its `enforce_box` clips each input with `torch.clamp`, whose gradient in
torch 2.15 is 0 where a pixel is exactly 0 or 1, so that every attack is blind for the black pixels of MNIST; the table
has both settings. SecML-Torch's numbers are those of the images that come back.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from benchmark_networks import Case, published
from peers import adv_lib
from torch.utils.data import DataLoader, TensorDataset
from tracking import judge

from intriguing.integrations.attackbench import nearest
from intriguing.integrations.secml import Evasion


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    rows = []
    for case in published(arguments.networks_file, arguments.network, arguments.data, None, arguments.images):
        rows += in_attackbench(case) + in_secml(case)
    table = pd.DataFrame(rows).round(4)
    arguments.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out / "integrations.csv", index=False)
    print(table.to_string(index=False))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("INTRIGUING_DATA", "data"), help="folder with MNIST/raw")
    parser.add_argument("--networks-file", type=Path, required=True, help="a Python file with NETWORKS and load(name)")
    parser.add_argument("--network", nargs="+", default=[], help="names in it; default: all")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser.parse_args()


def loader_of(case: Case) -> DataLoader:
    return DataLoader(TensorDataset(case.inputs, case.labels), batch_size=len(case.inputs))


def in_attackbench(case: Case) -> list[dict]:
    import attackbench
    from attackbench.models.benchmodel_wrapper import BenchModel

    attacks: dict[str, Callable[..., torch.Tensor]] = {"nearest": nearest}
    if (package := adv_lib()) is not None:
        attacks["DDN-1000"] = lambda model, inputs, labels: package.ddn(model, inputs, labels, steps=1000, levels=None)
    rows = []
    for name, attack in attacks.items():
        for box in (False, True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = BenchModel(case.model, enforce_box=box)
                found = attackbench.run_attack(model, loader_of(case), attack, "l2", device=case.inputs.device)
            distances = torch.tensor(found["distances"]["l2"])
            passes = torch.tensor(found["num_forwards"]) + torch.tensor(found["num_backwards"])
            bench = "AttackBench" if box else "AttackBench, enforce_box=False"
            rows.append(row(bench, case, name, distances, float(passes.double().mean())))
    return rows


def in_secml(case: Case) -> list[dict]:
    from secmlt.adv.evasion.ddn import DDN

    attacks = {"nearest": Evasion("nearest"), "DDN-1000": DDN(num_steps=1000, eps_init=1.0)}
    rows = []
    for name, attack in attacks.items():
        images = torch.cat([images for images, _ in attack(case.model, loader_of(case))])
        distances = judge(case.model, case.inputs, images, case.labels, targeted=False)
        rows.append(row("SecML-Torch", case, name, distances, float("nan")))
    return rows


def row(bench: str, case: Case, attack: str, distances: torch.Tensor, passes: float) -> dict:
    found = distances[distances.isfinite()]
    return {
        "bench": bench,
        "network": case.name,
        "attack": attack,
        "success": len(found) / len(distances),
        "mean_l2": float(found.mean()) if len(found) else float("nan"),
        "propagations": passes,
    }


if __name__ == "__main__":
    main()

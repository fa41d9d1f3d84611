"""A real report of tiny random networks: every table, figure and optional section, made by the analysis itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from intriguing import report
from intriguing.analysis import SECTIONS, CraftedSet, Network, analyze
from intriguing.analysis.stability.settings import StabilitySettings
from intriguing.analysis.units.settings import UnitSettings
from intriguing.data import Subset
from intriguing.metrics import distortion
from intriguing.runs.records import RunRecord

NUM, SIDE, CLASSES = 60, 4, 10
GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(NUM) % CLASSES
IMAGES = (0.4 * torch.rand(NUM, 1, SIDE, SIDE, generator=GENERATOR)).index_put(
    (torch.arange(NUM), torch.tensor(0), LABELS // SIDE, LABELS % SIDE), torch.tensor(1.0)
)
DEEP = (1e-5, 1e-5, 1e-6)
POOLS = {"back_feeding": {"layers": None, "attack": "gradient", "num_steps": 1}}


def network(
    label: str, widths: tuple[int, ...], decay: tuple[float, ...], *, split: str = "full", seed: int = 0, **config: Any
) -> Network:
    torch.manual_seed(seed + len(label))
    module = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 12), nn.Sigmoid(), nn.Linear(12, CLASSES)).eval()
    name = f"{label}_{split}_seed{seed}{'_pools' if 'callbacks' in config else ''}".lower()
    errors = {"train": (7, 100), "full": (7, 100), "p1": (1, 50), "p2": (2, 50), "test": (2 + seed, 60)}
    record = RunRecord(
        stage="train",
        name=name,
        folder=Path(f"runs/train/{name}"),
        info={
            "command": f"python train.py network={label} seed={seed}",
            "commit": "0123abc",
            "result": {"errors": errors, "seconds": 1.5},
        },
        config={
            "data": {"name": "mnist"},
            "split": {"name": split, "seed": 0},
            "seed": seed,
            "model": {
                "name": "fully_connected",
                "label": label.split("(")[0].rstrip("'"),
                "settings": {"widths": list(widths), "activation": "sigmoid"},
            },
            "weight_decay": {"value": list(decay)},
            **config,
        },
    )
    return Network(label=label, module=module, record=record, curves={"curve/test_error": [0.3, 0.2, 0.1]})


def crafted(source: Network | None, subset: str, *, amplify: float | None = None) -> CraftedSet:
    noise = torch.rand(IMAGES.shape, generator=GENERATOR) - 0.5
    adv_inputs = (IMAGES + (amplify or 0.3) * noise).clamp(0, 1)
    metadata = {
        "source": source and {"name": source.name, "label": source.label, "split": source.split, "seed": source.seed},
        "data": {"name": "mnist", "subset": subset},
        "attack": {"name": "lbfgs", "targets": "random"} if source else {"name": "gaussian", "stddev": 0.1},
        "amplify": amplify,
        "clip": False,
        "seed": 0,
    }
    value: Any = SimpleNamespace(
        inputs=IMAGES,
        adv_inputs=adv_inputs,
        labels=LABELS,
        targets=(LABELS + 1) % CLASSES if source else torch.full_like(LABELS, -1),
        success=torch.ones(NUM, dtype=torch.bool),
        distortion=distortion(IMAGES, adv_inputs),
        metadata=metadata,
    )
    name = f"{source.name if source else 'gaussian'}_lbfgs_{subset}{amplify or ''}"
    info = {"command": f"python attack.py subset={subset}"}
    return CraftedSet(
        record=RunRecord(stage="attack", name=name, folder=Path(f"runs/attack/{name}"), config={}, info=info),
        load=lambda: value,
    )


def small_report(folder: Path) -> Path:
    """Writes it; returns the page."""
    networks = [
        network("FC10(1e-4)", (), (1e-4,)),
        network("FC10(1)", (), (1.0,)),  # not attacked: its distortion is a missing cell
        network("FC200-200-10", (200, 200), DEEP),
        network("FC100-100-10", (100, 100), DEEP, split="p1"),
        network("FC100-100-10", (100, 100), DEEP, split="p1", callbacks=POOLS),
    ]
    sets = [crafted(networks[0], "train"), crafted(networks[2], "train"), crafted(networks[3], "test")]
    sets += [crafted(networks[3], "test", amplify=0.8), crafted(None, "train"), crafted(None, "test")]
    quick = UnitSettings(
        networks=("FC200-200-10",),
        whitened=False,
        columns=4,
        rows=3,
        bases=("pca",),
        sweeps=2,
        sets=99,
        ablated=2,
        rotations=19,
    )
    result = analyze(
        networks,
        sets,
        title="A small report",
        provenance={"commit": "0123abc", "command": "python analyze.py networks='runs/train/*'"},
        sections=tuple(SECTIONS),
        settings={"units": quick, "stability": StabilitySettings(limit=20, pairs=False)},
        subsets=lambda network, subset: Subset(IMAGES, LABELS, torch.arange(NUM)),
    )
    return report.write(result, folder)[-1]

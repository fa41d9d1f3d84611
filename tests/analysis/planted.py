"""Networks whose mistakes are known in advance, and adversarial sets made for them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from intriguing.analysis import CraftedSet, Network
from intriguing.metrics import distortion
from intriguing.runs.records import RunRecord

SIDE = 4
IMAGES = 40
LABELS = torch.arange(IMAGES) % 10
"""Four images of each digit; an image of digit d has every pixel at d / 10."""


class Planted(nn.Module):
    """Reads the class off one pixel of its own, and takes some digits for the next one."""

    def __init__(self, pixel: int, confused: Sequence[int] = ()) -> None:
        super().__init__()
        self.pixel = pixel
        self.confused = list(confused)

    def forward(self, inputs: Tensor) -> Tensor:
        read = (inputs.flatten(1)[:, self.pixel] * 10).round().long() % 10
        shift = torch.isin(read, torch.tensor(self.confused, dtype=torch.long)).long()
        return nn.functional.one_hot((read + shift) % 10, 10).float()


SHAPES: dict[str, tuple[str, dict[str, Any], list[float]]] = {
    "FC10": ("fully_connected", {"widths": []}, [1e-4]),
    "FC100-100-10": ("fully_connected", {"widths": [100, 100]}, [1e-5, 1e-5, 1e-6]),
    "FC200-200-10": ("fully_connected", {"widths": [200, 200]}, [1e-5, 1e-5, 1e-6]),
    "FC123-456-10": ("fully_connected", {"widths": [123, 456]}, [1e-5, 1e-5, 1e-6]),
    "AE400-10": ("sparse_autoencoder", {"units": 400}, [1e-6]),
}
"""Model, shape and weight decay of the paper's networks, by the beginning of their labels."""


def planted_config(label: str, *, seed: int = 0, split: str = "full", **settings: Any) -> dict[str, Any]:
    """A training run's resolved config; of the paper's network of that label, if it is one.

    Args:
        label: in tables, e.g. "FC10(1)".
        seed, split: of the run.
        settings: values by key, with "__" for the dot: ``trainer__max_epochs=3``; None takes a part out.
    """
    name = re.split(r"[('_ ]", label)[0]
    model, shape, decay = SHAPES.get(name, ("fully_connected", {"widths": [7]}, [1e-4, 1e-4]))
    if found := re.fullmatch(r"FC10\((.*)\)", label):
        decay = [float(found[1])]
    config: dict[str, Any] = {
        "data": {"name": "mnist", "batch_size": 20, "validation": 0, "only": None},
        "split": {"name": split, "seed": 0},
        "model": {
            "name": model,
            "label": name,
            "settings": {**shape, "activation": "sigmoid"},
        },
        "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.4, "momentum": 0.9},
        "scheduler": {"_target_": "intriguing.models.optimization.cosine", "total_steps": "planned_steps"},
        "weight_decay": {"value": decay, "normaliser": 1.25},
        "trainer": {"max_epochs": 60, "precision": "32-true"},
        "callbacks": {},
        "keep": "last",
        "seed": seed,
        "debug": None,
    }
    for key, value in settings.items():
        place = config
        *path, last = key.split("__")
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
        if value is None:
            del place[last]
    return config


def planted_network(label: str, pixel: int, *, confused: Sequence[int] = (), **more: Any) -> Network:
    split, seed = more.get("split", "full"), more.get("seed", 0)
    others = ("split", "seed", "name", "errors", "sha256", "data", "weight_decay")
    settings = {key: value for key, value in more.items() if key not in others}
    if "data" in more:
        settings["data__name"] = more["data"]
    if "weight_decay" in more:
        settings["weight_decay__value"] = more["weight_decay"]
    errors = more.get("errors", {"full": (3, 60), "p1": (1, 30), "p2": (2, 30), "test": (2, 40)})
    record = RunRecord(
        stage="train",
        name=more.get("name", f"{label}_{split}_seed{seed}".lower()),
        folder=Path(f"runs/train/{label}"),
        config=planted_config(label, seed=seed, split=split, **settings),
        info={
            "command": f"python train.py network={label}",
            "result": {"errors": errors},
            "artifacts": {"model.ckpt": more.get("sha256", "")},
        },
    )
    return Network(label=label, module=Planted(pixel, confused), record=record)


def crafted_set(source: Network | None, changed: dict[int, int], **more: Any) -> CraftedSet:
    """A set in which pixel p of the first `changed[p]` images shows the next digit."""
    subset, attack = more.get("subset", "train"), more.get("attack", {"name": "lbfgs", "targets": "random"})
    inputs = (LABELS.float() / 10).view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE).clone()
    adv_inputs = inputs.clone()
    for pixel, count in changed.items():
        adv_inputs.flatten(1)[:count, pixel] = ((LABELS[:count] + 1) % 10).float() / 10
    success = torch.ones(IMAGES, dtype=torch.bool)
    success[IMAGES - more.get("failed", 0) :] = False
    size = torch.where(success, distortion(inputs, adv_inputs), torch.inf)
    described: dict[str, Any] | None = None
    if source is not None:
        described = {"name": source.name, "label": source.label, "split": source.split, "seed": source.seed}
        described["checkpoint_sha256"] = source.checkpoint_sha256
    value: Any = SimpleNamespace(
        inputs=inputs,
        adv_inputs=adv_inputs,
        labels=LABELS,
        targets=(LABELS + 1) % 10 if source else torch.full_like(LABELS, -1),
        success=success,
        distortion=size,
        indices=more.get("indices", torch.arange(IMAGES)),
        metadata={
            "source": described,
            "data": {"name": more.get("data", "mnist"), "subset": subset},
            "attack": attack,
            "amplify": more.get("amplify"),
            "clip": more.get("clip", False),
            "seed": source.seed if source else more.get("seed", 0),
        },
    )
    name = more.get("name") or f"{attack['name']}_{source.name if source else attack.get('stddev')}_{subset}"
    record = RunRecord(
        stage="attack",
        name=name if more.get("amplify") is None else f"{name}_amplified",
        folder=Path(f"runs/attack/{name}"),
        config={},
        info={"command": "python attack.py"},
    )
    return CraftedSet(record=record, load=lambda: value)


def rerecorded(network: Network, **changes: Any) -> Network:
    """Return the network with another record of its run: ``name``, ``config``, ``folder``."""
    return replace(network, record=replace(network.record, **changes))

"""Our attacks beside SciPy's L-BFGS-B and beside published packages: one table, one picture.

    uv run benchmarks/attacks.py                          # ours and SciPy, on networks trained here in a minute
    uv run benchmarks/attacks.py --checkpoint runs/train/NAME/model.ckpt
    uv run --group peers benchmarks/attacks.py            # with C&W, DDN, ALMA, FMN, FAB and PDPGD beside them

The peers all come from one package, adv-lib (github.com/jeromerony/adversarial-library); without it they are left out.
Same network, same images, same targets, one thread, one process; success is recomputed here on what each one returns,
and a distortion is the mean over an attack's successes. Every measurement is kept in OUT/attacks.json as soon as it is
made, so an interrupted run goes on where it stopped; --again measures anew. Take the timings on a quiet machine.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.lines import Line2D
from scipy.optimize import minimize
from torch import Tensor, nn
from torchvision.datasets import MNIST

from intriguing.attacks import choose_targets, closest, frozen, lbfgs, nearest
from intriguing.checkpoints import load_model
from intriguing.metrics import distortion

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (model, inputs, targets or labels) -> adv_inputs
SCIPY_IMAGES = 16  # SciPy takes a tenth of a second and more for each


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    train, test = (mnist(arguments.data, part) for part in (True, False))
    results = Results(arguments.out / "attacks.json", arguments.again)
    for name, model in networks(arguments, train, device):
        inputs, labels = (part[: arguments.images].to(device) for part in test)
        with torch.no_grad():
            targets = choose_targets("random", labels, model(inputs), generator=torch.Generator().manual_seed(0))
        for mode, classes in (("targeted", targets), ("untargeted", labels)):
            for method, attack in methods(mode, labels, name).items():
                if arguments.only and not any(method.startswith(only) for only in arguments.only):
                    continue
                num = min(SCIPY_IMAGES, len(inputs)) if "SciPy" in method else len(inputs)
                key = [name, mode, method, num, device_name(device)]
                results.measure(key, partial(measure, model, attack, inputs[:num], classes[:num], mode))
        if arguments.growth:
            growth(results, name, model, test, device)
    table = results.table()
    table.to_csv(arguments.out / "attacks.csv", index=False)
    print(table.to_string(index=False))
    picture(table, arguments.out / "attacks.png")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("INTRIGUING_DATA", "data"), help="folder with MNIST/raw")
    parser.add_argument("--checkpoint", type=Path, nargs="*", default=[], help="networks of ours to attack instead")
    parser.add_argument(
        "--network",
        nargs="*",
        default=["FC10(1e-4)", "FC10(1e-2)", "FC10(1)", "FC100-100-10", "conv"],
        help="trained here",
    )
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", help="methods whose names start so")
    parser.add_argument("--growth", action="store_true", help="also how time grows with images, pixels and classes")
    parser.add_argument("--again", action="store_true", help="measure anew what is asked for")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where the networks are kept")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser.parse_args()


def mnist(root: str, train: bool) -> tuple[Tensor, Tensor]:
    dataset = MNIST(root, train=train, download=False)
    return dataset.data[:, None].float() / 255, dataset.targets


def networks(arguments: argparse.Namespace, train: tuple[Tensor, Tensor], device: torch.device):
    """(name, model) of the checkpoints, or of small networks trained for the purpose."""
    for path in arguments.checkpoint:
        model = load_model(path)
        yield str(model.label), model.to(device).eval()
    for name in arguments.network if not arguments.checkpoint else []:
        yield name, trained(name, arguments.cache, train).to(device).eval()


def trained(name: str, folder: Path, train: tuple[Tensor, Tensor]) -> nn.Module:
    """A network by its name: built, trained with Adam, and kept in the folder for the next run."""
    build, decay, epochs = {
        "FC10(1e-4)": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 1e-5, 5),
        "FC10(1e-2)": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 5.5e-3, 5),
        "FC10(1)": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 0.37, 5),
        "FC100-100-10": (lambda: multilayer(100, 100), 5e-6, 20),
        "conv": (convolutional, 5e-6, 4),
    }[name]
    torch.manual_seed(0)
    model, path = build(), folder / f"{name}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    adam = torch.optim.Adam(model.parameters())
    for _ in range(epochs):
        for rows in torch.randperm(len(train[0])).split(100):
            loss = F.cross_entropy(model(train[0][rows]), train[1][rows])
            adam.zero_grad()
            (loss + decay * torch.stack([weight.square().sum() for weight in weights]).sum()).backward()
            adam.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model


def multilayer(*widths: int, pixels: int = 784, classes: int = 10) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for width in widths:
        layers += [nn.Linear(pixels, width), nn.Sigmoid()]
        pixels = width
    return nn.Sequential(*layers, nn.Linear(pixels, classes))


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(784, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def methods(mode: str, labels: Tensor, name: str) -> dict[str, Attack]:
    """Every method that can do targeted or untargeted attacks, by name."""
    targeted = mode == "targeted"
    ours: dict[str, Attack] = {
        "nearest": lambda m, x, k: nearest(m, x, labels[: len(x)], targets=k if targeted else None).adv_inputs,
        "nearest, long": lambda m, x, k: (
            nearest(
                *(m, x, labels[: len(x)]),
                targets=k if targeted else None,
                num_steps=100,
                num_projections=20,
                num_candidates=9,
            ).adv_inputs
        ),
        "lbfgs": lambda m, x, k: (lbfgs(m, x, k) if targeted else closest(lbfgs, m, x, k)).adv_inputs,
    }
    if targeted:
        ours["lbfgs, SciPy's images"] = lambda m, x, k: lbfgs(m, x, k).adv_inputs
        ours["SciPy L-BFGS-B"] = scipy_lbfgs
        if name.startswith("FC10("):
            ours["exact QP"] = exact_programme
    try:
        package = importlib.import_module("adv_lib.attacks")
    except ImportError:
        return ours
    peers = {
        "DDN-100": partial(package.ddn, steps=100, levels=None),
        "DDN-1000": partial(package.ddn, steps=1000, levels=None),
        "ALMA-1000": partial(package.alma, distance="l2", num_steps=1000),
        "FMN-1000": partial(package.fmn, norm=2, steps=1000),
        "PDPGD-500": partial(package.pdpgd, norm=2, num_steps=500),
        "C&W 9x1000": partial(package.carlini_wagner_l2, max_iterations=1000),
    }
    if not targeted:  # adv-lib's FAB has no targeted form
        peers["FAB-100"] = partial(package.fab, norm=2, n_iter=100)
    # Peers get the model as ours leave it inside: parameters frozen, evaluation mode.
    return ours | {name: partial(peer_attack, peer, targeted) for name, peer in peers.items()}


def peer_attack(peer: Callable[..., Tensor], targeted: bool, model: nn.Module, inputs: Tensor, classes: Tensor):
    return peer(model, inputs, classes, targeted=targeted)


def scipy_lbfgs(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """`lbfgs`'s problem and search by SciPy, an image at a time; the nearest success of all it evaluated."""
    return torch.cat([scipy_one(model, x[None], t[None]) for x, t in zip(inputs, targets, strict=True)])


def scipy_one(model: nn.Module, image: Tensor, target: Tensor) -> Tensor:
    origin = image.flatten().double().cpu().numpy()
    best, best_distance = origin, math.inf

    def objective(point: np.ndarray, c: float) -> tuple[float, np.ndarray]:
        nonlocal best, best_distance
        x = torch.from_numpy(point).to(image).view_as(image).requires_grad_()
        logits = model(x)
        loss = F.cross_entropy(logits, target)
        (gradient,) = torch.autograd.grad(loss, x)
        squared = float((point - origin) @ (point - origin))
        if int(logits.argmax()) == int(target) and squared < best_distance:
            best, best_distance = point.copy(), squared
        gradient = gradient.double().flatten().cpu().numpy()
        return float(loss.detach()) + c * squared, gradient + 2 * c * (point - origin)

    c, low, high, point = 0.1, 0.0, math.inf, origin
    for _ in range(40):
        bounds = [(0, 1)] * len(origin)
        point = minimize(objective, point, args=(c,), jac=True, method="L-BFGS-B", bounds=bounds).x
        with torch.no_grad():
            success = int(model(torch.from_numpy(point).to(image).view_as(image)).argmax()) == int(target)
        low, high = (c, high) if success else (low, c)
        if low > 0 and high <= 1.01 * low:
            break
        c = c * 10 if high == math.inf else c / 10 if low == 0 else math.sqrt(low * high)
        if not 1e-8 < c < 1e8:
            break
    return torch.from_numpy(best).to(image).view_as(image)


def exact_programme(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The nearest image of the target class for an affine model: a quadratic programme, by SciPy on its dual."""
    zero = torch.zeros_like(inputs[:1])
    bias = model(zero)[0].detach().double().cpu().numpy()
    basis = torch.eye(zero.numel(), device=zero.device).view(-1, *zero.shape[1:])
    weight = (model(basis).double() - model(zero).double()).detach().T.cpu().numpy()
    found = []
    for image, target in zip(inputs.flatten(1).double().cpu().numpy(), targets.tolist(), strict=True):
        others = [k for k in range(len(bias)) if k != target]
        normals, offsets = weight[target] - weight[others], bias[others] - bias[target] + 1e-5

        def dual(multipliers: np.ndarray, origin=image, normals=normals, offsets=offsets):
            x = np.clip(origin + normals.T @ multipliers, 0, 1)
            lacking = offsets - normals @ x
            return -(0.5 * ((x - origin) @ (x - origin)) + multipliers @ lacking), -lacking

        exact = {"ftol": 1e-16, "gtol": 1e-10, "maxiter": 5000}
        bounds = [(0, None)] * len(offsets)
        answer = minimize(dual, np.zeros(len(offsets)), jac=True, method="L-BFGS-B", bounds=bounds, options=exact)
        found.append(np.clip(image + normals.T @ answer.x, 0, 1))
    return torch.from_numpy(np.stack(found)).to(inputs).view_as(inputs)


def measure(model: nn.Module, attack: Attack, inputs: Tensor, classes: Tensor, mode: str) -> dict[str, float]:
    """Seconds, success and distortion of one attack, and the seconds of one forward and backward of the batch."""
    with frozen(model):
        evaluation = min(clock(inputs.device, lambda: evaluate(model, inputs, classes))[0] for _ in range(10))
        attack(model, inputs[:4], classes[:4])  # whatever is set up once
        seconds, adv_inputs = clock(inputs.device, lambda: attack(model, inputs, classes))
        with torch.no_grad():
            answers = model(adv_inputs).argmax(dim=1)
    success = (answers == classes) if mode == "targeted" else (answers != classes)
    success &= adv_inputs.flatten(1).amin(dim=1).ge(0) & adv_inputs.flatten(1).amax(dim=1).le(1)
    size = distortion(inputs, adv_inputs)[success]
    return {
        "ms_per_image": 1e3 * seconds / len(inputs),
        "success": float(success.float().mean()),
        "distortion": float(size.mean()) if len(size) else math.nan,
        "evaluations": seconds / evaluation,  # what the time would have paid for
    }


def evaluate(model: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor:
    x = inputs.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), classes, reduction="sum"), x)[0]


def clock(device: torch.device, work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    result = work()
    wait()
    return time.perf_counter() - start, result


def growth(results: Results, name: str, model: nn.Module, test: tuple[Tensor, Tensor], device: torch.device) -> None:
    """How the time of `lbfgs` and `nearest` grows with images, pixels and classes (the latter on random networks)."""
    torch.manual_seed(0)
    jobs = [(f"{name}, {n} images", model, test[0][:n]) for n in (100, 1000, 10000)]
    for side in (14, 28, 56):
        images = F.interpolate(test[0][:256], size=side)
        jobs.append((f"random, {side}x{side} pixels", multilayer(100, pixels=side**2), images))
    for classes in (10, 100, 1000):
        network = multilayer(100, classes=classes)
        jobs.append((f"random, {classes} classes", network, test[0][:256]))
    for label, network, images in jobs:
        network, images = network.to(device).eval(), images.to(device)
        with torch.no_grad():
            logits = network(images)
            targets = choose_targets("runner_up", logits.argmax(dim=1), logits)  # within reach also on random networks
        ours = methods("targeted", targets, name)
        for method in ("nearest", "lbfgs"):
            key = [label, "targeted", method, len(images), device_name(device)]
            results.measure(key, partial(measure, network, ours[method], images, targets, "targeted"))


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "one CPU thread"


class Results:
    """Measurements by key, on disk as soon as they are made."""

    def __init__(self, path: Path, again: bool) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.again = again
        self.rows: list[dict] = json.loads(path.read_text()) if path.exists() else []

    def measure(self, key: list, work: Callable[[], dict[str, float]]) -> None:
        row = dict(zip(("network", "mode", "method", "images", "device"), key, strict=True))
        places = [place for place, known in enumerate(self.rows) if row.items() <= known.items()]
        if places and not self.again:
            return
        print("measuring", *key, flush=True)
        made = row | work()
        if places:
            self.rows[places[0]] = made
        else:
            self.rows.append(made)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.rows, indent=1))
        os.replace(temporary, self.path)

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows).round({"ms_per_image": 3, "success": 4, "distortion": 5, "evaluations": 0})


OURS = {"nearest": "o", "nearest, long": "s", "lbfgs": "^"}
PEERS = {
    "SciPy L-BFGS-B": ("v", "0.45"),
    "DDN-100": ("o", "tab:blue"),
    "DDN-1000": ("s", "tab:blue"),
    "ALMA-1000": ("D", "tab:green"),
    "C&W 9x1000": ("P", "tab:purple"),
    "FAB-100": ("X", "tab:brown"),
    "FMN-1000": ("*", "tab:olive"),
    "PDPGD-500": ("h", "tab:cyan"),
    "exact QP": ("|", "black"),
}
TOP = 15.0  # percent above the best; what lies higher is drawn at the edge


def picture(table: pd.DataFrame, path: Path) -> None:
    """Time per image against distance above the best of the panel; a method that sometimes fails is open."""
    networks = [name for name, group in table.groupby("network", sort=False) if len(set(group["method"])) > 2]
    if not networks:
        return
    figure, axes = plt.subplots(2, len(networks), figsize=(3.4 * len(networks), 6.4), squeeze=False, sharey=True)
    handles: dict[str, Any] = {}
    for column, network in enumerate(networks):
        for line, mode in enumerate(("targeted", "untargeted")):
            axis = axes[line][column]
            group = table.query("network == @network and mode == @mode")
            draw(axis, {row["method"]: row for row in group.to_dict("records")}, handles)
            axis.set(title=f"{network}, {mode}", xscale="log", xlim=(0.2, 2000), ylim=(-0.8, TOP + 0.8))
            axis.grid(alpha=0.25)
        axes[1][column].set_xlabel("ms per image, one thread")
    for line in (0, 1):
        axes[line][0].set_ylabel("mean distortion above the best, %")
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=6, fontsize=9, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw(axis: Any, rows: dict[str, dict[str, Any]], handles: dict[str, Any]) -> None:
    few = rows.pop("lbfgs, SciPy's images", None)
    if few and {"lbfgs", "SciPy L-BFGS-B"} <= rows.keys():  # SciPy's few images, brought to the scale of all
        rows["SciPy L-BFGS-B"]["distortion"] *= rows["lbfgs"]["distortion"] / few["distortion"]
    best = min(row["distortion"] for row in rows.values() if row["success"] > 0.999)
    for method, row in rows.items():
        marker, colour = (OURS[method], "tab:red") if method in OURS else PEERS[method]
        above = min(100 * (row["distortion"] / best - 1), TOP)
        filled = row["success"] > 0.999
        axis.plot(
            row["ms_per_image"], above, marker, color=colour, markersize=8, fillstyle="full" if filled else "none"
        )
        if method not in handles:
            handles[method] = Line2D([], [], linestyle="", marker=marker, color=colour, markersize=8)


if __name__ == "__main__":
    main()
